"""Certification requests as nobody should send them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def request(
    *common_names: str, key: Key | None = None, names: Sequence[x509.GeneralName] = ()
) -> bytes:
    """A request (DER) with these common names, and alternative names if there are any."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in common_names])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def forged(common_name: str) -> bytes:
    """One whose signature is another key's."""
    honest = request(common_name)
    own = other = x509.load_der_x509_csr(honest).signature
    # signatures differ in length by an octet or two: take one that fits
    while other == own or len(other) != len(own):
        other = x509.load_der_x509_csr(request(common_name)).signature
    return honest.removesuffix(own) + other


def huge(common_name: str, octets: int) -> bytes:
    """A well-formed, signed one of more than `octets`."""
    name = x509.DNSName("n" * 60 + ".example")
    return request(common_name, names=[name] * (octets // 70 + 1))


def signed_with_sha1(common_name: str, folder: Path) -> bytes:
    """One that OpenSSL signed with SHA-1, which the library no longer does."""
    openssl = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha1"
    done = subprocess.run(
        [
            *openssl.split(),
            "-outform",
            "DER",
            "-keyout",
            folder / "k",
            "-subj",
            f"/CN={common_name}",
        ],
        capture_output=True,
        check=True,
    )
    return done.stdout


def with_public_exponent_one(common_name: str) -> bytes:
    """One whose RSA key verifies everything that anybody makes up."""
    modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
    return _with_rsa_key(common_name, modulus, 1)


def with_endless_rsa_key(common_name: str, bits: int) -> bytes:
    """One whose RSA modulus is so long that using it takes seconds."""
    return _with_rsa_key(common_name, (1 << (bits - 1)) | 1, 65537)


def _with_rsa_key(common_name: str, modulus: int, exponent: int) -> bytes:
    from asn1crypto import algos, core, csr, keys

    parsed = csr.CertificationRequest.load(
        request(common_name, key=rsa.generate_private_key(65537, 2048))
    )
    info = parsed["certification_request_info"]
    info["subject_pk_info"] = keys.PublicKeyInfo(
        {
            "algorithm": keys.PublicKeyAlgorithm({"algorithm": "rsa", "parameters": core.Null()}),
            "public_key": keys.RSAPublicKey({"modulus": modulus, "public_exponent": exponent}),
        }
    )
    made = csr.CertificationRequest(
        {
            "certification_request_info": info,
            "signature_algorithm": algos.SignedDigestAlgorithm({"algorithm": "sha256_rsa"}),
            "signature": bytes(256),
        }
    )
    der: bytes = made.dump(force=True)
    return der
