"""Alternative names and addresses (RFC 5280 §4.2.1.6)."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint.findings import LintRefusal, breach
from lamassu.kernel.x509.lint.names import check_name

OTHER_NAME, RFC822, DNS, X400, DIRECTORY, EDI, URI, IP, REGISTERED = (
    0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88,
)  # fmt: skip
_KINDS = frozenset({OTHER_NAME, RFC822, DNS, X400, DIRECTORY, EDI, URI, IP, REGISTERED})
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_QUOTED_MAILBOX = re.compile(r'"[\x20-\x7e]{1,62}"')
# The characters of RFC 3986, and no percent sign but before two digits.
_ABSOLUTE_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+"
)
_LONGEST_HOST = 253
# Schemes whose URIs name a host.
_WITH_HOST = frozenset({"http", "https", "ldaps", "ftp", "ws", "wss", "coap", "coaps", "mqtt"})
_FETCHED = frozenset({"http", "https", "ldap", "ldaps", "ftp"})


class GeneralName(NamedTuple):
    """One name: its tag and the octets inside it."""

    tag: int
    value: bytes


def check_general_names(octets: bytes, *, part: str) -> tuple[GeneralName, ...]:
    """GeneralNames: at least one, each as its kind is written. Raises `LintRefusal`."""
    try:
        sequence = der.sole_element(octets)
        names = tuple(
            GeneralName(one.tag, octets[one.value : one.end])
            for one in der.children(octets, sequence)
        )
        sound = sequence.tag == der.SEQUENCE and bool(names)
    except Malformed:
        sound, names = False, ()
    if not sound:
        raise _breach("general_names", "it is no list of names", part)
    for name in names:
        check_general_name(name, part=part)
    return names


def check_general_name(name: GeneralName, *, part: str) -> None:
    """One name. Raises `LintRefusal`."""
    tag, value = name
    if tag not in _KINDS:
        raise _breach("general_names", "there is a name of no known kind", part)
    if tag in (RFC822, DNS, URI):
        _check_text(tag, value, part)
    elif tag == IP:
        if len(value) not in (4, 16):
            raise _breach("ip_address", "an IP address has not 4 or 16 octets", part)
    elif tag == DIRECTORY:
        if not check_name(value, part=part):
            raise _breach("directory_name", "a directory name is empty", part)
    elif not value:
        raise _breach("general_names", "a name is empty", part)


def _check_text(tag: int, value: bytes, part: str) -> None:
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        raise _breach("ia5_string", "a name has octets beyond ASCII", part) from None
    if tag == DNS and not is_domain_name(text, wildcard=True):
        raise _breach(
            "dns_name", f"{text[:64]!r} is no domain name in preferred syntax (RFC 1034 §3.5)", part
        )
    if tag == RFC822 and not is_mailbox(text):
        raise _breach("rfc822_name", f"{text[:64]!r} is no mailbox (RFC 2821 §4.1.2)", part)
    if tag == URI:
        check_uri(text, part=part)


def is_domain_name(text: str, *, wildcard: bool = False) -> bool:
    """Whether it is in RFC 1034's preferred syntax, as RFC 1123 §2.1 has it; with `wildcard`
    its leftmost label may be `*` (RFC 6125 §6.4.3)."""
    if wildcard and text.startswith("*."):
        text = text[2:]
    return len(text) <= _LONGEST_HOST and _HOST.fullmatch(text) is not None


def is_mailbox(text: str) -> bool:
    """`local-part@domain`."""
    local, at, domain = text.rpartition("@")
    if not at or len(text) > 255:
        return False
    known = _MAILBOX.fullmatch(local) and ".." not in f".{local}."
    return bool(known or _QUOTED_MAILBOX.fullmatch(local)) and is_domain_name(domain)


def check_uri(text: str, *, part: str) -> None:
    """An absolute URI (RFC 3986 §4.3), its host a domain name or an address where it names
    one. Raises `LintRefusal`."""
    try:
        host = urlsplit(text).hostname
        scheme = text.partition(":")[0].lower()
        sound = _ABSOLUTE_URI.fullmatch(text) is not None
    except ValueError:
        sound, host, scheme = False, None, ""
    if not sound or (not host and scheme in _WITH_HOST):
        raise _breach("uri", f"{text[:64]!r} is no absolute URI (RFC 3986)", part)
    if host and scheme in _WITH_HOST and not (is_domain_name(host.rstrip(".")) or _address(host)):
        raise _breach("uri", f"the host of {text[:64]!r} is no domain name or address", part)


def check_address(name: GeneralName, *, part: str) -> None:
    """Where relying parties fetch something (§4.2.1.13, §4.2.2.1). Raises `LintRefusal`."""
    check_general_name(name, part=part)
    if name.tag == URI:
        scheme = name.value.partition(b":")[0].decode("ascii").lower()
        if scheme not in _FETCHED:
            raise _breach("uri_scheme", f"nobody fetches from a URI of the scheme {scheme}", part)


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _breach(rule: str, text: str, part: str) -> LintRefusal:
    return breach(rule, f"of {part}: {text}", section="4.2.1.6", part=part)
