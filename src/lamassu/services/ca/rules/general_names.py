"""General names (RFC 5280 §4.2.1.6) of a profile: in words, and as DER has them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from urllib.parse import quote

from cryptography import x509

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.usages import is_oid
from lamassu.services.ca.contract import NamedValue, NameType

MOST_NAMES = 32

TYPES_BY_TAG = {
    0xA0: NameType.OTHER,
    0x81: NameType.EMAIL,
    0x82: NameType.DNS,
    0xA4: NameType.DIRECTORY,
    0x86: NameType.URI,
    0x87: NameType.IP,
    0x88: NameType.REGISTERED_ID,
}
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", re.ASCII)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+", re.ASCII)
_LONGEST_HOST = 253


def general_name(type_: NameType, value: str) -> x509.GeneralName:
    """One name for an alternative name. Raises `ValueError`, its text for people."""
    if type_ is NameType.DNS:
        if not _is_host(value.removeprefix("*.")):
            raise ValueError(f"{value[:60]!r} is no domain name")
        return x509.DNSName(value)
    if type_ is NameType.IP:
        try:
            return x509.IPAddress(ipaddress.ip_address(value))
        except ValueError:
            raise ValueError(f"{value[:60]!r} is no IP address") from None
    if type_ is NameType.EMAIL:
        local, _, host = value.rpartition("@")
        if not _LOCAL_PART.fullmatch(local) or not _is_host(host):
            raise ValueError(f"{value[:60]!r} is no mailbox")
        return x509.RFC822Name(value)
    if type_ is NameType.URI:
        if not _URI.fullmatch(value):
            raise ValueError(f"{value[:60]!r} is no URI")
        return x509.UniformResourceIdentifier(value)
    if type_ is NameType.DIRECTORY:
        return x509.DirectoryName(_directory(value))
    if type_ is NameType.REGISTERED_ID:
        if not is_oid(value):
            raise ValueError(f"{value[:60]!r} is no object identifier")
        return x509.RegisteredID(x509.ObjectIdentifier(value))
    raise ValueError("names of this type cannot be written in a profile")


def subtree(type_: NameType, value: str) -> x509.GeneralName:
    """One name for a name constraint. Raises `ValueError`, its text for people."""
    if type_ in (NameType.DNS, NameType.URI):
        # with a leading dot only what lies below is meant, and of a domain name never itself
        if type_ is NameType.DNS and value.startswith("."):
            raise ValueError(f"{value[:60]!r}: a domain stands without a leading dot")
        if not _is_host(value.removeprefix(".")):
            raise ValueError(f"{value[:60]!r} is no domain name")
        return (
            x509.DNSName(value) if type_ is NameType.DNS else x509.UniformResourceIdentifier(value)
        )
    if type_ is NameType.IP:
        try:
            return x509.IPAddress(ipaddress.ip_network(value))
        except ValueError:
            raise ValueError(f"{value[:60]!r} is no network, such as 10.0.0.0/8") from None
    if type_ is NameType.EMAIL:
        if not (_is_host(value.removeprefix(".")) or "@" in value):
            raise ValueError(f"{value[:60]!r} is no mailbox, host or domain of mailboxes")
        return general_name(type_, value) if "@" in value else x509.RFC822Name(value)
    if type_ is NameType.DIRECTORY:
        return x509.DirectoryName(_directory(value))
    raise ValueError("constraints are of dns, ip, email, uri and directory names")


def subtrees(names: Sequence[NamedValue], *, field: str) -> list[x509.GeneralName] | None:
    """Of a name constraint; `None` for none. Raises `RuleViolation` (`name_malformed`)."""
    if len(names) > MOST_NAMES:
        raise RuleViolation(
            f"{field} has at most {MOST_NAMES} names", code="too_many_names", field=field
        )
    found: list[x509.GeneralName] = []
    for number, name in enumerate(names):
        try:
            found.append(subtree(name.type, name.value))
        except ValueError as fault:
            raise RuleViolation(
                str(fault), code="name_malformed", field=f"{field}.{number}.value"
            ) from None
    return found or None


def quoted(type_: NameType, value: str) -> str:
    """A stranger's text as a part of such a name: in a URI it stays within its place, and of a
    domain it makes no wildcard. Raises `ValueError`, its text for people."""
    if type_ is NameType.URI:
        return quote(value, safe="")
    if "*" in value:
        raise ValueError(f"{value[:60]!r} would make a wildcard of it")
    return value


def _is_host(value: str) -> bool:
    return len(value) <= _LONGEST_HOST and _HOST.fullmatch(value) is not None


def _directory(value: str) -> x509.Name:
    try:
        name = x509.Name.from_rfc4514_string(value)
    except (ValueError, TypeError):
        name = None
    if name is None or not name.rdns:
        raise ValueError(f"{value[:60]!r} is no name as RFC 4514 writes them, such as O=Acme,C=PT")
    return name
