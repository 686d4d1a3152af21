"""Schemas come, go, and are checked before anything runs on them."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.platform.database import DatabaseSettings, Dialect, migrate
from lamassu.platform.database.migrate import downgrade
from tests.support.databases import DatabaseFactory

SERVICES = ("sample", "other")


async def test_migrating_twice_or_twice_at_once_is_fine(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.empty()
    await asyncio.gather(migrate(settings, SERVICES), migrate(settings, SERVICES))
    await migrate(settings, SERVICES)
    database = await database_factory.open(settings, services=SERVICES)
    await database.check()


async def test_an_outdated_schema_is_refused_with_what_to_do(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.empty()
    if settings.dialect is Dialect.SQLITE:
        await database_factory.open(settings, services=SERVICES)  # migrates by itself
        return
    with pytest.raises(Unavailable, match="lamassu db migrate"):
        await database_factory.open(settings, services=SERVICES)


async def test_a_newer_schema_is_refused(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.settings(SERVICES)
    database = await database_factory.open(settings, services=SERVICES)
    async with database.unit("sample") as unit:
        await unit.connection.execute(text("UPDATE sample_alembic SET version_num = '9999'"))
    with pytest.raises(Unavailable, match="newer than this program"):
        await database_factory.open(settings, services=SERVICES)
    with pytest.raises(Unavailable, match="newer than this program"):
        await migrate(settings, SERVICES)


async def test_a_service_can_be_taken_back(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.settings(SERVICES)
    await downgrade(settings, "sample")
    database = await database_factory.open(settings, services=["other"])
    await database.check()
    await migrate(settings, SERVICES)
    await (await database_factory.open(settings, services=SERVICES)).check()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a/b.db", "a/b.db"),
        ("sqlite:////a/b.db", "/a/b.db"),
    ],
)
def test_sqlite_urls(url: str, expected: str) -> None:
    assert str(DatabaseSettings.from_url(url).path) == expected


def test_postgresql_urls() -> None:
    settings = DatabaseSettings.from_url(
        "postgresql://us%40er:p%3Aw@db:6000/pki?sslmode=verify-full&sslrootcert=/ca.pem"
    )
    assert (settings.username, settings.password) == ("us@er", "p:w")
    assert (settings.host, settings.port, settings.database) == ("db", 6000, "pki")
    assert (settings.sslmode, str(settings.sslrootcert)) == ("verify-full", "/ca.pem")
    assert "p:w" not in repr(settings)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x",
        "sqlite://",
        "sqlite://host/x",
        "postgresql://u:topsecret@h:99999/x",
        "postgresql://u:topsecret@h/x?sslmode=maybe",
        "postgresql://u:topsecret@h/x?option=1",
        "postgresql://[u:topsecret",
    ],
)
def test_bad_urls_are_refused_without_telling_the_password(url: str) -> None:
    with pytest.raises(RuleViolation) as caught:
        DatabaseSettings.from_url(url)
    assert "topsecret" not in str(caught.value)
