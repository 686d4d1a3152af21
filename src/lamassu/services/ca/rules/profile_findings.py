"""A profile beside the CAs that use it: what could never be issued, and what should be known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from cryptography import x509

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import KeyFacts
from lamassu.kernel.x509.lint.constraints import check_constraints
from lamassu.kernel.x509.lint.extensions import Subtrees, read_name_constraints
from lamassu.kernel.x509.lint.general_names import check_general_names
from lamassu.kernel.x509.lint.names import check_name
from lamassu.kernel.x509.names import name_of
from lamassu.services.ca.contract import (
    CertificateStatus,
    CertificationAuthority,
    IssuanceProfile,
    IssuerEnd,
    NameType,
)
from lamassu.services.ca.rules.authorities import path_length_for
from lamassu.services.ca.rules.prepared import prepared
from lamassu.services.ca.rules.validity import (
    LONGEST_SMALL_RSA,
    check_ends_before_issuer,
    end_entity_period,
    end_of,
    is_set,
)

_ANY_POLICY = "2.5.29.32.0"
# The kind of key whose certificates nothing but profile and issuer bounds.
_SOME_KEY = KeyFacts("ECDSA", 256)
_MOST_NAMED = 5
_PATTERNED = frozenset({NameType.DNS, NameType.IP, NameType.EMAIL, NameType.URI})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a profile that somebody should know; it forbids nothing.

    `field` is the path of what it is about.
    """

    code: str
    field: str
    text: str


@dataclass(frozen=True)
class ProfileUser:
    """A CA that issues under a profile; `above` are the certificates (DER) of those above it."""

    authority: CertificationAuthority
    above: Sequence[bytes] = ()

    @cached_property
    def path(self) -> tuple[bytes, ...]:
        return (self.authority.certificate.der, *self.above)

    @cached_property
    def facts(self) -> CertificateFacts:
        return certificate_facts(self.authority.certificate.der)

    @cached_property
    def purposes(self) -> frozenset[str] | None:
        """What the path's extended key usages leave; `None` if they bound nothing."""
        left: frozenset[str] | None = None
        for der in self.path:
            named = frozenset(certificate_facts(der).extended_key_usages)
            if named and "Any" not in named:
                left = named if left is None else left & named
        return left

    @cached_property
    def subtrees(self) -> tuple[Subtrees, ...]:
        return tuple(
            read_name_constraints(one.value.public_bytes())
            for der in self.path
            for one in x509.load_der_x509_certificate(der).extensions
            if isinstance(one.value, x509.NameConstraints)
        )

    @cached_property
    def policies(self) -> frozenset[str] | None:
        """The policies that its own certificate stands for; `None` for any."""
        for one in x509.load_der_x509_certificate(self.path[0]).extensions:
            if isinstance(one.value, x509.CertificatePolicies):
                named = {policy.policy_identifier.dotted_string for policy in one.value}
                return None if _ANY_POLICY in named else frozenset(named)
        return None


def users_of(
    profile: IssuanceProfile, authorities: Sequence[CertificationAuthority], now: datetime
) -> list[ProfileUser]:
    """The CAs that issue under this profile now: the one that it belongs to, and those whose
    default it is, each in its newest generation. `authorities` are all that there are."""
    by_id = {one.id: one for one in authorities}
    found: list[ProfileUser] = []
    for one in authorities:
        belongs = profile.ca_id is not None and profile.ca_id in (one.id, one.first_generation)
        default = one.profile_id == profile.id and not profile.sign_as_ca
        if not (belongs or default) or one.successor_id is not None:
            continue
        if one.certificate.status_at(now) is not CertificateStatus.ACTIVE:
            continue
        above: list[bytes] = []
        parent = by_id.get(one.parent_id or "")
        while parent is not None and len(above) < len(by_id):
            above.append(parent.certificate.der)
            parent = by_id.get(parent.parent_id or "")
        found.append(ProfileUser(one, tuple(above)))
    return found


def check_under(profile: IssuanceProfile, users: Sequence[ProfileUser], now: datetime) -> None:
    """Refuse a profile under which a CA that uses it could issue nothing, or nothing that would
    verify. Raises `RuleViolation` with the field of the profile."""
    refusals = [refusal for user in users if (refusal := _period_refusal(profile, user, now))]
    if refusals and len(refusals) == len(users):
        raise RuleViolation(
            f"no CA that uses this profile can serve it: {refusals[0].text}",
            code=refusals[0].code,
            field="validity",
        )
    for user in users:
        _check_purposes(profile, user)
        _check_path_length(profile, user)
        _check_names(profile, user)


def findings_of(
    profile: IssuanceProfile, users: Sequence[ProfileUser], now: datetime
) -> tuple[Finding, ...]:
    """What an operator should know of a profile; see docs/how-to/profiles.md."""
    return (
        *_of_names(profile),
        *_of_keys(profile),
        *_of_extensions(profile),
        *_of_users(profile, users, now),
    )


# --- checks ---------------------------------------------------------------------------------


def _period_refusal(
    profile: IssuanceProfile, user: ProfileUser, now: datetime
) -> RuleViolation | None:
    certificate = user.authority.certificate
    try:
        if not profile.sign_as_ca:
            end_entity_period(profile, certificate, _SOME_KEY, now)
        elif is_set(profile.validity):
            end = end_of(profile.validity, now, field="validity")
            check_ends_before_issuer(end, certificate, field="validity")
    except RuleViolation as refusal:
        return refusal
    return None


