"""The connection to an SQLite file: one trip to its thread for each statement."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

import aiosqlite

from lamassu.platform.database import json_functions
from lamassu.platform.database.failures import unavailable

P = ParamSpec("P")
T = TypeVar("T")
Parameters = Sequence[object]
# Savepoints within a transaction that was begun: neither a lock nor the disk is waited for.
_INSTANT = frozenset({"SAVEPOINT unit", "RELEASE unit", "ROLLBACK TO unit"})
_READS = re.compile(r"\s*(?:SELECT|WITH)\b(?!.*\b(?:INSERT|UPDATE|DELETE|REPLACE)\b)", re.I | re.S)
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_INTERRUPT_AGAIN = 0.02
"""Seconds; an interrupt that comes before the thread has begun the statement has no effect."""


def make_private(path: Path) -> None:
    """Create the file readable by its owner only; SQLite gives `-wal` and `-shm` the same mode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def connector(
    path: Path, *, patience: float, durable: bool, read_only: bool
) -> Callable[[], sqlite3.Connection]:
    """What opens one connection. Transactions are ours alone: the driver begins none."""

    def connect() -> sqlite3.Connection:
        connection: json_functions.WatchedConnection = sqlite3.connect(
            path,
            timeout=patience,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
            factory=json_functions.WatchedConnection,
        )
        _write_ahead(connection, patience)
        json_functions.register(connection)
        for pragma in (
            # the write-ahead log is synced before each commit returns
            f"synchronous = {'FULL' if durable else 'OFF'}",
            "foreign_keys = ON",
            "trusted_schema = OFF",
            # as PostgreSQL's LIKE; the `_ic` operators fold case themselves
            "case_sensitive_like = ON",
            f"query_only = {'ON' if read_only else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    return connect


def _write_ahead(connection: sqlite3.Connection, patience: float) -> None:
    """Switch a new file to the write-ahead log. Where two connections do so at once, SQLite
    refuses one without heeding its timeout, lest they wait for each other."""
    deadline = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = (error.sqlite_errorcode & 0xFF) == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                connection.close()
                raise
            time.sleep(0.01)


class QuickCursor:
    """Runs a statement and fetches all its rows in one trip, where the stock cursor takes four.

    Shaped as SQLAlchemy's asyncio adapter wants a cursor.
    """

    __slots__ = ("_connection", "_rows", "arraysize", "description", "lastrowid", "rowcount")

    def __init__(self, connection: FileConnection) -> None:
        self._connection = connection
        self._rows: list[tuple[object, ...]] = []
        self.arraysize = 1
        self.description: object = None
        self.lastrowid: int | None = None
        self.rowcount = -1

    async def __aenter__(self) -> QuickCursor:
        return self

    async def execute(self, statement: str, parameters: Parameters = ()) -> None:
        await self._connection.statement(statement, self._run, statement, parameters)

    async def executemany(self, statement: str, parameters: Sequence[Parameters]) -> None:
        await self._connection.statement(statement, self._run_many, statement, parameters)

    async def fetchone(self) -> tuple[object, ...] | None:
        return self._rows.pop(0) if self._rows else None

    async def fetchmany(self, size: int | None = None) -> list[tuple[object, ...]]:
        count = size or self.arraysize
        some, self._rows = self._rows[:count], self._rows[count:]
        return some

    async def fetchall(self) -> list[tuple[object, ...]]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []

    def _run(self, statement: str, parameters: Parameters) -> None:
        try:
            self._keep(self._connection.raw.execute(statement, parameters))
        except sqlite3.OperationalError as error:
            if self._connection.out_of_time():
                error.sqlite_errorname = (
                    "SQLITE_INTERRUPT"  # also where a function of ours ended it
                )
            raise

    def _run_many(self, statement: str, parameters: Sequence[Parameters]) -> None:
        self._keep(self._connection.raw.executemany(statement, parameters))

    def _keep(self, cursor: sqlite3.Cursor) -> None:
        self.description = cursor.description
        self._rows = cursor.fetchall() if cursor.description else []
        self.lastrowid = cursor.lastrowid
        self.rowcount = cursor.rowcount
        cursor.close()


class FileConnection(aiosqlite.Connection):
    """A connection for readers."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect, iter_chunk_size=64)
        self._thread.daemon = True

    @property
    def raw(self) -> sqlite3.Connection:
        """For code that runs in the connection's own thread."""
        return self._conn

    @property
    def in_transaction(self) -> bool:
        return self._connection is not None and self._connection.in_transaction

    @contextmanager
    def bounded(self, patience: float) -> Iterator[None]:
        """Statements within are interrupted `patience` seconds from now."""
        watch = self._watch
        watch.deadline = time.monotonic() + patience
        self.raw.set_progress_handler(watch.is_over, _STEPS)
        try:
            yield
        finally:
            watch.deadline = None
            self.raw.set_progress_handler(None, 0)

    def out_of_time(self) -> bool:
        """Whether a statement has run into the end of patience."""
        return self._watch.is_over()

    @property
    def _watch(self) -> json_functions.Watch:
        assert isinstance(self.raw, json_functions.WatchedConnection)
        return self.raw.watch

    async def trip(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` in the connection's thread."""
        result: T = await self._execute(function, *args, **kwargs)  # type: ignore[no-untyped-call]
        return result

    async def statement(
        self, text: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function`, which executes this statement, in the connection's thread."""
        return await self.trip(function, *args, **kwargs)

    @classmethod
    async def opened(cls, connect: Callable[[], sqlite3.Connection]) -> Self:
        """Start the connection's thread and open the file in it.

        Raises `Unavailable` when it is no database, or its folder cannot be written.
        """
        connection = cls(connect)
        try:
            await connection
        except sqlite3.Error as error:
            await asyncio.to_thread(connection._thread.join)  # it still answers to this loop
            raise unavailable(f"the database file cannot be opened: {error}") from error
        return connection

    def cursor(self) -> QuickCursor:  # type: ignore[override]
        return QuickCursor(self)

    async def commit(self) -> None:
        if self.in_transaction:
            await super().commit()

    async def rollback(self) -> None:
        if self.in_transaction:
            await super().rollback()


class WriterConnection(FileConnection):
    """The one connection that writes; units share its transaction, so none may be torn.

    A cancellation that arrives while a statement runs becomes that statement's failure, so that
    the unit is rolled back alone; `cancelled` holds the tasks to whom it is still owed. The
    statement is interrupted where SQLite then takes back nothing of another unit: a reading
    one always, a writing one only if its unit is `alone` in the transaction, all of which goes.
    Else it is waited for. None is begun for a task that is owed its cancellation.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connect)
        self.cancelled: set[asyncio.Task[object] | None] = set()
        self.alone = False

    async def statement(
        self, text: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if asyncio.current_task() in self.cancelled:
            raise sqlite3.OperationalError("interrupted")
        may_interrupt = self.alone or _READS.match(text) is not None
        return await self._wait(partial(function, *args, **kwargs), may_interrupt)

    async def _execute(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._wait(partial(fn, *args, **kwargs), False)

    async def _wait(self, work: Callable[[], T], may_interrupt: bool) -> T:
        if not self._running or self._connection is None:
            raise ValueError("Connection closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((future, work))
        again = None
        while not future.done():
            try:
                await asyncio.wait((future,), timeout=again)
            except asyncio.CancelledError:
                self.cancelled.add(asyncio.current_task())
                again = _INTERRUPT_AGAIN if may_interrupt else None
            if again is not None and not future.done():
                self.raw.interrupt()
        return future.result()

    async def command(self, statement: str) -> None:
        """Run a statement of transaction control. In the thread, unless it never waits."""
        if statement in _INSTANT:
            self._command(statement)
        else:
            await self.trip(self._command, statement)

    def _command(self, statement: str) -> None:
        self.raw.execute(statement).close()
