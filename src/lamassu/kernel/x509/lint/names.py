"""Distinguished names: types and lengths of what they say (RFC 5280 §4.1.2.4, appendix A)."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint.findings import LintRefusal, breach

_UTF8, _PRINTABLE, _TELETEX, _IA5, _UNIVERSAL, _BMP = 0x0C, 0x13, 0x14, 0x16, 0x1C, 0x1E
_PRINTABLE_TEXT = re.compile(rb"[A-Za-z0-9 '()+,\-./:=?]*")
_LABEL = re.compile(rb"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DECODERS: dict[int, str] = {
    _UTF8: "utf-8",
    _TELETEX: "latin-1",
    _UNIVERSAL: "utf-32-be",
    _BMP: "utf-16-be",
}
EMAIL_ADDRESS = bytes.fromhex("2a864886f70d010901")
_COUNTRY = bytes.fromhex("550406")
_DOMAIN_COMPONENT = bytes.fromhex("0992268993f22c640119")
_UB_NAME = 32768
# Attributes of the type DirectoryString, with their upper bounds in characters.
_DIRECTORY_STRINGS = {
    bytes.fromhex(oid): (name, bound)
    for oid, name, bound in (
        ("550403", "common_name", 64),
        ("550404", "surname", _UB_NAME),
        ("550407", "locality", 128),
        ("550408", "state", 128),
        ("55040a", "organization", 64),
        ("55040b", "organization_unit", 64),
        ("55040c", "title", 64),
        ("550429", "name", _UB_NAME),
        ("55042a", "given_name", _UB_NAME),
        ("55042b", "initials", _UB_NAME),
        ("55042c", "generation_qualifier", _UB_NAME),
        ("550441", "pseudonym", 128),
    )
}
# Those that are PrintableString and nothing else.
_PRINTABLE_STRINGS = {
    bytes.fromhex("550405"): ("serial_number", 64),
    bytes.fromhex("55042e"): ("dn_qualifier", _UB_NAME),
}


class Attribute(NamedTuple):
    """One attribute: the value of its type (OID, DER without tag), string tag and octets."""

    oid: bytes
    tag: int
    value: bytes


Rdn = tuple[Attribute, ...]


def check_name(name: bytes, *, part: str) -> tuple[Rdn, ...]:
    """The RDNs of a Name (DER); none if it is empty.

    Each attribute has the string type and the bounds of RFC 5280 appendix A; a DirectoryString
    is PrintableString or UTF8String, or one of the older types where a name was established
    with it (§4.1.2.4). Raises `LintRefusal`.
    """
    try:
        return tuple(
            _rdn(name[one.start : one.end], part) for one in der.children(name, _sole(name))
        )
    except (Malformed, ValueError):
        raise _breach("name_structure", "its DER is no Name", part) from None


def _sole(name: bytes) -> der.Element:
    sequence = der.sole_element(name)
    if sequence.tag != der.SEQUENCE:
        raise Malformed("no SEQUENCE")
    return sequence


@lru_cache(maxsize=1024)  # organisations and countries come again and again
def _rdn(octets: bytes, part: str) -> Rdn:
    whole = der.sole_element(octets)
    found: list[Attribute] = []
    encoded: list[bytes] = []
    if whole.tag != der.SET:
        raise Malformed("an RDN is a SET")
    for pair in der.children(octets, whole):
        oid, value = der.children(octets, pair)
        if pair.tag != der.SEQUENCE:
            raise Malformed("an attribute is a type and a value")
        encoded.append(octets[pair.start : pair.end])
        found.append(
            Attribute(
                der.object_identifier(octets, oid), value.tag, octets[value.value : value.end]
            )
        )
    if not found:
        raise _breach("name_empty_rdn", "an RDN says nothing", part)
    if encoded != sorted(encoded):
        raise _breach("name_rdn_order", "an RDN's attributes are not in DER's order", part)
    if len({attribute.oid for attribute in found}) != len(found):
        raise _breach("name_rdn_twice", "an RDN has two attributes of one type", part)
    for attribute in found:
        _check_attribute(attribute, part)
    return tuple(found)


def _check_attribute(attribute: Attribute, part: str) -> None:
    oid = attribute.oid
    directory = _DIRECTORY_STRINGS.get(oid)
    printable = _PRINTABLE_STRINGS.get(oid)
    special = _SPECIAL.get(oid)
    if directory is not None:
        label, bound = directory
        if attribute.tag != _PRINTABLE and attribute.tag not in _DECODERS:
            raise _breach("name_string_type", f"{label} is of no type that a name has", part)
        _check_length(label, _text(attribute, label, part), bound, part)
    elif printable is not None:
        label, bound = printable
        if attribute.tag != _PRINTABLE:
            raise _breach("name_string_type", f"{label} is not a PrintableString", part)
        _check_length(label, _text(attribute, label, part), bound, part)
    elif special is not None:
        special(attribute, part)
    elif attribute.tag in _DECODERS or attribute.tag == _PRINTABLE:
        _text(attribute, "an attribute", part)


def _check_country(attribute: Attribute, part: str) -> None:
    if attribute.tag != _PRINTABLE:
        raise _breach("name_string_type", "country is not a PrintableString", part)
    if len(attribute.value) != 2 or not attribute.value.isalpha():
        raise _breach("name_country", "country is not a code of two letters", part)


def _check_domain_component(attribute: Attribute, part: str) -> None:
    if attribute.tag != _IA5:
        raise _breach("name_string_type", "domain_component is not an IA5String", part)
    if not _LABEL.fullmatch(attribute.value):
        raise _breach("name_domain_component", "domain_component is no label of a domain", part)


def _check_email(attribute: Attribute, part: str) -> None:
    if attribute.tag != _IA5:
        raise _breach("name_string_type", "email_address is not an IA5String", part)
    if not attribute.value.isascii() or not 1 <= len(attribute.value) <= 255:
        raise _breach("name_too_long", "email_address has not 1 to 255 characters", part)


_SPECIAL: dict[bytes, Callable[[Attribute, str], None]] = {
    _COUNTRY: _check_country,
    _DOMAIN_COMPONENT: _check_domain_component,
    EMAIL_ADDRESS: _check_email,
}


def text_of(attribute: Attribute) -> str:
    """The value as text. Raises `ValueError` for octets that are none of its type."""
    if attribute.tag == _PRINTABLE:
        if not _PRINTABLE_TEXT.fullmatch(attribute.value):
            raise ValueError("not a PrintableString")
        return attribute.value.decode("ascii")
    return attribute.value.decode(_DECODERS.get(attribute.tag, "ascii"))


def _text(attribute: Attribute, label: str, part: str) -> str:
    try:
        return text_of(attribute)
    except ValueError:
        raise _breach(
            "name_string_octets", f"{label} has octets that its string type has not", part
        ) from None


def _check_length(label: str, text: str, bound: int, part: str) -> None:
    if not 1 <= len(text) <= bound:
        raise _breach("name_too_long", f"{label} has not 1 to {bound} characters", part)


def _breach(rule: str, text: str, part: str) -> LintRefusal:
    return breach(rule, f"of the {part}: {text}", section="4.1.2.4", part=part)
