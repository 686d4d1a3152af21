"""What a DMS may say of itself, and whether it says enough to enroll."""

from __future__ import annotations

from datetime import timedelta

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.x509.names import text_fault
from lamassu.kernel.x509.usages import authority_usages
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.settings import AuthMode, DmsSettings, EstAuthentication

LONGEST_ID = 255
LONGEST_DELTA = timedelta(days=36_500)
_BUILT = (None, AuthMode.CLIENT_CERTIFICATE)


def check_names(dms_id: str, name: str) -> None:
    """A DMS id is a path segment of its EST URL. Raises `RuleViolation`."""
    for field, value in (("id", dms_id), ("name", name)):
        if not value:
            raise RuleViolation("struct validation error", code="missing_field", field=field)
        if fault := text_fault(value, LONGEST_ID):
            raise RuleViolation(f"{field} {fault}", code="invalid_value", field=field)
    if "/" in dms_id or dms_id in (".", "..") or dms_id != dms_id.strip():
        raise RuleViolation(
            "id must be a path segment: no slash, no blanks around it, not . or ..",
            code="invalid_value",
            field="id",
        )


def check_settings(settings: DmsSettings, *, production: bool) -> None:
    """What can be judged without asking anybody. Raises `RuleViolation`."""
    enrollment, reenrollment = settings.enrollment, settings.reenrollment
    authentications = (
        ("settings.enrollment_settings", enrollment.authentication),
        ("settings.reenrollment_settings", reenrollment.authentication),
    )
    for path, authentication in authentications:
        if production and authentication.mode is AuthMode.NO_AUTH:
            raise RuleViolation(
                "NO_AUTH lets anybody enroll: refused in production; use CLIENT_CERTIFICATE",
                code="no_auth_in_production",
                field=f"{path}.est_rfc7030_settings.auth_mode",
            )
    for name in ("reenrollment_delta", "preventive_delta", "critical_delta"):
        delta: timedelta = getattr(reenrollment, name)
        if not timedelta(0) <= delta <= LONGEST_DELTA:
            raise RuleViolation(
                f"{name} must be between 0s and 100 years",
                code="out_of_range",
                field=f"settings.reenrollment_settings.{name}",
            )
    if settings.issuance_profile is not None:
        check_profile_for_devices(
            settings.issuance_profile, enrollment.enrollment_ca, field="settings.issuance_profile"
        )


def check_profile_for_devices(profile: IssuanceProfile, ca_id: str, *, field: str) -> None:
    """A DMS makes no CAs and no authorities (rule 12); a CA's own profile is for that CA.

    Raises `RuleViolation`: `profile_signs_cas`, `profile_grants_authority`,
    `profile_of_other_ca`.
    """
    if profile.sign_as_ca:
        raise RuleViolation(
            "a DMS issues end-entity certificates only; its profile may not have sign_as_ca",
            code="profile_signs_cas",
            field=field,
        )
    granted = authority_usages(profile.extended_key_usages)
    if granted:
        raise RuleViolation(
            f"the profile grants {', '.join(sorted(granted))}, which no device may have;"
            " name a profile without it",
            code="profile_grants_authority",
            field=field,
        )
    if profile.ca_id and ca_id and profile.ca_id != ca_id:
        raise RuleViolation(
            f"the profile is for the CA {profile.ca_id} only",
            code="profile_of_other_ca",
            field=field,
        )


def check_can_enroll(dms: Dms, authentication: EstAuthentication) -> None:
    """Is all there that enrolment needs? A mode not built yet is no weaker check (decision 28).

    Raises `Unavailable` (`not_available`, `dms_incomplete`).
    """
    if authentication.mode not in _BUILT:
        raise Unavailable(
            f"authentication mode {authentication.mode} is not available yet; "
            "use CLIENT_CERTIFICATE",
            code="not_available",
        )
    if not dms.settings.enrollment.enrollment_ca:
        raise Unavailable(
            "the DMS has no enrollment_ca yet; its operator has to name one",
            code="dms_incomplete",
        )
