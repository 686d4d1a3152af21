"""One SQLite file for all services: one writer with group commit, and a pool of readers."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool

from lamassu.kernel.errors import Unavailable
from lamassu.platform.database.failures import code_of, name_raw_errors, named, unavailable
from lamassu.platform.database.prepared import Closing, Plan, Prepared, Step, Values
from lamassu.platform.database.settings import DatabaseSettings
from lamassu.platform.database.sqlite_driver import (
    FileConnection,
    WriterConnection,
    connector,
    make_private,
)

log = structlog.get_logger(__name__)

_FEW = 12  # rows that are written sooner than a trip to the thread is made
GROUP_LIMIT = 64
"""Units that one COMMIT, and so one sync of the disk, may carry."""


def _lost() -> Unavailable:
    return unavailable("the transaction could not be written to disk; try again")


@dataclass(slots=True)
class _Group:
    """Units that share one transaction: all are acknowledged by its COMMIT, or none is."""

    done: asyncio.Future[None]
    size: int = 0

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self) -> None:
        if not self.done.done():
            self.done.set_exception(_lost())
            self.done.exception()  # somebody need not be waiting


@dataclass(slots=True)
class GroupCommit:
    """Hands the one writing connection from unit to unit.

    The first unit of a group begins the transaction; each later one is a savepoint in it. A unit
    that ends while others wait hands over without a COMMIT, the last one commits for all.
    """

    connection: WriterConnection
    patience: float
    _busy: bool = False
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)
    _group: _Group | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the writer for one unit; leaving returns only after the group's COMMIT did."""
        await self._await_turn()
        owed = self.connection.cancelled
        task = asyncio.current_task()
        try:
            group = await self._enter()
            try:
                yield
                if task in owed:
                    raise asyncio.CancelledError
                await self._release(group)
            except BaseException:
                await self._undo(group)
                raise
            group.size += 1
            if await self._hand_over():
                group.done.result()
            else:
                await asyncio.shield(group.done)
        except BaseException as error:
            if task in owed:
                raise asyncio.CancelledError from error
            raise
        else:
            if task in owed:
                raise asyncio.CancelledError
        finally:
            owed.discard(task)

    async def _await_turn(self) -> None:
        if not self._busy:
            self._busy = True
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        try:
            async with asyncio.timeout(self.patience):
                await mine
        except TimeoutError:
            if not self._granted(mine):
                raise unavailable("the database is busy; try again") from None
        except asyncio.CancelledError:
            if self._granted(mine):
                await self._hand_over()
            raise

    def _granted(self, mine: asyncio.Future[None]) -> bool:
        """Whether the turn came in the same moment as the end of patience."""
        if mine.done() and not mine.cancelled():
            return True
        with suppress(ValueError):
            self._waiting.remove(mine)
        return False

    async def _enter(self) -> _Group:
        group = self._group
        try:
            if group is None:
                await self.connection.command("BEGIN IMMEDIATE")
                group = self._group = _Group(asyncio.get_running_loop().create_future())
            else:
                await self.connection.command("SAVEPOINT unit")
            self.connection.alone = group.size == 0
        except (sqlite3.Error, ValueError) as error:
            log.warning("database_failure", error=str(error))
            await self._abandon()
            raise unavailable("the database file cannot be written now; try again") from error
        return group

    async def _release(self, group: _Group) -> None:
        if not self.connection.in_transaction:
            raise _lost()  # SQLite gave it up by itself: disk full, I/O error
        if group.size:
            await self._command("RELEASE unit")

    async def _command(self, statement: str) -> None:
        try:
            await self.connection.command(statement)
        except (sqlite3.Error, ValueError) as error:
            log.warning("database_failure", statement=statement, error=str(error))
            raise _lost() from error

    async def _undo(self, group: _Group) -> None:
        """Take back this unit and leave the others of the group as they were."""
        if group.size and self.connection.in_transaction:
            try:
                await self._command("ROLLBACK TO unit")
                await self._command("RELEASE unit")
            except Unavailable:
                await self._abandon()
            else:
                await self._hand_over()
            return
        await self._abandon()

    async def _abandon(self) -> None:
        """Give up the whole transaction and let the next unit begin a new one."""
        group, self._group = self._group, None
        if self.connection.in_transaction:
            with suppress(Unavailable):
                await self._command("ROLLBACK")
        if group:
            group.fail()
        await self._hand_over()

    async def _hand_over(self) -> bool:
        """Let the next unit have the writer. True if this committed (or failed) the group."""
        group = self._group
        ended = group is not None and (not self._someone_waits() or group.size >= GROUP_LIMIT)
        if group and ended:
            await self._commit(group)
        while self._waiting:
            following = self._waiting.popleft()
            if not following.done():
                following.set_result(None)
                return ended
        self._busy = False
        return ended

    def _someone_waits(self) -> bool:
        return any(not waiting.done() for waiting in self._waiting)

    async def _commit(self, group: _Group) -> None:
        self._group = None
        try:
            await self._command("COMMIT")
        except Unavailable:
            if self.connection.in_transaction:
                with suppress(Unavailable):
                    await self._command("ROLLBACK")
            group.fail()
        else:
            group.succeed()


