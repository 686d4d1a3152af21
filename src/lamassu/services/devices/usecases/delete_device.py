"""Delete a device that is out of service. Its id and its certificates are remembered."""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import Caller
from lamassu.services.devices.model import StoredDevice, buried
from lamassu.services.devices.ports import DeviceStore
from lamassu.services.devices.rules import check_deletable
from lamassu.services.devices.usecases import journal


async def delete_device(
    store: DeviceStore, clock: Clock, device_id: str, *, caller: Caller
) -> None:
    """Raises `NotFound` (`device not found`), or `WrongState` unless it is decommissioned."""
    async with store.unit() as unit:
        device = present(await unit.lock(device_id))
        check_deletable(device)
        tombstone = buried(device, clock.now())
        await unit.update(tombstone, read_version=device.version)
        await unit.release_claims(device_id)
        journal.tell(unit, journal.DELETE, tombstone, {"ID": device_id}, caller=caller)
        journal.record(unit, journal.DELETE, tombstone, caller=caller)


def present(device: StoredDevice | None) -> StoredDevice:
    """The device, which must be there and not deleted. Raises `NotFound`."""
    if device is None or device.deleted_at is not None:
        raise NotFound("device not found", code="device_not_found")
    return device
