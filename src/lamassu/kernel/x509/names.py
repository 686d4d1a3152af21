"""Distinguished names: the six attributes of the wire, and comparison by RFC 5280 §7.1."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import RuleViolation

# RFC 5280's bounds count characters and we hold to them; the library counts octets, and warns.
warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)


@dataclass(frozen=True, slots=True)
class Subject:
    """The six attributes of a name that the wire knows; an empty string means absent."""

    common_name: str = ""
    organization: str = ""
    organization_unit: str = ""
    country: str = ""
    state: str = ""
    locality: str = ""


# In the order in which we write them, with RFC 5280 appendix A's upper bounds (characters).
_ATTRIBUTES = (
    ("country", NameOID.COUNTRY_NAME, 2),
    ("organization", NameOID.ORGANIZATION_NAME, 64),
    ("organization_unit", NameOID.ORGANIZATIONAL_UNIT_NAME, 64),
    ("locality", NameOID.LOCALITY_NAME, 128),
    ("state", NameOID.STATE_OR_PROVINCE_NAME, 128),
    ("common_name", NameOID.COMMON_NAME, 64),
)
_FIELD_OF = {oid: field for field, oid, _ in _ATTRIBUTES}
_UPPER_BOUNDS = {oid: bound for _, oid, bound in _ATTRIBUTES} | {
    NameOID.SERIAL_NUMBER: 64,
    NameOID.TITLE: 64,
    NameOID.DN_QUALIFIER: 64,
    NameOID.PSEUDONYM: 128,
    NameOID.EMAIL_ADDRESS: 255,
    NameOID.DOMAIN_COMPONENT: 63,
}
_OTHER_BOUND = 1024
_MOST_ATTRIBUTES = 32

# What moves text about in a terminal, a page or a log: controls, halves of characters, line and
# paragraph separators, and what turns the direction of reading (Unicode's Bidi_Control).
_COMMANDS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
# What nobody sees though its category does not say so: RFC 4518 §2.2 and Unicode's
# Default_Ignorable_Code_Point, the Hangul fillers and the empty Braille pattern.
_UNSEEN = frozenset(
    chr(code)
    for first, last in (
        (0x034F, 0x034F),
        (0x115F, 0x1160),
        (0x17B4, 0x17B5),
        (0x180B, 0x180F),
        (0x2800, 0x2800),
        (0x3164, 0x3164),
        (0xFE00, 0xFE0F),
        (0xFFFC, 0xFFFC),
        (0xE0100, 0xE01EF),
    )
    for code in range(first, last + 1)
)


def subject_of(name: x509.Name) -> Subject:
    """The first value of each of the six attributes; others are passed over."""
    found: dict[str, str] = {}
    for attribute in name:
        field = _FIELD_OF.get(attribute.oid)
        if field is not None and field not in found and isinstance(attribute.value, str):
            found[field] = attribute.value
    return Subject(**found)


def name_of(subject: Subject) -> x509.Name:
    """The name with these attributes, UTF8String but for the country's PrintableString.

    Raises `RuleViolation` (`subject_malformed`, field `subject.<attribute>`).
    """
    attributes: list[x509.RelativeDistinguishedName] = []
    for field, oid, bound in _ATTRIBUTES:
        value: str = getattr(subject, field)
        if not value:
            continue
        fault = text_fault(value, bound)
        if oid == NameOID.COUNTRY_NAME and not (
            len(value) == 2 and value.isascii() and value.isalpha()
        ):
            fault = "is not a country code of two letters"
        if fault is not None:
            raise RuleViolation(
                f"subject {field} {fault}", code="subject_malformed", field=f"subject.{field}"
            )
        kind = _ASN1Type.PrintableString if oid == NameOID.COUNTRY_NAME else _ASN1Type.UTF8String
        attribute = x509.NameAttribute(oid, value, _type=kind, _validate=False)
        attributes.append(x509.RelativeDistinguishedName([attribute]))
    return x509.Name(attributes)


def text_fault(value: str, bound: int) -> str | None:
    """What is wrong with an attribute's value, in words that follow its name; or `None`."""
    if not prepared(value):
        return "is empty"
    if len(value) > bound:
        return f"is longer than {bound} characters"
    if value.isascii() and value.isprintable():
        return None
    if any(unicodedata.category(c) in _COMMANDS or c in _TURNS for c in value):
        return "has a control character"
    return None


def name_fault(name: x509.Name) -> str | None:
    """What is wrong with a name that a stranger wrote, or `None`: RFC 5280's upper bounds,
    no blank attribute, no control character (a NUL cuts the name short for C programs)."""
    for count, attribute in enumerate(name, start=1):
        if count > _MOST_ATTRIBUTES:
            return f"has more than {_MOST_ATTRIBUTES} attributes"
        if not isinstance(attribute.value, str):
            continue
        bound = _UPPER_BOUNDS.get(attribute.oid, _OTHER_BOUND)
        fault = text_fault(attribute.value, bound)
        if fault is None and attribute.oid == NameOID.COUNTRY_NAME and len(attribute.value) != 2:
            fault = "is not of two letters"
        if fault is not None:
            label = _FIELD_OF.get(attribute.oid, attribute.oid.dotted_string)
            return f"attribute {label} {fault}"
    return None


def prepared(text: str) -> str:
    """`text` made comparable (RFC 4518 §2): NFKC, invisible characters dropped, case
    folded, white space at the ends dropped and squashed within."""
    if text.isascii():
        return " ".join(text.casefold().split())
    mapped = "".join(
        c
        for c in unicodedata.normalize("NFKC", text)
        if c.isspace() or (unicodedata.category(c) not in {"Cf", "Cc"} and c not in _UNSEEN)
    )
    return " ".join(unicodedata.normalize("NFKC", mapped.casefold()).split())


def same_name(a: x509.Name, b: x509.Name) -> bool:
    """Whether two names match by RFC 5280 §7.1: same RDNs in the same order, values
    compared after preparation, the order within an RDN without meaning."""
    if a == b:
        return True
    return [_comparable(rdn) for rdn in a.rdns] == [_comparable(rdn) for rdn in b.rdns]


def same_subject(a: Subject, b: Subject) -> bool:
    """Whether the six attributes match after preparation."""
    return a == b or all(
        prepared(getattr(a, field)) == prepared(getattr(b, field)) for field, _, _ in _ATTRIBUTES
    )


def _comparable(rdn: x509.RelativeDistinguishedName) -> Counter[tuple[str, str | bytes]]:
    return Counter(
        (
            attribute.oid.dotted_string,
            prepared(attribute.value) if isinstance(attribute.value, str) else attribute.value,
        )
        for attribute in rdn
    )
