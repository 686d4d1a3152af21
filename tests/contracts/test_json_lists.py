"""JSON paths in lists: both databases answer alike, or both refuse."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.json_path import holds, parse_predicate, parse_sort_path, written
from lamassu.kernel.listing import Filter, ListQuery, Operator
from lamassu.platform.database import Database, Dialect
from lamassu.platform.database.list_fields import JsonField
from lamassu.platform.database.listing import fetch_page
from tests.support.databases import DatabaseFactory
from tests.support.sample.tables import items

COLUMNS: dict[str, Any] = {"metadata": JsonField(items.c.tags), "id": items.c.id}

DOCUMENTS: list[object] = [
    {},
    {"env": "prod"},
    {"env": "lab", "n": 1},
    {"env": ["prod", "lab"], "n": 1.5},
    {"env": None, "n": -2},
    {"env": True, "n": "1"},
    {"env": {"name": "prod"}, "n": 10},
    {"tags": ["a", "b"], "n": 1e20},
    {"tags": [["a"]], "n": 0},
    {"tags": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]},
    {"tags": {"k": "a", "v": 1}},
    {"a": {"b": {"c": [1, 2, {"d": 3}]}}},
    {'quo"ted': "x'y", "Ünï": "ß", "sp ace": 1},
    {"env": "", "n": None},
    ["prod", {"env": "prod"}],
    "prod",
    {"n": 12345678901234567890123},
    {"n": [1, "x", None, True]},
]
PREDICATES = [
    '$.env == "prod"',
    '$.env != "prod"',
    'lax $.env <> "prod"',
    '$.env > "a"',
    '$.env[*] == "prod"',
    '$.env[1] == "lab"',
    "$.env == null",
    "$.env != null",
    "$.env <= null",
    "$.env == true",
    "$.n == 1",
    "$.n < 1.5",
    "$.n >= 1e20",
    "$.n > -3 && $.n < 2",
    '$.n == 1 || $.env == "prod"',
    "!($.n == 1)",
    '!($.env == "prod") && exists($.env)',
    "exists($.env)",
    "!exists($.env)",
    "exists($)",
    'exists($.tags[*] ? (@ == "a"))',
    'exists($.tags ? (@.k == "a" && @.v == 1))',
    '$.tags[*].k == "b"',
    '$.tags.*[*] == "a"',
    '$.* == "prod"',
    "$.a.b.c[2].d == 3",
    "$.a.b.c[*].d > 2",
    "$.a.b.c[5] == 1",
    "exists($.a.b.c[7])",
    '$."quo\\"ted" == "x\'y"',
    '$."Ünï" == "\\u00df"',
    '$."sp ace" == 1',
    '$.env starts with "pr"',
    '$ starts with "pr"',
    '$.n starts with "1"',
    "($.n < 5) is unknown",
    '(($.env == 1) is unknown) || $.env == "lab"',
    "$.n == $.env",
    "$.n != $.n",
    "$.tags != $.tags",
    "1 == 1",
    "1 == 2",
    '"a" < "b"',
    "$.n == 12345678901234567890123",
    "$.n == 12345678901234567890124",
    'exists($.tags[*] ? (@.v > $.none || @.k == "a"))',
    "$[0].env == null",
    '$[*] == "prod"',
    '$[1].env == "prod"',
]
REFUSED = [
    "",
    "$.env",
    "exists",
    "$.env ==",
    '$.env == "prod',
    "strict $.env == 1",
    '$.env like_regex "^p"',
    "$.n + 1 == 2",
    "$.n.size() == 1",
    "$x == 1",
    "@.env == 1",
    "$.a-b == 1",
    "$.tags[0 to 1] == 1",
    "$.tags[last] == 1",
    "$.tags[-1] == 1",
    "$.tags[0,1] == 1",
    "$.** == 1",
    "$.a == 1; DROP TABLE x",
    "$.a == 'x'",
    "' OR 1=1 --",
    '$.a == "\\x41"',
    '$.a == "\\u0000"',
    '$.a == "\\ud800"',
    "$.n == 01",
    "! $.a == 1",
    "(" * 200 + "1 == 1" + ")" * 200,
    "$.a == 1 && " * 60 + "1 == 1",
    "$.a == 1)",
    "exists($.a) == true",
]


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("sample",)


async def fill(database: Database, documents: Sequence[object]) -> None:
    rows = [
        {"id": f"{n:04}", "name": None, "count": None, "big": None, "flag": False, "at": None}
        | {"tags": document}
        for n, document in enumerate(documents)
    ]
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), rows)


async def listed(database: Database, query: ListQuery) -> list[int]:
    found: list[int] = []
    while True:
        async with database.listing("sample") as connection:
            page = await fetch_page(
                connection, select(items), columns=COLUMNS, key=items.c.id, query=query
            )
        found += [int(row.id) for row in page.items]
        if page.after is None:
            return found
        query = replace(query, after=page.after)


async def matching(database: Database, predicate: str) -> list[int]:
    asked = Filter("metadata", Operator.JSONPATH, predicate)
    return await listed(database, ListQuery(filters=[asked]))


def expected(predicate: str) -> list[int]:
    """By our own reading, which is all that SQLite has."""
    read = parse_predicate(predicate)
    decoded = [json.loads(json.dumps(each), parse_float=Decimal) for each in DOCUMENTS]
    return [number for number, each in enumerate(decoded) if holds(read, each) is True]


async def test_both_databases_answer_alike(database: Database) -> None:
    await fill(database, DOCUMENTS)
    for predicate in PREDICATES:
        found = await matching(database, written(parse_predicate(predicate)))
        assert found == expected(predicate), predicate
    assert {len(expected(predicate)) for predicate in PREDICATES} > {0, 1, 2, 5}


async def test_postgresql_reads_what_clients_write_as_we_do(database: Database) -> None:
    if database.dialect is not Dialect.POSTGRESQL:
        return
    await fill(database, DOCUMENTS)
    for predicate in PREDICATES:
        async with database.reading("sample") as connection:
            rows = await connection.execute(
                text("SELECT id FROM sample_items WHERE tags @@ CAST(:p AS jsonpath) ORDER BY id"),
                {"p": predicate},
            )
            assert [int(row.id) for row in rows] == expected(predicate), predicate


@pytest.mark.parametrize("predicate", REFUSED)
def test_what_is_not_understood_is_refused(predicate: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_predicate(predicate)
    assert caught.value.code == "invalid_json_path"


@pytest.mark.parametrize(
    "path", ["", "a", "$", "$.a[0]", "$.*", "$.a == 1", "$.a ? (@ == 1)", "$" + ".a" * 17, "@.a"]
)
def test_sorts_go_by_plain_keys(path: str) -> None:
    with pytest.raises(Malformed):
        parse_sort_path(path)


VALUES: list[object] = [
    *(None, True, False, [], {}, [1], {"b": 1}),
    *(0, 1, 2, 10, -1, 1.5, 1e300, -1e300, 10**400, Decimal("0.1"), 1e-310),
    *("a", "b", "", "10", "2", "Ünï", "x" * 300, "x" * 300 + "y", "true"),
    *("2024-01-01", "2023-12-31T23:30:00Z", "2024-01-01T01:00:00+02:00", "2024-01-01 00:00:01"),
    *("2024-02-30", "2024-13-01", "0000-01-01", "2024-01-01T25:00:00Z", "2024-01-01x"),
    *("9999-12-31T23:59:59.999999Z", "2024-01-01T00:00:00.5-0130", "2024-01-01\n"),
]


async def test_pages_by_json_values_are_the_sorted_list(database: Database) -> None:
    values = [float(v) if isinstance(v, Decimal) else v for v in VALUES]
    documents: list[object] = [{}, {"a": 1}, {"a": "x"}, {"a": [{"b": 3}]}]
    documents += [{"a": {"b": value}} for value in values]
    documents += random.Random(1).sample(documents, 10)
    await fill(database, documents)
    wanted = ordered(documents)
    for descending, size in product((False, True), (1, 7, 200)):
        query = ListQuery(size, "metadata", descending, sort_path=("a", "b"))
        found = await listed(database, query)
        assert found == (wanted[::-1] if descending else wanted), (descending, size)


def ordered(documents: Sequence[object]) -> list[int]:
    """Missing first, then numbers, times and texts; the model beside the databases."""

    def place(number: int) -> tuple[int, float, bytes, int]:
        document = documents[number]
        inner = document.get("a") if isinstance(document, dict) else None
        value = inner.get("b") if isinstance(inner, dict) else None
        if isinstance(value, bool):
            value = str(value).lower()
        if isinstance(value, int | float):
            shown = min(max(value, -1.7e308), 1.7e308)
            return (1, 0.0 if abs(shown) < 1e-300 else float(shown), b"", number)
        if isinstance(value, str):
            seconds = TIMES.get(value)
            if seconds is not None:
                return (2, seconds, b"", number)
            return (3, 0.0, value[:200].encode(), number)
        return (0, 0.0, b"", number)

    return sorted(range(len(documents)), key=place)


_NEW_YEAR = 1704067200.0
TIMES = {
    "2024-01-01": _NEW_YEAR,
    "2023-12-31T23:30:00Z": _NEW_YEAR - 1800,
    "2024-01-01T01:00:00+02:00": _NEW_YEAR - 3600,
    "2024-01-01 00:00:01": _NEW_YEAR + 1,
    "2024-02-30": _NEW_YEAR + 60 * 86400,
    "9999-12-31T23:59:59.999999Z": 253402300799.999999,
    "2024-01-01T00:00:00.5-0130": _NEW_YEAR + 5400.5,
}


async def test_a_question_that_takes_too_long_is_given_up(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.settings(["sample"])
    hasty = replace(settings, list_patience=timedelta(milliseconds=1))
    database = await database_factory.open(hasty, services=["sample"])
    await fill(database, [{"a": {"b": "x" * 1000}}] * 3000)

    with pytest.raises(RuleViolation) as caught:
        await listed(database, ListQuery(25, "metadata", sort_path=("a", "b")))
    assert caught.value.code == "query_too_expensive"
    async with database.reading("sample") as connection:
        assert await connection.scalar(text("SELECT count(*) FROM sample_items")) == 3000


@pytest.mark.parametrize(
    "predicate",
    [
        "exists($.a[*] ? (" * 8 + "@ == -1" + "))" * 8,
        "$.a[*] == $.b[*]",
    ],
)
async def test_a_question_that_takes_too_long_of_a_single_row_is_given_up(
    database_factory: DatabaseFactory, predicate: str
) -> None:
    settings = await database_factory.settings(["sample"])
    hasty = replace(settings, list_patience=timedelta(milliseconds=100))
    database = await database_factory.open(hasty, services=["sample"])
    await fill(database, [{"a": list(range(20_000)), "b": list(range(20_000, 40_000))}])
    query = ListQuery(25, filters=[Filter("metadata", Operator.JSONPATH, predicate)])

    async with asyncio.timeout(20):
        with pytest.raises(RuleViolation) as caught:
            await listed(database, query)
    assert caught.value.code == "query_too_expensive"
    assert len(await listed(database, ListQuery(25))) == 1
