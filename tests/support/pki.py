"""Small PKIs made with real keys, for tests that need certificates of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.kernel.x509.serials import new_serial_number

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
CLIENT_AUTH = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER_AUTH = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH])


def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_USAGE_BITS = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def usage(**bits: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: bits.get(name, False) for name in _USAGE_BITS})


CA_USAGE = usage(key_cert_sign=True, crl_sign=True, digital_signature=True)
LEAF_USAGE = usage(digital_signature=True)


@dataclass(frozen=True)
class Made:
    """A certificate and its private key."""

    der: bytes
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @property
    def name(self) -> x509.Name:
        return self.certificate.subject

    @property
    def subject_key_id(self) -> str:
        return key_id(spki_of(self.key))


def make(
    common_name: str,
    *,
    issuer: Made | None = None,
    ca: bool = False,
    path_length: int | None = None,
    not_before: datetime = NOW - timedelta(days=1),
    not_after: datetime = NOW + timedelta(days=30),
    extended: x509.ExtendedKeyUsage | None = None,
    key_usage: x509.KeyUsage | None = None,
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    basic_constraints: bool = True,
    key: ec.EllipticCurvePrivateKey | None = None,
    serial_number: int | None = None,
) -> Made:
    """A certificate by `issuer` (self-signed without one), with what PKIX asks for."""
    key = key or ec_key()
    name = name_of(Subject(common_name=common_name))
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.name if issuer else name)
        .public_key(key.public_key())
        .serial_number(serial_number or new_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier(bytes.fromhex(key_id(spki_of(key)))), False)
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(key_id(spki_of(signer))), None, None), False
        )
        .add_extension(key_usage or (CA_USAGE if ca else LEAF_USAGE), True)
    )
    if basic_constraints:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), True)
    if extended is not None:
        builder = builder.add_extension(extended, False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    return Made(builder.sign(signer, SHA256()).public_bytes(Encoding.DER), key)


_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def with_another_signature(der: bytes) -> bytes:
    """The same certificate of a P-256 issuer under the second signature, (r, n - s), that
    anybody can make of the first one: valid as well, and with another digest."""
    certificate = asn1.Certificate.load(der)
    r, s = decode_dss_signature(certificate.signature)
    return asn1.Certificate(
        {
            "tbs_certificate": certificate["tbs_certificate"],
            "signature_algorithm": certificate["signature_algorithm"],
            "signature_value": encode_dss_signature(r, _P256_ORDER - s),
        }
    ).dump()
