"""Revocation filters of CAs whose role wants them: made, kept and handed out.

A full filter lives as long as the CA's CRLs. In between a delta says what changed, until it is a
quarter of the filter's size or half of the filter's life is over.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import struct
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, Unavailable
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.kernel.revocation_filter import (
    SALT,
    FilterFacts,
    Standing,
    build_delta,
    build_full,
    parse_filter,
)
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.serials import serial_int
from lamassu.services.ca.contract import LONGEST_BACKDATING, Authorities, IssuedStanding
from lamassu.services.kms.contract import KeyPurpose, Keys
from lamassu.services.va import rules
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import (
    FilterEdition,
    FilterState,
    Issuer,
    RoleState,
    StoredFilter,
)
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.issuers import issuer_of

_log = logging.getLogger(__name__)

_CALLER = system_caller("va/filter")
_PAGE = 10_000
_ROW = struct.Struct(">20sq?")  # serial number, notBefore, revoked


@dataclass(frozen=True, slots=True)
class FilterTask:
    """What a worker process builds a filter from; `base` is the full one, `b""` without."""

    facts: FilterFacts
    rows: bytes
    base: bytes


def build(task: FilterTask) -> bytes:
    """What is to be signed: a delta to the base if that is worth it, else a full filter."""
    standings = [
        Standing(int.from_bytes(serial, "big"), datetime.fromtimestamp(since, UTC), revoked)
        for serial, since, revoked in _ROW.iter_unpack(task.rows)
    ]
    if task.base:
        delta = build_delta(task.facts, parse_filter(task.base), standings, new_salt=_new_salt)
        if rules.delta_is_worth_it(len(delta), len(task.base)):
            return delta
    return build_full(task.facts, standings, new_salt=_new_salt)


def _new_salt() -> bytes:
    return secrets.token_bytes(SALT)


BuildWorker = Callable[[FilterTask], Awaitable[bytes]]


async def build_in_thread(task: FilterTask) -> bytes:
    """For who has no process to spare."""
    return await asyncio.to_thread(build, task)


class Filters:
    """Makes filters one at a time, and hands out the newest."""

    def __init__(
        self,
        *,
        storage: VaStorage,
        authorities: Authorities,
        keys: Keys,
        clock: Clock,
        worker: BuildWorker = build_in_thread,
    ) -> None:
        self._storage = storage
        self._authorities = authorities
        self._keys = keys
        self._clock = clock
        self._worker = worker
        self._turn = asyncio.Lock()
        # the octets handed out last, of each CA's filter and of its delta
        self._kept: dict[tuple[str, bool], StoredFilter] = {}

    async def serve(self, state: RoleState | None, *, delta: bool) -> StoredFilter:
        """The full filter in force, or the newest delta to it.

        Raises `NotFound`: `filter_absent` where the role wants none, `delta_absent` before the
        first one; `Unavailable` (`filter_ended`).
        """
        if state is None or not state.role.filter_interval:
            raise NotFound(
                "no revocation filter is made for this CA; an operator sets filter_interval in its"
                " VA role",
                code="filter_absent",
            )
        if (await self._authorities.get_ca(state.role.ca_id)).revoked_by is not None:
            raise NotFound(
                "the CA is revoked, and all that it issued with it", code="filter_absent"
            )
        held = await self._storage.filters(state.role.ca_ski)
        if held.full is None or held.full.next_update <= self._clock.now():
            raise _not_made_yet()
        if not delta:
            return await self._stored(state.role.ca_ski, held.full)
        if held.delta is None:
            raise NotFound("the filter is the newest; there is no delta yet", code="delta_absent")
        return await self._stored(state.role.ca_ski, held.delta)

    async def _stored(self, ca_ski: str, edition: FilterEdition) -> StoredFilter:
        place = ca_ski, edition.base > 0
        kept = self._kept.get(place)
        if kept is None or kept.edition != edition:
            kept = await self._storage.find_filter(ca_ski, edition.number)
            if kept is None:  # replaced since
                raise _not_made_yet()
            self._kept[place] = kept
        return kept

    async def refresh_due(self, states: Sequence[RoleState], now: datetime) -> int:
        """Make the filters whose time has come; how many. One that fails is left for the next
        round."""
        made = 0
        for state in states:
            if state.role.filter_interval:
                made += await self._make_if_due(state.role, now)
        return made

    async def begin(self, role: CrlRole) -> None:
        """Make the first filter of a role that wants them from now on, not at the next round."""
        await self._make_if_due(role, self._clock.now())

    async def _make_if_due(self, role: CrlRole, now: datetime) -> bool:
        async with self._turn:  # whoever waited finds it made
            held = await self._storage.filters(role.ca_ski)
            if not rules.filter_is_due(role, held, now):
                return False
            try:
                return await self._make(role, held)
            except LamassuError as error:
                _log.warning("the filter of CA %s: %s", role.ca_id, error.text)
                return False

    async def _make(self, role: CrlRole, held: FilterState) -> bool:
        """The next filter or delta of a CA: number, read, build, sign, store, in this order.

        False for a CA that has no key here, or that is revoked: what it issued is revoked with
        it, which its own issuer tells. Raises `NotFound`, `Unavailable`.
        """
        ca_ski = role.ca_ski
        issuer = issuer_of(await self._authorities.get_ca(role.ca_id))
        if issuer is None or not issuer.authority.key_id or issuer.authority.revoked_by:
            return False
        async with self._storage.unit() as unit:
            current = await unit.lock_role(ca_ski)
            if current is None:
                raise NotFound("VA role not found")
            number = await unit.take_filter_number(ca_ski)
        read_at = rules.to_the_second(self._clock.now())
        facts = FilterFacts(
            issuer=hashlib.sha256(issuer.spki).digest(),
            number=number,
            this_update=read_at,
            next_update=read_at + current.validity,
            # what is issued later and backdated is not taken for what was there
            covered_until=read_at - LONGEST_BACKDATING,
        )
        base = b""
        if held.full is not None and rules.takes_a_delta(current, held.full, read_at):
            base = (await self._stored(ca_ski, held.full)).content
        rows = await self._rows(role.ca_id)
        tbs = await self._worker(FilterTask(facts, rows, base))
        content = tbs + await self._signature(issuer, tbs)
        built = parse_filter(content).facts
        edition = FilterEdition(number, built.base, built.this_update, built.next_update)
        await self._store(
            StoredFilter(ca_ski, edition, content), certificates=len(rows) // _ROW.size
        )
        return True

    async def _rows(self, ca_id: str) -> bytes:
        packed = bytearray()
        after = ""
        while True:
            page = await self._authorities.issued_under(ca_id, after=after, limit=_PAGE)
            for one in page:
                packed += _packed(one)
            if len(page) < _PAGE:
                return bytes(packed)
            after = page[-1].serial_number

    async def _signature(self, issuer: Issuer, tbs: bytes) -> bytes:
        return await self._keys.use(
            issuer.authority.key_id, lambda key: signing.sign(key, tbs), purpose=KeyPurpose.CA
        )

    async def _store(self, made: StoredFilter, *, certificates: int) -> None:
        async with self._storage.unit() as unit:
            role = await unit.lock_role(made.ca_ski)
            if role is None:
                raise NotFound("VA role not found")
            edition = made.edition
            if edition.base and not await unit.has_filter(made.ca_ski, edition.base):
                raise Conflict("the full filter was replaced meanwhile", code="filter_replaced")
            await unit.add_filter(made)
            changed = replace(role, version=role.version + 1)
            await unit.save_role(changed)
            subject = f"crl/{made.ca_ski}"
            data: dict[str, Json] = {
                "ca_ski": made.ca_ski,
                "number": edition.number,
                "base": edition.base,
                "valid_from": format_time(edition.this_update),
                "valid_until": format_time(edition.next_update),
                "certificates": certificates,
                "octets": len(made.content),
            }
            unit.emit(Event("va.filter.create", subject, changed.version, data, _CALLER))
            unit.audit(AuditRecord("va.filter.create", subject, _CALLER, detail=data))


def _not_made_yet() -> Unavailable:
    return Unavailable(
        "the next revocation filter is not made yet; use OCSP or the CRL meanwhile",
        code="filter_ended",
        retry_after=5,
    )


def _packed(one: IssuedStanding) -> bytes:
    serial = serial_int(one.serial_number).to_bytes(20, "big")
    return _ROW.pack(serial, int(one.not_before.timestamp()), one.revoked)
