"""Fill a device's slot with a certificate: the last step of an enrolment (decision 26)."""

from __future__ import annotations

from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.records import Records
from lamassu.services.devices.contract import Binding, Device, SlotStatus
from lamassu.services.devices.model import (
    BoundCertificate,
    StoredDevice,
    device_at,
    status_at,
    with_certificate,
)
from lamassu.services.devices.ports import DeviceStore
from lamassu.services.devices.rules import check_judged, check_new_device, device_changed
from lamassu.services.devices.usecases import journal
from lamassu.services.devices.usecases.create_device import new_device, tell_creation


async def bind_certificate(store: DeviceStore, clock: Clock, binding: Binding) -> Device:
    """Bind, or find that this certificate was bound already. One transaction, made at once.

    A device that is created comes into being together with its first identity.
    """
    now = clock.now()
    try:
        return device_at(await _bind(store, binding, now), now)
    except Conflict:
        # A retry may have met its own first attempt: one that is durable when this unit ends.
        async with store.unit() as unit:
            found = await unit.read(binding.device_id)
        bound = _repeated(found, binding)
        if bound is None:
            if found is not None and found.deleted_at is not None:
                raise _deleted() from None
            raise
        return device_at(bound, now)


async def _bind(store: DeviceStore, binding: Binding, now: datetime) -> StoredDevice:
    # who is to be created is not there: the keys of its row tell if that is no longer so
    found = None if binding.create is not None else await store.find(binding.device_id)
    repeated = _repeated(found, binding)
    if repeated is not None:
        return repeated
    if found is None or found.deleted_at is not None:
        before = _created(found, binding, now)
    else:
        check_judged(found, binding)
        before = found

    certificate = _certificate(before, binding, now)
    after = with_certificate(before, certificate, expires_at=binding.not_after)
    records = Records()
    _tell(records, before, after, binding, now)
    read_version = None if found is None else found.version
    await store.bind(after, certificate, read_version=read_version, records=records)
    return after


def _repeated(found: StoredDevice | None, binding: Binding) -> StoredDevice | None:
    """The device, if this very certificate is in its slot and still the one that counts.

    Raises `Conflict` when it was bound and something overtook it: it must not be handed out.
    """
    if found is None or found.slot is None:
        return None
    sha256 = binding.certificate_sha256
    if all(bound.certificate_sha256 != sha256 for bound in found.slot.versions):
        return None
    overtaken = (
        found.slot.current.certificate_sha256 != sha256
        or found.slot.status is SlotStatus.REVOKED
        or found.decommissioned_at is not None
    )
    if overtaken:
        raise device_changed()
    return found


def _created(found: StoredDevice | None, binding: Binding, now: datetime) -> StoredDevice:
    if found is not None:
        # Only a person brings a deleted id back, by creating it (rule 17).
        raise _deleted()
    if binding.create is None:
        raise NotFound("device not found", code="device_not_found")
    if binding.create.id != binding.device_id or binding.create.dms_id != binding.dms_id:
        raise device_changed()
    check_new_device(binding.create)
    return new_device(binding.create, now)


def _deleted() -> Conflict:
    return Conflict("device was deleted; it has to be created anew", code="device_deleted")


def _certificate(before: StoredDevice, binding: Binding, now: datetime) -> BoundCertificate:
    return BoundCertificate(
        number=before.slot.active_version + 1 if before.slot else 0,
        ca_id=binding.ca_id,
        serial_number=binding.serial_number,
        certificate_sha256=binding.certificate_sha256,
        mode=binding.mode,
        bound_at=now,
        status_before=status_at(before, now),
    )


def _tell(
    records: Records, before: StoredDevice, after: StoredDevice, binding: Binding, now: datetime
) -> None:
    caller = binding.caller
    change = journal.change_document(before, after, now)  # written once for all that tell of it
    if binding.create is not None:
        tell_creation(records, before, change["previous"], caller=caller)
    if status_at(before, now) is not status_at(after, now):
        journal.tell(records, journal.STATUS_UPDATE, after, change, caller=caller)
    journal.tell(records, journal.IDENTITY_UPDATE, after, change, caller=caller)
    journal.record(
        records,
        journal.IDENTITY_UPDATE,
        after,
        caller=caller,
        detail={
            "mode": binding.mode.value,
            "dms_id": binding.dms_id,
            "ca_id": binding.ca_id,
            "serial_number": binding.serial_number,
        },
    )
