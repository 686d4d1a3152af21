"""Gives committed records their place: outbox to journal, in one order, chained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, any_, bindparam, delete, insert, select, update

from lamassu.kernel.errors import Unavailable
from lamassu.platform.database import Database, Prepared, Unit
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.database.prepared import arrays
from lamassu.platform.messaging.chain import link
from lamassu.platform.messaging.pulse import Pulse

BATCH = 500
"""Records moved in one transaction."""
MANY = 50
"""Records at once that tell of a busy service, whose records then wait for company longer."""
GATHER = 0.2
GATHER_WHEN_BUSY = 0.6
"""Seconds. Each round costs its sequencer and its consumers a few transactions, many or few as
the records are; a record has its place within a second all the same."""


class Sequencer:
    """Moves one service's records. Any number may run: the head row's lock lets one at a time.

    Commits do not wait for it, which is why records get their positions only afterwards; a
    record that was committed before another one of its subject was written comes before it.
    """

    def __init__(
        self,
        database: Database,
        service: str,
        *,
        on_moved: Callable[[str], None] = lambda service: None,
        interval: float = 1.0,
    ) -> None:
        """Polls each `interval` seconds; once woken it waits a little, so that one transaction
        moves what many left."""
        self.service = service
        self.moved = 0
        self._database = database
        self._statements = _Statements(service)
        self._on_moved = on_moved
        self._pulse = Pulse(interval)
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """There is something in the outbox."""
        self._pulse.wake()

    def stop(self) -> None:
        """`run` ends after the transaction that it is in."""
        self._pulse.stop()

    async def run(self) -> None:
        """Move records until told to stop; a database that is away is waited for."""
        await self._pulse.repeat(
            self.drain,
            task="sequencer",
            gather=lambda moved: GATHER_WHEN_BUSY if moved >= MANY else GATHER,
            service=self.service,
        )

    async def drain(self) -> int:
        """Move everything that was committed before the call; how many it moved."""
        total = 0
        async with self._turn:
            while moved := await self._move():
                total += moved
        return total

    async def waiting_for(self) -> timedelta:
        """The age of the oldest record without a place; zero when there is none."""
        rows = await self._database.fetch(self.service, self._statements.oldest, {})
        time: datetime | None = rows[0].time if rows else None
        if time is None:
            return timedelta()
        return max(timedelta(), self._database.clock.now() - time)

    async def _move(self) -> int:
        if not await self._has_work():
            return 0
        async with self._database.unit(self.service) as unit:
            moved = await self._move_batch(unit)
        self.moved += moved
        if moved:
            self._on_moved(self.service)
        return moved

    async def _has_work(self) -> bool:
        """Asked without a lock, so that an idle service costs one small read a second."""
        return bool(await self._database.fetch(self.service, self._statements.oldest, {}))

    async def _move_batch(self, unit: Unit) -> int:
        found = await unit.fetch(self._statements.lock_head, {})
        if not found:
            raise Unavailable(
                f"the journal of {self.service} lost its head", code="journal_damaged"
            )
        rows = await unit.fetch(self._statements.batch, {})
        if rows:
            await self._append(unit, found[0], rows)
        return len(rows)

    async def _append(self, unit: Unit, last: Any, rows: Sequence[Any]) -> None:
        chained = _chained(self.service, last.position, bytes(last.hash), rows)
        position, hash_ = last.position + len(rows), chained[-1]["hash"]
        await unit.run_each(self._statements.append, chained)
        # by number, not up to a number: a lower one may commit between reading and deleting
        numbers = {"numbers": [row.seq for row in rows], "last": rows[-1].seq}
        await unit.fetch(self._statements.remove, numbers)
        mac = self._database.writer.seal_head(self.service, position, hash_)
        values = {"position": position, "hash": hash_, "mac": mac}
        await unit.fetch(self._statements.move_head, values)


class _Statements:
    """What a sequencer runs on the tables of its service."""

    def __init__(self, service: str) -> None:
        head, outbox, journal = (
            tables(service).head,
            tables(service).outbox,
            tables(service).journal,
        )
        by_age = select(outbox).order_by(outbox.c.seq)
        record = [column for column in outbox.c if column.name != "seq"]
        named = ("position", "prev_hash", "hash")
        place = [bindparam(name, type_=journal.c[name].type) for name in named]
        places = arrays(
            {"seq": outbox.c.seq.type, **{name: journal.c[name].type for name in named}}
        )
        by_column = select(*record, *(places.c[name] for name in named)).join_from(
            outbox, places, outbox.c.seq == places.c.seq
        )
        columns = [*(column.name for column in record), *named]
        self.oldest = Prepared(select(outbox.c.time).order_by(outbox.c.seq).limit(1))
        self.lock_head = Prepared(select(head).with_for_update())
        self.batch = Prepared(by_age.limit(BATCH), many=True)
        # the rows go from table to table, only their places come from here
        self.append = Prepared(
            {
                "postgresql": insert(journal).from_select(columns, by_column),
                "sqlite": insert(journal).from_select(
                    columns, select(*record, *place).where(outbox.c.seq == bindparam("seq"))
                ),
            },
            by_column=True,
        )
        self.remove = Prepared(
            {
                "postgresql": delete(outbox).where(
                    outbox.c.seq == any_(bindparam("numbers", type_=ARRAY(BigInteger)))
                ),
                # its one writer let nobody commit since the rows were read
                "sqlite": delete(outbox).where(outbox.c.seq <= bindparam("last")),
            },
            many=True,
        )
        self.move_head = Prepared(update(head), columns=["position", "hash", "mac"])


def _chained(
    service: str, position: int, hash_: bytes, rows: Sequence[Any]
) -> list[Mapping[str, Any]]:
    """The place of each row, by its number in the outbox."""
    chained: list[Mapping[str, Any]] = []
    for row in rows:
        position += 1
        previous, hash_ = hash_, link(service, position, row, hash_)
        chained.append({"seq": row.seq, "position": position, "prev_hash": previous, "hash": hash_})
    return chained
