"""Is a journal what its writers wrote?

Whoever can write to the database can change rows, but has no key. So every record's MAC must be
right; every number that a boot used must be there, unless the boot itself said that it was lost;
each record must hang on the one before it; and the sealed head must be the end. What was cut off
together with an older head put back shows only against an anchor kept elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select

from lamassu.platform.database import Database
from lamassu.platform.database.journal_tables import GENESIS, JournalTables, tables
from lamassu.platform.database.records import (
    CLOSED,
    head_bytes,
    ranges_of,
    ranges_text,
    rfc3339,
    sealed_bytes,
)
from lamassu.platform.messaging.chain import link

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and at which position (`None`: not at one, as with what is missing)."""

    position: int | None
    text: str


@dataclass(frozen=True, slots=True)
class JournalReport:
    """The verdict on one journal.

    `records` were read, the last of them at `position` with `hash`; `pending` more wait in the
    outbox. `anchored` is false when no anchor was given: then a missing tail cannot be told.
    """

    service: str
    records: int
    position: int
    hash: bytes
    pending: int
    anchored: bool
    faults: tuple[Fault, ...]

    @property
    def intact(self) -> bool:
        """Nothing was found wrong."""
        return not self.faults


async def verify_journal(
    database: Database, service: str, key: bytes, *, anchor: tuple[int, bytes] | None = None
) -> JournalReport:
    """Walk the journal of `service` in bounded batches, while it may go on growing.

    `anchor` is a position and its hash, as they were once exported.
    """
    return await _Walk(database, service, key).report(anchor)


@dataclass(slots=True)
class _Boot:
    """The numbers of one start of one process: all up to `next` are accounted for."""

    next: int = 1
    ahead: set[int] = field(default_factory=set)
    excused: list[range] = field(default_factory=list)
    highest: int = 0
    under_way: list[range] = field(default_factory=list)
    closed: bool = False

    def take(self, n: int) -> bool:
        """Account for `n`; false if it was there before."""
        if n < self.next or n in self.ahead:
            return False
        self.ahead.add(n)
        while self.next in self.ahead:
            self.ahead.remove(self.next)
            self.next += 1
        return True

    def missing(self) -> set[int]:
        """Numbers that nothing excuses.

        A boot that ended in order had nothing under way. After a crash the last record says
        what was; those may have been lost with it.
        """
        excused = self.excused if self.closed else self.excused + self.under_way
        return {
            n
            for n in range(self.next, self.highest + 1)
            if n not in self.ahead and not any(n in each for each in excused)
        }


