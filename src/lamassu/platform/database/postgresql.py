"""One PostgreSQL database: a schema and a pool of prepared connections per service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import structlog
from sqlalchemy import URL, Connection, event, exc
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection
from sqlalchemy.util.concurrency import greenlet_spawn

from lamassu.platform.database.failures import name_raw_errors, named, unavailable
from lamassu.platform.database.prepared import Prepared, Values
from lamassu.platform.database.settings import DatabaseSettings, tls_of

log = structlog.get_logger(__name__)

# Errors after which nobody knows what a connection is still doing.
_OUT_OF_STEP = (OSError, TimeoutError, asyncpg.InternalClientError)
_PREPARED_STATEMENTS = 500  # per connection; a service has far fewer different ones


class PostgresqlSession:
    """A connection of the pool. Each statement commits by itself unless `begin` came first."""

    def __init__(self, engine: AsyncEngine, lent: PoolProxiedConnection) -> None:
        self._engine = engine
        self._lent = lent
        self._driver: asyncpg.Connection = lent.driver_connection
        self._connection: AsyncConnection | None = None

    @property
    def connection(self) -> AsyncConnection:
        if self._connection is None:  # it costs more than most statements of the hot path
            engine = self._engine.sync_engine
            self._connection = AsyncConnection(self._engine, Connection(engine, self._lent))
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
            await self._driver.executemany(plan.text, [plan.arguments(row) for row in rows])
        except Exception as error:
            raise self._told(error) from error

    async def begin(self) -> None:
        await self._control("BEGIN")

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

    async def release(self) -> None:
        """Give the connection back; one whose transaction did not end is closed."""
        if not self._driver.is_closed() and self._driver.is_in_transaction():
            self._driver.terminate()
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


class PostgresqlStore:
    """What `Database` needs of PostgreSQL."""

    def __init__(self, engines: dict[str, AsyncEngine]) -> None:
        self._engines = engines

    @classmethod
    async def open(cls, settings: DatabaseSettings, services: Sequence[str]) -> PostgresqlStore:
        """Connects only when asked for the first connection."""
        return cls({service: _pooled(settings, service) for service in services})

    @asynccontextmanager
    async def transaction(self, service: str) -> AsyncIterator[PostgresqlSession]:
        """The engine commits by itself, so that BEGIN and COMMIT are ours alone."""
        async with self._session(service) as session:
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
        async with self._session(service) as session:
            yield session.connection

    async def fetch(self, service: str, statement: Prepared, values: Values) -> Sequence[Any]:
        async with self._session(service) as session:
            return await session.fetch(statement, values)

    async def check(self) -> None:
        """Reading shows it all: what is committed is written."""

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.dispose()

    @asynccontextmanager
    async def _session(self, service: str) -> AsyncIterator[PostgresqlSession]:
        engine = self._engines[service]
        with _reachable(engine):
            lent = await greenlet_spawn(engine.sync_engine.raw_connection)
        session = PostgresqlSession(engine, lent)
        try:
            yield session
        finally:
            await session.release()


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


@contextmanager
def _reachable(engine: AsyncEngine) -> Iterator[None]:
    """Tell why no connection could be had. Raises `Unavailable`."""
    try:
        yield
    except (OSError, TimeoutError) as error:  # raw from asyncpg: refused, unknown host, no answer
        raise unavailable("the database cannot be reached; try again") from error
    except (exc.DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        log.warning("database_failure", error=str(error))
        raise unavailable(
            "the database lets nobody in; check its name, role and password"
        ) from error


def _pooled(settings: DatabaseSettings, service: str) -> AsyncEngine:
    engine = create_async_engine(
        _url(settings, service),
        connect_args=_arguments(settings, service),
        isolation_level="AUTOCOMMIT",
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.patience.total_seconds(),
        hide_parameters=True,  # what they hold is nothing for a log
        pool_use_lifo=True,  # few connections stay warm, their prepared statements with them
    )
    event.listen(engine.sync_engine, "checkout", _replace_if_closed)
    name_raw_errors(engine)
    return engine


def _replace_if_closed(
    connection: DBAPIConnection, entry: ConnectionPoolEntry, proxy: PoolProxiedConnection
) -> None:
    """The driver notices a closed connection by itself: no ping is needed to find it out."""
    driver = entry.driver_connection
    if driver is not None and driver.is_closed():
        raise exc.DisconnectionError


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
