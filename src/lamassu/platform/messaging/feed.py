"""One consumer's way through one journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache

import structlog
from sqlalchemy import bindparam, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.records import StoredEvent
from lamassu.platform.database import Database, Prepared, Step
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.database.prepared import Statement
from lamassu.platform.database.records import EVENT
from lamassu.platform.messaging.pulse import Pulse

log = structlog.get_logger(__name__)

Handler = Callable[[StoredEvent], Awaitable[None]]
BatchHandler = Callable[[Sequence[StoredEvent]], Awaitable[None]]

BATCH = 200
"""Events read at once; so many may be told again after a crash."""
STRIDE = 1000
"""Positions of no interest after which the cursor is saved anyway."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a handler may fail before its event is given up. Times in seconds.

    The pause doubles from `first_pause` up to `longest_pause`. While something is only out of
    reach (`Unavailable`) it may fail `tries_when_unavailable` times.
    """

    tries: int = 5
    tries_when_unavailable: int = 12
    first_pause: float = 0.2
    longest_pause: float = 30.0
    handler_timeout: float = 60.0

    def pause(self, tries: int) -> float:
        return min(self.longest_pause, self.first_pause * float(2 ** (tries - 1)))


class Feed:
    """Hands the events of journal `source` to `handler`, in order, at least once each.

    The cursor is a row of `owner`. An event that keeps failing is recorded in the owner's dead
    letters, and the feed goes on.
    """

    def __init__(
        self,
        database: Database,
        *,
        consumer: str,
        owner: str,
        source: str,
        types: Sequence[str] | None,
        handler: Handler,
        batch_handler: BatchHandler | None = None,
        patience: Patience,
        interval: float = 1.0,
    ) -> None:
        self.consumer = consumer
        self.source = source
        self.handled = 0
        self.position = 0
        self._database = database
        self._owner = owner
        self._wanted = _wanted(source, types)
        self._handler = handler
        self._batch_handler = batch_handler
        self._patience = patience
        self._pulse = Pulse(interval)
        self._turn = asyncio.Lock()
        self._saved = -1  # not read yet

    def wake(self) -> None:
        """The journal grew."""
        self._pulse.wake()

    def stop(self) -> None:
        """`run` ends after the event that is being handled."""
        self._pulse.stop()

    async def run(self) -> None:
        """Follow the journal until told to stop."""
        await self._pulse.repeat(self.drain, task="consumer", consumer=self.consumer)

    async def drain(self) -> None:
        """Handle everything that the journal holds."""
        async with self._turn:
            while await self._batch():
                if self._pulse.stopping:
                    break

    async def behind(self) -> int:
        """How many positions of the journal it has not looked at."""
        return max(0, await self._last() - self.position)

    async def save(self) -> None:
        """Make the cursor durable, so that the next start begins here."""
        async with self._turn:
            if self._saved >= 0 and self.position > self._saved:
                await self._save()

    async def _batch(self) -> bool:
        """Handle some events; false at the journal's end."""
        if self._saved < 0:
            self.position = self._saved = await self._load()
        last, events = await self._read()
        together = await self._handle_together(events)
        for event in events:
            if not together and not await self._handle(event):
                break
            self.position = event.position
        else:
            if len(events) < BATCH:
                self.position = max(self.position, last)
        if self.position > self._saved and (events or self.position - self._saved >= STRIDE):
            await self._save()
        return bool(events)

    async def _read(self) -> tuple[int, Sequence[StoredEvent]]:
        """The journal's last position, and the next events of interest."""
        # the head first: what it counts is there when the events are read
        last = await self._last()
        if last <= self.position:
            return last, ()
        rows = await self._database.fetch(self.source, self._wanted, {"after": self.position})
        return last, [StoredEvent(self.source, *row) for row in rows]

    async def _last(self) -> int:
        rows = await self._database.fetch(self.source, _head_position(self.source), {})
        last: int = rows[0].position
        return last

    async def _handle_together(self, events: Sequence[StoredEvent]) -> bool:
        """Hand over all events in one call, where the consumer takes them so.

        False if it does not, or failed: then each is handed over by itself, to find the one
        that is to blame.
        """
        if self._batch_handler is None or len(events) < 2:
            return False
        try:
            async with asyncio.timeout(self._patience.handler_timeout):
                await self._batch_handler(events)
        except Exception as error:
            log.warning(
                "event_batch_failed", consumer=self.consumer, source=self.source, exc_info=error
            )
            return False
        self.handled += len(events)
        return True

    async def _handle(self, event: StoredEvent) -> bool:
        """True when the event is done with, one way or the other; false when told to stop."""
        tries = 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(self._patience.handler_timeout):
                    await self._handler(event)
            except Exception as error:  # noqa: BLE001 - handlers are others' code
                log.warning(
                    "event_handler_failed",
                    consumer=self.consumer,
                    source=self.source,
                    position=event.position,
                    tries=tries,
                    error=repr(error),
                )
                if tries >= self._allowed(error):
                    await self._bury(event, tries, error)
                    break
            else:
                break
            await self._pulse.pause(self._patience.pause(tries))
            if self._pulse.stopping:
                return False
        self.handled += 1
        return True

    def _allowed(self, error: Exception) -> int:
        if isinstance(error, Unavailable):
            return self._patience.tries_when_unavailable
        return self._patience.tries

    async def _bury(self, event: StoredEvent, tries: int, error: Exception) -> None:
        """Record the event as given up, and go past it, in one transaction."""
        letter = {
            "consumer": self.consumer,
            "source": self.source,
            "position": event.position,
            "event_id": _id_of(event),
            "type": event.type,
            "tries": tries,
            "error": f"{type(error).__name__}: {error}"[:1000].replace("\0", ""),
            "time": self._database.clock.now(),
        }
        async with self._database.unit(self._owner) as unit:
            await unit.connection.execute(insert(tables(self._owner).dead_letters), [letter])
            await unit.fetch(*self._cursor(event.position))
        # only now: a letter that could not be written must not cost the event
        self.position = self._saved = event.position
        log.error(
            "event_given_up",
            consumer=self.consumer,
            source=self.source,
            position=event.position,
            event_id=letter["event_id"],
            exc_info=error,
        )

    async def _load(self) -> int:
        mine = {"consumer": self.consumer, "source": self.source}
        rows = await self._database.fetch(self._owner, _load_cursor(self._owner), mine)
        return rows[0].position if rows else 0

    async def _save(self) -> None:
        await self._database.write(self._owner, [self._cursor(self.position)])
        self._saved = self.position

    def _cursor(self, position: int) -> Step:
        cursor = {"consumer": self.consumer, "source": self.source, "position": position}
        return Step(_save_cursor(self._owner), cursor)


