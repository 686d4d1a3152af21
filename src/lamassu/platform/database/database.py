"""The platform's database: units of work and reading, whatever is underneath."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from typing import Any, Protocol
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.records import Record
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.database.failures import out_of_time, translated
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.database.kept_answers import Keeping, insertion, keeping
from lamassu.platform.database.migrate import check_revision, migrate
from lamassu.platform.database.postgresql import PostgresqlStore
from lamassu.platform.database.prepared import Closing, Prepared, Step, Values, insert_by_column
from lamassu.platform.database.records import RecordRow, RecordWriter, Stamped
from lamassu.platform.database.settings import DatabaseSettings
from lamassu.platform.database.sqlite import SqliteStore
from lamassu.platform.database.unit import Session, Unit

log = structlog.get_logger(__name__)


class Store(Protocol):
    """What differs between the databases."""

    def transaction(self, service: str) -> AbstractAsyncContextManager[Session]:
        """A transaction that commits at the end, or rolls back on an error."""
        ...

    def reading(self, service: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection that sees what was committed."""
        ...

    def listing(self, service: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """Likewise, in one state; a statement ends with `out_of_time` when it takes too long."""
        ...

    async def fetch(self, service: str, statement: Prepared, values: Values) -> Sequence[Any]:
        """The rows of one statement, that sees what was committed."""
        ...

    async def write(self, service: str, steps: Sequence[Step], closing: Closing) -> bool:
        """A whole transaction, as `Database.write` has it.

        `closing` makes the last statement and its rows; it is asked at most once.
        """
        ...

    def alone(self, service: str, name: str) -> AbstractAsyncContextManager[bool]:
        """Whether no other process is at the deed of this name, nor will be while this lasts."""
        ...

    async def check(self) -> None:
        """Raises `Unavailable` for what reading does not show."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class Database:
    """One per process. `services` are those whose data this process works on."""

    def __init__(
        self,
        store: Store,
        *,
        dialect: Dialect,
        services: Sequence[str],
        writer: RecordWriter,
        clock: Clock,
    ) -> None:
        self.dialect = dialect
        self.services = tuple(services)
        self.writer = writer
        self.clock = clock
        self._store = store
        self._listeners: list[Callable[[str], None]] = []
        self._in_unit: set[asyncio.Task[object] | None] = set()
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @classmethod
    async def open(
        cls,
        settings: DatabaseSettings,
        *,
        services: Sequence[str],
        writer: RecordWriter,
        clock: Clock,
    ) -> Database:
        """Connect and check that each schema is the one expected; SQLite is migrated at once.

        Raises `Unavailable`, which says what to do.
        """
        store: Store
        if settings.dialect is Dialect.SQLITE:
            await migrate(settings, services)
            store = await SqliteStore.open(settings)
        else:
            store = await PostgresqlStore.open(settings, services)
        database = cls(
            store, dialect=settings.dialect, services=services, writer=writer, clock=clock
        )
        try:
            for service in services:
                await database._begin(service)
        except BaseException:
            await store.close()
            raise
        return database

    @asynccontextmanager
    async def unit(self, service: str) -> AsyncIterator[Unit]:
        """A write transaction: commits at the end, with its records; rolls back on an error.

        When it returns, everything is durable. Raises `Conflict` (`already_exists`) for a breach
        of a unique key and `Unavailable` when the database cannot commit; after the latter the
        outcome may be unknown. Units do not nest: a transaction spans one service only. Keep
        them short, and wait for nothing but the database in them: on SQLite others are
        acknowledged together with this one.
        """
        task = asyncio.current_task()
        if task in self._in_unit:
            raise RuntimeError("a unit within a unit")
        self._in_unit.add(task)
        stamped: Stamped | None = None
        kept: Keeping | None = None
        committed = False
        try:
            async with self._store.transaction(service) as session:
                unit = Unit(service, session)
                yield unit
                if unit.records:
                    now = self.clock.now()
                    kept = keeping(service, unit.records, now)
                    if kept:
                        await session.run_each(insertion(service), [kept.row])
                    stamped = self.writer.stamp(service, unit.records, now)
                    await _write(session, stamped)
            committed = True
        except SQLAlchemyError as error:
            raise translated(error) or error from error
        finally:
            self._in_unit.discard(task)
            if stamped:
                self.writer.settle(stamped, committed=committed)
        if kept:
            kept.done()
        if stamped:
            self._announce(service)

    async def write(
        self, service: str, steps: Sequence[Step], records: Sequence[Record] = ()
    ) -> bool:
        """A unit whose statements are known beforehand: all of them, and the records, or nothing.

        On PostgreSQL it is one round trip in place of one for each statement and two more, which
        is why the hot path uses it. There the steps do not see each other's rows, so they
        must not touch the same ones. False, and nothing written, when the first step has
        something to return and returns nothing. Raises as `unit` does; `failures.table_of` knows
        which table a `Conflict` comes from.
        """
        if asyncio.current_task() in self._in_unit:
            raise RuntimeError("a unit within a unit")
        stamped: Stamped | None = None
        committed = False
        kept = keeping(service, records, self.clock.now()) if records else None
        if kept:
            steps = [*steps, Step(insertion(service), kept.row)]

        def closing() -> tuple[Prepared, Sequence[Values]] | None:
            nonlocal stamped
            if not records:
                return None
            stamped = self.writer.stamp(service, records, self.clock.now())
            return _outbox_insert(service), stamped.rows

        try:
            committed = await self._store.write(service, steps, closing)
        except SQLAlchemyError as error:
            raise translated(error) or error from error
        finally:
            if stamped:
                self.writer.settle(stamped, committed=committed)
        if committed and kept:
            kept.done()
        if committed and stamped:
            self._announce(service)
        return committed

    @asynccontextmanager
    async def reading(self, service: str) -> AsyncIterator[AsyncConnection]:
        """A connection to read committed state with; it may not write."""
        try:
            async with self._store.reading(service) as connection:
                yield connection
        except SQLAlchemyError as error:
            raise translated(error) or error from error

    @asynccontextmanager
    async def listing(self, service: str) -> AsyncIterator[AsyncConnection]:
        """A connection to read a list with, which clients may ask for in ways that no index
        serves: such a statement is given up in time. Raises `RuleViolation`
        (`query_too_expensive`)."""
        try:
            async with self._store.listing(service) as connection:
                yield connection
        except SQLAlchemyError as error:
            if out_of_time(error):
                raise RuleViolation(
                    "no index serves this question, and reading all rows takes too long; filter by"
                    " serial number, name, issuer, status or a date as well, search for three"
                    " letters or more, or sort by a plain field",
                    code="query_too_expensive",
                    field="filter",
                ) from error
            raise translated(error) or error from error

    async def fetch(self, service: str, statement: Prepared, values: Values) -> Sequence[Any]:
        """The rows of one prepared statement, in committed state."""
        try:
            return await self._store.fetch(service, statement, values)
        except SQLAlchemyError as error:
            raise translated(error) or error from error

    @asynccontextmanager
    async def alone(self, service: str, name: str) -> AsyncIterator[None]:
        """Do what must not be done twice at once, by nobody, and takes longer than a transaction.

        Who comes second in this process waits for its turn. Raises `Conflict`
        (`done_elsewhere`) where another process is at it. It ends with the process.
        """
        turn = self._turns.setdefault((service, name), asyncio.Lock())
        async with turn:
            try:
                async with self._store.alone(service, name) as alone:
                    if not alone:
                        raise Conflict(
                            "another process of the platform is doing this; ask again",
                            code="done_elsewhere",
                            retry_after=5,
                        )
                    yield
            except SQLAlchemyError as error:
                raise translated(error) or error from error

    def on_records(self, listener: Callable[[str], None]) -> None:
        """Call `listener(service)` after each commit that left records in its outbox."""
        self._listeners.append(listener)

    async def check(self) -> None:
        """Raises `Unavailable` unless every service's tables can be read (and SQLite written)."""
        await self._store.check()
        for service in self.services:
            head = tables(service).head
            async with self.reading(service) as connection:
                await connection.execute(select(head.c.position))

    async def close(self) -> None:
        """Say in each journal that this process ended in order, and disconnect."""
        for service in self.services:
            try:
                await self._end(service)
            except (LamassuError, SQLAlchemyError) as error:
                log.warning("journal_not_closed", service=service, error=type(error).__name__)
        await self._store.close()

    async def _begin(self, service: str) -> None:
        async with self.reading(service) as connection:
            await check_revision(connection, service)
            head = tables(service).head
            row = (await connection.execute(select(head.c.position, head.c.hash))).first()
        if row is None:
            raise Unavailable(f"the journal of {service} has lost its head", code="journal_damaged")
        self.writer.follow(service, row.position, row.hash)

    async def _end(self, service: str) -> None:
        stamped = self.writer.closing(service, self.clock.now())
        if stamped is None:
            return
        async with self._store.transaction(service) as session:
            await _write(session, stamped)

    def _announce(self, service: str) -> None:
        for listener in self._listeners:
            listener(service)


async def _write(session: Session, stamped: Stamped) -> None:
    """All records of a unit in one go."""
    await session.run_each(_outbox_insert(stamped.service), stamped.rows)


@cache
def _outbox_insert(service: str) -> Prepared:
    return insert_by_column(tables(service).outbox, list(RecordRow.__annotations__))
