"""Column types that mean the same on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    TIMESTAMP,
    BigInteger,
    Boolean,
    Integer,
    LargeBinary,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from lamassu.kernel.records import Json

__all__ = [
    "BigInteger",
    "Boolean",
    "Integer",
    "JsonDocument",
    "LargeBinary",
    "Text",
    "UtcDateTime",
    "sequence_key",
]


def sequence_key() -> TypeEngine[int]:
    """A 64-bit primary key that the database counts up itself (SQLite wants `INTEGER` there)."""
    return BigInteger().with_variant(Integer(), "sqlite")


def time_text(value: datetime) -> str:
    """RFC 3339 in UTC with six decimals: its order as text is its order in time."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def time_of(text: str) -> datetime:
    """The aware UTC time that `time_text` wrote."""
    return datetime.fromisoformat(text)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time; a naive one is refused, since nobody could say what it means."""

    impl = TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a time without a zone cannot be stored")
        return time_text(value) if dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, datetime):
            # asyncpg stores the first and last instants as infinities, and forgets their zone
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        return time_of(str(value))


class JsonDocument(TypeDecorator[Json]):
    """A JSON value: `jsonb` on PostgreSQL, text on SQLite. Python's `None` is SQL's NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))

    def coerce_compared_value(self, op: OperatorType | None, value: object) -> TypeEngine[Any]:
        return self.impl_instance.coerce_compared_value(op, value)
