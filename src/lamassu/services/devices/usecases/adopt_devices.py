"""Take over the devices of another system, each with the certificates of its identity slot.

In batches of one transaction, one event and one audit record. A certificate enters a slot only
if a CA of ours signed it for this very device (security rule 14); what is here already stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from lamassu.kernel.adoption import Batch, Outcome, Verdict, count_outcomes
from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.ca.contract import Certificate, CertificateStatus
from lamassu.services.devices.contract import BindMode, DeviceStatus, NewDevice, SlotStatus
from lamassu.services.devices.model import (
    LIVE_SLOT,
    BoundCertificate,
    StoredDevice,
    StoredSlot,
    TimelineLine,
)
from lamassu.services.devices.ports import CertificateOffice, DeviceStore, DeviceUnit, Taken
from lamassu.services.devices.rules import NO_ISSUER, check_new_device, lookalike_key

_BATCH = "device.adopt"
_ATTEMPTS = 3
MOST_LINES = 200  # of a history: the newest ones


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A certificate of a slot: when and why it came there, if the source tells."""

    serial_number: str
    mode: BindMode = BindMode.PROVISIONED
    bound_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundSlot:
    """An identity slot: its certificates by version number."""

    status: SlotStatus
    active_version: int
    versions: Mapping[int, FoundVersion]


@dataclass(frozen=True, slots=True)
class FoundDevice:
    """A device as the other system has it."""

    id: str
    dms_id: str
    icon: str
    icon_color: str
    created_at: datetime
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    slot: FoundSlot | None = None
    timeline: Sequence[TimelineLine] = ()
    decommissioned_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    """A verdict, and the device to write, if there is one; `before` is what was read of it."""

    verdict: Verdict
    device: StoredDevice | None = None
    before: StoredDevice | None = None


@dataclass(frozen=True, slots=True)
class _World:
    """What a batch is judged by."""

    certificates: Mapping[str, Certificate]
    revoked_cas: frozenset[str]
    taken: Taken
    now: datetime


class DeviceAdoption:
    """Judges devices against the CA's rows, then stores them."""

    def __init__(self, *, store: DeviceStore, office: CertificateOffice, clock: Clock) -> None:
        self._store = store
        self._office = office
        self._clock = clock

    async def adopt(
        self,
        batch: Batch,
        found: Sequence[FoundDevice],
        *,
        caller: Caller,
        promised: Mapping[str, Certificate] | None = None,
    ) -> Sequence[Verdict]:
        """A verdict on each, in their order; one that cannot be taken stops no other.

        `promised` are certificates that a dry run would have brought before. A device that is
        here already gets the certificates that its source has put into its slot since, and is
        retired if it was retired there. Raises `Unavailable`.
        """
        for attempt in range(_ATTEMPTS):
            try:
                plans = await self._plan(found, promised or {})
                if not batch.dry_run:
                    await self._save(batch, plans, caller)
            except Conflict:
                # somebody made or changed one of these meanwhile: judge them anew
                if attempt + 1 == _ATTEMPTS:
                    raise
            else:
                return [plan.verdict for plan in plans]
        raise AssertionError

    async def _plan(
        self, found: Sequence[FoundDevice], promised: Mapping[str, Certificate]
    ) -> Sequence[_Plan]:
        serial_numbers = [
            version.serial_number
            for one in found
            if one.slot is not None
            for version in one.slot.versions.values()
        ]
        certificates = {**promised, **await self._office.find_certificates(serial_numbers)}
        world = _World(
            certificates,
            await self._revoked_cas({one.issuer_ca_id for one in certificates.values()}),
            await self._store.find_taken([one.id for one in found], serial_numbers),
            self._clock.now(),
        )
        plans: list[_Plan] = []
        ids: set[str] = set()
        claimed: set[str] = set()
        for one in found:
            plans.append(_judged(one, world, ids, claimed))
        return plans

    async def _revoked_cas(self, ca_ids: set[str]) -> frozenset[str]:
        """A hierarchy is small: one question for each CA of the batch."""
        revoked = set()
        for ca_id in sorted(ca_ids - {"", NO_ISSUER}):
            try:
                authority = await self._office.get_ca(ca_id)
            except NotFound:
                continue
            if authority.revoked_by is not None:
                revoked.add(ca_id)
        return frozenset(revoked)

    async def _save(self, batch: Batch, plans: Sequence[_Plan], caller: Caller) -> None:
        changed = [plan for plan in plans if plan.device is not None]
        if not changed:
            return
        counts = count_outcomes([plan.verdict for plan in plans])
        async with self._store.unit() as unit:
            await unit.insert_all(
                [plan.device for plan in changed if plan.device and plan.before is None]
            )
            for plan in changed:
                if plan.device is not None and plan.before is not None:
                    await _extend(unit, plan.before, plan.device)
            data: dict[str, Json] = {"source": batch.source, "batch": batch.number, **counts}
            subject = f"adoption/{batch.source}"
            unit.emit(Event(_BATCH, subject, batch.number, data, caller))
            unit.audit(AuditRecord(_BATCH, subject, caller, detail=data))


