"""Names that certificates carry: subjects, and alternative names taken from requests."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from cryptography import x509

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.services.ca.contract import IssuanceProfile

_DNS, _URI, _IP = 0x82, 0x86, 0x87
_IA5_STRINGS = frozenset({0x81, _DNS, _URI})  # rfc822Name is the third
# registeredID beside them; otherName and directoryName are constructed (RFC 5280 §4.2.1.6).
_GENERAL_NAMES = _IA5_STRINGS | {_IP, 0x88, 0xA0, 0xA4}
_IP_LENGTHS = (4, 16)
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


def subject_for(profile: IssuanceProfile, requested: Subject) -> Subject:
    """The subject that the profile gives: the CSR's six attributes, or the profile's own with
    the CSR's common name where it has none."""
    if profile.honor_subject:
        return requested
    own = profile.subject
    if own.common_name:
        return own
    return Subject(
        common_name=requested.common_name,
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


def check_alternative_names(san_der: bytes, *, own_hosts: Collection[str] = ()) -> None:
    """Judge a subjectAltName value that came from outside (security rule 12).

    `own_hosts` are the names and addresses of the platform's own listeners, in lower case.
    Raises `RuleViolation`: `platform_name` for one of these, and for a URI by which the
    platform's own principals are known; `san_malformed` for what is no list of general names,
    or has one that programs would read in different ways (a NUL cuts it short for some).
    """
    names = _general_names(san_der)
    values = [(name.tag, san_der[name.value : name.end]) for name in names]
    for tag, value in values:
        if tag == _URI and value.strip().lower().startswith(_PLATFORM_SCHEME):
            raise RuleViolation(
                "URIs of the scheme lamassu name the platform's own principals and are not issued",
                code="platform_name",
                field="csr",
            )
    if not values or not all(_is_sound(tag, value) for tag, value in values):
        raise RuleViolation(
            "the subject alternative names cannot be read or are of a kind that is not issued",
            code="san_malformed",
            field="csr",
        )
    if any(_is_own_host(tag, value, own_hosts) for tag, value in values):
        raise RuleViolation(
            "a subject alternative name is the platform's own and is not issued",
            code="platform_name",
            field="csr",
        )


def _general_names(san_der: bytes) -> list[der.Element]:
    try:
        sequence = der.sole_element(san_der)
        return der.children(san_der, sequence) if sequence.tag == der.SEQUENCE else []
    except Malformed:
        return []


def _is_sound(tag: int, value: bytes) -> bool:
    if tag in _IA5_STRINGS:
        return bool(value) and all(0x21 <= octet <= 0x7E for octet in value)
    return tag in _GENERAL_NAMES and (tag != _IP or len(value) in _IP_LENGTHS)


def _is_own_host(tag: int, value: bytes, own_hosts: Collection[str]) -> bool:
    if tag == _IP:
        return str(ipaddress.ip_address(value)) in own_hosts
    if tag != _DNS:
        return False
    name = value.decode("ascii").lower().rstrip(".")
    if name.startswith("*."):
        return any(host.partition(".")[2] == name[2:] for host in own_hosts)
    return name in own_hosts
