"""One PostgreSQL database: a schema and a pool of prepared connections per service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from sqlalchemy import URL, event, exc
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from lamassu.platform.database.failures import code_of, name_raw_errors, unavailable
from lamassu.platform.database.settings import DatabaseSettings, tls_of

log = structlog.get_logger(__name__)

_BROKEN = "lamassu_broken"
_PREPARED_STATEMENTS = 500  # per connection; a service has far fewer different ones


class PostgresqlStore:
    """What `Database` needs of PostgreSQL."""

    def __init__(self, engines: dict[str, AsyncEngine]) -> None:
        self._engines = engines
        self._readers = {
            service: engine.execution_options(isolation_level="AUTOCOMMIT")
            for service, engine in engines.items()
        }

    @classmethod
    async def open(cls, settings: DatabaseSettings, services: Sequence[str]) -> PostgresqlStore:
        """Connects only when asked for the first connection."""
        return cls({service: _pooled(settings, service) for service in services})

    @asynccontextmanager
    async def transaction(self, service: str) -> AsyncIterator[AsyncConnection]:
        """BEGIN goes with the first statement: a unit that does nothing asks nothing."""
        async with _connected(self._engines[service]) as connection:
            async with connection.begin():
                info = await _info(connection)
                info.pop(_BROKEN, None)
                yield connection
                if info.get(_BROKEN):
                    raise RuntimeError("a failed statement was passed over without a savepoint")

    @asynccontextmanager
    async def reading(self, service: str) -> AsyncIterator[AsyncConnection]:
        """Each statement by itself, so that a single read is a single round trip."""
        async with _connected(self._readers[service]) as connection:
            yield connection

    async def check(self) -> None:
        """Reading shows it all: what is committed is written."""

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.dispose()


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
    try:
        connection = await engine.connect()
    except (OSError, TimeoutError) as error:  # raw from asyncpg: refused, unknown host, no answer
        raise unavailable("the database cannot be reached; try again") from error
    except exc.DBAPIError as error:
        log.warning("database_failure", code=code_of(error), error=str(error.orig))
        raise unavailable(
            "the database lets nobody in; check its name, role and password"
        ) from error
    try:
        yield connection
    finally:
        await connection.close()


async def _info(connection: AsyncConnection) -> dict[Any, Any]:
    """Notes that go with the driver's connection."""
    return (await connection.get_raw_connection()).info


def _note_broken_transactions(engine: AsyncEngine) -> None:
    """After a failed statement PostgreSQL answers COMMIT with a silent rollback.

    Who catches the error and goes on would be told of success; only a savepoint makes that safe.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _note(context: ExceptionContext) -> None:
        connection = context.connection
        if connection and not connection.invalidated and not connection.in_nested_transaction():
            connection.info[_BROKEN] = True


def _pooled(settings: DatabaseSettings, service: str) -> AsyncEngine:
    engine = create_async_engine(
        _url(settings, service),
        connect_args=_arguments(settings, service),
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.patience.total_seconds(),
        hide_parameters=True,  # what they hold is nothing for a log
        pool_use_lifo=True,  # few connections stay warm, their prepared statements with them
    )
    event.listen(engine.sync_engine, "checkout", _replace_if_closed)
    name_raw_errors(engine)
    _note_broken_transactions(engine)
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
