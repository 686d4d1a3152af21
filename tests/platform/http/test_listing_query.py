"""Lists: what may be asked, and bookmarks that only their owner can use."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError, Malformed
from lamassu.kernel.identity import Peer
from lamassu.kernel.listing import FieldType, Filter, ListQuery, Operator, Page
from lamassu.platform.http.bookmarks import Bookmarks
from lamassu.platform.http.listing_query import OPERATORS, parse_filter, parse_list_query
from tests.platform.http.conftest import KEY, THINGS, Client, Part, Seen

LIST = "/api/things/v1/things"


def query(**arguments: str | list[str]) -> ListQuery:
    return parse_list_query(
        {name: value if isinstance(value, list) else [value] for name, value in arguments.items()},
        THINGS,
    )


def refusal(**arguments: str | list[str]) -> LamassuError:
    with pytest.raises(Malformed) as caught:
        query(**arguments)
    return caught.value


# --- page and order -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(("7", 7), ("1000", 1000), ("1001", 1000), ("0", 15), ("-3", 15)),
        *(("x", 25), ("", 25), ("1.5", 25), ("٣", 25), ("9" * 100, 25)),
    ],
)
def test_the_page_size_is_tamed(text: str, size: int) -> None:
    assert query(page_size=text).page_size == size
    assert query().page_size == 25


def test_of_a_repeated_argument_the_last_wins() -> None:
    assert query(page_size=["1", "2"], sort_by=["size", "id"]).page_size == 2


def test_the_order() -> None:
    assert query(sort_by="").sort_by is None
    assert query(sort_by="size", sort_mode="desc") == ListQuery(sort_by="size", descending=True)
    assert not query(sort_by="size", sort_mode="DESC").descending
    assert refusal(sort_by="secret").code == "unknown_sort_field"
    assert query(sort_by="tags").sort_by == "tags"
    by_value = query(sort_by='metadata[jsonpath]$.a."b c"')
    assert (by_value.sort_by, by_value.sort_path) == ("metadata", ("a", "b c"))
    assert refusal(sort_by="metadata[jsonpath]$.a[0]").code == "invalid_json_path"
    assert refusal(sort_by="metadata").code == "unknown_sort_field"


# --- filters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id[eq]x", Filter("id", Operator.EQ, "x")),
        ("id[EQUAL]x", Filter("id", Operator.EQ, "x")),
        ("id[eq]=x", Filter("id", Operator.EQ, "x")),
        ("id[eq]", Filter("id", Operator.EQ, "")),
        ("id[ct]a]b[c", Filter("id", Operator.CT, "a]b[c")),
        ("id[notcontains_ignorecase] x", Filter("id", Operator.NC_IC, " x")),
        ("id[in]a,,b", Filter("id", Operator.IN, ("a", "b"))),
        ("id[in]", Filter("id", Operator.IN, ())),
        ("id[nin_ic]A", Filter("id", Operator.NIN_IC, ("A",))),
        ("tags[contains]a", Filter("tags", Operator.CT, "a")),
        ("size[lessorequal]-1.5e3", Filter("size", Operator.LE, -1500.0)),
        ("colour[ne]RED", Filter("colour", Operator.NE, "RED")),
        ("colour[in]RED,BLUE", Filter("colour", Operator.IN, ("RED", "BLUE"))),
        ("created[bf]2030-01-02", Filter("created", Operator.BF, datetime(2030, 1, 2, tzinfo=UTC))),
        (
            "created[after]2030-01-02T02:00:00 02:00",
            Filter("created", Operator.AF, datetime(2030, 1, 2, tzinfo=UTC)),
        ),
    ],
)
def test_the_grammar_of_filters(text: str, expected: Filter) -> None:
    assert parse_filter(text, THINGS) == expected


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("id", "invalid_filter", "id"),
        ("[eq]x", "invalid_filter", "[eq]x"),
        ("id]eq[x", "invalid_filter", "form"),
        ("secret[eq]x", "unknown_filter_field", "secret"),
        ("ID[eq]x", "unknown_filter_field", "ID"),
        ("id[gt]x", "invalid_filter_operator", "operand 'gt' for field 'id' of type 0"),
        ("tags[eq]x", "invalid_filter_operator", "operand 'eq' for field 'tags' of type 1"),
        ("created[lt]x", "invalid_filter_operator", "operand 'lt' for field 'created' of type 2"),
        ("size[ct]1", "invalid_filter_operator", "operand 'ct' for field 'size' of type 3"),
        ("colour[ct]R", "invalid_filter_operator", "operand 'ct' for field 'colour' of type 4"),
        ("metadata[eq]x", "invalid_filter_operator", "operand 'eq' for field 'metadata' of type 5"),
        ("metadata[JSONPath]$.a", "invalid_json_path", "asks nothing"),
        ("metadata[jsonpath]$.a == " + "1" * 500, "invalid_json_path", "500"),
        ("id[; drop]x", "invalid_filter_operator", "drop"),
        ("size[eq]1_0", "invalid_filter", "number"),
        ("size[eq]nan", "invalid_filter", "number"),
        ("size[eq]1e999", "invalid_filter", "number"),
        ("size[eq]", "invalid_filter", "number"),
        ("created[eq]yesterday", "invalid_filter", "date"),
        ("created[eq]0001-01-01T00:00:00+10:00", "invalid_filter", "date"),
        ("colour[eq]red", "invalid_filter", "BLUE, RED"),
        ("colour[in]RED,pink", "invalid_filter", "pink"),
        ("id[eq]a\0b", "invalid_filter", "id"),
        ("id[in]" + "a," * 1001, "invalid_filter", "1000"),
    ],
)
def test_a_wrong_filter_is_refused_never_passed_over(text: str, code: str, words: str) -> None:
    error = refusal(filter=text)

    assert (error.code, error.field) == (code, "filter")
    assert words in error.text


def test_filters_are_bounded_and_empty_ones_passed_over() -> None:
    assert query(filter=["", "id[eq]x"]).filters == (Filter("id", Operator.EQ, "x"),)
    assert refusal(filter=["id[eq]x"] * 33).field == "filter"


def test_every_operator_is_taken_by_some_type() -> None:
    assert set().union(*OPERATORS.values()) == set(Operator)


@given(st.text(), st.text(max_size=9), st.text())
def test_any_filter_is_read_or_refused(name: str, operator: str, value: str) -> None:
    for text in (name, f"id[{operator}]{value}", f"created[bf]{value}", f"size[eq]{value}"):
        try:
            parse_filter(text, THINGS)
        except Malformed:
            continue


@pytest.mark.parametrize(
    "arguments",
    ["filter=%ff", "filter=id[eq]%00", "a=%00", "&".join("a=1" for _ in range(129))],
)
async def test_a_broken_query_string_is_refused(client: Client, seen: Seen, arguments: str) -> None:
    response = await client("GET", f"{LIST}?{arguments}")

    assert response.status_code == 400
    assert seen.calls == []


# --- bookmarks ------------------------------------------------------------------------------

VALUES = {
    FieldType.STRING: st.text() | st.lists(st.text()).map(tuple),
    FieldType.DATE: st.datetimes(timezones=st.just(UTC)),
    FieldType.NUMBER: st.floats(allow_nan=False, allow_infinity=False),
}
FILTERS = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.builds(
        Filter,
        field=st.just("id"),
        operator=st.sampled_from(sorted(OPERATORS[kind])),
        value=VALUES[kind],
    )
)
AFTER = st.tuples(
    st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False), st.text()
)
QUERIES = st.builds(
    ListQuery,
    page_size=st.integers(1, 1000),
    sort_by=st.none() | st.text(),
    descending=st.booleans(),
    filters=st.lists(FILTERS, max_size=3).map(tuple),
)
BOOKMARKS = Bookmarks(KEY)


@given(QUERIES, AFTER, st.text())
def test_a_bookmark_carries_all_of_its_query(
    asked: ListQuery, after: tuple[Any, str], binding: str
) -> None:
    bookmark = BOOKMARKS.write(asked, after, binding=binding)

    assert BOOKMARKS.read(bookmark, binding=binding) == replace(asked, after=after)
    assert "=" not in bookmark


@given(st.data())
def test_a_changed_bookmark_is_refused(data: st.DataObject) -> None:
    bookmark = BOOKMARKS.write(ListQuery(), ("a", "b"), binding="x")
    token = bytearray(base64.urlsafe_b64decode(bookmark + "=" * (-len(bookmark) % 4)))
    token[data.draw(st.integers(0, len(token) - 1))] ^= data.draw(st.integers(1, 255))
    changed = base64.urlsafe_b64encode(bytes(token)).rstrip(b"=").decode()

    with pytest.raises(Malformed, match="not a valid bookmark"):
        BOOKMARKS.read(changed, binding="x")


@given(st.text())
def test_any_text_is_no_bookmark(text: str) -> None:
    with pytest.raises(Malformed, match="not a valid bookmark"):
        BOOKMARKS.read(text, binding="x")


def test_a_bookmark_of_another_key_or_binding_is_refused() -> None:
    bookmark = BOOKMARKS.write(ListQuery(), ("a", "b"), binding="x")

    for reader, binding in ((BOOKMARKS, "y"), (Bookmarks(b"o" * 32), "x")):
        with pytest.raises(Malformed, match="not a valid bookmark"):
            reader.read(bookmark, binding=binding)
    with pytest.raises(ValueError, match="32 bytes"):
        Bookmarks(b"short")


async def test_a_list_goes_on_where_its_bookmark_says(client: Client, seen: Seen) -> None:
    seen.page = Page([Part(country="ES"), Part(size=2)], after=(3, "t2"))
    first = await client(
        "GET", LIST, params={"filter": "size[gt]1", "sort_by": "size", "page_size": "2"}
    )
    bookmark = first.json()["next"]
    seen.page = Page([])
    last = await client(
        "GET", LIST, params={"bookmark": bookmark, "sort_mode": "desc", "filter": "bogus"}
    )

    assert first.json()["list"] == [{"country": "ES", "size": 0}, {"country": "", "size": 2}]
    assert last.json() == {"next": "", "list": []}
    assert seen.last.listing == ListQuery(
        page_size=2,
        sort_by="size",
        filters=(Filter("size", Operator.GT, 1.0),),
        after=(3, "t2"),
    )


async def test_a_bookmark_is_for_its_route_and_principal_only(client: Client, seen: Seen) -> None:
    seen.page = Page([], after=("a", "b"))
    bookmark = (await client("GET", LIST)).json()["next"]

    own = await client("GET", f"{LIST}/?bookmark={bookmark}")
    elsewhere = await client("GET", f"{LIST}/t1/parts?bookmark={bookmark}")
    other = await client("GET", f"{LIST}?bookmark={bookmark}", peer=Peer((b"other admin",)))
    forged = await client("GET", f"{LIST}?bookmark=b2ZmOjA7bGltOjI1Ow")

    assert own.status_code == 200
    for response in (elsewhere, other, forged):
        assert response.status_code == 400
        assert response.json()["err"] == "not a valid bookmark"
