"""The issuance log's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.merkle import Head, Tile, packed, unpacked
from lamassu.kernel.records import LogEntry
from lamassu.platform.database import Database, Prepared, ServiceUnit, Unit
from lamassu.platform.database.journal_tables import tables as journal_tables
from lamassu.platform.database.prepared import insert_by_column
from lamassu.platform.database.records import LOG
from lamassu.services.ca.ports import IssuanceLogUnit
from lamassu.services.ca.rules.issuance_log import (
    SUBJECT,
    Cosigned,
    EntryType,
    LogHead,
    Sequenced,
    entry_of,
)
from lamassu.services.ca.storage.log_tables import (
    log_cosignatures,
    log_entries,
    log_head,
    log_tiles,
    log_witnessed,
)
from lamassu.services.ca.storage.rows import CERTIFICATE_COLUMNS, certificate_of
from lamassu.services.ca.storage.tables import cas, certificates

SERVICE = "ca"
_JOURNAL, _JOURNAL_HEAD = journal_tables(SERVICE).journal, journal_tables(SERVICE).head
_HEAD = Prepared(select(*(column for column in log_head.c if column.name != "id")))
_LAST = Prepared(select(_JOURNAL_HEAD.c.position))
_SEQUENCED = (
    select(_JOURNAL)
    .where(_JOURNAL.c.position > bindparam("after"), _JOURNAL.c.kind == LOG)
    .order_by(_JOURNAL.c.position)
)
_APPEND = insert_by_column(log_entries, ["position", "serial_number", "body"])
_SERIAL_NUMBER = select(log_entries.c.position, log_entries.c.body)


class IssuanceLogStorage:
    """The `IssuanceLogStore` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unit(self) -> AbstractAsyncContextManager[IssuanceLogUnit]:
        return self._unit()

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[IssuanceLogUnit]:
        async with self._database.unit(SERVICE) as unit:
            yield _LogUnit(unit, self._database)

    async def head(self) -> LogHead:
        rows = await self._database.fetch(SERVICE, _HEAD, {})
        if not rows:
            raise Unavailable("the issuance log has lost its head", code="log_damaged")
        return _head_of(rows[0])

    async def last_sequenced(self) -> int:
        rows = await self._database.fetch(SERVICE, _LAST, {})
        return int(rows[0].position) if rows else 0

    async def tiles(self, wanted: set[Tile]) -> Mapping[Tile, Sequence[bytes]]:
        if not wanted:
            return {}
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(select(log_tiles).where(_among(wanted)))
            return {Tile(row.level, row.number): unpacked(row.hashes) for row in rows}

    async def entries(self, begin: int, end: int) -> Sequence[bytes]:
        query = (
            select(log_entries.c.body)
            .where(log_entries.c.position >= begin, log_entries.c.position < end)
            .order_by(log_entries.c.position)
        )
        async with self._database.reading(SERVICE) as connection:
            return [body.encode() for body in (await connection.execute(query)).scalars()]

    async def entries_of(self, serial_number: str, *, limit: int) -> Sequence[tuple[int, bytes]]:
        query = (
            _SERIAL_NUMBER.where(log_entries.c.serial_number == serial_number)
            .order_by(log_entries.c.position.desc())
            .limit(limit)
        )
        async with self._database.reading(SERVICE) as connection:
            rows = (await connection.execute(query)).all()
        return [(row.position, row.body.encode()) for row in reversed(rows)]

    async def cosignatures(self) -> Sequence[Cosigned]:
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(
                select(log_cosignatures).order_by(log_cosignatures.c.witness)
            )
            return [Cosigned(row.witness, row.size, row.line, row.signed_at) for row in rows]