@cache
def _load_cursor(owner: str) -> Prepared:
    cursors = tables(owner).cursors
    return Prepared(
        select(cursors.c.position).where(
            cursors.c.consumer == bindparam("consumer"), cursors.c.source == bindparam("source")
        )
    )


@cache
def _save_cursor(owner: str) -> Prepared:
    cursors = tables(owner).cursors
    statements: dict[str, Statement] = {}
    for dialect, start in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert)):
        put = start(cursors)
        statements[dialect] = put.on_conflict_do_update(
            index_elements=[cursors.c.consumer, cursors.c.source],
            set_={"position": put.excluded.position},
        )
    return Prepared(statements, columns=cursors.c.keys())


@cache
def _head_position(source: str) -> Prepared:
    return Prepared(select(tables(source).head.c.position))


def _wanted(source: str, types: Sequence[str] | None) -> Prepared:
    """The next events of these types."""
    journal = tables(source).journal
    wanted = (
        select(journal.c.position, journal.c.type, journal.c.subject, journal.c.body)
        .where(journal.c.position > bindparam("after"), journal.c.kind == EVENT)
        .order_by(journal.c.position)
        .limit(BATCH)
    )
    if types is not None:
        wanted = wanted.where(or_(*(journal.c.type == kind for kind in types)))
    return Prepared(wanted, many=True)


def _id_of(event: StoredEvent) -> str:
    """Empty for one that is damaged."""
    try:
        return event.id
    except ValueError:
        return ""
