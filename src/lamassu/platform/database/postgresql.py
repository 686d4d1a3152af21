"""One PostgreSQL database: a schema and a pool of prepared connections per service."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL, BigInteger, Connection, bindparam, exc, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, PoolProxiedConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from lamassu.platform.database.failures import code_of, name_raw_errors, named, unavailable
from lamassu.platform.database.prepared import Closing, Plan, Prepared, Step, Values
from lamassu.platform.database.settings import DatabaseSettings, tls_of

log = structlog.get_logger(__name__)

# Errors after which nobody knows what a connection is still doing.
_OUT_OF_STEP = (OSError, TimeoutError, asyncpg.InternalClientError)
_ARGUMENT = re.compile(r"\$(\d+)")
_PREPARED_STATEMENTS = 500  # per connection; a service has far fewer different ones


class PostgresqlSession:
    """A connection of the pool. Each statement commits by itself unless `begin` came first."""

    def __init__(self, engine: AsyncEngine, lent: PoolProxiedConnection) -> None:
        self._engine = engine
        self._lent = lent
        self._driver: asyncpg.Connection = lent.driver_connection
        self._connection: AsyncConnection | None = None
        self._in_use = False  # SQLAlchemy's connection, since the last `settle`

    @property
    def connection(self) -> AsyncConnection:
        if self._connection is None:  # it costs more than most statements of the hot path
            engine = self._engine.sync_engine
            self._connection = AsyncConnection(self._engine, Connection(engine, self._lent))
        self._in_use = True
        return self._connection

    async def fetch(self, statement: Prepared, values: Values) -> Sequence[Any]:
        try:
            plan = statement.on(self._engine.dialect)
            return plan.rows(await self._driver.fetch(plan.text, *plan.arguments(values)))
        except Exception as error:
            raise self._told(error) from error

    async def run_each(self, statement: Prepared, rows: Sequence[Values]) -> None:
        try:
            plan = statement.on(self._engine.dialect)
            if statement.by_column:
                await self._driver.fetch(plan.text, *plan.columns(rows))
            else:
                await self._driver.executemany(plan.text, [plan.arguments(row) for row in rows])
        except Exception as error:
            raise self._told(error) from error

    async def write(self, steps: Sequence[Step], closing: Closing) -> bool:
        """One statement commits by itself: nothing of it stays when any part of it fails."""
        dialect = self._engine.dialect
        plans = [step.statement.on(dialect) for step in steps]
        arguments = [
            each
            for plan, step in zip(plans, steps, strict=True)
            for each in plan.arguments(step.values)
        ]
        last = closing()
        if last:
            plans.append(last[0].on(dialect))
            arguments += plans[-1].columns(last[1])
        try:
            await self._driver.fetch(_at_once(tuple(plans)), *arguments)
        except asyncpg.DivisionByZeroError:
            return False
        except Exception as error:
            raise self._told(error) from error
        return True

    async def begin(self) -> None:
        await self._control("BEGIN")

    async def begin_listing(self, patience: float) -> None:
        """A transaction that reads; `patience` in seconds for each of its statements.

        Plans are made anew each time: one for any value would know neither how many rows this
        value has nor that a partial index is about it.
        """
        await self._control(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
            f" SET LOCAL statement_timeout = {int(patience * 1000)};"
            " SET LOCAL plan_cache_mode = force_custom_plan"
        )

    async def commit(self) -> None:
        """After a failed statement PostgreSQL answers COMMIT with a rollback.

        Who catches the error and goes on would be told of success; only a savepoint makes that
        safe.
        """
        if await self._control("COMMIT") != "COMMIT":
            raise RuntimeError("a failed statement was passed over without a savepoint")

    async def rollback(self) -> None:
        """Never fails: a connection that cannot roll back is given up, which does the same."""
        try:
            await self._driver.execute("ROLLBACK")
        except (*_OUT_OF_STEP, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.warning("database_failure", statement="ROLLBACK", error=repr(error))
            self._driver.terminate()

    async def settle(self) -> bool:
        """Make ready for the next use. False when the connection is good for none."""
        if not self._driver.is_closed() and self._driver.is_in_transaction():
            self._driver.terminate()
        if self._in_use and self._connection is not None and not self._driver.is_closed():
            await self._connection.rollback()  # SQLAlchemy's notion of a transaction, no statement
            self._in_use = False
        return not self.closed

    @property
    def closed(self) -> bool:
        """The driver notices an end by itself: no ping is needed to find it out."""
        return bool(self._driver.is_closed())

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        else:
            await greenlet_spawn(self._lent.close)

    async def _control(self, statement: str) -> str:
        try:
            status: str = await self._driver.execute(statement)
        except Exception as error:
            raise self._told(error) from error
        return status

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, _OUT_OF_STEP):
            self._driver.terminate()
        return named(error)


_MOST_HOLDERS = 4  # connections of one service beside its pool
_TRY_LOCK = Prepared(
    select(func.pg_try_advisory_lock(bindparam("number", type_=BigInteger)).label("held"))
)


class SessionPool:
    """The connections of a service: at most `size`, kept open, the last used one first.

    In place of SQLAlchemy's pool, which takes 60 to 150 µs for each use.
    """

    def __init__(self, engine: AsyncEngine, *, size: int, patience: float) -> None:
        """`patience` in seconds: how long to wait for a free connection."""
        self._engine = engine
        self._free = asyncio.Semaphore(size)
        self._patience = patience
        self._idle: list[PostgresqlSession] = []
        self._holders = asyncio.Semaphore(_MOST_HOLDERS)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[PostgresqlSession]:
        """Sole use of a connection. Raises `Unavailable`."""
        await self._take_turn()
        session: PostgresqlSession | None = None
        try:
            session = await self._take()
            yield session
        finally:
            try:
                if session is not None:
                    await self._give_back(session)
            finally:
                self._free.release()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()
        await self._engine.dispose()

    @asynccontextmanager
    async def holding(self, number: int) -> AsyncIterator[bool]:
        """Whether the advisory lock of this number could be had, for as long as this lasts.

        By a connection beside the others: who holds it goes on to use those. It ends with the
        process, however that ends.
        """
        async with self._holders:
            session = await self._connected()
            try:
                got = await session.fetch(_TRY_LOCK, {"number": number})
                yield bool(got[0].held)
            finally:
                await session.close()

    async def _take_turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise unavailable(
                "the database is busy: no connection became free in time; try again"
            ) from None

    async def _take(self) -> PostgresqlSession:
        while self._idle:
            session = self._idle.pop()
            if not session.closed:
                return session
            await session.close()
        return await self._connected()

    async def _connected(self) -> PostgresqlSession:
        with _reachable(self._engine):
            lent = await greenlet_spawn(self._engine.sync_engine.raw_connection)
        return PostgresqlSession(self._engine, lent)

    async def _give_back(self, session: PostgresqlSession) -> None:
        usable = False
        try:
            usable = await session.settle()
        finally:
            if usable:
                self._idle.append(session)
            else:
                await session.close()


class PostgresqlStore:
    """What `Database` needs of PostgreSQL."""

    def __init__(self, pools: dict[str, SessionPool], *, list_patience: float) -> None:
        """`list_patience` in seconds."""
        self._pools = pools
        self._list_patience = list_patience

    @classmethod
    async def open(cls, settings: DatabaseSettings, services: Sequence[str]) -> PostgresqlStore:
        """Connects only when asked for the first connection."""
        patience = settings.patience.total_seconds()
        return cls(
            {
                service: SessionPool(
                    _engine(settings, service), size=settings.pool_size, patience=patience
                )
                for service in services
            },
            list_patience=settings.list_patience.total_seconds(),
        )

    @asynccontextmanager
    async def transaction(self, service: str) -> AsyncIterator[PostgresqlSession]:
        """The engine commits by itself, so that BEGIN and COMMIT are ours alone."""
        async with self._pools[service].session() as session:
            await session.begin()
            try:
                yield session
            except BaseException:
                await session.rollback()
                raise
            await session.commit()

    @asynccontextmanager
    async def reading(self, service: str) -> AsyncIterator[AsyncConnection]:
        """Each statement by itself, so that a single read is a single round trip."""
        async with self._pools[service].session() as session:
            yield session.connection

    @asynccontextmanager
    async def listing(self, service: str) -> AsyncIterator[AsyncConnection]:
        async with self._pools[service].session() as session:
            await session.begin_listing(self._list_patience)
            try:
                yield session.connection
            finally:
                await session.rollback()

    async def fetch(self, service: str, statement: Prepared, values: Values) -> Sequence[Any]:
        async with self._pools[service].session() as session:
            return await session.fetch(statement, values)

    async def write(self, service: str, steps: Sequence[Step], closing: Closing) -> bool:
        async with self._pools[service].session() as session:
            return await session.write(steps, closing)

    @asynccontextmanager
    async def alone(self, service: str, name: str) -> AsyncIterator[bool]:
        digest = hashlib.sha256(f"{service}/{name}".encode()).digest()
        number = int.from_bytes(digest[:8], signed=True)
        async with self._pools[service].holding(number) as held:
            yield held

    async def check(self) -> None:
        """Reading shows it all: what is committed is written."""

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()


@cache
def _at_once(plans: tuple[Plan, ...]) -> str:
    """All these statements as one. What reads the first one's rows has it run before the others;
    when there are none it fails, by the only fault that plain SQL can be made to have on a
    condition, and so does the whole."""
    parts: list[str] = []
    arguments = 0
    for number, plan in enumerate(plans):
        parts.append(f"step_{number} AS ({_renumbered(plan.text, arguments)})")
        arguments += plan.size
    verdict = "SELECT 1 / count(*) FROM step_0" if plans[0].returns else "SELECT 1"
    return f"WITH {', '.join(parts)} {verdict}"


def _renumbered(text: str, by: int) -> str:
    return _ARGUMENT.sub(lambda found: f"${int(found[1]) + by}", text)


@asynccontextmanager
async def administration(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    """A connection of its own for migrations, as the role that may change schemas."""
    engine = create_async_engine(
        _url(settings, None), connect_args=_arguments(settings, None), poolclass=NullPool
    )
    try:
        async with _connected(engine) as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    with _reachable(engine):
        connection = await engine.connect()
    try:
        yield connection
    finally:
        await connection.close()


_REFUSALS = {
    "3D000": "the database server has no database of this name; create it or correct the name",
    "28P01": "the database server refuses the role or its password; correct them",
    "28": "the database server does not let this role in from here; see its pg_hba.conf",
    "53300": "the database server has no connection left; raise its max_connections",
    "57P03": "the database server is starting up or shutting down; try again",
}
"""By SQLSTATE."""


@contextmanager
def _reachable(engine: AsyncEngine) -> Iterator[None]:
    """Tell why no connection could be had. Raises `Unavailable`."""
    try:
        yield
    except (OSError, TimeoutError) as error:  # raw from asyncpg: refused, unknown host, no answer
        raise unavailable("the database cannot be reached; try again") from error
    except (exc.DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        cause = error.orig if isinstance(error, exc.DBAPIError) else error
        log.warning("database_failure", error=str(cause))
        raise unavailable(_why_nobody_enters(error)) from error


def _why_nobody_enters(error: BaseException) -> str:
    code = code_of(error)
    for prefix, why in _REFUSALS.items():
        if code.startswith(prefix):
            return why
    return "the database lets nobody in; check its name, role and password"


def _engine(settings: DatabaseSettings, service: str) -> AsyncEngine:
    engine = create_async_engine(
        _url(settings, service),
        connect_args=_arguments(settings, service),
        isolation_level="AUTOCOMMIT",
        poolclass=NullPool,  # `SessionPool` keeps what this connects
        hide_parameters=True,  # what they hold is nothing for a log
    )
    name_raw_errors(engine)
    return engine


def _url(settings: DatabaseSettings, service: str | None) -> URL:
    login = settings.login(service)
    return URL.create(
        "postgresql+asyncpg",
        username=login.username,
        password=login.password or None,
        host=settings.host,
        port=settings.port,
        database=settings.database,
    )


def _arguments(settings: DatabaseSettings, service: str | None) -> dict[str, object]:
    patience = settings.patience.total_seconds()
    server = {
        "application_name": f"lamassu-{service or 'migrate'}",
        "jit": "off",  # our statements are small; compiling them costs more than it saves
    }
    if service:
        milliseconds = str(int(patience * 1000))
        server |= {
            "search_path": service,
            "lock_timeout": milliseconds,
            "statement_timeout": milliseconds,
            "idle_in_transaction_session_timeout": str(int(patience * 3000)),
        }
    return {
        "ssl": tls_of(settings),
        "timeout": settings.connect_timeout.total_seconds(),
        # beyond the server's own timeout: for a server that has fallen silent
        "command_timeout": patience + 5 if service else None,
        "server_settings": server,
        "prepared_statement_cache_size": _PREPARED_STATEMENTS,
        "statement_cache_size": _PREPARED_STATEMENTS,
    }
