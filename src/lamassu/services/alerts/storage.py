"""The latest events in tables: a row per type, and per service how far its events were counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Column, MetaData, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.platform.database import Database
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


class AlertsUnitOnDatabase:
    """One transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock_position(self, source: str) -> int:
        """Two that begin at once trip over the primary key: one of them tries again."""
        query = select(positions.c.position).where(positions.c.source == source)
        position: int | None = await self._connection.scalar(query.with_for_update())
        if position is None:
            await self._connection.execute(positions.insert().values(source=source, position=0))
        return position or 0

    async def set_position(self, source: str, position: int) -> None:
        """The row is there since it was locked."""
        await self._connection.execute(
            update(positions).where(positions.c.source == source).values(position=position)
        )

    async def count(self, seen: LatestEvent) -> None:
        """The database adds, so that no count is lost between two sources of one type."""
        changed = await self._connection.execute(
            update(latest_events)
            .where(latest_events.c.event_type == seen.event_type)
            .values(
                event=dict(seen.cloud_event),
                seen_at=seen.seen_at,
                counter=latest_events.c.counter + seen.counter,
            )
        )
        if changed.rowcount == 0:
            await self._connection.execute(
                latest_events.insert().values(
                    event_type=seen.event_type,
                    event=dict(seen.cloud_event),
                    seen_at=seen.seen_at,
                    counter=seen.counter,
                )
            )


class AlertsStorage:
    """The latest events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[AlertsUnit]:
        """A transaction."""
        async with self._database.unit(SERVICE) as unit:
            yield AlertsUnitOnDatabase(unit.connection)

    async def latest(self) -> Sequence[LatestEvent]:
        """One per type."""
        query = select(latest_events).order_by(latest_events.c.event_type)
        async with self._database.reading(SERVICE) as connection:
            rows = (await connection.execute(query)).all()
        return [
            LatestEvent(row.event_type, row.event, seen_at=row.seen_at, counter=row.counter)
            for row in rows
        ]
