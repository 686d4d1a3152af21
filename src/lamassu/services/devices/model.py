"""A device as it is kept, what is read out of it, and how it changes.

What is kept is less than what is shown: the device's status follows from its slot, an expiry
from the clock, and the history from the certificates that the slot took. Nothing that can be
derived is stored, so nothing can disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from lamassu.kernel.records import Json
from lamassu.services.devices.contract import (
    BindMode,
    Device,
    DeviceStatus,
    IdentitySlot,
    SlotStatus,
    SlotVersion,
    TimelineEvent,
)

CREATED = "CREATED"
STATUS_UPDATED = "STATUS-UPDATED"
DECOMMISSIONED = "DECOMMISSIONED"

LIVE_SLOT = (SlotStatus.ACTIVE, SlotStatus.RENEWAL_PENDING, SlotStatus.EXPIRING_SOON)
"""Slot statuses that turn into `EXPIRED` when the certificate's end passes."""


class Scope(StrEnum):
    """Whose history a line belongs to."""

    DEVICE = "device"
    SLOT = "slot"


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """A line of history that no certificate of the slot tells."""

    scope: Scope
    at: datetime
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class BoundCertificate:
    """A certificate that the slot took: when, why, and what the device was until then."""

    number: int
    ca_id: str
    serial_number: str
    certificate_sha256: str
    mode: BindMode
    bound_at: datetime
    status_before: DeviceStatus
    first_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredSlot:
    """The identity slot as kept: `status` is never `EXPIRED`, that is read off the clock."""

    status: SlotStatus
    active_version: int
    versions: Sequence[BoundCertificate]
    expires_at: datetime

    @property
    def current(self) -> BoundCertificate:
        """The active certificate."""
        return next(v for v in self.versions if v.number == self.active_version)


@dataclass(frozen=True, slots=True)
class StoredDevice:
    """A device as kept. One that was deleted stays as a tombstone: its id is remembered."""

    id: str
    dms_id: str
    icon: str
    icon_color: str
    created_at: datetime
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    slot: StoredSlot | None = None
    timeline: Sequence[TimelineLine] = ()
    decommissioned_at: datetime | None = None
    deleted_at: datetime | None = None
    version: int = 1


def slot_status_at(slot: StoredSlot, now: datetime) -> SlotStatus:
    """The slot's status at `now`: a live one is expired once its certificate is (rule 29)."""
    if slot.status in LIVE_SLOT and now > slot.expires_at:
        return SlotStatus.EXPIRED
    return slot.status


def status_at(device: StoredDevice, now: datetime) -> DeviceStatus:
    """The device's status at `now`: its slot's, unless it has none or was retired."""
    if device.decommissioned_at is not None:
        return DeviceStatus.DECOMMISSIONED
    if device.slot is None:
        return DeviceStatus.NO_IDENTITY
    return DeviceStatus(slot_status_at(device.slot, now).value)


def device_at(device: StoredDevice, now: datetime) -> Device:
    """The device as others see it at `now`."""
    slot = device.slot
    return Device(
        id=device.id,
        dms_id=device.dms_id,
        status=status_at(device, now),
        icon=device.icon,
        icon_color=device.icon_color,
        created_at=device.created_at,
        tags=tuple(device.tags),
        metadata=device.metadata,
        slot=None
        if slot is None
        else IdentitySlot(
            status=slot_status_at(slot, now),
            active_version=slot.active_version,
            versions=tuple(_version(bound) for bound in slot.versions),
            expires_at=slot.expires_at,
            events=_slot_history(slot, device.timeline),
        ),
        events=_device_history(device),
        version=device.version,
    )


def _version(bound: BoundCertificate) -> SlotVersion:
    return SlotVersion(
        number=bound.number,
        ca_id=bound.ca_id,
        serial_number=bound.serial_number,
        certificate_sha256=bound.certificate_sha256,
        first_used_at=bound.first_used_at,
    )


