"""Fixtures for every test: databases of both kinds, fresh for each test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lamassu.platform.database import Database, Dialect
from tests.support.databases import DatabaseFactory, Templates
from tests.support.missing import missing_component
from tests.support.postgres import PostgresCluster, PostgresMissing


@pytest.fixture(scope="session")
def postgres_cluster_on_demand() -> Iterator[Callable[[], PostgresCluster]]:
    """Starts the run's PostgreSQL when the first test asks for it."""
    started: list[PostgresCluster] = []

    def demand() -> PostgresCluster:
        if not started:
            cluster = PostgresCluster()
            started.append(cluster)
            cluster.create()
            cluster.start()
        return started[0]

    yield demand
    for cluster in started:
        cluster.remove()


@pytest.fixture
def postgres_cluster(
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> PostgresCluster:
    """A running PostgreSQL; skips with the reason where there is none, fails in CI."""
    try:
        return postgres_cluster_on_demand()
    except PostgresMissing as missing:
        missing_component(str(missing))


@pytest.fixture(scope="session")
def database_templates(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_cluster_on_demand: Callable[[], PostgresCluster],
) -> Templates:
    return Templates(tmp_path_factory.mktemp("databases"), postgres_cluster_on_demand)


@pytest.fixture(params=[Dialect.SQLITE, Dialect.POSTGRESQL])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Each test that uses a database runs on both."""
    chosen = Dialect(request.param)
    if chosen is Dialect.POSTGRESQL:
        request.getfixturevalue("postgres_cluster")
    return chosen


@pytest.fixture
async def database_factory(
    dialect: Dialect, database_templates: Templates, tmp_path: Path
) -> AsyncIterator[DatabaseFactory]:
    """`await database_factory(services=["ca"])` gives a fresh, migrated, open `Database`."""
    factory = DatabaseFactory(dialect, database_templates, tmp_path)
    yield factory
    await factory.close()


@pytest.fixture
def database_services() -> Sequence[str]:
    """Override it in a module to say what `database` is to hold."""
    raise NotImplementedError("override the fixture database_services beside your tests")


@pytest.fixture
async def database(database_factory: DatabaseFactory, database_services: Sequence[str]) -> Database:
    """A fresh database with the schemas of `database_services`."""
    return await database_factory(services=database_services)


@pytest.fixture
def fresh_postgresql(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty database, for a whole platform in a process of its own."""
    name = f"platform_{os.urandom(4).hex()}"
    postgres_cluster.sql(f'CREATE DATABASE "{name}"')
    yield postgres_cluster.url(name)
    postgres_cluster.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
