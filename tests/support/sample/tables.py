"""A table with a column of every kind."""

from __future__ import annotations

from sqlalchemy import Column, MetaData, Table

from lamassu.platform.database.types import (
    BigInteger,
    Boolean,
    Integer,
    JsonDocument,
    LargeBinary,
    Text,
    UtcDateTime,
)

metadata = MetaData()
items = Table(
    "sample_items",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("count", Integer),
    Column("big", BigInteger),
    Column("flag", Boolean),
    Column("at", UtcDateTime),
    Column("tags", JsonDocument),
    Column("blob", LargeBinary),
)