class _LogUnit(ServiceUnit):
    """The `IssuanceLogUnit` port."""

    def __init__(self, unit: Unit, database: Database) -> None:
        super().__init__(unit)
        self._database = database

    def log(self, entry: LogEntry) -> None:
        self._unit.log(entry)

    async def lock_head(self) -> LogHead:
        query = select(log_head).with_for_update()
        row = (await self._connection.execute(query)).first()
        if row is None:
            raise Unavailable("the issuance log has lost its head", code="log_damaged")
        return _head_of(row)

    async def save_head(self, head: LogHead) -> None:
        await self._connection.execute(update(log_head).values(asdict(head)))

    async def sequenced(self, after: int, *, limit: int) -> Sequence[Sequenced]:
        query = _SEQUENCED.limit(limit)
        rows = await self._connection.execute(query, {"after": after})
        sealed = self._database.writer.sealed
        return [
            Sequenced(row.position, row.subject, row.body.encode(), genuine=sealed(SERVICE, row))
            for row in rows
        ]

    async def tiles(self, wanted: set[Tile]) -> Mapping[Tile, Sequence[bytes]]:
        if not wanted:
            return {}
        rows = await self._connection.execute(select(log_tiles).where(_among(wanted)))
        return {Tile(row.level, row.number): unpacked(row.hashes) for row in rows}

    async def append(self, first: int, entries: Sequence[Sequenced]) -> None:
        rows = [
            {
                "position": position,
                "serial_number": entry.subject.removeprefix(SUBJECT)
                if entry.subject.startswith(SUBJECT)
                else None,
                "body": entry.body.decode(),
            }
            for position, entry in enumerate(entries, first)
        ]
        await self._unit.run_each(_APPEND, rows)

    async def save_tiles(self, changed: Mapping[Tile, Sequence[bytes]]) -> None:
        for tile, hashes in changed.items():  # as many as the tree is deep, and one per 256 leaves
            values = {"level": tile.level, "number": tile.number, "hashes": packed(hashes)}
            await self._upsert(log_tiles, values, ["level", "number"])

    async def adopt_page(self, after: str, *, before: datetime, limit: int) -> Sequence[str]:
        query: Select[Any] = (
            select(*CERTIFICATE_COLUMNS, cas.c.id.label("authority_id"))
            .join_from(
                certificates, cas, cas.c.serial_number == certificates.c.serial_number, isouter=True
            )
            .where(certificates.c.serial_number > after, certificates.c.created_at < before)
            .order_by(certificates.c.serial_number)
            .limit(limit)
            .with_for_update(of=certificates)
        )
        rows = (await self._connection.execute(query)).all()
        for row in rows:
            self.log(
                entry_of(
                    EntryType.ADOPTED, certificate_of(row), authority_id=row.authority_id or ""
                )
            )
        return [row.serial_number for row in rows]

    async def save_cosignature(self, cosigned: Cosigned) -> None:
        await self._upsert(log_cosignatures, asdict(cosigned), ["witness"])

    async def lock_witnessed(self, origin: str) -> Head | None:
        query = select(log_witnessed).where(log_witnessed.c.origin == origin).with_for_update()
        row = (await self._connection.execute(query)).first()
        return None if row is None else Head(row.size, bytes(row.root))

    async def save_witnessed(self, origin: str, head: Head, *, seen_at: datetime) -> None:
        values = {"origin": origin, "size": head.size, "root": head.root, "seen_at": seen_at}
        await self._upsert(log_witnessed, values, ["origin"])

    async def _upsert(self, table: Any, values: Mapping[str, Any], key: list[str]) -> None:
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).values(values)
        others = {name: statement.excluded[name] for name in values if name not in key}
        await self._connection.execute(
            statement.on_conflict_do_update(index_elements=key, set_=others)
        )


def _among(wanted: set[Tile]) -> Any:
    return or_(
        *(
            and_(log_tiles.c.level == level, log_tiles.c.number == number)
            for level, number in wanted
        )
    )


def _head_of(row: Row[Any]) -> LogHead:
    return LogHead(
        size=row.size,
        root=bytes(row.root),
        position=row.position,
        origin=row.origin,
        key_id=row.key_id,
        signed_size=row.signed_size,
        note=row.note,
        witnessed=row.witnessed,
        adopt_after=row.adopt_after,
        adopt_before=row.adopt_before,
        adopted=row.adopted,
        witness_name=row.witness_name,
        witness_key_id=row.witness_key_id,
    )