class SqliteSession:
    """The writer, for the unit whose turn it is.

    Prepared statements run on the event loop: the transaction is begun, so they wait for nobody
    and sync nothing, and take less time than the trip to the thread and back (100 µs, more
    when the loop is busy). BEGIN, which may have to wait, COMMIT, which syncs the disk, and all
    that may touch many rows stay in the thread.
    """

    def __init__(self, writer: WriterConnection, connection: AsyncConnection) -> None:
        self._writer = writer
        self._connection = connection

    @property
    def connection(self) -> AsyncConnection:
        return self._connection

    async def fetch(self, statement: Prepared, values: Values) -> Sequence[Any]:
        plan = statement.on(self._connection.dialect)
        if statement.many:
            return await self._writer.statement(plan.text, _run, self._writer.raw, plan, values)
        return _run(self._writer.raw, plan, values)

    async def run_each(self, statement: Prepared, rows: Sequence[Values]) -> None:
        plan = statement.on(self._connection.dialect)
        if len(rows) > _FEW:
            await self._writer.statement(plan.text, _run_each, self._writer.raw, plan, rows)
        else:
            _run_each(self._writer.raw, plan, rows)


class QuickReader:
    """A connection of its own for prepared reads, which run on the event loop.

    A reader of a write-ahead log waits for nobody; should SQLite say otherwise, the pool of
    readers waits in the loop's place.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("PRAGMA busy_timeout = 0")

    def fetch(self, plan: Plan, values: Values) -> Sequence[Any] | None:
        """The rows, or `None` when it would have to wait."""
        try:
            return _run(self._connection, plan, values)
        except exc.OperationalError as error:
            if code_of(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                return None
            raise

    def close(self) -> None:
        self._connection.close()


def _run(connection: sqlite3.Connection, plan: Plan, values: Values) -> Sequence[Any]:
    try:
        return plan.rows(connection.execute(plan.text, plan.arguments(values)).fetchall())
    except Exception as error:
        raise named(error) from error


def _run_each(connection: sqlite3.Connection, plan: Plan, rows: Sequence[Values]) -> None:
    try:
        connection.executemany(plan.text, [plan.arguments(values) for values in rows])
    except Exception as error:
        raise named(error) from error


class SqliteStore:
    """What `Database` needs of an SQLite file."""

    def __init__(
        self,
        path: Path,
        *,
        writer_engine: AsyncEngine,
        connection: AsyncConnection,
        group_commit: GroupCommit,
        readers: AsyncEngine,
        quick_reader: QuickReader,
        list_patience: float,
    ) -> None:
        """`list_patience` in seconds."""
        self._list_patience = list_patience
        self._path = path
        self._file = _identity(path)
        self._writer_engine = writer_engine
        self._connection = connection
        self._group_commit = group_commit
        self._session = SqliteSession(group_commit.connection, connection)
        self._readers = readers
        self._quick_reader = quick_reader

    @classmethod
    async def open(cls, settings: DatabaseSettings) -> SqliteStore:
        """Raises `Unavailable` when the file cannot be opened."""
        path = settings.path
        if path is None:
            raise ValueError("SQLite needs a path")
        try:
            make_private(path)
        except OSError as error:
            raise unavailable(f"the database file cannot be opened: {error.strerror}") from error
        patience = settings.patience.total_seconds()
        writer = await WriterConnection.opened(
            connector(path, patience=patience, durable=settings.durable, read_only=False)
        )
        writer_engine = create_async_engine(
            "sqlite+aiosqlite://",
            async_creator=_given(writer),
            poolclass=StaticPool,
            hide_parameters=True,
        )
        name_raw_errors(writer_engine)
        connection = await writer_engine.connect()
        quick = await asyncio.to_thread(
            connector(path, patience=patience, durable=settings.durable, read_only=True)
        )
        return cls(
            path,
            writer_engine=writer_engine,
            connection=connection,
            group_commit=GroupCommit(writer, patience),
            readers=_reader_engine(path, settings),
            quick_reader=QuickReader(quick),
            list_patience=settings.list_patience.total_seconds(),
        )

    @asynccontextmanager
    async def transaction(self, service: str) -> AsyncIterator[SqliteSession]:
        async with self._group_commit.turn():
            yield self._session

    @asynccontextmanager
    async def reading(self, service: str) -> AsyncIterator[AsyncConnection]:
        async with self._readers.connect() as connection:
            yield connection

    @asynccontextmanager
    async def listing(self, service: str) -> AsyncIterator[AsyncConnection]:
        async with self._readers.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, FileConnection)
            with driver.bounded(self._list_patience):
                yield connection

    async def fetch(self, service: str, statement: Prepared, values: Values) -> Sequence[Any]:
        plan = statement.on(self._connection.dialect)
        rows = None if statement.many else self._quick_reader.fetch(plan, values)
        if rows is not None:
            return rows
        async with self._readers.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, FileConnection)
            return await driver.trip(_run, driver.raw, plan, values)

    async def write(self, service: str, steps: Sequence[Step], closing: Closing) -> bool:
        dialect, writer = self._connection.dialect, self._group_commit.connection
        async with self._group_commit.turn():
            for number, (statement, values) in enumerate(steps):
                plan = statement.on(dialect)
                found = _run(writer.raw, plan, values)
                if not number and plan.returns and not found:
                    return False
            last = closing()
            if last:
                await self._session.run_each(*last)
        return True

    @asynccontextmanager
    async def alone(self, service: str, name: str) -> AsyncIterator[bool]:
        """One process serves an SQLite file, and `Database` minds its own."""
        yield True

    async def check(self) -> None:
        """The file must still be the one that was opened, and the writer must get its turn."""
        if _identity(self._path) != self._file:
            raise unavailable("the database file was removed or replaced; restart lamassu")
        async with self._group_commit.turn():
            pass

    async def close(self) -> None:
        self._quick_reader.close()
        await self._readers.dispose()
        await self._connection.close()
        await self._writer_engine.dispose()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _reader_engine(path: Path, settings: DatabaseSettings) -> AsyncEngine:
    connect = connector(
        path, patience=settings.patience.total_seconds(), durable=settings.durable, read_only=True
    )

    async def open_reader() -> FileConnection:
        return await FileConnection.opened(connect)

    engine = create_async_engine(
        "sqlite+aiosqlite://",
        async_creator=open_reader,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.patience.total_seconds(),
        pool_reset_on_return=None,
        hide_parameters=True,
    )
    name_raw_errors(engine)
    return engine


def _given(connection: WriterConnection) -> Callable[[], Awaitable[WriterConnection]]:
    async def give() -> WriterConnection:
        return connection

    return give
