"""The latest events in tables: a row per type, and per service how far its events were counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Column, MetaData, Table, bindparam, select, update

from lamassu.kernel.records import AuditRecord
from lamassu.platform.database import Database, Prepared, Unit
from lamassu.platform.database.types import BigInteger, JsonDocument, Text, UtcDateTime
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.alerts.ports import AlertsUnit

SERVICE = "alerts"

metadata = MetaData()

latest_events = Table(
    "alerts_latest",
    metadata,
    Column("event_type", Text, primary_key=True),
    Column("event", JsonDocument, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
    Column("counter", BigInteger, nullable=False),
)

positions = Table(
    "alerts_positions",
    metadata,
    Column("source", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)


_LOCK_POSITION = Prepared(
    select(positions.c.position).where(positions.c.source == bindparam("wanted")).with_for_update()
)
_FIRST_POSITION = Prepared(positions.insert(), columns=["source", "position"])
_SET_POSITION = Prepared(
    update(positions).where(positions.c.source == bindparam("wanted")), columns=["position"]
)
_COUNT = Prepared(
    update(latest_events)
    .where(latest_events.c.event_type == bindparam("wanted"))
    .values(counter=latest_events.c.counter + bindparam("more"))
    .returning(latest_events.c.counter),
    columns=["event", "seen_at"],
)
_COUNT_EARLIER = Prepared(
    update(latest_events)
    .where(latest_events.c.event_type == bindparam("wanted"))
    .values(counter=latest_events.c.counter + bindparam("more"))
    .returning(latest_events.c.counter)
)
_FIRST_COUNT = Prepared(latest_events.insert(), columns=latest_events.c.keys())


class AlertsUnitOnDatabase:
    """One transaction."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    async def lock_position(self, source: str) -> int:
        """Two that begin at once trip over the primary key: one of them tries again."""
        for row in await self._unit.fetch(_LOCK_POSITION, {"wanted": source}):
            return int(row.position)
        await self._unit.fetch(_FIRST_POSITION, {"source": source, "position": 0})
        return 0

    async def set_position(self, source: str, position: int) -> None:
        """The row is there since it was locked."""
        await self._unit.fetch(_SET_POSITION, {"wanted": source, "position": position})

    async def count(self, seen: LatestEvent) -> None:
        """The database adds, so that no count is lost between two sources of one type."""
        wanted = {"wanted": seen.event_type, "more": seen.counter}
        if not await self._unit.fetch(_COUNT, _shown(seen) | wanted):
            await self._first(seen)

    async def count_earlier(self, seen: LatestEvent) -> None:
        """What is here was seen later."""
        wanted = {"wanted": seen.event_type, "more": seen.counter}
        if not await self._unit.fetch(_COUNT_EARLIER, wanted):
            await self._first(seen)

    def audit(self, record: AuditRecord) -> None:
        """Have the record committed with the rows."""
        self._unit.audit(record)

    async def _first(self, seen: LatestEvent) -> None:
        first = {"event_type": seen.event_type, "counter": seen.counter}
        await self._unit.fetch(_FIRST_COUNT, _shown(seen) | first)


def _shown(seen: LatestEvent) -> dict[str, object]:
    return {"event": dict(seen.cloud_event), "seen_at": seen.seen_at}


class AlertsStorage:
    """The latest events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[AlertsUnit]:
        """A transaction."""
        async with self._database.unit(SERVICE) as unit:
            yield AlertsUnitOnDatabase(unit)

    async def latest(self) -> Sequence[LatestEvent]:
        """One per type."""
        query = select(latest_events).order_by(latest_events.c.event_type)
        async with self._database.reading(SERVICE) as connection:
            rows = (await connection.execute(query)).all()
        return [
            LatestEvent(row.event_type, row.event, seen_at=row.seen_at, counter=row.counter)
            for row in rows
        ]
