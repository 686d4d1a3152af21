"""Fresh, migrated databases for tests, made cheaply from a template."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import asyncpg

from lamassu.kernel.clock import Clock, SystemClock
from lamassu.platform.database import (
    Database,
    DatabaseSettings,
    Dialect,
    RecordWriter,
    migrate,
)
from lamassu.platform.database.services import HISTORIES
from tests.support.postgres import PostgresCluster

HISTORIES["sample"] = "tests.support.sample.migrations"
HISTORIES["other"] = "tests.support.sample.other"
HISTORIES["third"] = "tests.support.sample.other"

RECORD_KEY = b"k" * 32


@dataclass
class Templates:
    """One per test run: the migrated databases that tests get copies of."""

    folder: Path
    cluster: Callable[[], PostgresCluster]
    made: dict[tuple[Dialect, tuple[str, ...]], DatabaseSettings] = field(default_factory=dict)
    count: itertools.count[int] = field(default_factory=itertools.count)

    async def fresh(
        self, dialect: Dialect, services: Sequence[str], folder: Path
    ) -> DatabaseSettings:
        """Settings of a database that nobody has used, with the services' schemas in it."""
        services = tuple(services)
        template = self.made.get((dialect, services))
        if template is None:
            template = await self._make(dialect, services)
            self.made[dialect, services] = template
        if dialect is Dialect.SQLITE:
            path = folder / f"lamassu-{next(self.count)}.db"
            assert template.path is not None
            shutil.copyfile(template.path, path)
            return replace(template, path=path)
        name = f"test_{next(self.count)}"
        await self._create(name, template.database)
        return replace(template, database=name)

    async def empty(self, dialect: Dialect, folder: Path) -> DatabaseSettings:
        """Settings of a database without any schema."""
        if dialect is Dialect.SQLITE:
            path = folder / f"lamassu-{next(self.count)}.db"
            return DatabaseSettings(Dialect.SQLITE, path=path, durable=False)
        name = f"test_{next(self.count)}"
        await self._create(name, "template0")
        return replace(DatabaseSettings.from_url(self.cluster().url(name)), pool_size=4)

    async def drop(self, settings: DatabaseSettings) -> None:
        """Give a PostgreSQL database back (SQLite's files go with the test's folder)."""
        if settings.dialect is Dialect.POSTGRESQL:
            await self._administer(f'DROP DATABASE IF EXISTS "{settings.database}" WITH (FORCE)')

    async def _make(self, dialect: Dialect, services: tuple[str, ...]) -> DatabaseSettings:
        digest = hashlib.sha256(repr(services).encode()).hexdigest()[:12]
        folder = self.folder / digest
        folder.mkdir(exist_ok=True)
        settings = await self.empty(dialect, folder)
        await migrate(settings, services)
        return settings

    async def _create(self, name: str, template: str) -> None:
        await self._administer(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    async def _administer(self, statement: str) -> None:
        connection = await asyncpg.connect(self.cluster().url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@dataclass
class DatabaseFactory:
    """`await factory(services=["ca"])` gives an open, empty, migrated `Database`.

    All databases are closed and dropped at the test's end. `settings` makes one without opening
    it; `open` opens it (again: as another process, or after a crash).
    """

    dialect: Dialect
    templates: Templates
    folder: Path
    opened: list[Database] = field(default_factory=list)
    made: list[DatabaseSettings] = field(default_factory=list)

    async def __call__(self, *, services: Sequence[str], clock: Clock | None = None) -> Database:
        return await self.open(await self.settings(services), services=services, clock=clock)

    async def settings(self, services: Sequence[str]) -> DatabaseSettings:
        settings = await self.templates.fresh(self.dialect, services, self.folder)
        self.made.append(settings)
        return settings

    async def empty(self) -> DatabaseSettings:
        settings = await self.templates.empty(self.dialect, self.folder)
        self.made.append(settings)
        return settings

    async def open(
        self,
        settings: DatabaseSettings,
        *,
        services: Sequence[str],
        clock: Clock | None = None,
        writer: RecordWriter | None = None,
    ) -> Database:
        database = await Database.open(
            settings,
            services=services,
            writer=writer or RecordWriter(RECORD_KEY),
            clock=clock or SystemClock(),
        )
        self.opened.append(database)
        return database

    async def close(self) -> None:
        for database in self.opened:
            await database.close()
        for settings in self.made:
            await self.templates.drop(settings)
