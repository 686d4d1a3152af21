"""Statements of the hot path: compiled once, then run on the driver itself.

Measured: a point read through SQLAlchemy's execution takes 100 µs of processor beside 60 to 150 µs
for its connection, the same text handed to asyncpg 15 µs. So what runs at each enrolment is
written with SQLAlchemy like all else, and only executed past it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler

Statement: TypeAlias = Select[Any] | Insert | Update | Delete
Values: TypeAlias = Mapping[str, Any]
_Convert: TypeAlias = Callable[[Any], Any] | None


class Prepared:
    """A statement that touches a few rows, found by index: on SQLite it runs on the event loop.

    Values are given by the names of its `bindparam`s and, for an INSERT or UPDATE, of `columns`.
    Lists of changing length (`in_`) have no place in it.
    """

    def __init__(
        self,
        statement: Statement | Mapping[str, Statement],
        *,
        columns: Sequence[str] = (),
        many: bool = False,
    ) -> None:
        """`statement` may differ by dialect (`postgresql`, `sqlite`), where they spell it so.

        `many`: it may touch many rows after all, and stays off the event loop.
        """
        self.many = many
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

    def arguments(self, values: Values) -> list[Any]:
        """In the statement's order."""
        return [
            self._argument(values[key] if key is not None else constant, convert)
            for key, constant, convert in self._arguments
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
