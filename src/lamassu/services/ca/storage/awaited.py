"""Rows of CAs that wait for their certificate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.storage.tables import awaited as table


async def awaited_in(connection: AsyncConnection) -> Sequence[AwaitedCa]:
    """All of them, the oldest first: they are few."""
    query = select(table).order_by(table.c.created_at, table.c.id)
    return [awaited_of(row) for row in await connection.execute(query)]


def awaited_of(row: Row[Any]) -> AwaitedCa:
    """From a row of the table."""
    return AwaitedCa(**{**row._asdict(), "subject": Subject(**row.subject)})


def values_of_awaited(awaited: AwaitedCa) -> dict[str, object]:
    """The whole row."""
    subject = awaited.subject
    return {
        "id": awaited.id,
        "csr": awaited.csr,
        "key_id": awaited.key_id,
        "key_algorithm": awaited.key_algorithm,
        "key_size": awaited.key_size,
        "engine_id": awaited.engine_id,
        "subject": {name: value for name in subject.__slots__ if (value := getattr(subject, name))},
        "root_id": awaited.root_id,
        "profile_id": awaited.profile_id,
        "metadata": dict(awaited.metadata),
        "created_at": awaited.created_at,
    }
