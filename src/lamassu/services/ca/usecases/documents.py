"""Resources as JSON: what events carry and what the routes answer, from one place."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import KeyFacts, strength
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract import (
    Certificate,
    CertificationAuthority,
    IssuanceProfile,
    Validity,
)
from lamassu.services.kms.contract import Engine

ZERO_TIME = "0001-01-01T00:00:00Z"


def ca_document(authority: CertificationAuthority, now: datetime) -> dict[str, Json]:
    """A CA as the wire has it."""
    return {
        "id": authority.id,
        "certificate": certificate_document(authority.certificate, now),
        "serial_number": authority.certificate.serial_number,
        "metadata": dict(authority.metadata),
        "creation_ts": time_text(authority.created_at),
        "level": authority.level,
        "profile_id": authority.profile_id,
    }


def certificate_document(certificate: Certificate, now: datetime) -> dict[str, Json]:
    """A certificate as the wire has it; `now` decides whether it is expired."""
    facts = KeyFacts(certificate.key_algorithm, certificate.key_size)
    return {
        "serial_number": certificate.serial_number,
        "subject_key_id": certificate.subject_key_id,
        "authority_key_id": certificate.authority_key_id,
        "metadata": dict(certificate.metadata),
        "status": certificate.status_at(now).value,
        "certificate": base64.b64encode(pem_of(certificate.der)).decode("ascii"),
        "key_metadata": {
            "type": facts.algorithm,
            "bits": facts.size,
            "strength": strength(facts).value,
        },
        "subject": subject_document(certificate.subject),
        "issuer": subject_document(certificate.issuer),
        "valid_from": time_text(certificate.not_before),
        "valid_to": time_text(certificate.not_after),
        "extensions": {
            "key_usage": list(certificate.key_usage),
            "extended_key_usage": list(certificate.extended_key_usages),
        },
        "issuer_metadata": {
            "serial_number": certificate.issuer_serial_number,
            "id": certificate.issuer_ca_id,
            "level": certificate.issuer_level,
        },
        "revocation_timestamp": time_text(certificate.revocation_time),
        "revocation_reason": certificate.revocation_reason.value,
        "type": certificate.type.value,
        "engine_id": certificate.engine_id,
        "is_ca": certificate.is_ca,
    }


def profile_document(profile: IssuanceProfile) -> dict[str, Json]:
    """An issuance profile as the wire has it; the seed's fields only where they say something."""
    enforcement = profile.crypto_enforcement
    document: dict[str, Json] = {
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
        "crypto_enforcement": {
            "enabled": enforcement.enabled,
            "allow_rsa_keys": enforcement.allow_rsa_keys,
            "allowed_rsa_key_sizes": _sizes(enforcement.allowed_rsa_key_sizes),
            "allow_ecdsa_keys": enforcement.allow_ecdsa_keys,
            "allowed_ecdsa_key_sizes": _sizes(enforcement.allowed_ecdsa_key_sizes),
        },
    }
    if profile.minimum_validity is not None:
        document["minimum_validity"] = duration_text(profile.minimum_validity)
    if profile.path_length is not None:
        document["path_length"] = profile.path_length
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
        document["duration"] = duration_text(validity.duration)
    document["time"] = time_text(validity.not_after)
    return document


def engine_document(engine: Engine) -> dict[str, Json]:
    """A crypto engine as the KMS shows it (decision 12)."""
    return {
        "type": engine.type,
        "security_level": engine.security_level,
        "provider": engine.provider,
        "name": engine.name,
        "metadata": dict(engine.metadata),
        "supported_key_types": [
            {"type": algorithm.value, "sizes": list(sizes)}
            for algorithm, sizes in engine.supported.items()
        ],
        "id": engine.id,
        "default": engine.default,
    }


def update_document(
    previous: Mapping[str, Json], updated: Mapping[str, Json]
) -> Mapping[str, Json]:
    """The data of every `*.update` event."""
    return {"previous": previous, "updated": updated}


def time_text(time: datetime | None) -> str:
    """RFC 3339 in UTC; the zero time for none."""
    if time is None:
        return ZERO_TIME
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{text.rstrip('0') if '.' in text else text}Z"


_UNITS = (
    ("y", timedelta(days=364)),
    ("w", timedelta(weeks=1)),
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
    ("us", timedelta(microseconds=1)),
)


def duration_text(duration: timedelta) -> str:
    """Largest unit first (`1y1d`); a year has 364 days on this wire."""
    parts: list[str] = []
    rest = duration
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _sizes(sizes: Sequence[int] | None) -> Json:
    return None if sizes is None else list(sizes)
