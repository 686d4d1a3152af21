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
    Double,
    Integer,
    Row,
    Select,
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
from lamassu.platform.database.list_fields import (
    Choice,
    Column,
    Field,
    JsonField,
    Place,
    Run,
    Seldom,
    Verdict,
)
from lamassu.platform.database.types import JsonDocument, UtcDateTime, time_of, time_text

Position: TypeAlias = tuple[Place, str]

_SORT = "listing_sort"
_KEY = "listing_key"
_SORTED_CHARACTERS = 200  # of an array


async def fetch_page(
    connection: AsyncConnection,
    base: Select[Any],
    *,
    columns: Mapping[str, Field],
    key: Column,
    query: ListQuery,
) -> Page[Row[Any]]:
    """The page of `base` that `query` asks for.

    `columns` maps wire names to what they filter and sort by; `key` is unique and never missing.
    Rows carry two columns more than `base`, at their end. Raises `RuleViolation` for a field that
    `columns` lacks and `Malformed` for a value that the field cannot be compared with.
    """
    statement = filtered(connection, base, columns=columns, filters=query.filters)
    runs = list(_runs(connection, columns, query)) if query.sort_by else [Run(true())]
    if query.descending:
        runs.reverse()
    if query.after is not None:
        runs = runs[_place(runs, query.after[0], keyed=not query.sort_by) :]
    rows: list[Row[Any]] = []
    last: Run | None = None
    for number, run in enumerate(runs):
        after = query.after if number == 0 else None
        part = _part(statement, run, key, after, descending=query.descending)
        found = (await connection.execute(part.limit(query.page_size + 1 - len(rows)))).all()
        if len(rows) + len(found) > query.page_size:
            if len(rows) < query.page_size:
                rows += found[: query.page_size - len(rows)]
                last = run
            assert last is not None
            return Page(rows, _position(last, rows[-1]))
        if found:
            rows += found
            last = run
    return Page(rows)


def filtered(
    connection: AsyncConnection,
    base: Select[Any],
    *,
    columns: Mapping[str, Field],
    filters: Sequence[Filter],
) -> Select[Any]:
    """`base` with the conditions of `filters`, for counting. Raises as `fetch_page`."""
    dialect = connection.dialect.name
    return base.where(*(_condition(columns, each, dialect) for each in filters))


def _field(columns: Mapping[str, Field], name: str) -> Field:
    try:
        return columns[name]
    except KeyError:
        raise RuleViolation(
            f"cannot filter or sort by '{name}'; allowed: {', '.join(sorted(columns))}",
            code="unknown_filter_field",
            field=name,
        ) from None


# --- order and position ---------------------------------------------------------------------


def _runs(
    connection: AsyncConnection, columns: Mapping[str, Field], query: ListQuery
) -> Sequence[Run]:
    field = _field(columns, query.sort_by or "")
    if isinstance(field, JsonField):
        return field.runs(query.sort_path, connection.dialect.name)
    if isinstance(field, Choice | Seldom):
        return field.runs()
    column = field
    if isinstance(column.type, JsonDocument):
        # arrays go by their text, as far as a bookmark carries it; the key settles the rest
        column = func.substr(cast(column, Text), 1, _SORTED_CHARACTERS, type_=Text())
    if not _may_be_missing(column):
        return [Run(true(), order=column)]
    return [Run(column.is_(None)), Run(column.is_not(None), order=column)]


def _place(runs: Sequence[Run], value: Place, *, keyed: bool) -> int:
    """The run that a bookmark's value is in. Raises `Malformed`."""
    holding = [number for number, run in enumerate(runs) if keyed or run.holds(value)]
    if holding:  # where all have the value is nearer than where they have any
        return min(holding, key=lambda number: runs[number].order is not None)
    raise Malformed("not a valid bookmark", code="invalid_bookmark", field="bookmark")


def _may_be_missing(column: Column) -> bool:
    return bool(getattr(column, "nullable", True))


def _part(
    statement: Select[Any], run: Run, key: Column, after: Position | None, *, descending: bool
) -> Select[Any]:
    """The rows of a run in order. Without NULLS: an index serves only the order it was made in."""
    order, sort = [key], run.order if run.order is not None and run.order is not key else None
    if sort is not None:
        order.insert(0, sort)
    statement = statement.where(run.where)
    if after is not None:
        value, last_key = after
        place: Column = tuple_(*order) if sort is not None else key
        marks: list[Column] = [_bound(key, last_key)]
        if sort is not None:
            marks.insert(0, _bound(sort, _unmarked(run, value)))
        limit = tuple_(*marks) if sort is not None else marks[0]
        statement = statement.where(place < limit if descending else place > limit)
    shown = literal(None, Text()) if run.order is None else run.order
    return statement.add_columns(shown.label(_SORT), key.label(_KEY)).order_by(
        *(each.desc() if descending else each.asc() for each in order)
    )


