"""Bar a certificate that nobody bound: it is about to be revoked as lost."""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.devices.ports import DeviceStore
from lamassu.services.devices.usecases.journal import subject_of


async def refuse_certificate(
    store: DeviceStore, clock: Clock, serial_number: str, device_id: str
) -> bool:
    """Whether it is barred now: false if it is or was in a slot. Repeating changes nothing."""
    try:
        async with store.unit() as unit:
            await unit.bar(serial_number, device_id, at=clock.now())
            unit.audit(
                AuditRecord(
                    "device.certificate.refuse",
                    subject_of(device_id),
                    system_caller("devices"),
                    detail={"serial_number": serial_number},
                )
            )
    except Conflict:
        claim = await store.find_claim(serial_number)
        return claim is not None and claim.refused
    return True
