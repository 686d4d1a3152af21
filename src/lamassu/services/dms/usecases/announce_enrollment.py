"""Tell of enrolments, off their path: the devices' event about a slot is the hint (rule 30)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.records import AuditRecord, Event, Json, StoredEvent
from lamassu.services.ca.contract import Authorities, Certificate, certificate_document
from lamassu.services.devices.contract import BindMode
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.documents import dms_document
from lamassu.services.dms.ports import DmsStore, DmsUnit
from lamassu.services.dms.usecases import journal
from lamassu.services.dms.usecases.dms_catalog import DmsCatalog
from lamassu.services.dms.usecases.issue_identity import IdentityIssuer
from lamassu.services.dms.usecases.reconcile_unbound import attached_device, attached_dms

_MODES = frozenset(mode.value for mode in BindMode)


@dataclass(frozen=True, slots=True)
class _NewIdentity:
    """What an event says of a slot that took a certificate."""

    device_id: str
    serial_number: str
    previous_serial_number: str | None
    mode: BindMode
    device: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class _Enrollment:
    """What is to be told; `version` is the device's."""

    identity: _NewIdentity
    certificate: Certificate
    dms: Dms
    dms_document: Json
    version: int


class EnrollmentAnnouncer:
    """Handles `device.identity.update`: at least once delivered, told once."""

    def __init__(
        self,
        *,
        store: DmsStore,
        catalog: DmsCatalog,
        authorities: Authorities,
        issuer: IdentityIssuer,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._authorities = authorities
        self._issuer = issuer
        self._clock = clock

    async def announce(self, events: Sequence[StoredEvent]) -> None:
        """Emit `dms.enroll` or `dms.reenroll`, and `dms.bind-device-id`, for each slot that took a
        certificate of a DMS; and see to it that a replaced certificate was revoked.

        One transaction tells of them all, or of none.
        """
        caller = system_caller("dms-announcer")
        told = [(event.version, _new_identity(event.data)) for event in events]
        news = [(version, identity) for version, identity in told if identity is not None]
        if not news:
            return
        certificates = await self._authorities.find_certificates(
            [identity.serial_number for _, identity in news]
        )
        enrollments: list[_Enrollment] = []
        documents: dict[str, Json] = {}  # of DMSs: a batch tells of few
        for version, identity in news:
            certificate = certificates.get(identity.serial_number)
            dms = await self._find_dms(certificate, identity.device_id)
            if certificate is not None and dms is not None:
                await self._retire_previous(identity, dms, caller)
                document = documents.get(dms.id) or documents.setdefault(dms.id, dms_document(dms))
                enrollments.append(_Enrollment(identity, certificate, dms, document, version))
        if not enrollments:
            return
        async with self._store.unit() as unit:
            for some in _each_device_once(enrollments):
                versions = {one.identity.device_id: one.version for one in some}
                fresh = await unit.announce(versions)
                for one in some:
                    if one.identity.device_id in fresh:
                        self._tell(unit, one, caller)

    async def _find_dms(self, certificate: Certificate | None, device_id: str) -> Dms | None:
        """The DMS that had the certificate issued for this very device."""
        if certificate is None or attached_device(certificate) != device_id:
            return None
        dms_id = attached_dms(certificate)
        return await self._catalog.find(dms_id) if dms_id else None

    def _tell(self, unit: DmsUnit, one: _Enrollment, caller: Caller) -> None:
        identity = one.identity
        for told in self._events(one, caller):
            unit.emit(told)
        unit.audit(
            AuditRecord(
                journal.REENROLL if identity.mode is BindMode.RENEWED else journal.ENROLL,
                f"dms/{one.dms.id}",
                caller,
                detail={
                    "device_id": identity.device_id,
                    "serial_number": identity.serial_number,
                    "mode": identity.mode.value,
                },
            )
        )

    async def _retire_previous(self, identity: _NewIdentity, dms: Dms, caller: Caller) -> None:
        """What enrolment does right after the bind, again: it may have died in between."""
        replaced = identity.mode is BindMode.RE_PROVISIONED or (
            identity.mode is BindMode.RENEWED and dms.settings.reenrollment.revoke_on_reenrollment
        )
        if replaced and identity.previous_serial_number is not None:
            await self._issuer.retire(identity.previous_serial_number, caller)

    def _events(self, one: _Enrollment, caller: Caller) -> tuple[Event, Event]:
        identity, certificate, dms = one.identity, one.certificate, one.dms
        enrolled = journal.REENROLL if identity.mode is BindMode.RENEWED else journal.ENROLL
        document = certificate_document(certificate, self._clock.now())
        return (
            Event(
                enrolled,
                f"dms/{dms.id}",
                dms.version,
                {"certificate": document["certificate"], "aps": dms.id},
                caller,
            ),
            Event(
                journal.BIND,
                f"device/{identity.device_id}",
                one.version,
                {
                    "certificate": document,
                    "dms": one.dms_document,
                    "device": identity.device,
                },
                caller,
            ),
        )


def _each_device_once(enrollments: Sequence[_Enrollment]) -> Sequence[Sequence[_Enrollment]]:
    """The same in several turns: a later enrolment of a device comes in a later one."""
    turns: list[list[_Enrollment]] = []
    seen: dict[str, int] = {}
    for one in enrollments:
        turn = seen[one.identity.device_id] = seen.get(one.identity.device_id, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(one)
    return turns


def _new_identity(data: Json) -> _NewIdentity | None:
    """`None` unless the event tells of a certificate that entered a slot."""
    updated = _member(data, "updated")
    slot = _member(updated, "identity")
    before = _member(_member(data, "previous"), "identity")
    active = slot.get("active_version")
    versions = _member(slot, "versions")
    serial, device_id = versions.get(str(active)), updated.get("id")
    if not isinstance(active, int) or before.get("active_version") == active:
        return None
    if not isinstance(serial, str) or not isinstance(device_id, str):
        return None
    previous = versions.get(str(active - 1))
    return _NewIdentity(
        device_id=device_id,
        serial_number=serial,
        previous_serial_number=previous if isinstance(previous, str) else None,
        mode=_mode_of(slot),
        device=updated,
    )


def _mode_of(slot: Mapping[str, Json]) -> BindMode:
    """Why the last certificate entered, by the slot's history (its keys are times)."""
    history = _member(slot, "events")
    for at in sorted(history, key=_instant, reverse=True):
        kind = _member(history, at).get("type")
        if isinstance(kind, str) and kind in _MODES:
            return BindMode(kind)
    return BindMode.PROVISIONED


def _instant(at: str) -> tuple[str, str]:
    """Sortable: RFC 3339 in UTC, whose fraction has as many digits as it takes."""
    whole, _, fraction = at.rstrip("Z").partition(".")
    return whole, fraction.ljust(9, "0")


def _member(data: Json, key: str) -> Mapping[str, Json]:
    value = data.get(key) if isinstance(data, Mapping) else None
    return value if isinstance(value, Mapping) else {}