async def _extend(unit: DeviceUnit, before: StoredDevice, after: StoredDevice) -> None:
    known = {bound.number for bound in before.slot.versions} if before.slot else set()
    added = [one for one in after.slot.versions if one.number not in known] if after.slot else []
    await unit.extend(after, added, read_version=before.version)


def _judged(found: FoundDevice, world: _World, ids: set[str], claimed: set[str]) -> _Plan:
    """`ids` and `claimed` are what devices before it in the batch have; it adds its own."""
    try:
        check_new_device(
            NewDevice(found.id, found.dms_id, found.icon, found.icon_color, found.tags)
        )
        stored = _stored(found, world, ids)
    except (RuleViolation, Conflict) as error:
        return _Plan(_skipped(found, error))
    if stored is not None:
        return _continued(stored, found, world, claimed)
    slot, remark = _slot(found, world, claimed)
    ids.add(lookalike_key(found.id))
    device = StoredDevice(
        id=found.id,
        dms_id=found.dms_id,
        icon=found.icon,
        icon_color=found.icon_color,
        created_at=found.created_at,
        tags=tuple(found.tags),
        metadata=found.metadata,
        slot=slot,
        timeline=tuple(found.timeline)[-MOST_LINES:],
        decommissioned_at=found.decommissioned_at,
    )
    return _Plan(Verdict(found.id, Outcome.ADOPTED, *remark), device)


def _stored(found: FoundDevice, world: _World, ids: set[str]) -> StoredDevice | None:
    """The device, if it is here. Raises `Conflict` (rules 15, 17)."""
    key = lookalike_key(found.id)
    other = world.taken.lookalikes.get(key)
    if key in ids or other not in (None, found.id):
        raise Conflict(
            f"a device of its id, or of one that looks like it, is here already: {other or ''}",
            code="device_exists",
        )
    stored = world.taken.devices.get(found.id)
    if stored is not None and stored.deleted_at is not None:
        raise Conflict("it was deleted here; a person has to create it anew", code="device_deleted")
    return stored


def _continued(stored: StoredDevice, found: FoundDevice, world: _World, claimed: set[str]) -> _Plan:
    """What happened at the source since it was taken over; never what would undo what
    happened here."""
    present = Verdict(found.id, Outcome.PRESENT)
    if stored.decommissioned_at is not None:
        return _Plan(present)
    after, remark = stored, ("", "")
    ours = {one.number: one.serial_number for one in stored.slot.versions} if stored.slot else {}
    theirs = found.slot.versions if found.slot else {}
    same_past = all(
        number not in theirs or theirs[number].serial_number == serial_number
        for number, serial_number in ours.items()
    )
    newer = found.slot is not None and found.slot.active_version > max(ours, default=-1)
    if newer and same_past and stored.dms_id == found.dms_id:
        slot, remark = _slot(found, world, claimed, known=ours)
        if slot is not None:
            kept = tuple(stored.slot.versions) if stored.slot else ()
            added = tuple(one for one in slot.versions if one.number not in ours)
            after = replace(stored, slot=replace(slot, versions=(*kept, *added)))
    elif newer:
        remark = ("device_differs", "it went on here by itself; its slot stays as it is here")
    if found.decommissioned_at is not None:
        after = replace(after, decommissioned_at=found.decommissioned_at)
    if after is stored:
        return _Plan(replace(present, code=remark[0], text=remark[1]))
    after = replace(after, version=stored.version + 1)
    return _Plan(Verdict(found.id, Outcome.UPDATED, *remark), after, stored)


