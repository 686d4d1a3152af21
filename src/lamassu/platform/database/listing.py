"""List queries become SQL: filters, order and keyset paging, the same on both databases.

A page goes on after the last row's sort value and key, so that rows which come or go meanwhile
neither repeat nor hide others. Missing values sort before all others. Every value is bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.listing import Filter, ListQuery, Operator, Page
from lamassu.platform.database.types import JsonDocument, UtcDateTime, time_of, time_text

Column: TypeAlias = ColumnElement[Any]
Verdict: TypeAlias = ColumnElement[bool]
Position: TypeAlias = tuple[str | float | None, str]

_SORT = "listing_sort"
_KEY = "listing_key"
_SORTED_CHARACTERS = 200  # of an array


async def fetch_page(
    connection: AsyncConnection,
    base: Select[Any],
    *,
    columns: Mapping[str, Column],
    key: Column,
    query: ListQuery,
) -> Page[Row[Any]]:
    """The page of `base` that `query` asks for.

    `columns` maps wire names to what they filter and sort by; `key` is unique and never missing.
    Rows carry two columns more than `base`, at their end. Raises `RuleViolation` for a field that
    `columns` lacks and `Malformed` for a value that the field cannot be compared with.
    """
    statement = filtered(connection, base, columns=columns, filters=query.filters)
    sort = _sortable(_column(columns, query.sort_by)) if query.sort_by else key
    if query.after is not None:
        statement = statement.where(_beyond(sort, key, query.after, descending=query.descending))
    statement = (
        statement.add_columns(sort.label(_SORT), key.label(_KEY))
        .order_by(*_order(sort, key, descending=query.descending))
        .limit(query.page_size + 1)
    )
    rows = (await connection.execute(statement)).all()
    if len(rows) <= query.page_size:
        return Page(rows)
    kept = rows[: query.page_size]
    last = kept[-1]._mapping
    return Page(kept, (_position(last[_SORT]), str(last[_KEY])))


def filtered(
    connection: AsyncConnection,
    base: Select[Any],
    *,
    columns: Mapping[str, Column],
    filters: Sequence[Filter],
) -> Select[Any]:
    """`base` with the conditions of `filters`, for counting. Raises as `fetch_page`."""
    dialect = connection.dialect.name
    return base.where(*(_condition(columns, each, dialect) for each in filters))


def _column(columns: Mapping[str, Column], name: str) -> Column:
    try:
        return columns[name]
    except KeyError:
        raise RuleViolation(
            f"cannot filter or sort by '{name}'; allowed: {', '.join(sorted(columns))}",
            code="unknown_filter_field",
            field=name,
        ) from None


# --- order and position ---------------------------------------------------------------------


def _sortable(column: Column) -> Column:
    """Arrays go by their text, as far as a bookmark carries it; the key settles the rest."""
    if not isinstance(column.type, JsonDocument):
        return column
    return func.substr(cast(column, Text), 1, _SORTED_CHARACTERS, type_=Text())


def _may_be_missing(column: Column) -> bool:
    return bool(getattr(column, "nullable", True))


def _order(sort: Column, key: Column, *, descending: bool) -> list[Column]:
    """Without NULLS for a column that has none: an index serves only the order it was made in."""
    way: Callable[[Column], Column] = (
        (lambda column: column.desc()) if descending else (lambda column: column.asc())
    )
    if sort is key:
        return [way(key)]
    first = way(sort)
    if _may_be_missing(sort):
        first = first.nulls_last() if descending else first.nulls_first()
    return [first, way(key)]


def _beyond(sort: Column, key: Column, after: Position, *, descending: bool) -> Verdict:
    value, last_key = after
    mark = _bound(key, last_key)
    beyond_key = key < mark if descending else key > mark
    if sort is key:
        return beyond_key
    if value is None:
        same = and_(sort.is_(None), beyond_key)
        return same if descending else or_(sort.is_not(None), same)
    limit = _bound(sort, value)
    pair, marks = tuple_(sort, key), tuple_(limit, mark)
    if not descending:
        return pair > marks
    return or_(pair < marks, sort.is_(None)) if _may_be_missing(sort) else pair < marks


def _position(value: object) -> str | float | None:
    if value is None or isinstance(value, str | float | int):
        return value
    if isinstance(value, datetime):
        return time_text(value)
    raise RuleViolation("this field cannot be sorted by", code="not_sortable")


# --- values ---------------------------------------------------------------------------------


def _bound(column: Column, value: object) -> Column:
    """`value` as the column's own type would have it."""
    kind = column.type
    if isinstance(kind, UtcDateTime):
        return bindparam(None, _time(value), type_=kind)
    if isinstance(kind, Boolean):
        return true() if _flag(value) else false()
    if isinstance(kind, Integer | Double):
        return _number(value)
    return bindparam(None, _text(value), type_=Text())


