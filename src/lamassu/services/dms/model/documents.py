"""DMSs as the wire spells them: in answers and in events alike.

What the original's tree lacks (`check_revocation`, `renewal_policy`, ...) stands beside it.
"""

from __future__ import annotations

import base64
from dataclasses import asdict
from datetime import datetime, timedelta

from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import KeyFacts, strength
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract import Certificate, IssuanceProfile
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.settings import (
    CaDistributionSettings,
    DmsSettings,
    EnrollmentSettings,
    EstAuthentication,
    ReenrollmentSettings,
    RevocationCheck,
    WebhookSettings,
)

ZERO_TIME = "0001-01-01T00:00:00Z"
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


def dms_document(dms: Dms) -> dict[str, Json]:
    """The DMS object of the wire."""
    return {
        "id": dms.id,
        "name": dms.name,
        "metadata": dms.metadata,
        "creation_ts": time_text(dms.created_at),
        "settings": settings_document(dms.settings),
    }


def settings_document(settings: DmsSettings) -> dict[str, Json]:
    """The settings tree of the wire."""
    keygen = settings.server_keygen
    document: dict[str, Json] = {
        "server_keygen_settings": {
            "enabled": keygen.enabled,
            "key": {"type": keygen.key_type, "bits": keygen.key_bits},
        },
        "enrollment_settings": _enrollment(settings.enrollment),
        "reenrollment_settings": _reenrollment(settings.reenrollment),
        "ca_distribution_settings": _distribution(settings.ca_distribution),
        "issuance_profile_id": settings.issuance_profile_id,
        "issuance_profile": _profile(settings.issuance_profile),
    }
    policy = settings.renewal_policy
    if policy is not None:
        document["renewal_policy"] = {
            "renewal_window_days": settings.reenrollment.renewal_window.days,
            "auto_renew_enabled": policy.auto_renew_enabled,
            "notification_days_before_expiry": policy.notification_days_before_expiry,
        }
    return document


def _enrollment(enrollment: EnrollmentSettings) -> Json:
    profile = enrollment.provisioning_profile
    return {
        "protocol": enrollment.protocol.value,
        "est_rfc7030_settings": _authentication(enrollment.authentication),
        "device_provisioning_profile": {
            "icon": profile.icon,
            "icon_color": profile.icon_color,
            "metadata": profile.json_metadata,
            "tags": profile.tags,
        },
        "enrollment_ca": enrollment.enrollment_ca,
        "enable_replaceable_enrollment": enrollment.enable_replaceable_enrollment,
        "registration_mode": enrollment.registration_mode.value,
        "verify_csr_signature": enrollment.verify_csr_signature,
    }


def _authentication(authentication: EstAuthentication) -> Json:
    certificate = authentication.client_certificate
    check = certificate.check_revocation
    document: dict[str, Json] = {
        "auth_mode": authentication.mode.value if authentication.mode else "",
        "client_certificate_settings": {
            "validation_cas": certificate.validation_cas,
            "chain_level_validation": certificate.chain_level_validation,
            "allow_expired": certificate.allow_expired,
            "require_valid_chain": certificate.require_valid_chain,
            "check_revocation": check.value
            if check is RevocationCheck.IF_AVAILABLE
            else check is RevocationCheck.REQUIRED,
            "single_use_bootstrap": certificate.single_use_bootstrap,
        },
    }
    if authentication.external_webhook is not None:
        document["external_webhook_settings"] = _webhook(authentication.external_webhook)
    return document


def _webhook(webhook: WebhookSettings) -> Json:
    config: dict[str, Json] = {
        "validate_server_cert": webhook.validate_server_cert,
        "log_level": webhook.log_level,
        "auth_mode": webhook.auth_mode,
        "oidc": {
            "client_id": webhook.oidc_client_id,
            "client_secret": "",
            "well_known": webhook.oidc_well_known,
        },
        "apikey": {"key": "", "header": webhook.apikey_header},
        "mtls": {"cert": "", "key": ""},
    }
    if webhook.call_timeout:
        config["call_timeout"] = duration_text(webhook.call_timeout)
    return {
        "name": webhook.name,
        "url": webhook.url,
        "method": webhook.method,
        "config": config,
    }


