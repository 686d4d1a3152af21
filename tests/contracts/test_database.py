"""What every unit of work promises, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import insert, select

from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.platform.database import Database, Unit
from lamassu.platform.database.journal_tables import tables
from tests.support.sample.tables import items

CALLER = system_caller("test", "request-1")


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("sample", "other")


async def put(unit: Unit, name: str) -> None:
    """A row, its event and its audit record."""
    await unit.connection.execute(insert(items), {"id": name})
    unit.emit(Event("item.create", f"item/{name}", 1, {"id": name}, CALLER))
    unit.audit(AuditRecord("item.create", f"item/{name}", CALLER))


async def put_and_fail(database: Database, name: str) -> None:
    async with database.unit("sample") as unit:
        await put(unit, name)
        raise LookupError


async def stored(database: Database) -> tuple[list[str], list[str]]:
    """The ids in the table, and the subjects in the outbox."""
    outbox = tables("sample").outbox
    async with database.reading("sample") as connection:
        ids = (await connection.execute(select(items.c.id).order_by(items.c.id))).scalars().all()
        told = (
            (await connection.execute(select(outbox.c.subject).order_by(outbox.c.seq)))
            .scalars()
            .all()
        )
    return list(ids), list(told)


async def test_row_event_and_audit_record_commit_together(database: Database) -> None:
    async with database.unit("sample") as unit:
        await put(unit, "a")
    assert await stored(database) == (["a"], ["item/a", "item/a"])


async def test_an_error_leaves_nothing(database: Database) -> None:
    with pytest.raises(LookupError):
        await put_and_fail(database, "a")
    assert await stored(database) == ([], [])


async def test_a_second_row_of_the_same_key_is_a_conflict(database: Database) -> None:
    async with database.unit("sample") as unit:
        await put(unit, "a")
    with pytest.raises(Conflict) as caught:
        async with database.unit("sample") as unit:
            await put(unit, "a")
    assert caught.value.code == "already_exists"
    assert await stored(database) == (["a"], ["item/a", "item/a"])


async def test_many_at_once_lose_nothing_and_failures_hurt_nobody_else(database: Database) -> None:
    async def one(number: int) -> None:
        async with database.unit("sample") as unit:
            await put(unit, f"{number:03}")
            if number % 3 == 0:
                raise LookupError

    results = await asyncio.gather(*(one(n) for n in range(60)), return_exceptions=True)
    assert [n for n, r in enumerate(results) if r] == list(range(0, 60, 3))
    expected = [f"{n:03}" for n in range(60) if n % 3]
    ids, told = await stored(database)
    assert ids == expected
    assert sorted(told) == sorted([f"item/{n}" for n in expected] * 2)
