"""Bring schemas up to date, or say that they are not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import StaticPool

from lamassu.kernel.errors import Unavailable
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.database.failures import code_of, translated, unavailable
from lamassu.platform.database.postgresql import administration
from lamassu.platform.database.services import history_of
from lamassu.platform.database.settings import DatabaseSettings
from lamassu.platform.database.sqlite_driver import FileConnection, connector, make_private

_LOCK = 0x6C616D61737375  # "lamassu": two migrations at once would trip over each other

_FORBIDDEN = "42501"


async def migrate(settings: DatabaseSettings, services: Sequence[str]) -> None:
    """Apply all pending revisions of the services, each service in one transaction.

    On PostgreSQL makes missing schemas, and grants the services' own roles what they need to run
    (rows, not definitions). Raises `Unavailable`.
    """
    try:
        async with _administration(settings) as connection:
            for service in services:
                await _migrate_one(connection, settings, service)
    except DBAPIError as error:
        if code_of(error) == _FORBIDDEN:
            raise Unavailable(
                "the database role may not change schemas; migrate as their owner",
                code="schema_forbidden",
            ) from error
        raise translated(error) or error from error


async def is_current(settings: DatabaseSettings, services: Sequence[str]) -> bool:
    """Whether an embedded database is there, with the schemas that this program expects: then
    opening it changes none. Another database is never changed by being opened."""
    if settings.path is None:
        return True
    if not settings.path.exists():
        return False
    async with _alone(settings, settings.path) as connection:
        for service in services:
            try:
                await check_revision(connection, service)
            except Unavailable:
                return False
    return True


async def downgrade(settings: DatabaseSettings, service: str, revision: str = "base") -> None:
    """Take a service's revisions back, as far as `revision`."""
    async with _administration(settings) as connection:
        async with _transaction(connection, settings):
            await _enter_schema(connection, settings, service)
            await connection.run_sync(
                lambda sync: command.downgrade(_config(service, sync), revision)
            )


async def check_revision(connection: AsyncConnection, service: str) -> None:
    """Raises `Unavailable` unless the service's schema is the one this program expects."""
    found = await connection.run_sync(_current, service)
    known = _scripts(service)
    expected = known.get_current_head()
    if found == expected:
        return
    if found is not None and not _knows(known, found):
        raise Unavailable(
            f"the database schema of {service} ({found}) is newer than this program "
            f"({expected}); install the version of lamassu that made it",
            code="schema_too_new",
        )
    raise Unavailable(
        f"the database schema of {service} is at {found or 'nothing'}, this program needs "
        f"{expected}; run: lamassu db migrate",
        code="schema_outdated",
    )


async def _migrate_one(
    connection: AsyncConnection, settings: DatabaseSettings, service: str
) -> None:
    async with _transaction(connection, settings):
        await _enter_schema(connection, settings, service)
        found = await connection.run_sync(_current, service)
        if found is not None and not _knows(_scripts(service), found):
            await check_revision(connection, service)
        if found != _scripts(service).get_current_head():
            await connection.run_sync(lambda sync: command.upgrade(_config(service, sync), "head"))
        if settings.dialect is Dialect.POSTGRESQL:
            await _grant(connection, settings, service)


@asynccontextmanager
async def _administration(settings: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    if settings.dialect is Dialect.POSTGRESQL:
        async with administration(settings) as connection:
            yield connection
        return
    if settings.path is None:
        raise ValueError("SQLite needs a path")
    try:
        make_private(settings.path)
    except OSError as error:
        raise unavailable(f"the database file cannot be opened: {error.strerror}") from error
    async with _alone(settings, settings.path) as connection:
        yield connection


@asynccontextmanager
async def _alone(settings: DatabaseSettings, path: Path) -> AsyncIterator[AsyncConnection]:
    driver = await FileConnection.opened(
        connector(
            path,
            patience=settings.patience.total_seconds(),
            durable=settings.durable,
            read_only=False,
        )
    )

    async def give() -> FileConnection:
        return driver

    engine = create_async_engine("sqlite+aiosqlite://", async_creator=give, poolclass=StaticPool)
    try:
        async with engine.connect() as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def _transaction(
    connection: AsyncConnection, settings: DatabaseSettings
) -> AsyncIterator[None]:
    """All or nothing. SQLite's definitions are transactional too, if one says BEGIN oneself."""
    async with connection.begin():
        if settings.dialect is Dialect.SQLITE:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield


async def _enter_schema(
    connection: AsyncConnection, settings: DatabaseSettings, service: str
) -> None:
    if settings.dialect is Dialect.SQLITE:
        return
    there = await connection.execute(
        text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": service}
    )
    if there.first() is None:  # IF NOT EXISTS would ask for the right to create even then
        await connection.exec_driver_sql(f'CREATE SCHEMA "{service}"')
    await connection.exec_driver_sql(f'SET LOCAL search_path TO "{service}"')


async def _grant(connection: AsyncConnection, settings: DatabaseSettings, service: str) -> None:
    user = settings.service_users.get(service)
    if user is None or user.username == settings.username:
        return
    role = '"' + user.username.replace('"', '""') + '"'
    for right in (
        f'USAGE ON SCHEMA "{service}"',
        f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{service}"',
        f'USAGE ON ALL SEQUENCES IN SCHEMA "{service}"',
    ):
        await connection.exec_driver_sql(f"GRANT {right} TO {role}")


def _current(connection: Connection, service: str) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": f"{service}_alembic"})
    return context.get_current_revision()


def _knows(scripts: ScriptDirectory, revision: str) -> bool:
    try:
        return scripts.get_revision(revision) is not None
    except CommandError:
        return False


def _config(service: str, connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", _verbatim(Path(__file__).with_name("migrations")))
    config.set_main_option("version_locations", _verbatim(history_of(service)))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    config.attributes["service"] = service
    return config


def _verbatim(path: Path) -> str:
    return str(path).replace("%", "%%")


@cache
def _scripts(service: str) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(service))
