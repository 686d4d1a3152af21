"""Change a device's metadata by JSON patches, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch, apply_to_object
from lamassu.services.devices.contract import Device
from lamassu.services.devices.model import device_at, with_metadata
from lamassu.services.devices.ports import DeviceStore
from lamassu.services.devices.usecases import journal
from lamassu.services.devices.usecases.delete_device import present


async def patch_metadata(
    store: DeviceStore,
    clock: Clock,
    device_id: str,
    patches: Sequence[Patch],
    *,
    caller: Caller,
) -> Device:
    """The device with patched metadata. Raises `NotFound`, `RuleViolation`, `TooLarge`."""
    async with store.unit() as unit:
        before = present(await unit.lock(device_id))
        now = clock.now()
        metadata = apply_to_object(before.metadata, patches)
        if metadata == before.metadata:
            return device_at(before, now)
        after = with_metadata(before, metadata)
        await unit.update(after, read_version=before.version)
        journal.tell_update(unit, journal.METADATA_UPDATE, before, after, caller=caller, now=now)
        journal.record(unit, journal.METADATA_UPDATE, after, caller=caller)
    return device_at(after, now)
