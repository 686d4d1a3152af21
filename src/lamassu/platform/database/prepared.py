"""Statements of the hot path: compiled once, then run on the driver itself.

Measured: a point read through SQLAlchemy's execution takes 100 µs of processor beside 60 to 150 µs
for its connection, the same text handed to asyncpg 15 µs. So what runs at each enrolment is
written with SQLAlchemy like all else, and only executed past it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Delete,
    Insert,
    Select,
    Table,
    Update,
    any_,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import TypeEngine

Statement: TypeAlias = Select[Any] | Insert | Update | Delete
Values: TypeAlias = Mapping[str, Any]
_Convert: TypeAlias = Callable[[Any], Any] | None


class Prepared:
    """A statement that touches a few rows, found by index: on SQLite it runs on the event loop.

    Values are given by the names of its `bindparam`s and, for an INSERT or UPDATE, of `columns`.
    Lists of changing length are given as `among` has them, never by `in_`.
    """

    def __init__(
        self,
        statement: Statement | Mapping[str, Statement],
        *,
        columns: Sequence[str] = (),
        many: bool = False,
        by_column: bool = False,
    ) -> None:
        """`statement` may differ by dialect (`postgresql`, `sqlite`), where they spell it so.

        `many`: it may touch many rows after all, and stays off the event loop. `by_column`: it
        is for `run_each`, and takes all rows at once on PostgreSQL: arrays, as `arrays` has them.
        """
        self.many = many
        self.by_column = by_column
        self._statement = statement
        self._columns = list(columns)
        self._plans: dict[str, Plan] = {}

    def on(self, dialect: Dialect) -> Plan:
        """The statement as that database takes it."""
        plan = self._plans.get(dialect.name)
        if plan is None:
            plan = self._plans[dialect.name] = self._compiled(dialect)
        return plan

    def _compiled(self, dialect: Dialect) -> Plan:
        given = self._statement
        statement = given[dialect.name] if isinstance(given, Mapping) else given
        compiled = statement.compile(dialect=dialect, column_keys=self._columns or None)
        assert isinstance(compiled, SQLCompiler)
        return Plan(compiled, statement, dialect)


def arrays(columns: Mapping[str, TypeEngine[Any]]) -> TableValuedAlias:
    """Rows that are given by column, as PostgreSQL takes them: `unnest`, with `ordinality`."""
    given = [bindparam(name, type_=ARRAY(kind)) for name, kind in columns.items()]
    rows = func.unnest(*given).table_valued(*columns, with_ordinality="ordinality")
    return rows.render_derived()


def among(column: ColumnElement[Any], name: str) -> Mapping[str, ColumnElement[bool]]:
    """That `column` is one of a list, given as `name`, as each database takes lists."""
    given = func.json_each(bindparam(name, type_=JSON)).table_valued("value")
    return {
        "postgresql": column == any_(bindparam(name, type_=ARRAY(column.type))),
        "sqlite": column.in_(select(given.c.value)),
    }


def insert_by_column(table: Table, columns: Sequence[str]) -> Prepared:
    """For `run_each`: an INSERT of rows in their order, in one statement where it can be."""
    rows = arrays({name: table.c[name].type for name in columns})
    many = select(*(rows.c[name] for name in columns)).order_by(rows.c.ordinality)
    return Prepared(
        {
            "postgresql": insert(table).from_select(columns, many).inline(),
            "sqlite": insert(table).inline(),
        },
        columns=columns,
        by_column=True,
    )


class Step(NamedTuple):
    """A statement of a transaction that is made at once."""

    statement: Prepared
    values: Values


Closing: TypeAlias = Callable[[], tuple[Prepared, Sequence[Values]] | None]
"""What makes the last statement of such a transaction, and the rows that it runs for."""


class Plan:
    """A statement's text, and how values become its arguments and its rows values."""

    def __init__(self, compiled: SQLCompiler, statement: Statement, dialect: Dialect) -> None:
        self.text = str(compiled)
        binds = [compiled.binds[name] for name in compiled.positiontup or ()]
        self._arguments = [
            (
                bind.key if bind.required else None,
                bind.value,
                bind.type.dialect_impl(dialect).bind_processor(dialect),
            )
            for bind in binds
        ]
        columns = statement.exported_columns
        names = [str(key) for key in columns.keys()]  # noqa: SIM118 - no mapping
        self._make = _row_maker(names) if names else None
        self._converts: list[_Convert] = [
            column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns
        ]
        self._plain = not any(self._converts)

    @property
    def size(self) -> int:
        """How many arguments it takes."""
        return len(self._arguments)

    @property
    def returns(self) -> bool:
        """Whether it answers with rows."""
        return self._make is not None

    def arguments(self, values: Values) -> list[Any]:
        """In the statement's order."""
        return [
            self._argument(values[key] if key is not None else constant, convert)
            for key, constant, convert in self._arguments
        ]

    def columns(self, rows: Sequence[Values]) -> list[list[Any]]:
        """The arguments of a statement that takes many rows at once, an array for each value."""
        return [
            self._argument([row[key] for row in rows], convert)
            for key, _, convert in self._arguments
            if key is not None
        ]

    def rows(self, found: Sequence[Sequence[Any]]) -> list[Any]:
        """Named tuples, by the names of the columns."""
        make = self._make
        if make is None:
            return []
        if self._plain:
            return [make(row) for row in found]
        return [
            make(
                [
                    value if convert is None else convert(value)
                    for convert, value in zip(self._converts, row, strict=True)
                ]
            )
            for row in found
        ]

    @staticmethod
    def _argument(value: Any, convert: _Convert) -> Any:
        return value if convert is None else convert(value)


def _row_maker(names: Sequence[str]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    row: Any = namedtuple("Row", names)  # type: ignore[misc]  # as many as there are statements
    make: Callable[[Sequence[Any]], tuple[Any, ...]] = row._make
    return make