def _check_purposes(profile: IssuanceProfile, user: ProfileUser) -> None:
    if profile.honor_extended_key_usages or user.purposes is None:
        return
    foreign = sorted(set(profile.extended_key_usages) - user.purposes)
    if foreign:
        raise RuleViolation(
            f"the CA {user.authority.id}, or one above it, is for "
            f"{', '.join(sorted(user.purposes)) or 'nothing'} only: {', '.join(foreign)} would not "
            "verify",
            code="extended_key_usage_not_of_issuer",
            field="extended_key_usages",
        )


def _check_path_length(profile: IssuanceProfile, user: ProfileUser) -> None:
    if not profile.sign_as_ca:
        return
    try:
        path_length_for(profile, has_parent=True, parent_path_length=user.facts.path_length)
    except RuleViolation as refusal:
        raise RuleViolation(
            f"{user.authority.id}: {refusal.text}", code=refusal.code, field="path_length"
        ) from None


def _check_names(profile: IssuanceProfile, user: ProfileUser) -> None:
    if not user.subtrees:
        return
    fixed = prepared(profile).fixed_names()
    if fixed is not None:
        names = check_general_names(fixed, part="extensions.subject_alternative_name")
        _check_within(user, lambda: check_constraints(user.subtrees, (), b"", names))
    whole = profile.subject.common_name and not profile.honor_subject
    if whole and profile.subject_rules.template is None:
        der = name_of(profile.subject).public_bytes()
        rdns = check_name(der, part="subject")
        _check_within(
            user, lambda: check_constraints(user.subtrees, rdns, der, ()), field="subject"
        )


def _check_within(
    user: ProfileUser, check: Callable[[], None], *, field: str = "alternative_names.names"
) -> None:
    try:
        check()
    except RuleViolation as refusal:
        raise RuleViolation(
            f"under the CA {user.authority.id} a name of this profile would not verify: "
            f"{refusal.text}",
            code="name_not_permitted",
            field=field,
        ) from None


# --- findings -------------------------------------------------------------------------------


def _of_names(profile: IssuanceProfile) -> Iterator[Finding]:
    if profile.sign_as_ca or not profile.honor_extensions:
        return
    allowed = profile.alternative_names.allowed
    loose = (
        None
        if allowed is None
        else [one.type.value for one in allowed if one.type not in _PATTERNED or not one.patterns]
    )
    if loose is None or loose:
        which = "of any type" if loose is None else f"of the types {', '.join(loose)}"
        yield Finding(
            "san_unpatterned",
            "alternative_names.allowed",
            f"alternative names {which} are taken from requests as they stand: whoever may ask "
            "chooses the names; bound them by patterns",
        )


def _of_keys(profile: IssuanceProfile) -> Iterator[Finding]:
    keys, duration = profile.crypto_enforcement, profile.validity.duration
    small = not keys.enabled or (
        keys.allow_rsa_keys
        and (
            keys.allowed_rsa_key_sizes is None
            or any(size < 3072 for size in keys.allowed_rsa_key_sizes)
        )
    )
    longer = profile.validity.not_after is not None or (
        duration is not None and duration > LONGEST_SMALL_RSA
    )
    if small and longer and not profile.sign_as_ca:
        yield Finding(
            "small_rsa_shortened",
            "validity",
            "certificates of RSA keys below 3072 bits end after two years, whatever is said here",
        )
    if keys.enabled and not (
        (keys.allow_rsa_keys and keys.allowed_rsa_key_sizes != ())
        or (keys.allow_ecdsa_keys and keys.allowed_ecdsa_key_sizes != ())
        or keys.allow_ed25519_keys
        or (keys.allow_ml_dsa_keys and keys.allowed_ml_dsa_key_sizes != ())
    ):
        yield Finding("no_keys_allowed", "crypto_enforcement", "it takes no key at all")


def _of_extensions(profile: IssuanceProfile) -> Iterator[Finding]:
    for number, one in enumerate(profile.custom_extensions):
        if one.critical:
            yield Finding(
                "critical_extension",
                f"custom_extensions.{number}.critical",
                f"whoever does not know the extension {one.oid} has to refuse the certificate "
                "(RFC 5280 §4.2); this platform does not know it, so that a device could not "
                "renew with it",
            )


def _of_users(
    profile: IssuanceProfile, users: Sequence[ProfileUser], now: datetime
) -> Iterator[Finding]:
    if profile.ca_id is not None and not users:
        yield Finding(
            "ca_not_there", "ca_id", f"there is no active CA {profile.ca_id} that could issue"
        )
    for user in users:
        yield from _of_user(profile, user, now)


def _of_user(profile: IssuanceProfile, user: ProfileUser, now: datetime) -> Iterator[Finding]:
    issuer = user.authority
    refusal = _period_refusal(profile, user, now)
    if refusal is not None:
        yield Finding("ca_cannot_serve", "validity", f"the CA {issuer.id}: {refusal.text}")
    elif profile.at_issuer_end is IssuerEnd.CLAMP and is_set(profile.validity):
        end = end_of(profile.validity, now, field="validity")
        if end > issuer.certificate.not_after:
            yield Finding(
                "outlives_issuer",
                "validity",
                f"the CA {issuer.id} ends {issuer.certificate.not_after:%Y-%m-%d}, so that "
                "certificates get less than the profile says; give it a successor (lamassu ca "
                "rekey) or shorten the validity",
            )
    if user.policies is not None:
        foreign = sorted({one.oid for one in profile.certificate_policies} - user.policies)
        if foreign:
            yield Finding(
                "policy_not_of_issuer",
                "certificate_policies",
                f"the CA {issuer.id} does not stand for {', '.join(foreign[:_MOST_NAMED])}: "
                "relying parties that ask for policies will not find them",
            )
