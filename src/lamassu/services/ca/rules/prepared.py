"""A profile made ready: expressions compiled, templates read, fixed extensions encoded, once."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, partial

from cryptography import x509
from cryptography.x509.oid import NameOID

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.usages import is_oid
from lamassu.services.ca.contract import (
    AllowedNames,
    IssuanceProfile,
    NameConstraints,
    NamedValue,
    NameType,
    SubjectRules,
)
from lamassu.services.ca.rules.general_names import (
    MOST_NAMES,
    TYPES_BY_TAG,
    general_name,
    quoted,
    subtrees,
)
from lamassu.services.ca.rules.naming_templates import Template, Variables, template_of
from lamassu.services.ca.rules.patterns import Pattern, pattern_of
from lamassu.services.ca.rules.template import EncodedExtension, encoded

_ATTRIBUTES = {
    "common_name": NameOID.COMMON_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organization_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "country": NameOID.COUNTRY_NAME,
    "state": NameOID.STATE_OR_PROVINCE_NAME,
    "locality": NameOID.LOCALITY_NAME,
}
_MOST_PATTERNS = 16
_MOST_EXTENSIONS = 16
_MOST_POLICIES = 16
_LONGEST_VALUE = 4096
_LONGEST_URI = 1024

# What the CA decides, by a field of the profile or not at all: RFC 5280 §4.2 but for the subject
# directory attributes; SCTs and poison of RFC 6962; what exempts from revocation checking (RFC
# 6960 §4.2.2.2.1, RFC 9608) or lets an end entity issue (RFC 3820, Netscape's certificate type).
# Some still read what X.509 had of these before 1997 (2.5.29.7 as alternative names), and
# Microsoft's application policies in place of the extended key usages.
_CONTROLLED = frozenset(
    {
        *(f"2.5.29.{last}" for last in (*range(1, 9), *range(10, 38), 46, 54, 56)),
        *(f"1.3.6.1.4.1.311.21.{last}" for last in (10, 11, 12)),
        *("1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.1.11", "1.3.6.1.5.5.7.1.14"),
        *("1.3.6.1.5.5.7.48.1.5", "2.16.840.1.113730.1.1"),
        *("1.3.6.1.4.1.11129.2.4.2", "1.3.6.1.4.1.11129.2.4.3"),
    }
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Allowed:
    """Which names of one type; any, if it names nothing."""

    patterns: tuple[Pattern, ...]
    networks: tuple[Network, ...]

    def takes(self, text: str) -> bool:
        if self.networks:
            address = ipaddress.ip_address(text)
            return any(address in network for network in self.networks)
        return not self.patterns or any(pattern.fullmatch(text) for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class PreparedProfile:
    """A profile with all that its certificates have in common."""

    profile: IssuanceProfile
    extensions: tuple[EncodedExtension, ...]
    _subject_template: tuple[tuple[str, Template], ...] | None
    _patterns: tuple[tuple[str, x509.ObjectIdentifier, Pattern], ...]
    _names: tuple[tuple[NameType, Template], ...]
    _allowed: Mapping[NameType, _Allowed] | None

    @property
    def needs_variables(self) -> bool:
        """Whether names are made from what is known of a request."""
        return self._subject_template is not None or bool(self._names)

    def subject_from(self, known: Variables) -> Subject | None:
        """The subject that the template makes, if there is one. Raises `RuleViolation`."""
        if self._subject_template is None:
            return None
        return Subject(**{name: part.filled(known) for name, part in self._subject_template})

    def names_from(self, known: Variables) -> bytes | None:
        """The DER of the subjectAltName that the profile makes, if it makes one.

        Raises `RuleViolation` (`template_value_missing`, `san_malformed`).
        """
        found: list[x509.GeneralName] = []
        for type_, template in self._names:
            try:
                value = template.filled(known, quote=partial(quoted, type_))
                if value:
                    found.append(general_name(type_, value))
            except ValueError as fault:
                raise RuleViolation(
                    f"the alternative name that the profile makes of this request: {fault}",
                    code="san_malformed",
                    field="csr",
                ) from None
        if not found:
            return None
        return x509.SubjectAlternativeName(dict.fromkeys(found)).public_bytes()

    def fixed_names(self) -> bytes | None:
        """The DER of those alternative names that every certificate gets, whatever is asked."""
        found = [
            general_name(type_, template.fixed)
            for type_, template in self._names
            if template.fixed is not None
        ]
        return x509.SubjectAlternativeName(found).public_bytes() if found else None

    def subject_of_ca(self, requested: Subject, *, parent_id: str) -> Subject:
        """The subject of a CA that is asked for with `requested`: the template's, or what was
        asked for with what the profile itself says in its place, unless it honours all.

        Raises `RuleViolation`.
        """
        known = Variables(csr=requested, key_id="", ca_id=parent_id)
        made = self.subject_from(known)
        if made is None and self.profile.honor_subject:
            return requested
        own = self.profile.subject
        return made or Subject(
            **{
                one.name: getattr(own, one.name) or getattr(requested, one.name)
                for one in fields(Subject)
            }
        )

    def check_subject(self, name: x509.Name, *, field: str = "csr") -> None:
        """Each attribute matches its pattern; one that is absent is the empty text.

        Raises `RuleViolation` (`subject_not_allowed`).
        """
        for label, oid, pattern in self._patterns:
            values = [one.value for one in name.get_attributes_for_oid(oid)] or [""]
            for value in values:
                if not isinstance(value, str) or not pattern.fullmatch(value):
                    raise RuleViolation(
                        f"the subject's {label} {str(value)[:64]!r} is not one that the profile "
                        f"allows ({getattr(self.profile.subject_rules.patterns, label)})",
                        code="subject_not_allowed",
                        field=field,
                    )

    def check_alternative_names(self, san_der: bytes) -> None:
        """Each name is of a type, and in the bounds, that the profile allows.

        `san_der` was found sound before. Raises `RuleViolation` (`san_not_allowed`).
        """
        if self._allowed is None:
            return
        for element in der.children(san_der, der.sole_element(san_der)):
            type_ = TYPES_BY_TAG[element.tag]
            allowed = self._allowed.get(type_)
            value = san_der[element.value : element.end]
            if allowed is None:
                raise RuleViolation(
                    f"the profile allows no alternative names of the type {type_}; it allows "
                    f"{', '.join(self._allowed) or 'none'}",
                    code="san_not_allowed",
                    field="csr",
                )
            text = _text(type_, value)
            if text is not None and not allowed.takes(text):
                raise RuleViolation(
                    f"the alternative name {text[:64]!r} ({type_}) is not one that the profile "
                    "allows",
                    code="san_not_allowed",
                    field="csr",
                )


def _text(type_: NameType, value: bytes) -> str | None:
    """What patterns see: domains in lower case; `None` for a type that has none."""
    if type_ is NameType.IP:
        return str(ipaddress.ip_address(value))
    if type_ in (NameType.DIRECTORY, NameType.OTHER):
        return None
    if type_ is NameType.REGISTERED_ID:
        return None
    text = value.decode("ascii")
    return text.lower() if type_ is NameType.DNS else text


def prepare(profile: IssuanceProfile) -> PreparedProfile:
    """Raises `RuleViolation` with the field of the profile that cannot be understood."""
    return PreparedProfile(
        profile=profile,
        extensions=(
            *_name_constraints(profile.name_constraints),
            *_policies(profile),
            *_custom(profile),
        ),
        _subject_template=_subject_template(profile.subject_rules),
        _patterns=_patterns(profile.subject_rules.patterns),
        _names=_names(profile.alternative_names.names),
        _allowed=_allowed(profile.alternative_names.allowed),
    )


prepared = lru_cache(maxsize=512)(prepare)
"""The same, remembered: inline profiles come again and again."""


def _subject_template(rules: SubjectRules) -> tuple[tuple[str, Template], ...] | None:
    if rules.template is None:
        return None
    found = tuple(
        (field.name, template_of(text, field=f"subject_rules.template.{field.name}"))
        for field in fields(Subject)
        if (text := getattr(rules.template, field.name))
    )
    if not found:
        raise _fault("the template names no attribute", "template_malformed", "subject_rules")
    return found


def _patterns(patterns: Subject) -> tuple[tuple[str, x509.ObjectIdentifier, Pattern], ...]:
    return tuple(
        (name, oid, pattern_of(expression, field=f"subject_rules.patterns.{name}"))
        for name, oid in _ATTRIBUTES.items()
        if (expression := getattr(patterns, name))
    )


def _names(names: Sequence[NamedValue]) -> tuple[tuple[NameType, Template], ...]:
    if len(names) > MOST_NAMES:
        raise _fault(
            f"there are at most {MOST_NAMES} names", "too_many_names", "alternative_names.names"
        )
    found: list[tuple[NameType, Template]] = []
    for number, name in enumerate(names):
        at = f"alternative_names.names.{number}.value"
        template = template_of(name.value, field=at)
        try:
            # what is filled in is judged with the request; what is fixed, now
            if template.fixed is not None:
                general_name(name.type, template.fixed)
            elif name.type in (NameType.DIRECTORY, NameType.REGISTERED_ID, NameType.OTHER):
                raise ValueError(f"a name of the type {name.type} has no placeholders")
        except ValueError as fault:
            raise _fault(str(fault), "name_malformed", at) from None
        found.append((name.type, template))
    return tuple(found)


def _allowed(allowed: Sequence[AllowedNames] | None) -> dict[NameType, _Allowed] | None:
    if allowed is None:
        return None
    found: dict[NameType, _Allowed] = {}
    for number, one in enumerate(allowed):
        at = f"alternative_names.allowed.{number}"
        if one.type in found:
            raise _fault(f"the type {one.type} stands twice", "name_type_twice", f"{at}.type")
        if len(one.patterns) > _MOST_PATTERNS:
            raise _fault(
                f"a type has at most {_MOST_PATTERNS} patterns", "too_many_names", f"{at}.patterns"
            )
        found[one.type] = _allowed_of(one, f"{at}.patterns")
    return found


def _allowed_of(one: AllowedNames, at: str) -> _Allowed:
    if one.type is NameType.IP:
        networks: list[Network] = []
        for number, text in enumerate(one.patterns):
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError:
                raise _fault(
                    f"{text[:60]!r} is no network, such as 10.0.0.0/8",
                    "pattern_malformed",
                    f"{at}.{number}",
                ) from None
        return _Allowed((), tuple(networks))
    if one.patterns and one.type not in (NameType.DNS, NameType.EMAIL, NameType.URI):
        raise _fault(
            f"names of the type {one.type} are allowed or not; they have no patterns",
            "pattern_malformed",
            at,
        )
    return _Allowed(
        tuple(pattern_of(text, field=f"{at}.{number}") for number, text in enumerate(one.patterns)),
        (),
    )


def _name_constraints(constraints: NameConstraints) -> tuple[EncodedExtension, ...]:
    permitted = subtrees(constraints.permitted, field="name_constraints.permitted")
    excluded = subtrees(constraints.excluded, field="name_constraints.excluded")
    if permitted is None and excluded is None:
        return ()
    return (encoded(x509.NameConstraints(permitted, excluded), critical=True),)


def _policies(profile: IssuanceProfile) -> tuple[EncodedExtension, ...]:
    policies = profile.certificate_policies
    if not policies:
        return ()
    if len(policies) > _MOST_POLICIES:
        raise _fault(
            f"there are at most {_MOST_POLICIES} policies", "too_many", "certificate_policies"
        )
    found: list[x509.PolicyInformation] = []
    for number, policy in enumerate(policies):
        at = f"certificate_policies.{number}"
        if not is_oid(policy.oid) or policy.oid in {one.oid for one in policies[:number]}:
            raise _fault("a policy is named by its OID (1.2.3), once", "oid_malformed", f"{at}.oid")
        uri = policy.cps_uri
        if uri and not (
            uri.isascii()
            and uri.isprintable()
            and " " not in uri
            and len(uri) <= _LONGEST_URI
            and uri.lower().startswith(("http://", "https://"))
        ):
            raise _fault("cps_uri is an http or https URL", "url_malformed", f"{at}.cps_uri")
        found.append(
            x509.PolicyInformation(x509.ObjectIdentifier(policy.oid), [uri] if uri else None)
        )
    return (encoded(x509.CertificatePolicies(found), critical=False),)


def _custom(profile: IssuanceProfile) -> tuple[EncodedExtension, ...]:
    extensions = profile.custom_extensions
    if len(extensions) > _MOST_EXTENSIONS:
        raise _fault(
            f"there are at most {_MOST_EXTENSIONS} extensions", "too_many", "custom_extensions"
        )
    found: list[EncodedExtension] = []
    for number, one in enumerate(extensions):
        at = f"custom_extensions.{number}"
        if not is_oid(one.oid):
            raise _fault("an extension is named by its OID (1.2.3)", "oid_malformed", f"{at}.oid")
        if one.oid in _CONTROLLED:
            raise _fault(
                f"the extension {one.oid} is the CA's to decide; what can be said of it has a "
                "field of its own",
                "extension_controlled",
                f"{at}.oid",
            )
        if one.oid in {other.oid for other in extensions[:number]}:
            raise _fault(f"the extension {one.oid} stands twice", "extension_twice", f"{at}.oid")
        try:
            der.check_der(one.value, max_length=_LONGEST_VALUE, max_depth=16)
        except Malformed as fault:
            raise _fault(
                f"the value is not one DER element in base64: {fault.text}",
                "der_malformed",
                f"{at}.value",
            ) from None
        found.append(EncodedExtension(x509.ObjectIdentifier(one.oid), one.critical, one.value))
    return tuple(found)


def _fault(text: str, code: str, field: str) -> RuleViolation:
    return RuleViolation(text, code=code, field=field)