def _slot(
    found: FoundDevice,
    world: _World,
    claimed: set[str],
    known: Mapping[int, str] | None = None,
) -> tuple[StoredSlot | None, tuple[str, str]]:
    """The slot with those certificates that are the device's, and what was left out of it."""
    if found.slot is None:
        return None, ("", "")
    faults: dict[int, str] = {}
    versions: dict[int, BoundCertificate] = {}
    for number, version in sorted(found.slot.versions.items()):
        own = (known or {}).get(number) == version.serial_number
        fault = _fault(found, number, version, world, claimed, own=own)
        if fault:
            faults[number] = fault
            continue
        certificate = world.certificates[version.serial_number]
        claimed.add(version.serial_number)
        versions[number] = _bound(number, version, certificate, found.slot.active_version)
    active = found.slot.active_version
    if active not in versions:
        reason = faults.get(active, "names no certificate")
        return None, (
            "slot_not_adopted",
            f"without an identity here: its active version {active} {reason}",
        )
    certificate = world.certificates[versions[active].serial_number]
    revoked = (
        certificate.stored_status is CertificateStatus.REVOKED
        or certificate.issuer_ca_id in world.revoked_cas
    )
    status = found.slot.status if found.slot.status in LIVE_SLOT else SlotStatus.ACTIVE
    if revoked or found.slot.status is SlotStatus.REVOKED:
        status = SlotStatus.REVOKED
    slot = StoredSlot(status, active, tuple(versions.values()), certificate.not_after)
    if faults:
        told = "; ".join(f"{number} {fault}" for number, fault in sorted(faults.items())[:5])
        return slot, ("versions_dropped", f"earlier versions of its slot left out: {told}")
    return slot, ("", "")


def _fault(
    found: FoundDevice,
    number: int,
    version: FoundVersion,
    world: _World,
    claimed: set[str],
    *,
    own: bool,
) -> str:
    """Why this certificate may not be in this slot; empty if it may."""
    certificate = world.certificates.get(version.serial_number)
    if certificate is None:
        return "is no certificate that was taken over"
    if certificate.issuer_ca_id in ("", NO_ISSUER):
        return "is no certificate of a CA here"
    if certificate.is_ca or certificate.subject.common_name != found.id:
        return "is not for this device"
    if found.slot is not None and not 0 <= number <= found.slot.active_version:
        return "comes after the active one"
    taken = version.serial_number in world.taken.claims and not own
    if taken or version.serial_number in claimed:
        return "is another device's already"
    return ""


def _bound(
    number: int, version: FoundVersion, certificate: Certificate, active: int
) -> BoundCertificate:
    bound_at = version.bound_at or certificate.not_before
    return BoundCertificate(
        number=number,
        ca_id=certificate.issuer_ca_id,
        serial_number=certificate.serial_number,
        certificate_sha256=hashlib.sha256(certificate.der).hexdigest(),
        mode=version.mode,
        bound_at=bound_at,
        # what changed with it is told by the history that came along
        status_before=DeviceStatus.ACTIVE,
        # one that was followed by another has served: its lost answer is past (decision 24)
        first_used_at=bound_at if number < active else None,
    )


def _skipped(found: FoundDevice, error: LamassuError) -> Verdict:
    field_name = f" ({error.field})" if error.field else ""
    return Verdict(found.id, Outcome.SKIPPED, error.code, f"{error.text}{field_name}")
