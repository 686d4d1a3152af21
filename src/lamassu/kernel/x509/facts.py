"""What a certificate says, read once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from lamassu.kernel.errors import LamassuError, Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.keys import KeyFacts, key_facts
from lamassu.kernel.x509.names import Subject, subject_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.kernel.x509.usages import extended_key_usage_names, key_usage_names

E = TypeVar("E", bound=x509.ExtensionType)

MOST_OCTETS = 64 * 1024
MOST_DEPTH = 24
_SAN = bytes.fromhex("0603551d11")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """The fields of a certificate; `*_der` and `spki` are its own bytes, not re-encoded.

    Hex is lower case; `ski` and `aki` are empty when absent; `san_der` is the value inside
    the subjectAltName extension; `path_length` is `None` when unlimited or no CA.
    """

    serial_number: str
    subject: Subject
    issuer: Subject
    subject_der: bytes
    issuer_der: bytes
    san_der: bytes | None
    spki: bytes
    key: KeyFacts
    ski: str
    aki: str
    not_before: datetime
    not_after: datetime
    is_ca: bool
    path_length: int | None
    key_usage: tuple[str, ...]
    extended_key_usages: tuple[str, ...]
    sha256: str


@lru_cache(maxsize=256)  # the certificates of CAs, and of bootstraps that many devices share
def certificate_facts(certificate: bytes) -> CertificateFacts:
    """Read a certificate (DER), within bounds. No signature is verified.

    Raises `Malformed` (`certificate_malformed`, field `certificate`).
    """
    try:
        der.check_der(certificate, max_length=MOST_OCTETS, max_depth=MOST_DEPTH)
        return _certificate_facts(certificate)
    except (
        LamassuError,
        ValueError,
        TypeError,
        IndexError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        x509.InvalidVersion,
        UnsupportedAlgorithm,
    ):
        raise Malformed(
            "certificate cannot be read", code="certificate_malformed", field="certificate"
        ) from None


def _certificate_facts(certificate: bytes) -> CertificateFacts:
    parsed = x509.load_der_x509_certificate(certificate)
    tbs = der.children(certificate, der.read_element(certificate, *_inside(certificate)))
    # version [0] is absent from v1; then serial, algorithm, issuer, validity, subject, key
    first = 1 if tbs[0].tag == 0xA0 else 0
    issuer, subject, key = tbs[first + 2], tbs[first + 4], tbs[first + 5]
    spki = certificate[key.start : key.end]
    extensions = parsed.extensions
    constraints = _extension(extensions, x509.BasicConstraints)
    usage = _extension(extensions, x509.KeyUsage)
    extended = _extension(extensions, x509.ExtendedKeyUsage)
    ski = _extension(extensions, x509.SubjectKeyIdentifier)
    aki = _extension(extensions, x509.AuthorityKeyIdentifier)
    return CertificateFacts(
        serial_number=serial_hex(parsed.serial_number),
        subject=subject_of(parsed.subject),
        issuer=subject_of(parsed.issuer),
        subject_der=certificate[subject.start : subject.end],
        issuer_der=certificate[issuer.start : issuer.end],
        san_der=san_value(certificate, tbs[-1]) if tbs[-1].tag == 0xA3 else None,
        spki=spki,
        key=key_facts(spki),
        ski=ski.digest.hex() if ski else "",
        aki=aki.key_identifier.hex() if aki and aki.key_identifier else "",
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        is_ca=bool(constraints and constraints.ca),
        path_length=constraints.path_length if constraints else None,
        key_usage=key_usage_names(usage) if usage else (),
        extended_key_usages=extended_key_usage_names(extended) if extended else (),
        sha256=hashlib.sha256(certificate).hexdigest(),
    )


def san_value(data: bytes, holder: der.Element) -> bytes | None:
    """The DER value of subjectAltName among the Extensions inside `holder`, or `None`.

    `holder` is what wraps the `SEQUENCE OF Extension`. Raises `Malformed`.
    """
    for extension in der.children(data, der.read_element(data, holder.value, holder.end)):
        if data.startswith(_SAN, extension.value):
            value = der.children(data, extension)[-1]
            return data[value.value : value.end]
    return None


def _inside(data: bytes) -> tuple[int, int]:
    outer = der.sole_element(data)
    return outer.value, outer.end


def _extension(extensions: x509.Extensions, kind: type[E]) -> E | None:
    for extension in extensions:
        if isinstance(extension.value, kind):
            return extension.value
    return None
