"""One transaction and what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.records import AuditRecord, Event, LogEntry, Record
from lamassu.platform.database.prepared import Prepared, Values


class Session(Protocol):
    """A connection of which the present transaction, or the present read, has sole use."""

    @property
    def connection(self) -> AsyncConnection:
        """The same connection, for SQLAlchemy's statements."""
        ...

    async def fetch(self, statement: Prepared, values: Values) -> Sequence[Any]:
        """Run it and return its rows. Raises SQLAlchemy's errors, as `connection` does."""
        ...

    async def run_each(self, statement: Prepared, rows: Sequence[Values]) -> None:
        """Run it once for each of `rows`, in one go."""
        ...


class Unit:
    """A write transaction of one service.

    `connection` is for the service's storage and is not to be committed, rolled back or kept.
    What is emitted and audited is written to the outbox at the end, in the same transaction.
    """

    __slots__ = ("_session", "records", "service")

    def __init__(self, service: str, session: Session) -> None:
        self.service = service
        self.records: list[Record] = []
        self._session = session

    @property
    def connection(self) -> AsyncConnection:
        return self._session.connection

    async def fetch(self, statement: Prepared, values: Values) -> Sequence[Any]:
        """The rows of a prepared statement. Raises SQLAlchemy's errors, as `connection` does."""
        return await self._session.fetch(statement, values)

    async def run_each(self, statement: Prepared, rows: Sequence[Values]) -> None:
        """Run a prepared statement once for each of `rows`, in one go."""
        await self._session.run_each(statement, rows)

    def emit(self, event: Event) -> None:
        """Tell the others, once this transaction has committed."""
        self.records.append(event)

    def audit(self, record: AuditRecord) -> None:
        """Keep who did what, if and only if it commits."""
        self.records.append(record)

    def log(self, entry: LogEntry) -> None:
        """Have the service's append-only log hold this, if and only if it commits."""
        self.records.append(entry)


class ServiceUnit:
    """A unit as one service's storage sees it: subclasses add what that service keeps.

    `emit` and `audit` are a slice's only way to leave records, and meet its port.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    @property
    def _connection(self) -> AsyncConnection:
        return self._unit.connection

    def emit(self, event: Event) -> None:
        """Have the event committed with the rows."""
        self._unit.emit(event)

    def audit(self, record: AuditRecord) -> None:
        """Have the record committed with the rows."""
        self._unit.audit(record)
