"""Issuance profiles: whether they make sense, and whether they may be used here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from lamassu.kernel.errors import Forbidden, RuleViolation
from lamassu.kernel.x509.keys import NEWER_KEYS, KeyFacts
from lamassu.kernel.x509.names import name_of
from lamassu.kernel.x509.usages import (
    authority_usages,
    extended_key_usage_extension,
    key_usage_extension,
)
from lamassu.services.ca.contract import (
    LONGEST_BACKDATING,
    CryptoEnforcement,
    IssuanceProfile,
    NameConstraints,
    SubjectRules,
)
from lamassu.services.ca.rules.prepared import prepared
from lamassu.services.ca.rules.validity import end_of, is_set

_LONGEST_ID = 128
_LONGEST_TEXT = 1024
_MOST_URLS = 8


def check_id(identifier: str, *, field: str = "id") -> None:
    """Ids stand in URLs, events and files: refuse what would be something else there."""
    printable = identifier.isprintable() and identifier == identifier.strip()
    if (
        not 0 < len(identifier) <= _LONGEST_ID
        or not printable
        or identifier in ("-", ".", "..")
        or any(c in "/\\?#%" for c in identifier)
    ):
        raise RuleViolation(
            f"an id has 1 to {_LONGEST_ID} printable characters, none of / \\ ? # %",
            code="id_malformed",
            field=field,
        )


def check_profile(profile: IssuanceProfile, now: datetime) -> None:
    """Refuse a profile under which nothing sound could be issued. Raises `RuleViolation`."""
    for field in ("name", "description"):
        if len(getattr(profile, field)) > _LONGEST_TEXT:
            raise RuleViolation(
                f"{field} is longer than {_LONGEST_TEXT} characters",
                code="text_too_long",
                field=field,
            )
    if is_set(profile.validity):
        end_of(profile.validity, now, field="validity")
    if profile.minimum_validity is not None and profile.minimum_validity <= timedelta(0):
        raise RuleViolation(
            "minimum_validity must be positive",
            code="validity_out_of_range",
            field="minimum_validity",
        )
    if profile.path_length is not None and not 0 <= profile.path_length <= 32:
        raise RuleViolation(
            "path_length is 0 to 32", code="path_length_out_of_range", field="path_length"
        )
    key_usage_extension(profile.key_usage)
    extended_key_usage_extension(profile.extended_key_usages)
    name_of(profile.subject)
    _check_urls(profile)
    _check_periods(profile)
    prepared(profile)
    _check_together(profile)


def _check_periods(profile: IssuanceProfile) -> None:
    backdating, minimum = profile.backdating, profile.minimum_validity
    if backdating is not None and not timedelta(0) <= backdating <= LONGEST_BACKDATING:
        raise RuleViolation(
            f"backdating is 0s to {LONGEST_BACKDATING.days}d",
            code="validity_out_of_range",
            field="backdating",
        )
    duration = profile.validity.duration
    if minimum is not None and duration is not None and minimum > duration:
        raise RuleViolation(
            "minimum_validity is longer than the validity itself: nothing would be issued once "
            "the issuing CA's end bounds it",
            code="validity_out_of_range",
            field="minimum_validity",
        )


def _check_together(profile: IssuanceProfile) -> None:
    """Refuse what contradicts another field, or means nothing beside it."""
    names = profile.alternative_names
    if profile.subject_rules.template is not None and profile.honor_subject:
        raise RuleViolation(
            "either the CSR's subject is honoured or the template makes one: set honor_subject "
            "to false",
            code="rules_contradict",
            field="subject_rules.template",
        )
    if names.names and profile.honor_extensions:
        raise RuleViolation(
            "either the CSR's alternative names are honoured or the profile's stand: set "
            "honor_extensions to false",
            code="rules_contradict",
            field="alternative_names.names",
        )
    if profile.sign_as_ca and (names.names or names.allowed is not None):
        raise RuleViolation(
            "a CA's certificate has no alternative names here; bound what it may issue by "
            "name_constraints",
            code="for_end_entities_only",
            field="alternative_names",
        )
    if not profile.sign_as_ca and profile.name_constraints != NameConstraints():
        raise RuleViolation(
            "name constraints are for CAs alone (RFC 5280 §4.2.1.10): set sign_as_ca, or bound "
            "the names by alternative_names.allowed",
            code="for_cas_only",
            field="name_constraints",
        )


def _check_urls(profile: IssuanceProfile) -> None:
    for field, urls in (
        ("extensions.authority_info_access.ocsp_server", profile.ocsp_servers),
        ("extensions.authority_info_access.ca_issuers", profile.ca_issuers),
        ("crl_distribution_points", profile.crl_distribution_points),
    ):
        sound = all(
            url.isascii()
            and url.isprintable()
            and " " not in url
            and len(url) <= _LONGEST_TEXT
            and url.lower().startswith(("http://", "https://", "ldap://"))
            for url in urls
        )
        if not sound or len(urls) > _MOST_URLS:
            raise RuleViolation(
                f"{field} holds at most {_MOST_URLS} URLs (http, https or ldap)",
                code="url_malformed",
                field=field,
            )


def keeping(
    profile: IssuanceProfile, previous: IssuanceProfile, kept: Collection[str]
) -> IssuanceProfile:
    """The profile with these fields of the previous one; `crypto_enforcement.x` is one within."""
    whole = [name for name in kept if "." not in name]
    within = [name.partition(".")[2] for name in kept if "." in name]
    profile = replace(profile, **{name: getattr(previous, name) for name in whole})
    keys = {name: getattr(previous.crypto_enforcement, name) for name in within}
    return replace(profile, crypto_enforcement=replace(profile.crypto_enforcement, **keys))


def check_for_end_entities(profile: IssuanceProfile, ca_id: str) -> None:
    """Refuse a profile that makes CAs, or that belongs to another CA (decision 18).

    Raises `Forbidden` (`profile_of_other_ca`), `RuleViolation` (`profile_signs_as_ca`).
    """
    if profile.sign_as_ca:
        raise RuleViolation(
            "this profile makes CAs; create one with POST /v1/cas",
            code="profile_signs_as_ca",
            field="profile",
        )
    if profile.ca_id is not None and profile.ca_id != ca_id:
        raise Forbidden(
            f"this profile is for the CA {profile.ca_id} only",
            code="profile_of_other_ca",
            field="profile",
        )


def check_for_ceremony(profile: IssuanceProfile) -> None:
    """Refuse what a request to an offline root cannot carry, rather than lose it on the way.

    Raises `RuleViolation` (`profile_not_for_ceremony`).
    """
    said = [
        name
        for name in (
            *("subject_rules", "name_constraints", "certificate_policies"),
            *("custom_extensions", "backdating"),
        )
        if getattr(profile, name) not in ((), None, SubjectRules(), NameConstraints())
    ]
    if said:
        raise RuleViolation(
            f"an offline root's ceremony decides without {', '.join(said)}; take a profile "
            "without them, or make the CA under a root whose key is here",
            code="profile_not_for_ceremony",
            field="ca_issuance_profile",
        )


def check_for_devices(profile: IssuanceProfile) -> None:
    """Refuse a profile under which a device would become an authority (security rule 12).

    Raises `RuleViolation` (`profile_grants_authority`).
    """
    granted = authority_usages(profile.extended_key_usages)
    if granted:
        raise RuleViolation(
            f"this profile grants {', '.join(sorted(granted))}, which no device may have",
            code="profile_grants_authority",
            field="profile",
        )


def check_key(
    profile: IssuanceProfile, key: KeyFacts, *, field: str, for_device: bool = False
) -> None:
    """Hold a subject's key against the profile's crypto enforcement. Ed25519 and ML-DSA keys
    have to be allowed by name, and never for a device: it could not renew, as the path
    validator takes no such client certificate.

    Raises `RuleViolation` (`crypto_enforcement`, `key_not_allowed`).
    """
    enforcement = profile.crypto_enforcement
    if key.algorithm in NEWER_KEYS and (for_device or not enforcement.enabled):
        raise RuleViolation("keys are RSA or ECDSA", code="key_not_allowed", field=field)
    if not enforcement.enabled:
        return
    allowed, sizes = _allowed_keys(enforcement)[key.algorithm]
    if not allowed:
        raise RuleViolation(
            f"this profile takes no {key.algorithm} keys", code="crypto_enforcement", field=field
        )
    if sizes is not None and key.size not in sizes:
        raise RuleViolation(
            f"this profile takes no {key.algorithm} keys of {key.size} bits",
            code="crypto_enforcement",
            field=field,
        )


def _allowed_keys(
    enforcement: CryptoEnforcement,
) -> dict[str, tuple[bool, tuple[int, ...] | None]]:
    return {
        "RSA": (enforcement.allow_rsa_keys, enforcement.allowed_rsa_key_sizes),
        "ECDSA": (enforcement.allow_ecdsa_keys, enforcement.allowed_ecdsa_key_sizes),
        "Ed25519": (enforcement.allow_ed25519_keys, None),
        "ML-DSA": (enforcement.allow_ml_dsa_keys, enforcement.allowed_ml_dsa_key_sizes),
    }
