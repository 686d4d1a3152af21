"""A certificate that is not signed yet, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cryptography import x509

from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.usages import extended_key_usage_names, key_usage_names
from lamassu.services.ca.rules.template import CertificateTemplate


@dataclass(frozen=True, slots=True)
class ShownExtension:
    """An extension; `value` is the DER inside it, `text` what it says."""

    oid: str
    name: str
    critical: bool
    text: str
    value: bytes


@dataclass(frozen=True, slots=True)
class DifferentPart:
    """A part in which two certificates differ, and how to say what it was and is."""

    name: str
    before: Callable[[], str]
    after: Callable[[], str]


def differing_parts(old: CertificateTemplate, new: CertificateTemplate) -> list[DifferentPart]:
    """Where two certificates for the same request differ, but for their serial numbers."""
    found: list[DifferentPart] = []
    if old.subject != new.subject:
        found.append(
            DifferentPart("subject", old.subject.rfc4514_string, new.subject.rfc4514_string)
        )
    for name in ("not_before", "not_after"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            found.append(
                DifferentPart(name, partial(format_time, before), partial(format_time, after))
            )
    if old.extensions != new.extensions:
        ours = {one.oid: one for one in old.extensions}
        theirs = {one.oid: one for one in new.extensions}
        for oid in dict.fromkeys((*ours, *theirs)):
            if ours.get(oid) != theirs.get(oid):
                name = _name_of(oid) or oid.dotted_string
                found.append(
                    DifferentPart(
                        name,
                        partial(_shown_one, old, oid),
                        partial(_shown_one, new, oid),
                    )
                )
    return found


def _shown_one(template: CertificateTemplate, oid: x509.ObjectIdentifier) -> str:
    for one in shown_extensions(template):
        if one.oid == oid.dotted_string:
            return f"critical, {one.text}" if one.critical else one.text
    return ""


def shown_extensions(template: CertificateTemplate) -> tuple[ShownExtension, ...]:
    """The template's extensions, read back from a certificate that has them."""
    certificate = x509.load_der_x509_certificate(template.rehearsed())
    return tuple(
        ShownExtension(
            oid=one.oid.dotted_string,
            name=_name_of(one.oid),
            critical=one.critical,
            text=_text_of(one.value),
            value=raw.value,
        )
        for one, raw in zip(certificate.extensions, template.extensions, strict=True)
    )


def _name_of(oid: x509.ObjectIdentifier) -> str:
    name: str = oid._name
    return "" if name == "Unknown OID" else name


def _text_of(value: x509.ExtensionType) -> str:
    for kind, words in _WORDS.items():
        if isinstance(value, kind):
            return words(value)
    return value.public_bytes().hex()


def _basic_constraints(value: x509.BasicConstraints) -> str:
    if not value.ca:
        return "CA:FALSE"
    return "CA:TRUE" + ("" if value.path_length is None else f", pathlen:{value.path_length}")


def _authority_key(value: x509.AuthorityKeyIdentifier) -> str:
    return (value.key_identifier or b"").hex()


def _subtrees(value: x509.NameConstraints) -> str:
    return "; ".join(
        f"{kind}: {_names(names)}"
        for kind, names in (
            ("permitted", value.permitted_subtrees),
            ("excluded", value.excluded_subtrees),
        )
        if names
    )


def _policies(value: x509.CertificatePolicies) -> str:
    return ", ".join(
        " ".join(
            (
                policy.policy_identifier.dotted_string,
                *(f"({one})" for one in policy.policy_qualifiers or () if isinstance(one, str)),
            )
        )
        for policy in value
    )


def _access(value: x509.AuthorityInformationAccess) -> str:
    return ", ".join(f"{one.access_method._name} {_name(one.access_location)}" for one in value)


def _points(value: x509.CRLDistributionPoints) -> str:
    return ", ".join(_names(point.full_name or ()) for point in value)


def _names(names: Sequence[x509.GeneralName]) -> str:
    return ", ".join(map(_name, names))


def _name(name: x509.GeneralName) -> str:
    for kind, label in (
        (x509.DNSName, "DNS"),
        (x509.RFC822Name, "email"),
        (x509.UniformResourceIdentifier, "URI"),
    ):
        if isinstance(name, kind):
            return f"{label}:{name.value}"
    if isinstance(name, x509.IPAddress):
        return f"IP:{name.value}"
    if isinstance(name, x509.DirectoryName):
        return f"DirName:{name.value.rfc4514_string()}"
    if isinstance(name, x509.RegisteredID):
        return f"RID:{name.value.dotted_string}"
    return "otherName"


_WORDS: dict[type[x509.ExtensionType], Callable[..., str]] = {
    x509.BasicConstraints: _basic_constraints,
    x509.KeyUsage: lambda value: ", ".join(key_usage_names(value)),
    x509.ExtendedKeyUsage: lambda value: ", ".join(extended_key_usage_names(value)),
    x509.SubjectKeyIdentifier: lambda value: value.digest.hex(),
    x509.AuthorityKeyIdentifier: _authority_key,
    x509.SubjectAlternativeName: _names,
    x509.NameConstraints: _subtrees,
    x509.CertificatePolicies: _policies,
    x509.AuthorityInformationAccess: _access,
    x509.CRLDistributionPoints: _points,
}
