"""Lists: pages put together are the whole list in order, and filters mean what they say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby, product

import pytest
from sqlalchemy import Row, insert, select

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.listing import Filter, FilterValue, ListQuery, Operator
from lamassu.platform.database import Database
from lamassu.platform.database.listing import fetch_page
from tests.support.sample.tables import items

COLUMNS = {name: items.c[name] for name in ("id", "name", "count", "big", "flag", "at", "tags")}
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = (None, "", "a", "A", "aa", "b%", "b_", "b\\", "b/", "Ünï", "c'; --", "z")


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("sample",)


def some_items() -> list[dict[str, object]]:
    chosen = random.Random(7)
    return [
        {
            "id": f"{number:03}",
            "name": chosen.choice(NAMES),
            "count": chosen.choice([None, -1, 0, 1, 2, 10]),
            "big": chosen.choice([None, 0, 1 << 40]),
            "flag": chosen.choice([True, False]),
            "at": chosen.choice(
                [None, *(EPOCH + timedelta(days=d, microseconds=d) for d in (-400, 0, 1))]
            ),
            "tags": chosen.choice([None, [], ["x"], ["X", "y"], ["xy"]]),
        }
        for number in range(60)
    ]


async def fill(database: Database, rows: list[dict[str, object]]) -> None:
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), rows)


async def whole(database: Database, query: ListQuery) -> list[Row]:
    """All pages, one after another."""
    rows: list[Row] = []
    while True:
        async with database.reading("sample") as connection:
            page = await fetch_page(
                connection, select(items), columns=COLUMNS, key=items.c.id, query=query
            )
        assert len(page.items) <= query.page_size
        rows += page.items
        if page.after is None:
            return rows
        query = ListQuery(
            query.page_size, query.sort_by, query.descending, query.filters, page.after
        )


async def test_pages_are_the_sorted_list(database: Database) -> None:
    rows = some_items()
    await fill(database, rows)
    sorts = (None, "id", "name", "count", "big", "flag", "at")
    for sort_by, descending, size in product(sorts, (False, True), (1, 7, 60, 100)):
        listed = await whole(database, ListQuery(size, sort_by, descending))
        field = sort_by or "id"
        expected = sorted(
            rows,
            key=lambda row: (
                row[field] is not None,
                row[field].encode()
                if isinstance(row[field], str)
                else row[field] or 0
                if not isinstance(row[field], datetime)
                else row[field],
                row["id"],
            ),
            reverse=descending,
        )
        assert [row.id for row in listed] == [row["id"] for row in expected], (sort_by, descending)


async def test_lists_of_texts_can_be_sorted_by(database: Database) -> None:
    rows = some_items()
    await fill(database, rows)
    tags = {row["id"]: row["tags"] for row in rows}

    for descending, size in product((False, True), (1, 7, 100)):
        listed = [row.id for row in await whole(database, ListQuery(size, "tags", descending))]
        assert sorted(listed) == sorted(tags)
        runs = [key for key, _ in groupby(str(tags[row_id]) for row_id in listed)]
        assert len(runs) == len(set(runs)), "equal lists stand together"
        assert runs[-1 if descending else 0] == "None"


async def ids(database: Database, field: str, operator: Operator, value: FilterValue) -> set[str]:
    query = ListQuery(100, filters=[Filter(field, operator, value)])
    return {row.id for row in await whole(database, query)}


TEXT_OPERATORS = {
    Operator.EQ: lambda have, want: have == want,
    Operator.NE: lambda have, want: have != want,
    Operator.CT: lambda have, want: want in have,
    Operator.NC: lambda have, want: want not in have,
    Operator.EQ_IC: lambda have, want: have.lower() == want.lower(),
    Operator.NE_IC: lambda have, want: have.lower() != want.lower(),
    Operator.CT_IC: lambda have, want: want.lower() in have.lower(),
    Operator.NC_IC: lambda have, want: want.lower() not in have.lower(),
}


async def test_text_operators_take_wildcards_and_quotes_as_they_are(database: Database) -> None:
    rows = some_items()
    await fill(database, rows)
    for (operator, holds), want in product(
        TEXT_OPERATORS.items(), ("a", "A", "", "%", "_", "b%", "\\", "/", "'", "nope")
    ):
        expected = {r["id"] for r in rows if r["name"] is not None and holds(r["name"], want)}
        assert await ids(database, "name", operator, want) == expected, (operator, want)


async def test_lists_of_values(database: Database) -> None:
    rows = [r for r in some_items() if r["name"] is not None]
    await fill(database, rows)
    everything = {r["id"] for r in rows}
    some = {r["id"] for r in rows if r["name"] in ("a", "z")}
    folded = {r["id"] for r in rows if r["name"].lower() in ("a", "z")}
    assert await ids(database, "name", Operator.IN, ("a", "z")) == some
    assert await ids(database, "name", Operator.NIN, ("a", "z")) == everything - some
    assert await ids(database, "name", Operator.IN_IC, ("A", "Z")) == folded
    assert await ids(database, "name", Operator.NIN_IC, ("A", "Z")) == everything - folded
    assert await ids(database, "name", Operator.IN, ()) == everything
    assert await ids(database, "name", Operator.NIN, ()) == everything


async def test_numbers_dates_and_flags(database: Database) -> None:
    rows = some_items()
    await fill(database, rows)

    def where(field: str, holds: object) -> set[str]:
        return {r["id"] for r in rows if r[field] is not None and holds(r[field])}

    assert await ids(database, "count", Operator.LT, 1.5) == where("count", lambda v: v < 1.5)
    assert await ids(database, "count", Operator.GE, 1e30) == set()
    assert await ids(database, "count", Operator.NE, 1.0) == where("count", lambda v: v != 1)
    assert await ids(database, "big", Operator.EQ, float(1 << 40)) == where(
        "big", lambda v: v == 1 << 40
    )
    exact = EPOCH + timedelta(days=1, microseconds=1)
    assert await ids(database, "at", Operator.EQ, exact) == where("at", lambda v: v == exact)
    assert await ids(database, "at", Operator.BF, exact) == where("at", lambda v: v < exact)
    assert await ids(database, "at", Operator.AF, EPOCH) == where("at", lambda v: v > EPOCH)
    assert await ids(database, "flag", Operator.EQ, "true") == where("flag", lambda v: v)


async def test_arrays_hold_whole_elements(database: Database) -> None:
    rows = some_items()
    await fill(database, rows)
    have = {r["id"]: r["tags"] or [] for r in rows}
    assert await ids(database, "tags", Operator.CT, "x") == {i for i, t in have.items() if "x" in t}
    assert await ids(database, "tags", Operator.CT_IC, "x") == {
        i for i, t in have.items() if {"x", "X"} & set(t)
    }


async def test_unknown_fields_and_unfit_values_are_refused(database: Database) -> None:
    with pytest.raises(RuleViolation):
        await ids(database, "secret", Operator.EQ, "x")
    for field, value in (("flag", "maybe"), ("count", "many"), ("name", "a\0"), ("at", "noon")):
        with pytest.raises(Malformed):
            await ids(database, field, Operator.EQ, value)
