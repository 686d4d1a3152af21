"""Tell of a change: the event for others, the record for auditors, in the change's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json, Recorder
from lamassu.services.devices.documents import device_document
from lamassu.services.devices.model import StoredDevice, device_at, status_at
from lamassu.services.devices.ports import DeviceUnit

CREATE = "device.create"
IDENTITY_UPDATE = "device.identity.update"
STATUS_UPDATE = "device.status.update"
METADATA_UPDATE = "device.metadata.update"
DELETE = "device.delete"


def subject_of(device_id: str) -> str:
    """How events and audit records name a device."""
    return f"device/{device_id}"


def tell(
    recorder: Recorder,
    event_type: str,
    device: StoredDevice,
    data: Json,
    *,
    caller: Caller,
) -> None:
    """Emit an event about the device as it is after the change."""
    recorder.emit(Event(event_type, subject_of(device.id), device.version, data, caller))


def tell_update(
    unit: DeviceUnit,
    event_type: str,
    before: StoredDevice,
    after: StoredDevice,
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Emit an `….update` event with the device before and after."""
    tell(unit, event_type, after, change_document(before, after, now), caller=caller)


def change_document(before: StoredDevice, after: StoredDevice, now: datetime) -> Mapping[str, Json]:
    """The data of every `….update` event."""
    return {
        "previous": device_document(device_at(before, now)),
        "updated": device_document(device_at(after, now)),
    }


def tell_status(
    unit: DeviceUnit,
    before: StoredDevice,
    after: StoredDevice,
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Emit `device.status.update`, if the status did change."""
    if status_at(before, now) is not status_at(after, now):
        tell_update(unit, STATUS_UPDATE, before, after, caller=caller, now=now)


def record(
    recorder: Recorder,
    action: str,
    device: StoredDevice,
    *,
    caller: Caller,
    detail: Mapping[str, Json] | None = None,
) -> None:
    """Leave an audit record of a change that was made."""
    recorder.audit(
        AuditRecord(
            action,
            subject_of(device.id),
            caller,
            detail={"version": device.version, **(detail or {})},
        )
    )