def _slot_history(slot: StoredSlot, timeline: Sequence[TimelineLine]) -> Sequence[TimelineEvent]:
    events = [
        TimelineEvent(
            bound.bound_at,
            bound.mode.value,
            f"New Active Version set to {bound.number}" if bound.number else "",
        )
        for bound in slot.versions
    ]
    return _in_order(events, timeline, Scope.SLOT)


def _device_history(device: StoredDevice) -> Sequence[TimelineEvent]:
    events = [TimelineEvent(device.created_at, CREATED, "")]
    if device.slot is not None:
        events += [
            TimelineEvent(
                bound.bound_at,
                STATUS_UPDATED,
                describe_change(bound.status_before, DeviceStatus.ACTIVE),
            )
            for bound in device.slot.versions
            if bound.status_before is not DeviceStatus.ACTIVE
        ]
    return _in_order(events, device.timeline, Scope.DEVICE)


def _in_order(
    events: Sequence[TimelineEvent], timeline: Sequence[TimelineLine], scope: Scope
) -> Sequence[TimelineEvent]:
    told = [TimelineEvent(x.at, x.type, x.description) for x in timeline if x.scope is scope]
    return tuple(sorted([*events, *told], key=lambda event: event.at))


def describe_change(before: StrEnum, after: StrEnum) -> str:
    """What a `STATUS-UPDATED` line says."""
    return f"from {before.value} to {after.value}"


def with_certificate(
    device: StoredDevice, certificate: BoundCertificate, *, expires_at: datetime
) -> StoredDevice:
    """The device with a further certificate, now the active one."""
    earlier = device.slot.versions if device.slot else ()
    return replace(
        device,
        slot=StoredSlot(
            status=SlotStatus.ACTIVE,
            active_version=certificate.number,
            versions=(*earlier, certificate),
            expires_at=expires_at,
        ),
        version=device.version + 1,
    )


def with_slot_status(device: StoredDevice, status: SlotStatus, now: datetime) -> StoredDevice:
    """The device with its slot in `status`, and the lines that tell of it."""
    slot = device.slot
    if slot is None or slot.status is status or device.decommissioned_at is not None:
        return device
    changed = replace(device, slot=replace(slot, status=status), version=device.version + 1)
    before, after = slot_status_at(slot, now), slot_status_at(changed.slot or slot, now)
    if before is after:
        return changed
    line = describe_change(before, after)
    return replace(
        changed,
        timeline=(
            *device.timeline,
            TimelineLine(Scope.SLOT, now, STATUS_UPDATED, line),
            TimelineLine(Scope.DEVICE, now, STATUS_UPDATED, line),
        ),
    )


def retired(device: StoredDevice, now: datetime) -> StoredDevice:
    """The device for good out of service; a live slot is revoked with it."""
    slot = device.slot
    lines = [TimelineLine(Scope.DEVICE, now, DECOMMISSIONED, "")]
    if slot is not None and (before := slot_status_at(slot, now)) in LIVE_SLOT:
        lines.append(
            TimelineLine(
                Scope.SLOT, now, STATUS_UPDATED, describe_change(before, SlotStatus.REVOKED)
            )
        )
        slot = replace(slot, status=SlotStatus.REVOKED)
    return replace(
        device,
        slot=slot,
        timeline=(*device.timeline, *lines),
        decommissioned_at=now,
        version=device.version + 1,
    )


def with_metadata(device: StoredDevice, metadata: Mapping[str, Json]) -> StoredDevice:
    """The device with other metadata."""
    return replace(device, metadata=metadata, version=device.version + 1)


def buried(device: StoredDevice, now: datetime) -> StoredDevice:
    """The tombstone of a deleted device: the id, and nothing that described the device."""
    return replace(
        device,
        tags=(),
        metadata={},
        slot=None,
        timeline=(),
        deleted_at=now,
        version=device.version + 1,
    )