def _time(value: object) -> datetime:
    try:
        time = value if isinstance(value, datetime) else time_of(str(value))
    except ValueError:
        raise Malformed("not a time", code="invalid_filter_value") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _flag(value: object) -> bool:
    if isinstance(value, bool | int | float):
        return bool(value)
    if value in ("true", "false"):
        return value == "true"
    raise Malformed("neither 'true' nor 'false'", code="invalid_filter_value")


def _number(value: object) -> Column:
    """As a double, so that a fraction or a huge value compares instead of failing."""
    try:
        number = float(str(value))
    except ValueError:
        raise Malformed("not a number", code="invalid_filter_value") from None
    return literal(number, Double())


def _text(value: object) -> str:
    text = str(value)
    if "\0" in text or (not text.isascii() and _has_surrogates(text)):
        raise Malformed("a text that no stored value can equal", code="invalid_filter_value")
    return text


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


# --- conditions -----------------------------------------------------------------------------


def _condition(columns: Mapping[str, Column], condition: Filter, dialect: str) -> Verdict:
    column = _column(columns, condition.field)
    try:
        if isinstance(column.type, JsonDocument):
            return _holds(column, condition, dialect)
        return _CONDITIONS[condition.operator](column, condition.value)
    except Malformed as error:
        raise Malformed(
            f"filter '{condition.field}': {error.text}", code=error.code, field=condition.field
        ) from None


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, tuple | list) else [value]


def _folded(column: Column) -> Column:
    return func.lower(column)


def _equal(column: Column, value: object) -> Verdict:
    return column == _bound(column, value)


def _equal_ic(column: Column, value: object) -> Verdict:
    return _folded(column) == _folded(_bound(column, value))


def _contains(column: Column, value: object) -> Verdict:
    return column.contains(_text(value), autoescape=True)


def _contains_ic(column: Column, value: object) -> Verdict:
    # both sides fold in the database, whose idea of letters may differ from Python's
    escaped = _text(value).replace("/", "//").replace("%", "/%").replace("_", "/_")
    pattern = bindparam(None, f"%{escaped}%", type_=Text())
    return _folded(column).like(_folded(pattern), escape="/")


def _one_of(column: Column, value: object) -> Verdict:
    items = _items(value)
    if not items:
        return true()
    return or_(*(column == _bound(column, item) for item in items))


def _one_of_ic(column: Column, value: object) -> Verdict:
    items = _items(value)
    if not items:
        return true()
    return or_(*(_equal_ic(column, item) for item in items))


def _none_of(one_of: Callable[[Column, object], Verdict]) -> Callable[[Column, object], Verdict]:
    def none_of(column: Column, value: object) -> Verdict:
        return ~one_of(column, value) if _items(value) else true()

    return none_of


_CONDITIONS: Mapping[Operator, Callable[[Column, object], Verdict]] = {
    Operator.EQ: _equal,
    Operator.EQ_IC: _equal_ic,
    Operator.NE: lambda column, value: column != _bound(column, value),
    Operator.NE_IC: lambda column, value: _folded(column) != _folded(_bound(column, value)),
    Operator.CT: _contains,
    Operator.CT_IC: _contains_ic,
    Operator.NC: lambda column, value: ~_contains(column, value),
    Operator.NC_IC: lambda column, value: ~_contains_ic(column, value),
    Operator.IN: _one_of,
    Operator.IN_IC: _one_of_ic,
    Operator.NIN: _none_of(_one_of),
    Operator.NIN_IC: _none_of(_one_of_ic),
    Operator.BF: lambda column, value: column < _bound(column, value),
    Operator.AF: lambda column, value: column > _bound(column, value),
    Operator.LT: lambda column, value: column < _bound(column, value),
    Operator.LE: lambda column, value: column <= _bound(column, value),
    Operator.GT: lambda column, value: column > _bound(column, value),
    Operator.GE: lambda column, value: column >= _bound(column, value),
}


def _holds(column: Column, condition: Filter, dialect: str) -> Verdict:
    """Whether the array has the value as a whole element; a missing array has nothing."""
    if condition.operator not in (Operator.CT, Operator.CT_IC):
        raise Malformed("a list of texts takes only 'contains'", code="invalid_filter_operator")
    wanted: Column = bindparam(None, _text(condition.value), type_=Text())
    if dialect == "postgresql":
        array = case((func.jsonb_typeof(column) == "array", column), else_=None)
        element: Column = func.jsonb_array_elements_text(array).column_valued("element")
    else:
        element = func.json_each(column).table_valued("value").c.value
    if condition.operator is Operator.CT_IC:
        return select(literal(1)).where(_folded(element) == _folded(wanted)).exists()
    return select(literal(1)).where(element == wanted).exists()
