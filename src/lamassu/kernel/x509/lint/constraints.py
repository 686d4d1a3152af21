"""Name constraints of the CAs above (RFC 5280 §4.2.1.10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from lamassu.kernel.x509.lint.extensions import Subtrees
from lamassu.kernel.x509.lint.findings import breach
from lamassu.kernel.x509.lint.general_names import DIRECTORY, DNS, IP, RFC822, URI, GeneralName
from lamassu.kernel.x509.lint.names import EMAIL_ADDRESS, Attribute, Rdn, check_name, text_of
from lamassu.kernel.x509.names import prepared


def check_constraints(
    constraints: Sequence[Subtrees],
    subject: tuple[Rdn, ...],
    subject_der: bytes,
    alternative: Sequence[GeneralName],
) -> None:
    """Every name lies in a permitted subtree of its kind, of each CA that has any, and in no
    excluded one. A kind that is constrained and that we cannot compare is refused."""
    names = list(alternative)
    if subject:
        names.append(GeneralName(DIRECTORY, subject_der))
    if not any(name.tag == RFC822 for name in alternative):
        names += _mailboxes(subject)
    for subtrees in constraints:
        for name in names:
            permitted = [base for base in subtrees.permitted if base.tag == name.tag]
            excluded = [base for base in subtrees.excluded if base.tag == name.tag]
            if permitted and not any(_within(name, base, widely=False) for base in permitted):
                raise _refused(name, "is not among the names that a CA above permits")
            if any(_within(name, base, widely=True) for base in excluded):
                raise _refused(name, "is among the names that a CA above excludes")


def _refused(name: GeneralName, why: str) -> Exception:
    shown = "the subject" if name.tag == DIRECTORY else repr(name.value[:64])[1:]
    return breach(
        "outside_name_constraints", f"{shown} {why}", section="4.2.1.10",
        part="subject" if name.tag == DIRECTORY else "extensions.subject_alternative_name",
    )  # fmt: skip


def _mailboxes(subject: tuple[Rdn, ...]) -> Iterator[GeneralName]:
    for rdn in subject:
        for attribute in rdn:
            if attribute.oid == EMAIL_ADDRESS:
                yield GeneralName(RFC822, attribute.value)


def _within(name: GeneralName, base: GeneralName, *, widely: bool) -> bool:
    """Whether the name lies in the subtree; `widely`: whether it could, where that is unclear."""
    if name.tag == DNS:
        return _dns_within(_lower(name), _lower(base), widely=widely)
    if name.tag == IP:
        return _ip_within(name.value, base.value)
    if name.tag == DIRECTORY:
        return _directory_within(name.value, base.value)
    if name.tag == RFC822:
        return _mailbox_within(name, base)
    if name.tag == URI:
        host = urlsplit(name.value.decode("ascii")).hostname
        return widely if not host else _host_within(host, _lower(base))
    return widely


def _lower(name: GeneralName) -> str:
    return name.value.decode("ascii").lower()


def _dns_within(name: str, base: str, *, widely: bool) -> bool:
    dotted = f".{base.removeprefix('.')}"
    if not base or f".{name}".endswith(dotted):
        return not base.startswith(".") or f".{name}" != dotted
    # a wildcard may stand for the very name that is excluded
    return widely and name.startswith("*.") and dotted.endswith(name[1:])


def _host_within(host: str, base: str) -> bool:
    return host.endswith(base) if base.startswith(".") else host == base


def _mailbox_within(name: GeneralName, base: GeneralName) -> bool:
    local, _, host = name.value.decode("ascii").rpartition("@")
    wanted_local, at, wanted_host = base.value.decode("ascii").rpartition("@")
    if at and local != wanted_local:
        return False
    return _host_within(host.lower(), wanted_host.lower())


def _ip_within(address: bytes, base: bytes) -> bool:
    half = len(base) // 2
    if len(address) != half:
        return False
    mask = int.from_bytes(base[half:], "big")
    return int.from_bytes(address, "big") & mask == int.from_bytes(base[:half], "big") & mask


def _directory_within(name: bytes, base: bytes) -> bool:
    """RFC 5280 §7.1: the base's RDNs begin the name's."""
    ours = [_comparable(rdn) for rdn in check_name(name, part="subject")]
    theirs = [_comparable(rdn) for rdn in check_name(base, part="extensions.name_constraints")]
    return ours[: len(theirs)] == theirs


def _comparable(rdn: Rdn) -> frozenset[tuple[bytes, str | bytes]]:
    return frozenset((one.oid, _value(one)) for one in rdn)


def _value(attribute: Attribute) -> str | bytes:
    try:
        return prepared(text_of(attribute))
    except ValueError:
        return attribute.value