def _reenrollment(reenrollment: ReenrollmentSettings) -> Json:
    return {
        "est_rfc7030_settings": _authentication(reenrollment.authentication),
        "additional_validation_cas": reenrollment.additional_validation_cas,
        "revoke_on_reenrollment": reenrollment.revoke_on_reenrollment,
        "reenrollment_delta": duration_text(reenrollment.reenrollment_delta),
        "enable_expired_renewal": reenrollment.enable_expired_renewal,
        "preventive_delta": duration_text(reenrollment.preventive_delta),
        "critical_delta": duration_text(reenrollment.critical_delta),
    }


def _distribution(distribution: CaDistributionSettings) -> Json:
    return {
        "include_system_ca": distribution.include_system_ca,
        "include_enrollment_ca": distribution.include_enrollment_ca,
        "managed_cas": distribution.managed_cas,
    }


def _profile(profile: IssuanceProfile | None) -> Json:
    if profile is None:
        return None
    validity: dict[str, Json] = {
        "type": "Time" if profile.validity.not_after else "Duration",
        "time": time_text(profile.validity.not_after),
    }
    if profile.validity.duration:
        validity["duration"] = duration_text(profile.validity.duration)
    enforcement = profile.crypto_enforcement
    return {
        "id": profile.id,
        "name": profile.name,
        "description": profile.description,
        "validity": validity,
        "sign_as_ca": profile.sign_as_ca,
        "honor_key_usage": profile.honor_key_usage,
        "key_usage": profile.key_usage,
        "honor_extended_key_usages": profile.honor_extended_key_usages,
        "extended_key_usages": profile.extended_key_usages,
        "honor_subject": profile.honor_subject,
        "subject": asdict(profile.subject),
        "honor_extensions": profile.honor_extensions,
        "crypto_enforcement": {
            "enabled": enforcement.enabled,
            "allow_rsa_keys": enforcement.allow_rsa_keys,
            "allowed_rsa_key_sizes": enforcement.allowed_rsa_key_sizes,
            "allow_ecdsa_keys": enforcement.allow_ecdsa_keys,
            "allowed_ecdsa_key_sizes": enforcement.allowed_ecdsa_key_sizes,
        },
    }


def certificate_document(certificate: Certificate, now: datetime) -> dict[str, Json]:
    """The Certificate object of the wire, as it is at `now`."""
    facts = KeyFacts(certificate.key_algorithm, certificate.key_size)
    return {
        "serial_number": certificate.serial_number,
        "subject_key_id": certificate.subject_key_id,
        "authority_key_id": certificate.authority_key_id,
        "metadata": certificate.metadata,
        "status": certificate.status_at(now).value,
        "certificate": pem_text(certificate.der),
        "key_metadata": {
            "type": certificate.key_algorithm,
            "bits": certificate.key_size,
            "strength": strength(facts).value,
        },
        "subject": asdict(certificate.subject),
        "issuer": asdict(certificate.issuer),
        "valid_from": time_text(certificate.not_before),
        "valid_to": time_text(certificate.not_after),
        "extensions": {
            "key_usage": certificate.key_usage,
            "extended_key_usage": certificate.extended_key_usages,
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


def pem_text(der: bytes) -> str:
    """A certificate as JSON carries it: base64 of its PEM."""
    return base64.b64encode(pem_of(der)).decode("ascii")


def time_text(at: datetime | None) -> str:
    """RFC 3339 with `Z`; an absent time is year one, as clients of the original expect."""
    return ZERO_TIME if at is None else at.isoformat().replace("+00:00", "Z")


def duration_text(duration: timedelta) -> str:
    """Largest unit first, a year being 364 days (decision 13); zero is `0s`."""
    sign, left = ("-", -duration) if duration < timedelta(0) else ("", duration)
    parts: list[str] = []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return sign + "".join(parts) if parts else "0s"
