"""Issuance profiles as JSON: the original's fields, and ours only where they say something."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_duration, format_time_or_zero
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract.profiles import (
    AlternativeNameRules,
    CryptoEnforcement,
    IssuanceProfile,
    IssuerEnd,
    NameConstraints,
    NamedValue,
    SubjectRules,
    Validity,
)

_NO_PATTERNS = Subject()


def profile_document(profile: IssuanceProfile) -> dict[str, Json]:
    """An issuance profile as the wire has it."""
    return {
        "id": profile.id,
        "name": profile.name,
        "description": profile.description,
        "validity": validity_document(profile.validity),
        "sign_as_ca": profile.sign_as_ca,
        "honor_key_usage": profile.honor_key_usage,
        "key_usage": list(profile.key_usage),
        "honor_extended_key_usages": profile.honor_extended_key_usages,
        "extended_key_usages": list(profile.extended_key_usages),
        "honor_subject": profile.honor_subject,
        "subject": subject_document(profile.subject),
        "honor_extensions": profile.honor_extensions,
        "crypto_enforcement": _enforcement(profile.crypto_enforcement),
        **_periods(profile),
        **_contents(profile),
        **_addresses(profile),
    }


def subject_document(subject: Subject) -> dict[str, Json]:
    """The six attributes."""
    return {
        "common_name": subject.common_name,
        "organization": subject.organization,
        "organization_unit": subject.organization_unit,
        "country": subject.country,
        "state": subject.state,
        "locality": subject.locality,
    }


def validity_document(validity: Validity) -> dict[str, Json]:
    """`duration` is left out when it is zero, `time` always stands, as in the original."""
    document: dict[str, Json] = {"type": "Duration" if validity.not_after is None else "Time"}
    if validity.duration is not None:
        document["duration"] = format_duration(validity.duration)
    document["time"] = format_time_or_zero(validity.not_after)
    return document


def _enforcement(enforcement: CryptoEnforcement) -> dict[str, Json]:
    document: dict[str, Json] = {
        "enabled": enforcement.enabled,
        "allow_rsa_keys": enforcement.allow_rsa_keys,
        "allowed_rsa_key_sizes": _sizes(enforcement.allowed_rsa_key_sizes),
        "allow_ecdsa_keys": enforcement.allow_ecdsa_keys,
        "allowed_ecdsa_key_sizes": _sizes(enforcement.allowed_ecdsa_key_sizes),
    }
    if enforcement.allow_ed25519_keys:
        document["allow_ed25519_keys"] = True
    if enforcement.allow_ml_dsa_keys:
        document["allow_ml_dsa_keys"] = True
    if enforcement.allowed_ml_dsa_key_sizes is not None:
        document["allowed_ml_dsa_key_sizes"] = _sizes(enforcement.allowed_ml_dsa_key_sizes)
    return document


def _periods(profile: IssuanceProfile) -> dict[str, Json]:
    document: dict[str, Json] = {}
    if profile.minimum_validity is not None:
        document["minimum_validity"] = format_duration(profile.minimum_validity)
    if profile.backdating is not None:
        document["backdating"] = format_duration(profile.backdating)
    if profile.at_issuer_end is not IssuerEnd.CLAMP:
        document["at_issuer_end"] = profile.at_issuer_end.value
    return document


def _contents(profile: IssuanceProfile) -> dict[str, Json]:
    document: dict[str, Json] = {}
    if profile.path_length is not None:
        document["path_length"] = profile.path_length
    if profile.subject_rules != SubjectRules():
        document["subject_rules"] = _subject_rules(profile.subject_rules)
    if profile.alternative_names != AlternativeNameRules():
        document["alternative_names"] = _alternative_names(profile.alternative_names)
    if profile.name_constraints != NameConstraints():
        document["name_constraints"] = {
            "permitted": _named(profile.name_constraints.permitted),
            "excluded": _named(profile.name_constraints.excluded),
        }
    if profile.certificate_policies:
        document["certificate_policies"] = [
            {"oid": policy.oid, "cps_uri": policy.cps_uri}
            for policy in profile.certificate_policies
        ]
    if profile.custom_extensions:
        document["custom_extensions"] = [
            {
                "oid": extension.oid,
                "critical": extension.critical,
                "value": base64.b64encode(extension.value).decode("ascii"),
            }
            for extension in profile.custom_extensions
        ]
    return document


def _addresses(profile: IssuanceProfile) -> dict[str, Json]:
    document: dict[str, Json] = {}
    if profile.ca_id is not None:
        document["ca_id"] = profile.ca_id
    if profile.ocsp_servers or profile.ca_issuers:
        document["extensions"] = {
            "authority_info_access": {
                "ocsp_server": list(profile.ocsp_servers),
                "ca_issuers": list(profile.ca_issuers),
            }
        }
    if profile.crl_distribution_points:
        document["crl_distribution_points"] = list(profile.crl_distribution_points)
    return document


def _subject_rules(rules: SubjectRules) -> dict[str, Json]:
    document: dict[str, Json] = {}
    if rules.template is not None:
        document["template"] = subject_document(rules.template)
    if rules.patterns != _NO_PATTERNS:
        document["patterns"] = subject_document(rules.patterns)
    return document


def _alternative_names(rules: AlternativeNameRules) -> dict[str, Json]:
    document: dict[str, Json] = {}
    if rules.names:
        document["names"] = _named(rules.names)
    if rules.allowed is not None:
        document["allowed"] = [
            {"type": one.type.value, "patterns": list(one.patterns)} for one in rules.allowed
        ]
    return document


def _named(names: Sequence[NamedValue]) -> Json:
    return [{"type": name.type.value, "value": name.value} for name in names]


def _sizes(sizes: Sequence[int] | None) -> Json:
    return None if sizes is None else list(sizes)
