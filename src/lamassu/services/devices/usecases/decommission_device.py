"""Retire a device for good: first its certificates die, then it looks retired.

In the other order a failed revocation would leave a retired device with a certificate that
relying parties still accept. A retry of what failed half-way goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.devices.contract import Device
from lamassu.services.devices.model import StoredDevice, device_at, retired
from lamassu.services.devices.ports import CertificateOffice, DeviceStore
from lamassu.services.devices.rules import device_changed
from lamassu.services.devices.usecases import journal
from lamassu.services.devices.usecases.delete_device import present

MOST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Revoking:
    """A device after a call that revoked; `published` once OCSP and CRL show it."""

    device: Device
    published: bool = True


async def decommission_device(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device_id: str,
    *,
    caller: Caller,
) -> Revoking:
    """Revoke every certificate that the slot ever took and that still lives, then retire.

    A certificate superseded by a renewal may live on for years; a retired device keeps none.
    Repeated on a retired device it changes nothing. Raises `NotFound`, or whatever stops a
    revocation, with the device unchanged.
    """
    dead: set[str] = set()
    published = True
    for _ in range(MOST_ROUNDS):
        device = present(await store.find(device_id))
        if device.decommissioned_at is not None:
            return Revoking(device_at(device, clock.now()), published)
        for serial_number in _serial_numbers(device):
            if serial_number not in dead:
                published &= await _end(office, clock, serial_number, caller=caller)
                dead.add(serial_number)
        after = await _retire(store, clock, device_id, dead, caller=caller)
        if after is not None:
            return Revoking(after, published)
    raise device_changed()


async def _end(
    office: CertificateOffice, clock: Clock, serial_number: str, *, caller: Caller
) -> bool:
    certificate = await office.find_certificate(serial_number)
    if certificate is None or certificate.status_at(clock.now()) in (
        CertificateStatus.REVOKED,
        CertificateStatus.EXPIRED,
    ):
        return True
    return await office.revoke(
        serial_number, RevocationReason.CESSATION_OF_OPERATION, caller=caller
    )


async def _retire(
    store: DeviceStore, clock: Clock, device_id: str, dead: set[str], *, caller: Caller
) -> Device | None:
    """Retire the device, or `None` if it got a certificate meanwhile that is not `dead`."""
    async with store.unit() as unit:
        before = present(await unit.lock(device_id))
        now = clock.now()
        if before.decommissioned_at is not None:
            return device_at(before, now)
        if not dead.issuperset(_serial_numbers(before)):
            return None
        after = retired(before, now)
        await unit.update(after, read_version=before.version)
        journal.tell_status(unit, before, after, caller=caller, now=now)
        journal.record(unit, "device.decommission", after, caller=caller)
    return device_at(after, now)


def _serial_numbers(device: StoredDevice) -> Iterable[str]:
    return [bound.serial_number for bound in device.slot.versions] if device.slot else []
