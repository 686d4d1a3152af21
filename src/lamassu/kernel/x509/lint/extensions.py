"""Each extension by itself: its value and whether it may be, or has to be, critical."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint.findings import LintRefusal, PlatformLintRefusal, breach, fault
from lamassu.kernel.x509.lint.general_names import (
    DIRECTORY,
    DNS,
    IP,
    RFC822,
    URI,
    GeneralName,
    check_address,
    check_general_names,
    is_domain_name,
    is_mailbox,
)
from lamassu.kernel.x509.lint.names import check_name

# The value of each OBJECT IDENTIFIER, without tag and length.
SUBJECT_KEY_ID = bytes.fromhex("551d0e")
KEY_USAGE = bytes.fromhex("551d0f")
SUBJECT_ALT_NAME = bytes.fromhex("551d11")
ISSUER_ALT_NAME = bytes.fromhex("551d12")
BASIC_CONSTRAINTS = bytes.fromhex("551d13")
NAME_CONSTRAINTS = bytes.fromhex("551d1e")
CRL_DISTRIBUTION_POINTS = bytes.fromhex("551d1f")
CERTIFICATE_POLICIES = bytes.fromhex("551d20")
POLICY_MAPPINGS = bytes.fromhex("551d21")
AUTHORITY_KEY_ID = bytes.fromhex("551d23")
POLICY_CONSTRAINTS = bytes.fromhex("551d24")
EXTENDED_KEY_USAGE = bytes.fromhex("551d25")
FRESHEST_CRL = bytes.fromhex("551d2e")
INHIBIT_ANY_POLICY = bytes.fromhex("551d36")
SUBJECT_DIRECTORY_ATTRIBUTES = bytes.fromhex("551d09")
AUTHORITY_INFO_ACCESS = bytes.fromhex("2b06010505070101")
SUBJECT_INFO_ACCESS = bytes.fromhex("2b0601050507010b")
OCSP_NO_CHECK = bytes.fromhex("2b0601050507300105")

TIME_STAMPING = bytes.fromhex("2b06010505070308")
_TRUE, _NULL = bytes.fromhex("0101ff"), bytes.fromhex("0500")


@dataclass(frozen=True, slots=True)
class BasicConstraints:
    """RFC 5280 §4.2.1.9."""

    ca: bool
    path_length: int | None


@dataclass(frozen=True, slots=True)
class Subtrees:
    """RFC 5280 §4.2.1.10; the bases, without distances."""

    permitted: tuple[GeneralName, ...]
    excluded: tuple[GeneralName, ...]


# What the rules that look at several extensions need to know of one.
Facts = (
    BasicConstraints | Subtrees | frozenset[int] | tuple[bytes, ...] | tuple[GeneralName, ...]
    | bytes | None
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Extension:
    """An extension that is sound by itself."""

    oid: bytes
    critical: bool
    facts: Facts


@lru_cache(maxsize=2048)  # of a certificate's nine or so, all but two are its profile's
def check_extension(octets: bytes) -> Extension:
    """Judge one Extension (DER). Raises `LintRefusal`, `PlatformLintRefusal`."""
    try:
        fields = der.children(octets, der.sole_element(octets))
        oid, value = fields[0], fields[-1]
        flag = octets[fields[1].start : fields[1].end] if len(fields) == 3 else b""
        if octets[0] != der.SEQUENCE or len(fields) > 3:
            raise Malformed("no extension")
        # DEFAULT FALSE is never written, and TRUE is all ones (X.690 §11.1, §11.5)
        if value.tag != der.OCTET_STRING or flag not in (b"", _TRUE) or len(fields) < 2:
            raise Malformed("no extension")
        found = der.object_identifier(octets, oid)
        content = octets[value.value : value.end]
        check_critical(found, critical=bool(flag))
        judge = _JUDGES.get(found, _any)
        return Extension(found, bool(flag), judge(content))
    except (Malformed, IndexError, ValueError):
        raise fault(
            "extension_encoding",
            "an extension cannot be read",
            section="4.2",
            part="extensions",
        ) from None


_NEVER_CRITICAL = {
    AUTHORITY_KEY_ID: ("authority_key_identifier", "4.2.1.1"),
    SUBJECT_KEY_ID: ("subject_key_identifier", "4.2.1.2"),
    AUTHORITY_INFO_ACCESS: ("authority_information_access", "4.2.2.1"),
    SUBJECT_INFO_ACCESS: ("subject_information_access", "4.2.2.2"),
    SUBJECT_DIRECTORY_ATTRIBUTES: ("subject_directory_attributes", "4.2.1.8"),
    FRESHEST_CRL: ("freshest_crl", "4.2.1.15"),
    CRL_DISTRIBUTION_POINTS: ("crl_distribution_points", "4.2.1.13"),
    ISSUER_ALT_NAME: ("issuer_alternative_name", "4.2.1.7"),
    OCSP_NO_CHECK: ("ocsp_no_check", "RFC 6960 §4.2.2.2.1"),
}
_ALWAYS_CRITICAL = {
    KEY_USAGE: ("key_usage", "4.2.1.3"),
    NAME_CONSTRAINTS: ("name_constraints", "4.2.1.10"),
    POLICY_CONSTRAINTS: ("policy_constraints", "4.2.1.11"),
    INHIBIT_ANY_POLICY: ("inhibit_any_policy", "4.2.1.14"),
}


def check_critical(oid: bytes, *, critical: bool) -> None:
    """RFC 5280 §4.2.1 and §4.2.2 say of most extensions whether they are critical; what they
    only recommend (key usage, distribution points, policy mappings) is held here, too."""
    barred, wanted = _NEVER_CRITICAL.get(oid), _ALWAYS_CRITICAL.get(oid)
    if critical and barred is not None:
        raise breach(
            "critical",
            f"{barred[0]} is critical",
            section=barred[1],
            part=f"extensions.{barred[0]}",
        )
    if not critical and wanted is not None:
        raise breach(
            "not_critical",
            f"{wanted[0]} is not critical",
            section=wanted[1],
            part=f"extensions.{wanted[0]}",
        )


# --- each value ----------------------------------------------------------------------------


def _any(value: bytes) -> Facts:
    """RFC 5280 §4.1.2.9: what stands in an extension is DER."""
    der.check_der(value, max_length=16 * 1024, max_depth=24)
    return None


def _whole(value: bytes, tag: int) -> der.Element:
    element = der.sole_element(value)
    if element.tag != tag:
        raise Malformed("another type")
    return element


def _members(value: bytes) -> list[der.Element]:
    return der.children(value, _whole(value, der.SEQUENCE))


def _sequence(value: bytes, element: der.Element) -> list[der.Element]:
    if element.tag != der.SEQUENCE:
        raise Malformed("no SEQUENCE")
    return der.children(value, element)


def _basic_constraints(value: bytes) -> BasicConstraints:
    """RFC 5280 §4.2.1.9: a path length only where cA is asserted."""
    members = _members(value)
    ca = bool(members) and members[0].tag == der.BOOLEAN
    if ca and value[members[0].start : members[0].end] != _TRUE:
        raise _malformed("basic_constraints", "4.2.1.9")
    rest = members[1:] if ca else members
    path_length: int | None = None
    if rest:
        path_length = _unsigned(value, rest[0], der.INTEGER)
        if not ca:
            raise breach(
                "path_length_without_ca",
                "there is a path length, but it is no CA",
                section="4.2.1.9",
                part="extensions.basic_constraints",
            )
    if len(rest) > 1:
        raise _malformed("basic_constraints", "4.2.1.9")
    return BasicConstraints(ca, path_length)


def _unsigned(value: bytes, element: der.Element, tag: int) -> int:
    octets = value[element.value : element.end]
    if element.tag != tag or not octets or octets[0] >= 0x80:
        raise Malformed("no natural number")
    if len(octets) > 1 and octets[0] == 0 and octets[1] < 0x80:
        raise Malformed("not the shortest form")
    return int.from_bytes(octets, "big")


DIGITAL_SIGNATURE, CONTENT_COMMITMENT, KEY_ENCIPHERMENT, DATA_ENCIPHERMENT = range(4)
KEY_AGREEMENT, KEY_CERT_SIGN, CRL_SIGN, ENCIPHER_ONLY, DECIPHER_ONLY = range(4, 9)


def _key_usage(value: bytes) -> frozenset[int]:
    """RFC 5280 §4.2.1.3: at least one bit; encipherOnly and decipherOnly, of which one at
    most, mean something only beside keyAgreement. X.690 §11.2.2: no zero bits at the end."""
    whole = _whole(value, der.BIT_STRING)
    unused, octets = value[whole.value], value[whole.value + 1 : whole.end]
    bits = frozenset(
        index
        for index in range(8 * len(octets) - unused)
        if octets[index // 8] & (0x80 >> (index % 8))
    )
    if not bits:
        raise _usage("it has no bit")
    last = max(bits)
    if (
        unused > 7
        or octets[-1] & ((1 << unused) - 1)
        or last > DECIPHER_ONLY
        or last + 1 != 8 * len(octets) - unused
    ):
        raise _malformed("key_usage", "4.2.1.3")
    only = bits & {ENCIPHER_ONLY, DECIPHER_ONLY}
    if only and KEY_AGREEMENT not in bits:
        raise _usage("encipherOnly and decipherOnly mean nothing without keyAgreement")
    if len(only) > 1:
        raise _usage("encipherOnly and decipherOnly exclude each other")
    return bits


def _usage(text: str) -> LintRefusal:
    return breach(
        "key_usage", f"of its key usage: {text}", section="4.2.1.3", part="extensions.key_usage"
    )


def _oids(value: bytes, elements: Sequence[der.Element]) -> tuple[bytes, ...]:
    return tuple(der.object_identifier(value, one) for one in elements)


def _extended_key_usage(value: bytes) -> tuple[bytes, ...]:
    """RFC 5280 §4.2.1.12: at least one purpose; none twice."""
    purposes = _oids(value, _members(value))
    if not purposes or len(set(purposes)) != len(purposes):
        raise breach(
            "extended_key_usage",
            "of its extended key usage: it names no purpose, or one twice",
            section="4.2.1.12",
            part="extensions.extended_key_usage",
        )
    return purposes


def _subject_key_id(value: bytes) -> bytes:
    """RFC 5280 §4.2.1.2: an OCTET STRING, of which no digest needs more than 64 octets."""
    whole = _whole(value, der.OCTET_STRING)
    octets = value[whole.value : whole.end]
    if not 1 <= len(octets) <= 64:
        raise _malformed("subject_key_identifier", "4.2.1.2")
    return octets


def _authority_key_id(value: bytes) -> bytes:
    """RFC 5280 §4.2.1.1: keyIdentifier; issuer and serial number, which would have to stand
    together, are not used here."""
    members = _members(value)
    if len(members) != 1 or members[0].tag != 0x80 or members[0].value == members[0].end:
        raise _malformed("authority_key_identifier", "4.2.1.1")
    return value[members[0].value : members[0].end]


def _subject_alt_name(value: bytes) -> tuple[GeneralName, ...]:
    """RFC 5280 §4.2.1.6."""
    return check_general_names(value, part="extensions.subject_alternative_name")


def _issuer_alt_name(value: bytes) -> tuple[GeneralName, ...]:
    """RFC 5280 §4.2.1.7."""
    return check_general_names(value, part="extensions.issuer_alternative_name")


def _access(value: bytes) -> None:
    """RFC 5280 §4.2.2.1: at least one method, each with a place."""
    part = "extensions.authority_information_access"
    descriptions = _members(value)
    if not descriptions:
        raise breach("no_address", "of access: it names no place", section="4.2.2.1", part=part)
    for description in descriptions:
        method, place = _sequence(value, description)
        _oids(value, [method])
        check_address(GeneralName(place.tag, value[place.value : place.end]), part=part)


def _distribution_points(value: bytes) -> None:
    """RFC 5280 §4.2.1.13: each point has a name or a CRL issuer, not reasons alone."""
    part = "extensions.crl_distribution_points"
    points = _members(value)
    for point in points:
        fields = {one.tag: one for one in _sequence(value, point)}
        if not fields.keys() <= {0xA0, 0x81, 0xA2} or not fields.keys() & {0xA0, 0xA2}:
            raise _no_point(part)
        if 0xA0 in fields:
            (choice,) = der.children(value, fields[0xA0])
            names = der.children(value, choice)
            if choice.tag != 0xA0 or not names:  # fullName: the other form is not to be used
                raise _no_point(part)
            for one in names:
                check_address(GeneralName(one.tag, value[one.value : one.end]), part=part)
        if 0xA2 in fields:
            issuer = value[fields[0xA2].value : fields[0xA2].end]
            check_general_names(der.encode(der.SEQUENCE, issuer), part=part)
    if not points:
        raise _no_point(part)


def _no_point(part: str) -> LintRefusal:
    return breach(
        "no_address", "a distribution point names no place", section="4.2.1.13", part=part
    )


def _policies(value: bytes) -> tuple[bytes, ...]:
    """RFC 5280 §4.2.1.4: at least one policy, none twice."""
    part = "extensions.certificate_policies"
    found: list[bytes] = []
    for information in _members(value):
        policy, *qualifiers = _sequence(value, information)
        found += _oids(value, [policy])
        if len(qualifiers) > 1:
            raise Malformed("no PolicyInformation")
        for qualifier in _sequence(value, qualifiers[0]) if qualifiers else ():
            kind, _ = _sequence(value, qualifier)
            _oids(value, [kind])
    if not found or len(set(found)) != len(found):
        raise breach("policies", "it names no policy, or one twice", section="4.2.1.4", part=part)
    return tuple(found)


def _policy_mappings(value: bytes) -> None:
    """RFC 5280 §4.2.1.5: pairs, of which none maps to or from anyPolicy."""
    any_policy = bytes.fromhex("551d2000")
    pairs = [_oids(value, _sequence(value, one)) for one in _members(value)]
    if not pairs or any(len(pair) != 2 or any_policy in pair for pair in pairs):
        raise breach(
            "policy_mappings",
            "it maps no policy, or anyPolicy",
            section="4.2.1.5",
            part="extensions.policy_mappings",
        )


def _policy_constraints(value: bytes) -> None:
    """RFC 5280 §4.2.1.11: not an empty sequence."""
    members = _members(value)
    if not members:
        raise breach(
            "policy_constraints",
            "it constrains nothing",
            section="4.2.1.11",
            part="extensions.policy_constraints",
        )
    for member in members:
        _unsigned(value, member, member.tag if member.tag in (0x80, 0x81) else -1)


def _inhibit_any_policy(value: bytes) -> None:
    """RFC 5280 §4.2.1.14: a number of certificates."""
    _unsigned(value, der.sole_element(value), der.INTEGER)


def _no_check(value: bytes) -> None:
    """RFC 6960 §4.2.2.2.1: NULL."""
    if value != _NULL:
        raise _malformed("ocsp_no_check", "RFC 6960 §4.2.2.2.1")


def read_name_constraints(value: bytes) -> Subtrees:
    """RFC 5280 §4.2.1.10: not an empty sequence; the minimum is zero and the maximum absent;
    an address has its mask, which leaves no gap."""
    found: dict[int, tuple[GeneralName, ...]] = {}
    for listed in _members(value):
        bases: list[GeneralName] = []
        for subtree in der.children(value, listed):
            base, *distances = _sequence(value, subtree)
            if distances:
                raise _constraints("a subtree has a distance")
            bases.append(GeneralName(base.tag, value[base.value : base.end]))
        if not bases or listed.tag not in (0xA0, 0xA1):
            raise _constraints("there are no subtrees")
        found[listed.tag] = tuple(bases)
    if not found:
        raise _constraints("there are no subtrees")
    subtrees = Subtrees(found.get(0xA0, ()), found.get(0xA1, ()))
    for name in (*subtrees.permitted, *subtrees.excluded):
        _check_base(name)
    return subtrees


def _check_base(base: GeneralName) -> None:
    tag, value = base
    if tag in (DNS, URI, RFC822):
        text = value.decode("ascii")
        host = text.removeprefix(".")
        if not (
            (tag == DNS and not text)
            or is_domain_name(host)
            or (tag == RFC822 and is_mailbox(text))
        ):
            raise _constraints(f"{text[:64]!r} is no domain")
    elif tag == IP:
        half = len(value) // 2
        if len(value) not in (8, 32):
            raise _constraints("an address has no mask")
        mask = int.from_bytes(value[half:], "big")
        gapless = (mask | (mask - 1)) + 1 == 1 << (8 * half) if mask else True
        if not gapless:
            raise _constraints(f"the mask {ipaddress.ip_address(value[half:])} has a gap")
    elif tag == DIRECTORY:
        check_name(value, part="extensions.name_constraints")


def _constraints(text: str) -> LintRefusal:
    return breach(
        "name_constraints",
        f"of its name constraints: {text}",
        section="4.2.1.10",
        part="extensions.name_constraints",
    )


def _malformed(name: str, section: str) -> PlatformLintRefusal:
    return fault(
        "extension_encoding", f"{name} is not DER of its type", section=section,
        part=f"extensions.{name}",
    )  # fmt: skip


_JUDGES: dict[bytes, Callable[[bytes], Facts]] = {
    BASIC_CONSTRAINTS: _basic_constraints,
    KEY_USAGE: _key_usage,
    EXTENDED_KEY_USAGE: _extended_key_usage,
    SUBJECT_KEY_ID: _subject_key_id,
    AUTHORITY_KEY_ID: _authority_key_id,
    SUBJECT_ALT_NAME: _subject_alt_name,
    ISSUER_ALT_NAME: _issuer_alt_name,
    AUTHORITY_INFO_ACCESS: _access,
    SUBJECT_INFO_ACCESS: _access,
    CRL_DISTRIBUTION_POINTS: _distribution_points,
    FRESHEST_CRL: _distribution_points,
    CERTIFICATE_POLICIES: _policies,
    POLICY_MAPPINGS: _policy_mappings,
    POLICY_CONSTRAINTS: _policy_constraints,
    INHIBIT_ANY_POLICY: _inhibit_any_policy,
    NAME_CONSTRAINTS: read_name_constraints,
    OCSP_NO_CHECK: _no_check,
}
