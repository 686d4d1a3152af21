"""The issuance log's tables: entries and tiles are only ever added to, but for the tiles at the
right edge."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, Column, Index, Table

from lamassu.platform.database.types import BigInteger, Integer, LargeBinary, Text, UtcDateTime
from lamassu.services.ca.storage.tables import metadata

log_entries = Table(
    "ca_log_entries",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("serial_number", Text),  # none for an entry about the log itself
    Column("body", Text, nullable=False),
    Index("ix_ca_log_entries_serial_number", "serial_number", "position"),
)

log_tiles = Table(
    "ca_log_tiles",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

log_head = Table(
    "ca_log_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("position", BigInteger, nullable=False),  # of the journal
    Column("origin", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("signed_size", BigInteger, nullable=False),
    Column("note", Text, nullable=False),
    Column("witnessed", Text, nullable=False),
    Column("adopt_after", Text),
    Column("adopt_before", UtcDateTime, nullable=False),
    Column("adopted", BigInteger, nullable=False),
    Column("witness_name", Text, nullable=False),
    Column("witness_key_id", Text, nullable=False),
    CheckConstraint("id = 1", name="ca_log_head_is_one_row"),
)

log_cosignatures = Table(  # the newest of each witness on this log
    "ca_log_cosignatures",
    metadata,
    Column("witness", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
    Column("signed_at", UtcDateTime, nullable=False),
)

log_witnessed = Table(  # the newest heads of other logs that this installation signed
    "ca_log_witnessed",
    metadata,
    Column("origin", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),
)
