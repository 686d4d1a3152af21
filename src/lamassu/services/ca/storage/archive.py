"""Expired certificates, out of the way of lists and their indexes, and found again.

A row moves whole: what OCSP has to know of it stands in columns, the rest as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Row, Select, delete, insert, select

from lamassu.platform.database import ServiceUnit
from lamassu.platform.database.types import UtcDateTime, time_of, time_text
from lamassu.services.ca.contract import Certificate
from lamassu.services.ca.storage.rows import certificate_of
from lamassu.services.ca.storage.tables import archived_certificates, certificates

_COLUMNS = {column.name for column in archived_certificates.c} & set(certificates.c.keys())
_TIMES = {column.name for column in certificates.c if isinstance(column.type, UtcDateTime)}


class ArchiveRows(ServiceUnit):
    """The part of `CaTransaction` that archives."""

    async def archive_ended(self, before: datetime, *, limit: int, now: datetime) -> Sequence[str]:
        """The oldest first; others that archive meanwhile take different ones."""
        due = (
            select(certificates)
            .where(
                certificates.c.not_after < before,
                certificates.c.is_ca.is_(False),
                certificates.c.awaits_binding.is_(False),
            )
            .order_by(certificates.c.not_after, certificates.c.serial_number)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = (await self._connection.execute(due)).all()
        if not rows:
            return []
        serial_numbers = [row.serial_number for row in rows]
        await self._connection.execute(
            insert(archived_certificates), [_values(row, now) for row in rows]
        )
        await self._connection.execute(
            delete(certificates).where(certificates.c.serial_number.in_(serial_numbers))
        )
        return serial_numbers


def archived(serial_numbers: Sequence[str]) -> Select[Any]:
    """The rows of these, for `certificate_in_archive`."""
    return select(archived_certificates).where(
        archived_certificates.c.serial_number.in_(serial_numbers)
    )


def archived_after(serial_number: str, *, limit: int) -> Select[Any]:
    """A page of them in order of serial numbers."""
    return (
        select(archived_certificates)
        .where(archived_certificates.c.serial_number > serial_number)
        .order_by(archived_certificates.c.serial_number)
        .limit(limit)
    )


def certificate_in_archive(row: Row[Any]) -> Certificate:
    """As it was."""
    kept: dict[str, Any] = dict.fromkeys(certificates.c.keys()) | dict(row.content)
    for name in _TIMES & kept.keys():
        kept[name] = time_of(kept[name]) if kept[name] is not None else None
    kept |= {name: row._mapping[name] for name in _COLUMNS}
    return certificate_of(cast("Row[Any]", SimpleNamespace(**kept)))


def _values(row: Row[Any], now: datetime) -> dict[str, object]:
    whole = row._mapping
    content = {
        name: time_text(value) if isinstance(value, datetime) else value
        for name, value in whole.items()
        if name not in _COLUMNS
    }
    return {name: whole[name] for name in _COLUMNS} | {"archived_at": now, "content": content}
