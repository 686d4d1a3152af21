"""Register a device that has no identity yet."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json, Recorder
from lamassu.services.devices.contract import Device, NewDevice
from lamassu.services.devices.documents import device_document
from lamassu.services.devices.model import StoredDevice, device_at
from lamassu.services.devices.ports import DeviceStore
from lamassu.services.devices.rules import check_new_device
from lamassu.services.devices.usecases import journal


async def create_device(
    store: DeviceStore, clock: Clock, new: NewDevice, *, caller: Caller
) -> Device:
    """Create it. A deleted id may come back this way, as a new device (rule 17).

    Raises `RuleViolation`, or `Conflict` (`device_exists`).
    """
    check_new_device(new)
    now = clock.now()
    async with store.unit() as unit:
        found = await unit.lock(new.id)
        device = new_device(new, now)
        if found is None:
            await unit.insert(device)
        elif found.deleted_at is not None:
            device = replace(device, version=found.version + 1)
            await unit.update(device, read_version=found.version)
        else:
            raise Conflict("device already exists", code="device_exists", field="id")
        tell_creation(unit, device, device_document(device_at(device, now)), caller=caller)
    return device_at(device, now)


def new_device(new: NewDevice, now: datetime) -> StoredDevice:
    """The device in its first state."""
    return StoredDevice(
        id=new.id,
        dms_id=new.dms_id,
        icon=new.icon,
        icon_color=new.icon_color,
        created_at=now,
        tags=tuple(new.tags),
        metadata=dict(new.metadata),
    )


def tell_creation(
    recorder: Recorder, device: StoredDevice, document: Json, *, caller: Caller
) -> None:
    """Event and audit record of a device that now exists; `document` shows it."""
    journal.tell(recorder, journal.CREATE, device, document, caller=caller)
    journal.record(
        recorder, journal.CREATE, device, caller=caller, detail={"dms_id": device.dms_id}
    )
