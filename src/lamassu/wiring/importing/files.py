"""Certificates, keys and lists in files of other systems: read within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)

from lamassu.kernel.errors import Malformed, NotFound, RuleViolation
from lamassu.kernel.x509.crls import parse_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import ders_of
from lamassu.services.ca.contract import CertificateType
from lamassu.services.ca.rules.adoption import FoundAuthority
from lamassu.wiring.importing.material import SourceAuthority, SourceKey, id_of_ca

_LARGEST = 1 << 20
_LARGEST_CRL = 64 << 20


def read_file(path: Path, *, largest: int = _LARGEST) -> bytes:
    """Raises `NotFound` (`file_missing`), `Malformed` (`file_too_large`)."""
    try:
        with path.open("rb") as file:
            data = file.read(largest + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound(f"there is no file {path}", code="file_missing") from None
    except PermissionError:
        raise NotFound(f"{path} may not be read by this user", code="file_missing") from None
    if len(data) > largest:
        raise Malformed(f"{path} is larger than {largest >> 20} MiB", code="file_too_large")
    return data


def certificates_in(path: Path) -> Sequence[bytes]:
    """The certificates (DER) of a file in PEM or DER. What stands around PEM blocks, as
    `openssl ca` writes it, is passed over. Raises `Malformed`, `NotFound`."""
    return certificates_of(read_file(path), str(path))


def certificates_of(data: bytes, name: str) -> Sequence[bytes]:
    """The same of what was read."""
    if b"-----BEGIN" not in data:
        ders: Sequence[bytes] = [data]
    else:
        # `TRUSTED CERTIFICATE` and the like are other things, and are not asked for
        ders = ders_of(data)
    try:
        for der in ders:
            certificate_facts(der)
    except Malformed:
        raise Malformed(
            f"{name} holds no certificate that can be read", code="certificate_malformed"
        ) from None
    return ders


def passphrase_in(path: Path | None) -> bytes | None:
    """The first line of a passphrase file, without its end."""
    if path is None:
        return None
    return read_file(path).split(b"\n", 1)[0].rstrip(b"\r")


def private_key_in(path: Path, passphrase: bytes | None) -> bytes:
    """A private key as unencrypted PKCS#8 PEM. Raises `RuleViolation` (`key_unreadable`)."""
    data = read_file(path)
    encrypted = b"ENCRYPTED" in data
    if encrypted and passphrase is None:
        raise RuleViolation(
            f"the key {path} is encrypted: name the file with its passphrase (--passphrase-file)",
            code="passphrase_missing",
        )
    try:
        key = load_pem_private_key(data, passphrase if encrypted else None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RuleViolation(
            f"the key {path} does not open"
            + (" with this passphrase" if encrypted else ": it is no PEM private key"),
            code="key_unreadable",
        ) from None


def pkcs12_in(path: Path, passphrase: bytes | None) -> tuple[bytes | None, Sequence[bytes]]:
    """The private key (PKCS#8 PEM) of a PKCS#12 file, if it has one, and the certificates, its
    own first. Raises `RuleViolation` (`key_unreadable`)."""
    try:
        key, certificate, others = pkcs12.load_key_and_certificates(read_file(path), passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RuleViolation(
            f"{path} is no PKCS#12 file, or does not open with this passphrase",
            code="key_unreadable",
        ) from None
    pem = (
        None
        if key is None
        else key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    chain = [certificate] if certificate else []
    return pem, [one.public_bytes(Encoding.DER) for one in (*chain, *others)]


def crl_number_in(path: Path) -> tuple[bytes, int]:
    """The issuer's name (DER) in a CRL, in PEM or DER, and the CRL's number. A CRL is only
    believed to be numbered: a wrong number skips some, and none comes twice."""
    data = read_file(path, largest=_LARGEST_CRL)
    if b"-----BEGIN" in data:
        data = ders_of(data, "X509 CRL")[0] if len(data) <= _LARGEST else _der_of_long(data)
    if len(data) <= _LARGEST:
        facts = parse_crl(data)
        return facts.issuer_der, facts.number
    parsed = x509.load_der_x509_crl(data)
    number = parsed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return parsed.issuer.public_bytes(), number


def _der_of_long(data: bytes) -> bytes:
    return x509.load_pem_x509_crl(data).public_bytes(Encoding.DER)


def authority_of(
    der: bytes, *, ca_id: str = "", key_pem: bytes | None = None, profile_id: str = "",
    last_crl_number: int = 0,
) -> SourceAuthority:  # fmt: skip
    """A CA of which there are files."""
    kind = CertificateType.IMPORTED_WITH_KEY if key_pem else CertificateType.IMPORTED_WITHOUT_KEY
    return SourceAuthority(
        FoundAuthority(
            id=ca_id or id_of_ca(der),
            der=der,
            type=kind,
            profile_id=profile_id if key_pem else "",
        ),
        SourceKey(pem=key_pem) if key_pem else None,
        last_crl_number,
    )
