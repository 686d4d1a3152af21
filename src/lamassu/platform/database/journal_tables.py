"""The tables that every service has beside its own: outbox, journal, cursors, dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from sqlalchemy import CheckConstraint, Column, MetaData, Table

from lamassu.platform.database.types import (
    BigInteger,
    Integer,
    LargeBinary,
    Text,
    UtcDateTime,
    sequence_key,
)

GENESIS = bytes(32)
"""The hash before the first record of a journal."""


@dataclass(frozen=True, slots=True)
class JournalTables:
    """`outbox`: committed, not yet in order. `journal`: in order and chained, append-only.
    `head`: the journal's last position and hash, sealed, and the lock that makes one sequencer of
    many.
    `cursors`: how far each consumer that this service owns has read each source.
    `dead_letters`: events that a consumer gave up.
    """

    outbox: Table
    journal: Table
    head: Table
    cursors: Table
    dead_letters: Table

    def __iter__(self) -> Iterator[Table]:
        yield from (self.outbox, self.journal, self.head, self.cursors, self.dead_letters)


@cache
def tables(service: str) -> JournalTables:
    """The definitions for one service, in a `MetaData` of their own."""
    metadata = MetaData()
    return JournalTables(
        outbox=Table(
            f"{service}_outbox",
            metadata,
            Column("seq", sequence_key(), primary_key=True, autoincrement=True),
            *_record_columns(),
            sqlite_autoincrement=True,  # a number is never used twice
        ),
        journal=Table(
            f"{service}_journal",
            metadata,
            Column("position", BigInteger, primary_key=True, autoincrement=False),
            *_record_columns(),
            Column("prev_hash", LargeBinary, nullable=False),
            Column("hash", LargeBinary, nullable=False),
        ),
        head=Table(
            f"{service}_journal_head",
            metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("position", BigInteger, nullable=False),
            Column("hash", LargeBinary, nullable=False),
            Column("mac", LargeBinary, nullable=False),
            CheckConstraint("id = 1", name=f"{service}_journal_head_is_one_row"),
        ),
        cursors=Table(
            f"{service}_cursors",
            metadata,
            Column("consumer", Text, primary_key=True),
            Column("source", Text, primary_key=True),
            Column("position", BigInteger, nullable=False),
        ),
        dead_letters=Table(
            f"{service}_dead_letters",
            metadata,
            Column("id", sequence_key(), primary_key=True, autoincrement=True),
            Column("consumer", Text, nullable=False),
            Column("source", Text, nullable=False),
            Column("position", BigInteger, nullable=False),
            Column("event_id", Text, nullable=False),
            Column("type", Text, nullable=False),
            Column("tries", Integer, nullable=False),
            Column("error", Text, nullable=False),
            Column("time", UtcDateTime, nullable=False),
        ),
    )


def _record_columns() -> tuple[Column[object], ...]:
    """`n` counts the records of a `boot` (one start of one process) in this service from 1.

    `body` is the exact text that the MAC covers; `kind`, `type`, `subject` and `time` repeat
    what it says, to be searched by. `trail` tells what became of other numbers.
    """
    return (
        Column("boot", Text, nullable=False),
        Column("n", BigInteger, nullable=False),
        Column("kind", Text, nullable=False),
        Column("type", Text, nullable=False),
        Column("subject", Text, nullable=False),
        Column("time", UtcDateTime, nullable=False),
        Column("trail", Text, nullable=False),
        Column("body", Text, nullable=False),
        Column("mac", LargeBinary, nullable=False),
    )


def create(op: ModuleType, service: str) -> None:
    """Make them, from within a revision (`op` is `alembic.op`)."""
    mine = tables(service)
    for table in mine:
        table.create(op.get_bind())
    op.get_bind().execute(mine.head.insert().values(id=1, position=0, hash=GENESIS, mac=b""))


def drop(op: ModuleType, service: str) -> None:
    """Remove them, from within a revision's `downgrade`."""
    for table in tables(service):
        table.drop(op.get_bind())
