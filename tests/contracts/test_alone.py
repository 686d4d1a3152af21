"""Deeds that take longer than a transaction and must not be done twice at once."""

from __future__ import annotations

import asyncio

import pytest

from lamassu.kernel.errors import Conflict
from lamassu.platform.database import Dialect
from tests.support.databases import DatabaseFactory

SERVICES = ("sample",)


async def test_in_a_process_each_waits_for_its_turn(database_factory: DatabaseFactory) -> None:
    database = await database_factory(services=SERVICES)
    steps: list[str] = []

    async def deed(name: str) -> None:
        async with database.alone("sample", "move/a"):
            steps.append(f"{name} begins")
            async with database.unit("sample"):
                await asyncio.sleep(0)
            steps.append(f"{name} ends")

    await asyncio.gather(deed("one"), deed("two"))

    assert steps == ["one begins", "one ends", "two begins", "two ends"]


async def test_another_process_is_told_to_ask_again(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.settings(SERVICES)
    if settings.dialect is Dialect.SQLITE:
        return  # a second process does not start (tests/cli/test_serve_alone.py)
    one = await database_factory.open(settings, services=SERVICES)
    two = await database_factory.open(settings, services=SERVICES)

    async with one.alone("sample", "move/a"):
        with pytest.raises(Conflict) as refused:
            async with two.alone("sample", "move/a"):
                raise AssertionError("both are at it")
        async with two.alone("sample", "move/b"):
            pass  # another deed
    assert (refused.value.code, refused.value.retry_after) == ("done_elsewhere", 5)
    async with two.alone("sample", "move/a"):
        pass


async def test_a_process_that_ended_holds_nobody_up(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.settings(SERVICES)
    if settings.dialect is Dialect.SQLITE:
        return
    one = await database_factory.open(settings, services=SERVICES)
    two = await database_factory.open(settings, services=SERVICES)
    holding = one.alone("sample", "move/a")
    await holding.__aenter__()
    async with two.reading("sample") as connection:
        # as the server sees a process that was killed: its connection is gone
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )

    async with two.alone("sample", "move/a"):
        pass
    await holding.__aexit__(None, None, None)