def _unmarked(run: Run, value: Place) -> Place:
    if not run.mark:
        return value
    text = str(value).removeprefix(run.mark)
    if isinstance(run.order is not None and run.order.type, Text):
        return text
    return float(text)


def _position(run: Run, row: Row[Any]) -> Position:
    """Where a page goes on that ended with this row."""
    found = row._mapping
    if run.order is None:
        return run.value, str(found[_KEY])
    value = found[_SORT]
    if isinstance(value, datetime):
        value = time_text(value)
    elif value is not None and not isinstance(value, str | float | int):
        raise RuleViolation("this field cannot be sorted by", code="not_sortable")
    return f"{run.mark}{value}" if run.mark else value, str(found[_KEY])


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


def _condition(columns: Mapping[str, Field], condition: Filter, dialect: str) -> Verdict:
    field = _field(columns, condition.field)
    try:
        return _asked(field, condition, dialect)
    except Malformed as error:
        raise Malformed(
            f"filter '{condition.field}': {error.text}", code=error.code, field=condition.field
        ) from None


def _asked(field: Field, condition: Filter, dialect: str) -> Verdict:
    if isinstance(field, JsonField):
        return field.condition(condition, dialect)
    if isinstance(field, Choice):
        return field.condition(condition)
    if isinstance(field, Seldom):
        return _seldom(field, condition, dialect)
    if isinstance(field.type, JsonDocument):
        return _holds(field, condition, dialect)
    if condition.operator not in _CONDITIONS:
        raise Malformed("takes no JSON path", code="invalid_filter_operator")
    if dialect == "postgresql" and condition.operator in _FOLDED:
        return _FOLDED[condition.operator](field, condition.value)
    return _CONDITIONS[condition.operator](field, condition.value)


def _seldom(field: Seldom, condition: Filter, dialect: str) -> Verdict:
    """Said in the words of the partial index where it can serve."""
    if field.shown is None:
        plain = _asked(field.column, condition, dialect)
        named = condition.operator is Operator.EQ and condition.value != field.least
        return plain & field.having if named else plain
    wanted = _time(condition.value)
    found = _CONDITIONS[condition.operator](field.column, wanted) & field.having
    unset = {
        Operator.EQ: field.shown == wanted,
        Operator.BF: field.shown < wanted,
        Operator.AF: field.shown > wanted,
    }[condition.operator]
    return or_(field.without, found) if unset else found


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
    pattern = bindparam(None, f"%{_escaped(value)}%", type_=Text())
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


def _like_ic(column: Column, value: object) -> Verdict:
    return _ilike(column, f"%{_escaped(value)}%")


def _ilike(column: Column, pattern: str) -> Verdict:
    """In the words that an index of letter groups serves."""
    return column.ilike(bindparam(None, pattern, type_=Text()), escape="/")


def _escaped(value: object) -> str:
    return _text(value).replace("/", "//").replace("%", "/%").replace("_", "/_")


# PostgreSQL's own way to compare without case
_FOLDED: Mapping[Operator, Callable[[Column, object], Verdict]] = {
    Operator.CT_IC: _like_ic,
}


def _holds(column: Column, condition: Filter, dialect: str) -> Verdict:
    """Whether the array has the value as a whole element; a missing array has nothing."""
    if condition.operator not in (Operator.CT, Operator.CT_IC):
        raise Malformed("a list of texts takes only 'contains'", code="invalid_filter_operator")
    wanted: Column = bindparam(None, _text(condition.value), type_=Text())
    if dialect == "postgresql" and condition.operator is Operator.CT:
        return (func.jsonb_typeof(column) == "array") & column.op("?", is_comparison=True)(wanted)
    if dialect == "postgresql":
        array = case((func.jsonb_typeof(column) == "array", column), else_=None)
        element: Column = func.jsonb_array_elements_text(array).column_valued("element")
    else:
        element = func.json_each(column).table_valued("value").c.value
    if condition.operator is Operator.CT_IC:
        return select(literal(1)).where(_folded(element) == _folded(wanted)).exists()
    return select(literal(1)).where(element == wanted).exists()
