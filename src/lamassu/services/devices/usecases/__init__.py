"""What can be done with devices, gathered: a module per verb does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.json_patch import Patch
from lamassu.kernel.listing import Filter, ListQuery, Page
from lamassu.services.devices.contract import Binding, Candidate, Device, DeviceStatus, NewDevice
from lamassu.services.devices.model import StoredDevice, device_at
from lamassu.services.devices.ports import CertificateOffice, DeviceStore
from lamassu.services.devices.rules import SlotUpdate
from lamassu.services.devices.usecases.adopt_devices import DeviceAdoption
from lamassu.services.devices.usecases.bind_certificate import bind_certificate
from lamassu.services.devices.usecases.create_device import create_device
from lamassu.services.devices.usecases.decommission_device import Revoking, decommission_device
from lamassu.services.devices.usecases.delete_device import delete_device, present
from lamassu.services.devices.usecases.follow_certificate import (
    follow_authority,
    follow_certificate,
)
from lamassu.services.devices.usecases.patch_metadata import patch_metadata
from lamassu.services.devices.usecases.refuse_certificate import refuse_certificate
from lamassu.services.devices.usecases.update_slot import update_slot

__all__ = ["DeviceService", "Revoking"]


class DeviceService:
    """The device manager: the contract `Devices`, and what its own routes need beside it."""

    def __init__(self, *, store: DeviceStore, office: CertificateOffice, clock: Clock) -> None:
        """`office` is the CA: asked for the standing of certificates, told to revoke them."""
        self._store = store
        self._office = office
        self._clock = clock
        # what the host's `lamassu import` brings from another installation
        self.adoption = DeviceAdoption(store=store, office=office, clock=clock)

    # the contract

    async def find(self, device_id: str) -> Device | None:
        """A device with its slot, by exact id."""
        device = await self._store.find(device_id)
        return None if device is None or device.deleted_at is not None else self._seen(device)

    async def find_candidate(self, device_id: str, certificate_sha256: str) -> Candidate:
        """All that an enrolment is judged by, read at one instant."""
        found = await self._store.find_related(device_id, certificate_sha256)
        device, holder = found.device, found.holder
        was_deleted = device is not None and device.deleted_at is not None
        return Candidate(
            device=self._seen(device) if device is not None and not was_deleted else None,
            was_deleted=was_deleted,
            lookalike=found.lookalike,
            holder=self._seen(holder) if holder is not None else None,
        )

    async def find_by_certificate(self, certificate_sha256: str) -> Device | None:
        """The device in whose slot this certificate is or was.

        Of a deleted device, its tombstone: decommissioned, so that nothing is granted to it.
        """
        device = await self._store.find_by_certificate(certificate_sha256)
        return None if device is None else self._seen(device)

    async def bind(self, binding: Binding) -> Device:
        """Fill the slot; idempotent on the certificate. Raises `Conflict`."""
        return await bind_certificate(self._store, self._clock, binding)

    async def mark_used(self, device_id: str, certificate_sha256: str) -> None:
        """Note that the device has shown this certificate."""
        async with self._store.unit() as unit:
            await unit.mark_used(device_id, certificate_sha256, at=self._clock.now())

    async def refuse(self, serial_number: str, device_id: str) -> bool:
        """Bar an unbound certificate from ever being bound; false if it is in a slot."""
        return await refuse_certificate(self._store, self._clock, serial_number, device_id)

    # its own routes

    async def create(self, new: NewDevice, *, caller: Caller) -> Device:
        """Raises `RuleViolation`, `Conflict` (`device_exists`)."""
        return await create_device(self._store, self._clock, new, caller=caller)

    async def get(self, device_id: str) -> Device:
        """Raises `NotFound` (`device not found`)."""
        return self._seen(present(await self._store.find(device_id)))

    async def list(self, query: ListQuery, *, dms_id: str | None = None) -> Page[Device]:
        """A page of all devices, or of one DMS's."""
        page = await self._store.list(query, now=self._clock.now(), dms_id=dms_id)
        return Page([self._seen(device) for device in page.items], page.after)

    async def count_by_status(self, filters: Sequence[Filter]) -> Mapping[DeviceStatus, int]:
        """How many devices there are of each status, all statuses named."""
        counts = await self._store.count_by_status(filters, now=self._clock.now())
        return {status: counts.get(status, 0) for status in DeviceStatus}

    async def delete(self, device_id: str, *, caller: Caller) -> None:
        """Raises `NotFound`, `WrongState` unless it is decommissioned."""
        await delete_device(self._store, self._clock, device_id, caller=caller)

    async def decommission(self, device_id: str, *, caller: Caller) -> Revoking:
        """Revoke what the device holds, then retire it for good. Raises `NotFound`."""
        return await decommission_device(
            self._store, self._office, self._clock, device_id, caller=caller
        )

    async def patch_metadata(
        self, device_id: str, patches: Sequence[Patch], *, caller: Caller
    ) -> Device:
        """Raises `NotFound`, `RuleViolation`."""
        return await patch_metadata(self._store, self._clock, device_id, patches, caller=caller)

    async def update_slot(self, device_id: str, update: SlotUpdate, *, caller: Caller) -> Revoking:
        """Raises `NotFound`, `RuleViolation`, `Conflict`."""
        return await update_slot(
            self._store, self._office, self._clock, device_id, update, caller=caller
        )

    # what the CA tells

    async def follow_certificate(self, serial_number: str) -> None:
        """Bring a slot in line with its certificate's standing."""
        await follow_certificate(
            self._store,
            self._office,
            self._clock,
            serial_number,
            caller=system_caller("devices/follow-certificate"),
        )

    async def follow_authority(self, ca_id: str) -> None:
        """Bring all slots in line whose certificate this CA issued."""
        await follow_authority(
            self._store,
            self._office,
            self._clock,
            ca_id,
            caller=system_caller("devices/follow-authority"),
        )

    def _seen(self, device: StoredDevice) -> Device:
        return device_at(device, self._clock.now())