class _Walk:
    def __init__(self, database: Database, service: str, key: bytes) -> None:
        self._database = database
        self._service = service
        self._key = key
        self._tables: JournalTables = tables(service)
        self._faults: list[Fault] = []
        self._boots: dict[str, _Boot] = {}
        self._position = 0
        self._hash = GENESIS
        self._records = 0

    async def report(self, anchor: tuple[int, bytes] | None) -> JournalReport:
        await self._walk()
        waiting = await self._outbox()
        moved: set[tuple[str, int]] = set()
        await self._walk(moved)  # on through what the sequencer moved meanwhile
        pending = [row for row in waiting if (row.boot, row.n) not in moved]
        for row in pending:
            self._judge(None, row)
        await self._check_head()
        if anchor:
            await self._check_hash_at(*anchor, "the anchor")
        self._check_numbers()
        return JournalReport(
            service=self._service,
            records=self._records,
            position=self._position,
            hash=self._hash,
            pending=len(pending),
            anchored=anchor is not None,
            faults=tuple(self._faults),
        )

    async def _walk(self, seen: set[tuple[str, int]] | None = None) -> bool:
        """Judge what follows; whether there was anything. `seen` collects boots and numbers."""
        journal = self._tables.journal
        progress = False
        while True:
            batch = (
                select(journal)
                .where(journal.c.position > self._position)
                .order_by(journal.c.position)
                .limit(BATCH)
            )
            async with self._database.reading(self._service) as connection:
                rows = (await connection.execute(batch)).all()
            for row in rows:
                await self._follow(row)
                if seen is not None:
                    seen.add((row.boot, row.n))
            progress = progress or bool(rows)
            if len(rows) < BATCH:
                return progress

    async def _outbox(self) -> Sequence[Row[Any]]:
        outbox = self._tables.outbox
        async with self._database.reading(self._service) as connection:
            return (await connection.execute(select(outbox).order_by(outbox.c.seq))).all()

    async def _follow(self, row: Row[Any]) -> None:
        """One row of the journal; a fault here does not make the next one faulty."""
        if row.position != self._position + 1:
            gap = f"{self._position + 1}-{row.position - 1}"
            self._fault(row.position, f"the records before it are missing ({gap})")
        if bytes(row.prev_hash) != self._hash:
            self._fault(row.position, "it does not follow the record before it")
        elif link(self._service, row.position, row, self._hash) != bytes(row.hash):
            self._fault(row.position, "its hash is not that of its content")
        trail = self._judge(row.position, row)
        follows = trail.get("follows")
        if follows:
            await self._check_hash_at(follows[0], bytes.fromhex(follows[1]), "a process's start")
        self._position, self._hash = row.position, bytes(row.hash)
        self._records += 1

    def _judge(self, position: int | None, row: Row[Any]) -> dict[str, Any]:
        """Seal, columns and number of one record; its trail, empty if it is not to be believed."""
        sealed = sealed_bytes(
            self._service, boot=row.boot, n=row.n, kind=row.kind, trail=row.trail, body=row.body
        )
        if not hmac.compare_digest(self._mac(sealed), bytes(row.mac)):
            self._fault(position, f"its seal is wrong (boot {row.boot}, number {row.n})")
            # the number counts as there: one fault is enough for one changed record
            self._boots.setdefault(row.boot, _Boot()).take(row.n)
            return {}
        told = json.loads(row.body)
        if (told["type"], told["subject"], told["time"]) != (
            row.type,
            row.subject,
            rfc3339(row.time),
        ):
            self._fault(position, "its columns do not say what its body says")
        trail: dict[str, Any] = json.loads(row.trail) if row.trail else {}
        self._account(position, row, trail)
        return trail

    def _account(self, position: int | None, row: Row[Any], trail: dict[str, Any]) -> None:
        boot = self._boots.setdefault(row.boot, _Boot())
        if not boot.take(row.n):
            self._fault(position, f"it is there twice (boot {row.boot}, number {row.n})")
        boot.excused += ranges_of(trail.get("skipped", ""))
        if row.n > boot.highest:
            boot.highest = row.n
            boot.under_way = ranges_of(trail.get("open", ""))
            boot.closed = row.kind == CLOSED

    async def _check_head(self) -> None:
        head = self._tables.head
        async with self._database.reading(self._service) as connection:
            row = (await connection.execute(select(head))).first()
        if row is None:
            self._fault(None, "the journal has lost its head")
            return
        position, hash_ = row.position, bytes(row.hash)
        if position and not hmac.compare_digest(
            self._mac(head_bytes(self._service, position, hash_)), bytes(row.mac)
        ):
            self._fault(None, "the seal of the journal's head is wrong")
        if position < self._position:
            self._fault(position + 1, "records stand beyond the journal's head")
        elif position > self._position and not await self._walk():
            self._fault(None, f"the records {self._position + 1}-{position} are missing")
            return
        if position:
            await self._check_hash_at(position, hash_, "the journal's head")

    async def _check_hash_at(self, position: int, hash_: bytes, whose: str) -> None:
        if position == 0:
            return
        journal = self._tables.journal
        async with self._database.reading(self._service) as connection:
            found = (
                await connection.execute(
                    select(journal.c.hash).where(journal.c.position == position)
                )
            ).scalar()
        if found is None:
            self._fault(position, f"{whose} knew a record that is gone")
        elif bytes(found) != hash_:
            self._fault(position, f"{whose} knew another record here")

    def _check_numbers(self) -> None:
        for name, boot in self._boots.items():
            missing = boot.missing()
            if missing:
                self._fault(None, f"records of boot {name} are missing: {ranges_text(missing)}")

    def _mac(self, sealed: bytes) -> bytes:
        return hmac.digest(self._key, sealed, hashlib.sha256)

    def _fault(self, position: int | None, text: str) -> None:
        self._faults.append(Fault(position, text))
