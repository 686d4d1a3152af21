"""Names that certificates carry: subjects, and alternative names taken from requests."""

from __future__ import annotations

from cryptography import x509

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.services.ca.contract import IssuanceProfile

_URI = 0x86
# rfc822Name, dNSName, uniformResourceIdentifier, iPAddress, registeredID; otherName and
# directoryName are constructed (RFC 5280 §4.2.1.6).
_GENERAL_NAMES = frozenset({0x81, 0x82, _URI, 0x87, 0x88, 0xA0, 0xA4})
_PLATFORM_SCHEME = b"lamassu:"

# A CSR's frame around a name: the library reads names only where they stand in something.
_VERSION = bytes.fromhex("020100")
_SPKI = bytes.fromhex(
    "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
_NO_ATTRIBUTES = bytes.fromhex("a000")
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_NO_SIGNATURE = bytes.fromhex("030100")


def name_from_der(data: bytes) -> x509.Name:
    """The name that this DER encodes, which writes back as the same bytes.

    Raises `RuleViolation` (`subject_malformed`) for one that would change on the way, so that
    a renewed certificate never carries another subject than the one it renews.
    """
    info = _sequence(_VERSION + data + _SPKI + _NO_ATTRIBUTES)
    try:
        name = x509.load_der_x509_csr(_sequence(info + _ECDSA_SHA256 + _NO_SIGNATURE)).subject
        kept = name.public_bytes() == data
    except (ValueError, TypeError):
        kept = False
    if not kept:
        raise RuleViolation(
            "the subject cannot be carried over as it stands", code="subject_malformed"
        )
    return name


def _sequence(content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((0x30, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((0x30, 0x80 | len(octets))) + octets + content


def subject_for(profile: IssuanceProfile, request: CertificateRequest) -> Subject:
    """The subject that the profile gives: the CSR's six attributes, or the profile's own with
    the CSR's common name where it has none."""
    if profile.honor_subject:
        return request.subject
    own = profile.subject
    if own.common_name:
        return own
    return Subject(
        common_name=request.subject.common_name,
        organization=own.organization,
        organization_unit=own.organization_unit,
        country=own.country,
        state=own.state,
        locality=own.locality,
    )


def name_for(subject: Subject) -> x509.Name:
    """`name_of`; every attribute outside the six is gone."""
    return name_of(subject)


def check_named(name: x509.Name, san_der: bytes | None) -> None:
    """Refuse a certificate that names nobody (RFC 5280 §4.1.2.6)."""
    if not name.rdns and san_der is None:
        raise RuleViolation(
            "the certificate would have neither a subject nor an alternative name",
            code="subject_empty",
            field="subject",
        )


def check_alternative_names(san_der: bytes) -> None:
    """Judge a subjectAltName value that came from outside (security rule 12).

    Raises `RuleViolation`: `platform_name` for a URI by which the platform's own principals
    are known, `san_malformed` for what is no list of general names.
    """
    try:
        sequence = der.sole_element(san_der)
        names = der.children(san_der, sequence) if sequence.tag == der.SEQUENCE else []
    except Malformed:
        names = []
    if not names or any(name.tag not in _GENERAL_NAMES for name in names):
        raise RuleViolation(
            "the subject alternative names cannot be read or are of a kind that is not issued",
            code="san_malformed",
            field="csr",
        )
    for name in names:
        if name.tag == _URI and _is_platform_uri(san_der[name.value : name.end]):
            raise RuleViolation(
                "URIs of the scheme lamassu name the platform's own principals and are not issued",
                code="platform_name",
                field="csr",
            )


def _is_platform_uri(uri: bytes) -> bool:
    return uri.strip().lower().startswith(_PLATFORM_SCHEME)
