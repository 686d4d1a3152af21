"""DMSs as the wire spells them: in answers and in events alike.

What the original's tree lacks (`check_revocation`, `renewal_policy`, ...) stands beside it.
"""

from __future__ import annotations

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_duration, format_time
from lamassu.services.ca.contract import IssuanceProfile, profile_document
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

# what the original writes where nothing is set
_NO_KEY_TYPE = "0"
_NO_WEBHOOK = WebhookSettings(validate_server_cert=False)


def dms_document(dms: Dms) -> dict[str, Json]:
    """The DMS object of the wire."""
    return {
        "id": dms.id,
        "name": dms.name,
        "metadata": dms.metadata,
        "creation_ts": format_time(dms.created_at),
        "settings": settings_document(dms.settings),
    }


def settings_document(settings: DmsSettings) -> dict[str, Json]:
    """The settings tree of the wire."""
    keygen = settings.server_keygen
    document: dict[str, Json] = {
        "server_keygen_settings": {
            "enabled": keygen.enabled,
            "key": {"type": keygen.key_type or _NO_KEY_TYPE, "bits": keygen.key_bits},
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
    return {
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
        "external_webhook_settings": _webhook(authentication.external_webhook or _NO_WEBHOOK),
    }


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
        config["call_timeout"] = format_duration(webhook.call_timeout)
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
        "reenrollment_delta": format_duration(reenrollment.reenrollment_delta),
        "enable_expired_renewal": reenrollment.enable_expired_renewal,
        "preventive_delta": format_duration(reenrollment.preventive_delta),
        "critical_delta": format_duration(reenrollment.critical_delta),
    }


def _distribution(distribution: CaDistributionSettings) -> Json:
    return {
        "include_system_ca": distribution.include_system_ca,
        "include_enrollment_ca": distribution.include_enrollment_ca,
        "managed_cas": distribution.managed_cas,
    }


def _profile(profile: IssuanceProfile | None) -> Json:
    return None if profile is None else profile_document(profile)
