"""What every unit of work promises, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError, StatementError

from lamassu.kernel.errors import Conflict, Malformed
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.platform.database import Database, Dialect, Prepared, Step, Unit
from lamassu.platform.database.failures import table_of
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


async def test_a_savepoint_lets_a_unit_go_on_after_a_breach(database: Database) -> None:
    async with database.unit("sample") as unit:
        await put(unit, "a")
    async with database.unit("sample") as unit:
        await put(unit, "b")
        with pytest.raises(IntegrityError):
            async with unit.connection.begin_nested():
                await unit.connection.execute(insert(items), {"id": "a"})
        await put(unit, "c")
    assert (await stored(database))[0] == ["a", "b", "c"]


async def test_a_breach_passed_over_is_never_acknowledged_in_vain(database: Database) -> None:
    """PostgreSQL answers COMMIT with a silent rollback then."""

    async def careless() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "b"})
            with suppress(IntegrityError):
                await unit.connection.execute(insert(items), {"id": "a"})

    async with database.unit("sample") as unit:
        await put(unit, "a")
    acknowledged = True
    try:
        await careless()
    except RuntimeError:
        acknowledged = False
    assert ("b" in (await stored(database))[0]) == acknowledged


async def test_every_kind_of_value_comes_back_as_it_went(database: Database) -> None:
    rows = [
        {
            "id": "1",
            "name": "Ünï 😀 %_'\"\\",
            "count": -(2**31),
            "big": 2**63 - 1,
            "flag": True,
            "at": datetime(1, 1, 1, tzinfo=UTC),
            "tags": {"a": [1, 2.5, None, {"b": "\u2028"}], "": True},
            "blob": bytes(range(256)),
        },
        {
            "id": "2",
            "name": None,
            "count": None,
            "big": None,
            "flag": False,
            "at": datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            "tags": None,
            "blob": None,
        },
    ]
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), rows)
    async with database.reading("sample") as connection:
        found = (await connection.execute(select(items).order_by(items.c.id))).all()
        missing = (await connection.execute(select(items.c.id).where(items.c.tags.is_(None)))).all()
    assert [dict(row._mapping) for row in found] == rows
    assert all(row.at.tzinfo is UTC for row in found)
    assert [row.id for row in missing] == ["2"]


async def test_another_zone_is_the_same_instant_and_none_is_refused(database: Database) -> None:
    there = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), {"id": "1", "at": there})
    async with database.reading("sample") as connection:
        assert (await connection.execute(select(items.c.at))).scalar() == there
    with pytest.raises(StatementError):
        async with database.unit("sample") as unit:
            await unit.connection.execute(
                insert(items), {"id": "2", "at": there.replace(tzinfo=None)}
            )


@pytest.mark.parametrize("values", [{"name": "\ud800"}, {"big": 2**63}, {"big": -(2**80)}])
async def test_what_cannot_be_stored_is_the_clients_fault(
    database: Database, values: dict[str, object]
) -> None:
    with pytest.raises(Malformed):
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "1", **values})
    assert await stored(database) == ([], [])


@pytest.mark.parametrize("values", [{"name": "a\0b"}, {"tags": ["a\0b"]}, {"tags": ["\ud800"]}])
async def test_odd_characters_are_stored_or_refused(
    database: Database, values: dict[str, object]
) -> None:
    try:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "1", **values})
    except Malformed:
        assert database.dialect is Dialect.POSTGRESQL


# --- a transaction made at once ----------------------------------------------------------------

_PUT = Prepared(insert(items), columns=["id"])
_TAKE = Prepared(delete(items).where(items.c.id == bindparam("wanted")).returning(items.c.id))


def told(name: str) -> list[Event | AuditRecord]:
    return [
        Event("item.create", f"item/{name}", 1, {"id": name}, CALLER),
        AuditRecord("item.create", f"item/{name}", CALLER),
    ]


async def test_a_transaction_made_at_once_leaves_all_of_it(database: Database) -> None:
    assert await database.write("sample", [Step(_PUT, {"id": "a"})], told("a"))
    steps = [Step(_TAKE, {"wanted": "a"}), Step(_PUT, {"id": "b"}), Step(_PUT, {"id": "c"})]
    assert await database.write("sample", steps, told("b"))
    assert await stored(database) == (["b", "c"], ["item/a", "item/a", "item/b", "item/b"])


async def test_nothing_is_left_when_its_first_step_finds_nothing(database: Database) -> None:
    steps = [Step(_TAKE, {"wanted": "a"}), Step(_PUT, {"id": "b"})]
    assert not await database.write("sample", steps, told("b"))
    assert await stored(database) == ([], [])


async def test_nothing_is_left_when_a_later_step_fails(database: Database) -> None:
    await database.write("sample", [Step(_PUT, {"id": name}) for name in ("a", "b")])
    steps = [Step(_TAKE, {"wanted": "a"}), Step(_PUT, {"id": "b"})]
    with pytest.raises(Conflict) as caught:
        await database.write("sample", steps, told("b"))
    assert table_of(caught.value) == items.name
    assert await stored(database) == (["a", "b"], [])
