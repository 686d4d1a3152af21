"""Fields of lists that are more than a column: how each is asked for, and walked in order.

A list in the order of a field is walked run by run: in a run the field has one value, or its
column is in order by itself, so that an index serves each run and none has to be sorted.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any, TypeAlias

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    Numeric,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    true,
)
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.types import Text

from lamassu.kernel.errors import Malformed
from lamassu.kernel.json_path import holds, parse_predicate, top_keys
from lamassu.kernel.listing import Filter, Operator
from lamassu.platform.database.json_functions import (
    LARGEST,
    MATCHES,
    SORTED,
    TEXT_LENGTH,
    TIME,
)
from lamassu.platform.database.types import JsonDocument

Column: TypeAlias = ColumnElement[Any]
Verdict: TypeAlias = ColumnElement[bool]
Place: TypeAlias = str | float | None


@dataclass(frozen=True)
class Run:
    """Rows that stand together in ascending order.

    `order` is what they are in order of, or `None` where all have the same `value`. A bookmark's
    value is of this run if it is `value`, or begins with `mark` (which numbers do not have).
    """

    where: Verdict
    order: Column | None = None
    value: Place = None
    mark: str = ""

    def holds(self, value: Place) -> bool:
        """Whether a row whose sort value a bookmark names so is in this run."""
        if self.order is None or value is None:
            return self.order is None and value == self.value
        if self.mark:
            return isinstance(value, str) and value.startswith(self.mark)
        is_number = isinstance(self.order.type, Double | Integer | Boolean)
        return is_number == isinstance(value, int | float)


@dataclass(frozen=True)
class Choice:
    """One of a few values, each with a condition that an index serves."""

    conditions: Mapping[str, Verdict]

    def runs(self) -> Sequence[Run]:
        """In the order of the values as texts."""
        return [Run(self.conditions[value], value=value) for value in sorted(self.conditions)]

    def condition(self, asked: Filter) -> Verdict:
        """Raises `Malformed`."""
        values = asked.value if isinstance(asked.value, tuple) else (str(asked.value),)
        if not values:
            return true()
        for value in values:
            if value not in self.conditions:
                raise Malformed(
                    f"may be one of {', '.join(sorted(self.conditions))}",
                    code="invalid_filter_value",
                )
        if asked.operator is Operator.NE:
            others = [each for each in self.conditions if each not in values]
        elif asked.operator in (Operator.EQ, Operator.IN):
            others = list(values)
        else:
            raise Malformed("takes only eq, ne and in", code="invalid_filter_operator")
        return or_(*(self.conditions[each] for each in others))


@dataclass(frozen=True)
class Seldom:
    """A column in which hardly a row has a value: the others have the least one there is.

    `without` and `having` are conditions in the words of the partial index. `shown` is what
    clients see where the column is null, if it can be.
    """

    column: Column
    without: Verdict
    having: Verdict
    least: Place = None
    shown: datetime | None = None

    def runs(self) -> Sequence[Run]:
        return [Run(self.without, value=self.least), Run(self.having, order=self.column)]


@dataclass(frozen=True)
class JsonField:
    """A JSON document, asked by paths.

    `shown` has also what the system renders into the document under the keys `rendered`; it
    is asked only where a question looks at these, since no index knows it. What it renders
    under the keys `closed` cannot be asked for.
    """

    column: Column
    shown: Column | None = None
    rendered: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()

    def condition(self, asked: Filter, dialect: str) -> Verdict:
        """Raises `Malformed`."""
        if asked.operator is not Operator.JSONPATH:
            raise Malformed("takes only jsonpath", code="invalid_filter_operator")
        text = str(asked.value)
        predicate = parse_predicate(text)
        keys = top_keys(predicate)
        self._check_open(keys or ())
        column = self._of(keys is None or bool(keys & self.rendered))
        if dialect != "postgresql":
            matches: Verdict = func.__getattr__(MATCHES)(column, _bound(text)) == literal(1)
            return matches
        found: Verdict = column.op("@@", is_comparison=True)(cast(_bound(text), JSONPATH()))
        if column is self.column and holds(predicate, {}) is not True:
            # told in the words of the partial index, which leaves out all the empty ones
            found = found & (self.column != literal_column("'{}'"))
        return found

    def runs(self, path: Sequence[str], dialect: str) -> Sequence[Run]:
        """Missing values, numbers, times, texts; the last two are marked in bookmarks."""
        self._check_open(path[:1])
        column = self._of(path[0] in self.rendered)
        kinds = (
            _on_postgresql(column, path) if dialect == "postgresql" else _on_sqlite(column, path)
        )
        number, time, text = kinds
        missing = number.is_(None) & time.is_(None) & text.is_(None)
        return [
            Run(missing),
            Run(number.is_not(None), order=number),
            Run(time.is_not(None), order=time, mark="time "),
            Run(text.is_not(None), order=text, mark="text "),
        ]

    def _check_open(self, keys: Collection[str]) -> None:
        for key in keys:
            if key in self.closed:
                raise Malformed(
                    f"what the system writes under {key} cannot be asked for",
                    code="invalid_json_path",
                )

    def _of(self, rendered: bool) -> Column:
        return self.shown if rendered and self.shown is not None else self.column


Field: TypeAlias = Column | Choice | Seldom | JsonField


def _bound(text: str) -> Column:
    return bindparam(None, text, type_=Text())


def _on_sqlite(column: Column, path: Sequence[str]) -> tuple[Column, Column, Column]:
    keys = json.dumps(list(path))

    def value(kind: str, type_: Any) -> Column:
        found: Column = func.__getattr__(SORTED)(column, _bound(keys), literal(kind), type_=type_)
        return found

    return value("number", Double()), value("time", Double()), value("text", Text())


def _on_postgresql(column: Column, path: Sequence[str]) -> tuple[Column, Column, Column]:
    value: Column = reduce(
        lambda inner, key: inner.op("->", return_type=JsonDocument())(_bound(key)), path, column
    )
    text: Column = value.op("#>>", return_type=Text())(
        cast(literal([], ARRAY(Text())), ARRAY(Text()))
    )
    kind = func.jsonb_typeof(value)
    is_time = (kind == "string") & text.regexp_match(TIME)
    numeric = cast(text, Numeric())
    number = case(
        (
            kind == "number",
            case(
                (func.abs(numeric) < cast(literal("1e-300", Text()), Numeric()), literal(0.0)),
                else_=cast(
                    func.greatest(
                        func.least(numeric, cast(literal(str(LARGEST), Text()), Numeric())),
                        cast(literal(str(-LARGEST), Text()), Numeric()),
                    ),
                    Double(),
                ),
            ),
        ),
        else_=None,
    )
    parts: Column = func.regexp_match(text, TIME, type_=ARRAY(Text()))

    def part(number: int, type_: Any) -> Column:
        return func.coalesce(cast(parts[number], type_), 0)

    days = func.make_date(part(1, Integer), part(2, Integer), 1) - func.make_date(1970, 1, 1)
    away = part(12, Integer) * 3600 + part(13, Integer) * 60
    seconds: Column = (
        (cast(days, Double()) + part(3, Integer) - 1) * 86400.0
        + part(5, Integer) * 3600
        + part(6, Integer) * 60
        + part(8, Double())
        + case((parts[11] == "-", away), else_=-away)
    )
    time = case((is_time, cast(seconds, Double())), else_=None)
    plain = case(
        ((kind == "string") & ~text.regexp_match(TIME), func.substr(text, 1, TEXT_LENGTH)),
        (kind == "boolean", text),
        else_=None,
    )
    return cast(number, Double()), cast(time, Double()), cast(plain, Text())
