"""May this device have a certificate of this DMS? (security rules 15 to 17)"""

from __future__ import annotations

from lamassu.kernel.errors import Conflict, Forbidden, RuleViolation
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.names import text_fault
from lamassu.services.devices.contract import Device, DeviceStatus
from lamassu.services.dms.model.dms import BootstrapUse, Dms
from lamassu.services.dms.model.settings import RegistrationMode

LONGEST_ID = 64  # RFC 5280's upper bound of a common name


def device_id_of(csr: CertificateRequest) -> str:
    """The id of the device that the CSR is for: its one common name.

    Raises `RuleViolation` when there is none or it cannot be an id, `Forbidden`
    (`second_common_name`) when there are several: two readers would see two devices.
    """
    if not csr.common_names:
        raise RuleViolation("no CommonName in CSR", code="common_name_missing", field="csr")
    if len(csr.common_names) > 1:
        raise Forbidden(
            "more than one CommonName in CSR; name one device",
            code="second_common_name",
            field="csr",
        )
    name = csr.common_names[0]
    fault = text_fault(name, LONGEST_ID)
    if fault is None and (name != name.strip() or "/" in name or name in (".", "..")):
        fault = "cannot be a device id: no blanks around it, no slash"
    if fault is not None:
        raise RuleViolation(f"CommonName {fault}", code="device_id_invalid", field="csr")
    return name


def check_owner(device: Device, dms: Dms) -> None:
    """Raises `Forbidden` (`device_of_other_dms`)."""
    if device.dms_id != dms.id:
        raise Forbidden(
            "device already registered to another DMS", code="device_of_other_dms", field="csr"
        )


def check_in_service(device: Device) -> None:
    """A device that was revoked or retired gets nothing until it is released (rule 17).

    Raises `Forbidden` (`device_revoked`, `device_decommissioned`).
    """
    if device.status is DeviceStatus.DECOMMISSIONED:
        raise Forbidden("device was decommissioned", code="device_decommissioned")
    if device.status is DeviceStatus.REVOKED:
        raise device_revoked()


def device_revoked() -> Forbidden:
    """The refusal of a device whose identity was revoked."""
    return Forbidden(
        "device was revoked; release or delete it before it enrolls again", code="device_revoked"
    )


def check_certificate_of(owner: Device | None, device_id: str) -> None:
    """A certificate that is or was in a slot speaks for that device only (rule 16).

    Raises `Forbidden` (`certificate_of_other_device`).
    """
    if owner is not None and owner.id != device_id:
        raise Forbidden(
            "the client certificate belongs to another device than the CSR names",
            code="certificate_of_other_device",
            field="csr",
        )


def is_first_use(holder: Device, certificate_sha256: str) -> bool:
    """Whether a certificate of the device's slot is shown for the first time."""
    versions = holder.slot.versions if holder.slot else ()
    return any(
        version.certificate_sha256 == certificate_sha256 and version.first_used_at is None
        for version in versions
    )


def check_may_be_created(dms: Dms, *, was_deleted: bool, lookalike: str | None) -> None:
    """May enrolment create a device that there is not?

    Raises `Forbidden` (`device_not_preregistered`, `device_deleted`) or `Conflict`
    (`device_id_lookalike`).
    """
    if dms.settings.enrollment.registration_mode is not RegistrationMode.JITP:
        raise not_preregistered()
    if was_deleted:
        raise Forbidden(
            "device was deleted; an operator has to create it anew", code="device_deleted"
        )
    if lookalike is not None:
        raise Conflict(
            "another device has this id but for case or spacing",
            code="device_id_lookalike",
            field="csr",
        )


def not_preregistered() -> Forbidden:
    """The refusal of a device that nobody announced."""
    return Forbidden("device not preregistered", code="device_not_preregistered")


def check_bootstrap_unspent(use: BootstrapUse | None, *, dms_id: str, device_id: str) -> None:
    """A single-use certificate enrolls one device, in one DMS (decision 27).

    Raises `Forbidden` (`bootstrap_spent`).
    """
    if use is not None and (use.device_id, use.dms_id) != (device_id, dms_id):
        raise bootstrap_spent()


def bootstrap_spent() -> Forbidden:
    """The refusal of a single-use certificate that did its work."""
    return Forbidden(
        "the bootstrap certificate was used already; it enrolls once", code="bootstrap_spent"
    )


def check_replaceable(dms: Dms) -> None:
    """May the identity of a device in use be replaced? Raises `Conflict`."""
    if not dms.settings.enrollment.enable_replaceable_enrollment:
        raise Conflict("forbiddenNewEnrollment", code="device_in_use", field="csr")
