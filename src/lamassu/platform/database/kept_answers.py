"""Where answers of requests that may be repeated are kept (`kernel/repeats.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import ModuleType
from typing import TypedDict

from sqlalchemy import Column, Index, MetaData, Table, insert

from lamassu.kernel.records import Record
from lamassu.kernel.repeats import PendingAnswer, pending_answer
from lamassu.platform.database.prepared import Prepared
from lamassu.platform.database.types import Integer, JsonDocument, Text, UtcDateTime

KEEPING = ("ca", "kms", "va", "dmsmanager", "devicemanager")
"""The services that create something for clients, and so have the table."""


@cache
def answers_table(service: str) -> Table:
    """One service's. `id` is a digest of principal, route and key; `digest` is the request's."""
    name = f"{service}_kept_answers"
    return Table(
        name,
        MetaData(),
        Column("id", Text, primary_key=True),
        Column("principal", Text, nullable=False),
        Column("digest", Text, nullable=False),
        Column("status", Integer, nullable=False),
        Column("body", Text, nullable=False),
        Column("headers", JsonDocument, nullable=False),
        Column("created_at", UtcDateTime, nullable=False),
        Index(f"{name}_by_age", "created_at"),
        Index(f"{name}_by_principal", "principal"),
    )


def create(op: ModuleType, service: str) -> None:
    """Make the table, from within a revision (`op` is `alembic.op`)."""
    answers_table(service).create(op.get_bind())


def drop(op: ModuleType, service: str) -> None:
    """Remove it, from within a revision's `downgrade`."""
    answers_table(service).drop(op.get_bind())


class KeptRow(TypedDict):
    """A row of the table."""

    id: str
    principal: str
    digest: str
    status: int
    body: str
    headers: dict[str, str]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Keeping:
    """The row by which a transaction keeps the answer; `done` once it committed."""

    pending: PendingAnswer
    row: KeptRow

    def done(self) -> None:
        self.pending.kept = True


def keeping(service: str, records: Sequence[Record], now: datetime) -> Keeping | None:
    """What a transaction with these records has to keep beside them, if anything."""
    pending = pending_answer(service)
    if pending is None:
        return None
    answer = pending.answer(records)
    if answer is None:
        return None
    row = KeptRow(
        id=pending.id,
        principal=pending.principal,
        digest=pending.digest,
        status=answer.status,
        body=answer.body,
        headers=dict(answer.headers),
        created_at=now,
    )
    return Keeping(pending, row)


@cache
def insertion(service: str) -> Prepared:
    """Keeps one row."""
    return Prepared(insert(answers_table(service)).inline(), columns=list(KeptRow.__annotations__))
