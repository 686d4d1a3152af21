"""What may be done to a device: values in, verdict out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.errors import Conflict, RuleViolation, WrongState
from lamassu.kernel.x509.names import prepared, text_fault
from lamassu.services.ca.contract import Certificate, CertificateStanding, CertificateStatus
from lamassu.services.devices.contract import Binding, BindMode, NewDevice, SlotStatus
from lamassu.services.devices.model import LIVE_SLOT, StoredDevice, StoredSlot, slot_status_at

LONGEST_ID = 255
NO_ISSUER = "-"
ATTACHED_TO = "lamassu.io/ra/attached-to"


@dataclass(frozen=True, slots=True)
class SlotUpdate:
    """The slot that a client wants: version numbers to serial numbers, all of them."""

    status: SlotStatus
    active_version: int
    versions: Mapping[int, str]


def lookalike_key(device_id: str) -> str:
    """What two ids have in common that people would read as one (rule 15)."""
    return prepared(device_id)


def check_new_device(new: NewDevice) -> None:
    """Refuse a device without id, owner or looks, in the words that old clients know."""
    for field, value in (
        ("id", new.id),
        ("dms_id", new.dms_id),
        ("icon", new.icon),
        ("icon_color", new.icon_color),
    ):
        if not value:
            raise RuleViolation("struct validation error", code="field_required", field=field)
    for field, value in (("id", new.id), ("dms_id", new.dms_id)):
        if fault := text_fault(value, LONGEST_ID):
            raise RuleViolation(f"{field} {fault}", code="malformed_id", field=field)


def check_judged(device: StoredDevice, binding: Binding) -> None:
    """Refuse a binding that was decided on another state of the device (rule 13).

    Raises `Conflict` (`device_changed`).
    """
    if device.version != binding.judged_version:
        raise device_changed()
    if device.decommissioned_at is not None or device.dms_id != binding.dms_id:
        raise device_changed()
    if (device.slot is None) is not (binding.mode is BindMode.PROVISIONED):
        raise device_changed()


def device_changed() -> Conflict:
    """The device is no longer what it was when somebody decided about it."""
    return Conflict("device changed meanwhile; try again", code="device_changed")


def check_deletable(device: StoredDevice) -> None:
    """Refuse to delete a device that is in service. Raises `WrongState`."""
    if device.decommissioned_at is None:
        raise WrongState(
            "device status does not allow this operation", code="device_not_decommissioned"
        )


def added_version(slot: StoredSlot | None, update: SlotUpdate) -> tuple[int, str] | None:
    """The one certificate that `update` adds to the slot, as number and serial number.

    Versions are only appended, and the last one is the active one. Raises `RuleViolation`.
    """
    stored = {v.number: v.serial_number for v in slot.versions} if slot else {}
    wanted = dict(update.versions)
    if any(wanted.pop(number, None) != serial for number, serial in stored.items()):
        raise RuleViolation(
            "versions of a slot are never changed or dropped; send them all",
            code="slot_versions_changed",
            field="versions",
        )
    following = max(stored, default=-1) + 1
    if wanted and list(wanted) != [following]:
        raise RuleViolation(
            f"a slot takes one certificate at a time, the next one as version {following}",
            code="slot_versions_not_consecutive",
            field="versions",
        )
    if not stored and not wanted:
        raise RuleViolation(
            "device has no identity; name its certificate under versions",
            code="slot_without_certificate",
            field="versions",
        )
    if update.active_version != following - (not wanted):
        raise RuleViolation(
            "the active version is the last one", code="slot_not_last", field="active_version"
        )
    return (following, wanted[following]) if wanted else None


def check_belongs(certificate: Certificate | None, device_id: str, now: datetime) -> Certificate:
    """Refuse a certificate that is not an active one of ours for this device.

    Raises `RuleViolation` (field `versions`).
    """
    fault = None
    if certificate is None or certificate.issuer_ca_id in ("", NO_ISSUER):
        fault = "is not a certificate of ours"
    elif certificate.is_ca or certificate.subject.common_name != device_id:
        fault = "is not for this device"
    elif certificate.status_at(now) is not CertificateStatus.ACTIVE:
        fault = "is not active"
    if fault is not None or certificate is None:
        raise RuleViolation(
            f"the serial number {fault}", code="certificate_not_for_device", field="versions"
        )
    return certificate


def followed_status(slot: StoredSlot, standing: CertificateStanding) -> SlotStatus:
    """The slot's status as its certificate's standing wants it, whatever led there.

    Depends on the two values only, not on the order in which events told of them.
    """
    if not standing.known:
        return slot.status
    if standing.revoked:
        return SlotStatus.REVOKED
    return SlotStatus.ACTIVE if slot.status is SlotStatus.REVOKED else slot.status


def check_settable(
    slot: StoredSlot, status: SlotStatus, standing: CertificateStanding, now: datetime
) -> None:
    """Refuse a status that contradicts the certificate. Raises `RuleViolation`.

    Revoking is no status to set: it is done at the CA, and the slot follows.
    """
    live = slot_status_at(slot, now) in LIVE_SLOT and not standing.revoked
    if status not in LIVE_SLOT or not live:
        raise RuleViolation(
            "the slot's status follows its certificate; revoke, release or renew that",
            code="slot_status_follows_certificate",
            field="status",
        )
