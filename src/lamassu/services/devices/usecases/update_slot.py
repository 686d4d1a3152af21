"""Take a slot as an operator wants it: a status, or one more certificate."""

from __future__ import annotations

import hashlib

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import RevocationReason
from lamassu.services.devices.contract import Binding, BindMode, Device, SlotStatus
from lamassu.services.devices.model import (
    StoredDevice,
    device_at,
    slot_status_at,
    with_slot_status,
)
from lamassu.services.devices.ports import CertificateOffice, DeviceStore
from lamassu.services.devices.rules import (
    SlotUpdate,
    added_version,
    check_belongs,
    check_settable,
    device_changed,
)
from lamassu.services.devices.usecases import journal
from lamassu.services.devices.usecases.bind_certificate import bind_certificate
from lamassu.services.devices.usecases.decommission_device import Revoking
from lamassu.services.devices.usecases.delete_device import present
from lamassu.services.devices.usecases.follow_certificate import follow_device


async def update_slot(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device_id: str,
    update: SlotUpdate,
    *,
    caller: Caller,
) -> Revoking:
    """Append a certificate of ours that is this device's own, and set the status.

    `REVOKED` revokes the active certificate; the slot follows. A decommissioned device is
    returned as it is. Raises `NotFound`, `RuleViolation`, `Conflict`.
    """
    device = present(await store.find(device_id))
    now = clock.now()
    if device.decommissioned_at is not None:
        return Revoking(device_at(device, now))
    added = added_version(device.slot, update)
    if added is not None:
        await _attach(store, office, clock, device, added[1], caller=caller)
        device = present(await store.find(device_id))
    if device.slot is None:
        raise device_changed()
    if slot_status_at(device.slot, now) is update.status:
        return Revoking(device_at(device, now))
    if update.status is SlotStatus.REVOKED:
        return await _revoke(store, office, clock, device, caller=caller)
    return Revoking(
        await _set_status(store, office, clock, device_id, update.status, caller=caller)
    )


async def _attach(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device: StoredDevice,
    serial_number: str,
    *,
    caller: Caller,
) -> None:
    certificate = check_belongs(
        await office.find_certificate(serial_number), device.id, clock.now()
    )
    await bind_certificate(
        store,
        clock,
        Binding(
            device_id=device.id,
            dms_id=device.dms_id,
            mode=BindMode.RE_PROVISIONED if device.slot else BindMode.PROVISIONED,
            ca_id=certificate.issuer_ca_id,
            serial_number=certificate.serial_number,
            certificate_sha256=hashlib.sha256(certificate.der).hexdigest(),
            not_after=certificate.not_after,
            judged_version=device.version,
            caller=caller,
        ),
    )


async def _revoke(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device: StoredDevice,
    *,
    caller: Caller,
) -> Revoking:
    if device.slot is None:
        raise device_changed()
    serial_number = device.slot.current.serial_number
    published = await office.revoke(serial_number, RevocationReason.UNSPECIFIED, caller=caller)
    after = await follow_device(store, office, clock, device.id, caller=caller)
    return Revoking(after or device_at(device, clock.now()), published)


async def _set_status(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device_id: str,
    status: SlotStatus,
    *,
    caller: Caller,
) -> Device:
    async with store.unit() as unit:
        before = present(await unit.lock(device_id))
        if before.slot is None:
            raise device_changed()
        current = before.slot.current
        standing = await office.standing(current.ca_id, current.serial_number)
        now = clock.now()
        check_settable(before.slot, status, standing, now)
        after = with_slot_status(before, status, now)
        if after is not before:
            await unit.update(after, read_version=before.version)
            journal.tell_status(unit, before, after, caller=caller, now=now)
            journal.record(unit, journal.STATUS_UPDATE, after, caller=caller)
    return device_at(after, now)
