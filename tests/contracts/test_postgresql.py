"""PostgreSQL that goes away, comes back, changes under us or lets nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import insert, select, text

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Unavailable
from lamassu.platform.database import (
    Database,
    DatabaseSettings,
    Dialect,
    RecordWriter,
    ServiceUser,
    migrate,
)
from tests.support.databases import RECORD_KEY, DatabaseFactory
from tests.support.postgres import PostgresCluster, free_port
from tests.support.sample.tables import items


@pytest.fixture
def dialect(postgres_cluster: PostgresCluster) -> Dialect:
    return Dialect.POSTGRESQL


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("sample", "other")


async def put(database: Database, name: str) -> None:
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), {"id": name})


async def ids(database: Database) -> list[str]:
    async with database.reading("sample") as connection:
        return list((await connection.execute(select(items.c.id).order_by(items.c.id))).scalars())


async def opened(settings: DatabaseSettings) -> Database:
    return await Database.open(
        settings, services=["sample"], writer=RecordWriter(RECORD_KEY), clock=SystemClock()
    )


@pytest.fixture
def own_cluster(postgres_cluster: PostgresCluster) -> Iterator[PostgresCluster]:
    """A durable one that a test may kill."""
    cluster = PostgresCluster(durable=True)
    cluster.create()
    cluster.start()
    yield cluster
    cluster.remove()


async def test_a_server_that_dies_is_unavailable_and_found_again(
    own_cluster: PostgresCluster,
) -> None:
    settings = DatabaseSettings.from_url(own_cluster.url())
    await migrate(settings, ["sample"])
    database = await opened(settings)
    await asyncio.gather(*(put(database, f"{n}") for n in range(4)))

    async def torn() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "torn"})
            own_cluster.stop(kill=True)

    with pytest.raises(Unavailable):
        await torn()
    with pytest.raises(Unavailable):
        await put(database, "down")
    with pytest.raises(Unavailable):
        await database.check()
    own_cluster.start()
    await put(database, "up")  # the first try: dead connections are replaced unseen
    await database.check()
    assert await ids(database) == ["0", "1", "2", "3", "up"]
    await database.close()


async def test_a_connection_that_the_server_ended_is_replaced(
    database_factory: DatabaseFactory, postgres_cluster: PostgresCluster
) -> None:
    settings = await database_factory.settings(["sample"])
    database = await database_factory.open(settings, services=["sample"])
    await put(database, "a")

    async def end_all() -> None:
        admin = await asyncpg.connect(postgres_cluster.url())
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1",
            settings.database,
        )
        await admin.close()

    async def torn() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "torn"})
            await end_all()

    with pytest.raises(Unavailable):
        await torn()
    await put(database, "b")
    assert await ids(database) == ["a", "b"]


async def test_a_changed_schema_costs_at_most_one_try(
    database_factory: DatabaseFactory, postgres_cluster: PostgresCluster
) -> None:
    settings = await database_factory.settings(["sample"])
    database = await database_factory.open(settings, services=["sample"])
    await put(database, "a")
    assert await ids(database) == ["a"]
    admin = await asyncpg.connect(postgres_cluster.url(settings.database))
    await admin.execute("ALTER TABLE sample.sample_items ALTER COLUMN id TYPE varchar(40)")
    await admin.close()
    try:
        await ids(database)
    except Unavailable:
        assert await ids(database) == ["a"]
    await put(database, "b")
    assert await ids(database) == ["a", "b"]


async def test_a_pool_that_is_empty_for_too_long_is_unavailable(
    database_factory: DatabaseFactory,
) -> None:
    settings = replace(
        await database_factory.settings(["sample"]),
        pool_size=1,
        patience=timedelta(milliseconds=100),
    )
    database = await database_factory.open(settings, services=["sample"])
    async with database.unit("sample") as unit:
        await unit.connection.execute(text("SELECT 1"))
        with pytest.raises(Unavailable):
            await asyncio.create_task(put(database, "a"))
    await put(database, "b")


async def test_a_lock_that_does_not_come_is_unavailable(
    database_factory: DatabaseFactory,
) -> None:
    settings = replace(
        await database_factory.settings(["sample"]), patience=timedelta(milliseconds=200)
    )
    database = await database_factory.open(settings, services=["sample"])
    await put(database, "a")
    row = select(items).where(items.c.id == "a").with_for_update()

    async def lock() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(row)

    async with database.unit("sample") as unit:
        await unit.connection.execute(row)
        with pytest.raises(Unavailable):
            await asyncio.create_task(lock())


async def test_nobody_at_the_address_is_unavailable() -> None:
    url = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none"
    with pytest.raises(Unavailable) as caught:
        await opened(DatabaseSettings.from_url(url))
    assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable):
        await migrate(DatabaseSettings.from_url(url), ["sample"])


async def test_a_wrong_password_or_database_is_unavailable(
    postgres_cluster: PostgresCluster,
) -> None:
    settings = DatabaseSettings.from_url(postgres_cluster.url("absent"))
    for attempt in (opened(settings), migrate(settings, ["sample"])):
        with pytest.raises(Unavailable, match="has no database of this name"):
            await attempt
    with pytest.raises(Unavailable, match="does not let this role in"):
        await opened(replace(settings, database="postgres", username="absent"))


async def test_tls_is_asked_for_as_libpq_does(postgres_cluster: PostgresCluster) -> None:
    settings = replace(DatabaseSettings.from_url(postgres_cluster.url()), sslmode="require")
    with pytest.raises(Unavailable):  # this server speaks no TLS
        await opened(settings)


async def test_a_service_runs_without_the_right_to_change_its_schema(
    database_factory: DatabaseFactory, postgres_cluster: PostgresCluster
) -> None:
    empty = await database_factory.empty()
    admin = await asyncpg.connect(postgres_cluster.url())
    await admin.execute(f'CREATE ROLE "{empty.database}_sample" LOGIN')
    await admin.close()
    user = ServiceUser(f"{empty.database}_sample")
    settings = replace(empty, service_users={"sample": user})
    await migrate(settings, ["sample", "other"])
    with pytest.raises(Unavailable, match="as their owner"):
        await migrate(replace(settings, username=user.username), ["third"])
    database = await database_factory.open(settings, services=["sample"])
    await put(database, "a")
    for statement in ("CREATE TABLE mine (a int)", "DROP TABLE sample_items"):
        with pytest.raises(Exception, match=r"permission denied|must be owner"):
            async with database.unit("sample") as unit:
                await unit.connection.execute(text(statement))
    with pytest.raises(Exception, match="permission denied"):
        async with database.reading("sample") as connection:
            await connection.execute(text("SELECT * FROM other.other_journal"))
