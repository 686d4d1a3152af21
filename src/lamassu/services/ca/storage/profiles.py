"""Issuance profiles as rows, and what was enrolled under them.

Durations are seconds, octets base64; what is absent is default.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    AllowedNames,
    AlternativeNameRules,
    CertificatePolicy,
    CryptoEnforcement,
    CustomExtension,
    IssuanceProfile,
    IssuerEnd,
    NameConstraints,
    NamedValue,
    NameType,
    SubjectRules,
    Validity,
)
from lamassu.services.ca.model import RecordedEnrolment
from lamassu.services.ca.storage.tables import certificates

_PLAIN = frozenset(
    {
        *("description", "sign_as_ca", "path_length", "honor_key_usage", "key_usage"),
        *("honor_extended_key_usages", "extended_key_usages", "honor_subject"),
        *("honor_extensions", "ca_id", "ocsp_servers", "ca_issuers", "crl_distribution_points"),
    }
)
_SUBJECT = [field.name for field in fields(Subject)]


def profile_of(row: Row[Any]) -> IssuanceProfile:
    """From a row of `tables.profiles`."""
    content: Mapping[str, Any] = row.content
    enforcement = {key: _tuples(value) for key, value in content["crypto_enforcement"].items()}
    return IssuanceProfile(
        id=row.id,
        name=row.name,
        version=row.version,
        subject=Subject(**content["subject"]),
        crypto_enforcement=CryptoEnforcement(**enforcement),
        validity=Validity(
            duration=_duration(content["validity"].get("seconds")),
            not_after=_time(content["validity"].get("not_after")),
        ),
        minimum_validity=_duration(content.get("minimum_validity")),
        backdating=_duration(content.get("backdating")),
        at_issuer_end=IssuerEnd(content.get("at_issuer_end", IssuerEnd.CLAMP)),
        subject_rules=_subject_rules(content.get("subject_rules") or {}),
        alternative_names=_alternative_names(content.get("alternative_names") or {}),
        name_constraints=_name_constraints(content.get("name_constraints") or {}),
        certificate_policies=tuple(
            CertificatePolicy(**policy) for policy in content.get("certificate_policies") or ()
        ),
        custom_extensions=tuple(
            CustomExtension(one["oid"], one["critical"], base64.b64decode(one["value"]))
            for one in content.get("custom_extensions") or ()
        ),
        **{key: _tuples(value) for key, value in content.items() if key in _PLAIN},
    )


def values_of_profile(profile: IssuanceProfile) -> dict[str, object]:
    """The whole row of a profile."""
    validity = profile.validity
    content: dict[str, object] = {name: getattr(profile, name) for name in _PLAIN}
    content |= {
        "validity": {
            "seconds": _seconds(validity.duration),
            "not_after": validity.not_after.isoformat() if validity.not_after else None,
        },
        "minimum_validity": _seconds(profile.minimum_validity),
        "backdating": _seconds(profile.backdating),
        "at_issuer_end": profile.at_issuer_end.value,
        "subject": _named(profile.subject),
        "subject_rules": {
            "template": _named(template) if (template := profile.subject_rules.template) else None,
            "patterns": _named(profile.subject_rules.patterns),
        },
        "alternative_names": asdict(profile.alternative_names),
        "name_constraints": asdict(profile.name_constraints),
        "certificate_policies": [asdict(policy) for policy in profile.certificate_policies],
        "custom_extensions": [
            {
                "oid": extension.oid,
                "critical": extension.critical,
                "value": base64.b64encode(extension.value).decode("ascii"),
            }
            for extension in profile.custom_extensions
        ],
        "crypto_enforcement": asdict(profile.crypto_enforcement),
    }
    return {
        "id": profile.id,
        "name": profile.name,
        "content": content,
        "version": profile.version,
    }


async def enrolments_in(
    connection: AsyncConnection, profile_id: str, *, after: str, limit: int
) -> list[RecordedEnrolment]:
    """A page of what was issued for CSRs under a profile; by an index, whatever went before."""
    c = certificates.c
    query = (
        select(c.serial_number, c.common_name, c.issuer_ca_id, c.owner, c.device_id, c.csr)
        .where(c.profile_id == profile_id, c.serial_number > after, c.csr.is_not(None))
        .order_by(c.serial_number)
        .limit(limit)
    )
    return [
        RecordedEnrolment(
            serial_number=row.serial_number,
            common_name=row.common_name,
            issuer_ca_id=row.issuer_ca_id,
            owner=row.owner,
            device_id=row.device_id,
            csr=bytes(row.csr),
        )
        for row in await connection.execute(query)
    ]


def _subject_rules(stored: Mapping[str, Any]) -> SubjectRules:
    template = stored.get("template")
    return SubjectRules(
        template=None if template is None else Subject(**template),
        patterns=Subject(**(stored.get("patterns") or {})),
    )


def _alternative_names(stored: Mapping[str, Any]) -> AlternativeNameRules:
    allowed = stored.get("allowed")
    return AlternativeNameRules(
        names=_names(stored.get("names") or ()),
        allowed=None
        if allowed is None
        else tuple(AllowedNames(NameType(one["type"]), tuple(one["patterns"])) for one in allowed),
    )


def _name_constraints(stored: Mapping[str, Any]) -> NameConstraints:
    return NameConstraints(
        permitted=_names(stored.get("permitted") or ()),
        excluded=_names(stored.get("excluded") or ()),
    )


def _names(stored: Sequence[Mapping[str, str]]) -> tuple[NamedValue, ...]:
    return tuple(NamedValue(NameType(one["type"]), one["value"]) for one in stored)


def _named(subject: Subject) -> dict[str, str]:
    return {name: value for name in _SUBJECT if (value := getattr(subject, name))}


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
