"""Let the slot's status follow the certificate: an event is a hint, the CA has the truth.

The CA is asked while the device is locked, so whoever writes last has read last: events may
come late, twice or in any order, and the slot ends where the certificate stands (rule 30).
"""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.devices.contract import Device
from lamassu.services.devices.model import device_at, with_slot_status
from lamassu.services.devices.ports import CertificateOffice, DeviceStore
from lamassu.services.devices.rules import ATTACHED_TO, followed_status
from lamassu.services.devices.usecases import journal
from lamassu.services.devices.usecases.refuse_certificate import refuse_certificate


async def follow_certificate(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    serial_number: str,
    *,
    caller: Caller,
) -> None:
    """Bring the device whose active certificate this is in line with the CA.

    One that was revoked between its issue and its binding is barred, else it would enter the
    slot as active after the only event that tells of its end.
    """
    claim = await store.find_claim(serial_number)
    if claim is None:
        await _bar_if_revoked(store, office, clock, serial_number)
        claim = await store.find_claim(serial_number)
    if claim is not None and claim.number is not None:
        await follow_device(store, office, clock, claim.device_id, caller=caller)


async def follow_authority(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    ca_id: str,
    *,
    caller: Caller,
) -> None:
    """Bring every device in line whose active certificate this CA issued.

    The CAs above and below it tell of themselves. A hold on a CA, and its release, touch no
    certificate: this is how devices learn of them. A revocation for good is told of each
    certificate, at a steady pace, by the job that writes it down: nothing is done here, or a
    million devices would hold up all other events. A retry goes on where it was cut off.
    """
    try:
        authority = await office.get_ca(ca_id)
    except NotFound:
        return
    certificate = authority.certificate
    for_good = certificate.revocation_reason is not RevocationReason.CERTIFICATE_HOLD
    if certificate.stored_status is CertificateStatus.REVOKED and for_good:
        return
    revoked = (
        authority.revoked_by is not None
        or authority.certificate.stored_status is CertificateStatus.REVOKED
    )
    async for device_id in store.astray(ca_id, revoked=revoked):
        await follow_device(store, office, clock, device_id, caller=caller)


async def follow_device(
    store: DeviceStore,
    office: CertificateOffice,
    clock: Clock,
    device_id: str,
    *,
    caller: Caller,
) -> Device | None:
    """Set the slot's status by its active certificate's standing; the device as it then is."""
    async with store.unit() as unit:
        before = await unit.lock(device_id)
        if before is None or before.deleted_at is not None:
            return None
        if before.slot is None or before.decommissioned_at is not None:
            return device_at(before, clock.now())
        current = before.slot.current
        standing = await office.standing(current.ca_id, current.serial_number)
        now = clock.now()
        after = with_slot_status(before, followed_status(before.slot, standing), now)
        if after is not before:
            await unit.update(after, read_version=before.version)
            journal.tell_status(unit, before, after, caller=caller, now=now)
            journal.record(
                unit,
                journal.STATUS_UPDATE,
                after,
                caller=caller,
                detail={"serial_number": current.serial_number},
            )
    return device_at(after, now)


async def _bar_if_revoked(
    store: DeviceStore, office: CertificateOffice, clock: Clock, serial_number: str
) -> None:
    certificate = await office.find_certificate(serial_number)
    if certificate is None or certificate.stored_status is not CertificateStatus.REVOKED:
        return
    attached = certificate.metadata.get(ATTACHED_TO)
    if not isinstance(attached, dict):
        return
    await refuse_certificate(store, clock, serial_number, str(attached.get("device_id", "")))
