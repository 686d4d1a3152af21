"""Rows about keys. Private keys are never here."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    MetaData,
    Row,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from lamassu.kernel.errors import Conflict
from lamassu.kernel.listing import Filter, ListQuery, Page
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.database import Database, ServiceUnit
from lamassu.platform.database.list_fields import Field, JsonField
from lamassu.platform.database.listing import fetch_page, filtered
from lamassu.platform.database.types import (
    BigInteger,
    Boolean,
    Integer,
    JsonDocument,
    Text,
    UtcDateTime,
)
from lamassu.services.kms.contract import (
    Binding,
    Key,
    KeyAlgorithm,
    KeyMove,
    KeyOrigin,
    KeyPurpose,
    KeySpec,
    MoveStep,
)
from lamassu.services.kms.model import BackupRecord, KeyCounts, Rehearsals
from lamassu.services.kms.ports import KeyUnit
from lamassu.services.kms.rules import BINDINGS_KEY
from lamassu.services.kms.usecases.key_document import public_key_text

SERVICE = "kms"
LOOKUP_BATCH = 500

metadata = MetaData()

keys = Table(
    "kms_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("engine_id", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("public_key", Text, nullable=False),  # as the wire has it, so that it can be filtered
    Column("tags", JsonDocument, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("has_signed", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("origin", Text, nullable=False, server_default="generated"),
    Index("ix_kms_keys_engine_id_algorithm", "engine_id", "algorithm"),
)
aliases = Table(
    "kms_aliases",
    metadata,
    Column("alias", Text, primary_key=True),
    Column(
        "key_id",
        Text,
        ForeignKey("kms_keys.key_id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("position", Integer, nullable=False),
)
bindings = Table(
    "kms_bindings",
    metadata,
    Column("key_id", Text, ForeignKey("kms_keys.key_id", ondelete="CASCADE"), primary_key=True),
    Column("resource_type", Text, primary_key=True),
    Column("resource_id", Text, primary_key=True),
    Column("bound_at", UtcDateTime, nullable=False),
)
# As many keys as there are rows of `kms_keys`: whoever inserts, deletes or moves one counts it
# in the same transaction.
counts = Table(
    "kms_counts",
    metadata,
    Column("engine_id", Text, primary_key=True),
    Column("algorithm", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("keys", BigInteger, nullable=False),
)

moves = Table(
    "kms_moves",
    metadata,
    Column("key_id", Text, ForeignKey("kms_keys.key_id", ondelete="CASCADE"), primary_key=True),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
)
backups = Table(
    "kms_backups",
    metadata,
    Column("id", Text, primary_key=True),
    Column("engine_id", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key_ids", JsonDocument, nullable=False),
    Column("rehearsed_at", UtcDateTime),
    Column("rehearsed_in", Text, nullable=False),
)
# Copies that a rehearsal may have put into an engine and has to remove again, while it is under
# way; and how many there were.
rehearsals = Table(
    "kms_rehearsals",
    metadata,
    Column("key_id", Text, ForeignKey("kms_keys.key_id", ondelete="CASCADE"), primary_key=True),
    Column("engine_id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("under_way", Boolean, nullable=False),
)

COLUMNS: Mapping[str, Field] = {
    "key_id": keys.c.key_id,
    "engine_id": keys.c.engine_id,
    "has_private_key": literal("true"),
    "algorithm": keys.c.algorithm,
    "size": keys.c.size,
    "public_key": keys.c.public_key,
    "creation_ts": keys.c.created_at,
    "name": keys.c.name,
    "tags": keys.c.tags,
    "metadata": JsonField(keys.c.metadata, closed=frozenset({BINDINGS_KEY})),
    "origin": keys.c.origin,
}


class KmsStorage:
    """The `KeyStorage` port over the platform's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unit(self) -> AbstractAsyncContextManager[KeyUnit]:
        return self._unit()

    def alone(self, deed: str) -> AbstractAsyncContextManager[None]:
        return self._database.alone(SERVICE, deed)

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[KeyUnit]:
        async with self._database.unit(SERVICE) as unit:
            yield _SqlKeyUnit(unit)

    async def find(self, key_id: str) -> Key | None:
        async with self._database.reading(SERVICE) as connection:
            return await _find(connection, select(keys).where(keys.c.key_id == key_id))

    async def find_by_alias(self, alias: str) -> Key | None:
        query = select(keys).join(aliases).where(aliases.c.alias == alias)
        async with self._database.reading(SERVICE) as connection:
            return await _find(connection, query)

    async def list(self, query: ListQuery, *, purposes: Sequence[KeyPurpose]) -> Page[Key]:
        base = select(keys).where(keys.c.purpose.in_([purpose.value for purpose in purposes]))
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection, base, columns=COLUMNS, key=keys.c.key_id, query=query
            )
            return Page(await _keys(connection, page.items), page.after)

    async def count(
        self, *, purposes: Sequence[KeyPurpose], filters: Sequence[Filter], limit: int
    ) -> KeyCounts | None:
        wanted = [purpose.value for purpose in purposes]
        async with self._database.reading(SERVICE) as connection:
            if not filters:
                kept = select(counts.c.engine_id, counts.c.algorithm, counts.c["keys"])
                rows = (await connection.execute(kept.where(counts.c.purpose.in_(wanted)))).all()
                return _counted(rows)
            base = select(keys.c.engine_id, keys.c.algorithm).where(keys.c.purpose.in_(wanted))
            matching = filtered(connection, base, columns=COLUMNS, filters=filters)
            some = matching.limit(limit + 1).subquery()
            grouped = select(some.c.engine_id, some.c.algorithm, func.count()).group_by(
                some.c.engine_id, some.c.algorithm
            )
            found = _counted((await connection.execute(grouped)).all())
        return found if found.total <= limit else None

    async def find_move(self, key_id: str) -> KeyMove | None:
        async with self._database.reading(SERVICE) as connection:
            return await _move_of(connection, key_id)

    async def moves(self) -> Sequence[KeyMove]:
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(select(moves).order_by(moves.c.begun_at))
            return [_move(row) for row in rows]

    async def known_among(self, key_ids: Sequence[str]) -> frozenset[str]:
        known: set[str] = set()
        async with self._database.reading(SERVICE) as connection:
            for start in range(0, len(key_ids), LOOKUP_BATCH):
                batch = key_ids[start : start + LOOKUP_BATCH]
                query = select(keys.c.key_id).where(keys.c.key_id.in_(batch))
                known.update((await connection.execute(query)).scalars())
        return frozenset(known)

    async def keys_in(self, engine_id: str) -> Sequence[Key]:
        query = select(keys).where(keys.c.engine_id == engine_id)
        held: list[Key] = []
        async with self._database.reading(SERVICE) as connection:
            rows = (await connection.execute(query.order_by(keys.c.created_at))).all()
            for start in range(0, len(rows), LOOKUP_BATCH):
                held += await _keys(connection, rows[start : start + LOOKUP_BATCH])
        return held

    async def rehearsals(self) -> Mapping[str, int]:
        query = (
            select(rehearsals.c.engine_id, func.count())
            .where(rehearsals.c.under_way)
            .group_by(rehearsals.c.engine_id)
        )
        async with self._database.reading(SERVICE) as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def backups(self) -> Sequence[BackupRecord]:
        query = select(backups).order_by(backups.c.created_at.desc(), backups.c.id)
        async with self._database.reading(SERVICE) as connection:
            return [_backup(row) for row in await connection.execute(query)]


class _SqlKeyUnit(ServiceUnit):
    """The `KeyUnit` port over one transaction."""

    async def insert(self, key: Key) -> None:
        await self._connection.execute(
            insert(keys).values(
                key_id=key.key_id,
                engine_id=key.engine_id,
                algorithm=key.spec.algorithm.value,
                size=key.spec.size,
                purpose=key.purpose.value,
                public_key=public_key_text(key.public_key),
                created_at=key.created_at,
                origin=key.origin.value,
                **_changeable(key),
            )
        )
        await self._count(key, 1)

    async def lock(self, key_id: str) -> Key | None:
        query = select(keys).where(keys.c.key_id == key_id).with_for_update()
        return await _find(self._connection, query)

    async def save(self, key: Key) -> None:
        await self._connection.execute(
            update(keys).where(keys.c.key_id == key.key_id).values(**_changeable(key))
        )

    async def replace_aliases(self, key_id: str, aliases_: Sequence[str]) -> None:
        await self._connection.execute(delete(aliases).where(aliases.c.key_id == key_id))
        if not aliases_:
            return
        rows = [
            {"alias": alias, "key_id": key_id, "position": position}
            for position, alias in enumerate(aliases_)
        ]
        try:
            await self._connection.execute(insert(aliases), rows)
        except IntegrityError as error:
            raise Conflict(
                "an alias is already another key's", code="alias_exists", field="patches"
            ) from error

    async def bind(self, key_id: str, binding: Binding, bound_at: datetime) -> None:
        await self._connection.execute(
            insert(bindings).values(
                key_id=key_id,
                resource_type=binding.resource_type,
                resource_id=binding.resource_id,
                bound_at=bound_at,
            )
        )

    async def unbind(self, key_id: str, binding: Binding) -> None:
        await self._connection.execute(
            delete(bindings).where(
                bindings.c.key_id == key_id,
                bindings.c.resource_type == binding.resource_type,
                bindings.c.resource_id == binding.resource_id,
            )
        )

    async def rehome(self, key: Key, moved: Key) -> None:
        await self._connection.execute(
            update(keys)
            .where(keys.c.key_id == key.key_id)
            .values(engine_id=moved.engine_id, version=moved.version)
        )
        # in one order for all, so that moves in both directions do not wait for each other
        for one, change in sorted([(key, -1), (moved, 1)], key=lambda pair: pair[0].engine_id):
            await self._count(one, change)

    async def save_move(self, move: KeyMove) -> None:
        await self.end_move(move.key_id)
        await self._connection.execute(
            insert(moves).values(
                key_id=move.key_id,
                source=move.source,
                target=move.target,
                step=move.step.value,
                begun_at=move.begun_at,
            )
        )

    async def end_move(self, key_id: str) -> None:
        await self._connection.execute(delete(moves).where(moves.c.key_id == key_id))

    async def find_move(self, key_id: str) -> KeyMove | None:
        return await _move_of(self._connection, key_id)

    async def save_backup(self, record: BackupRecord) -> None:
        await self._connection.execute(delete(backups).where(backups.c.id == record.id))
        await self._connection.execute(
            insert(backups).values(
                id=record.id,
                engine_id=record.engine_id,
                created_at=record.created_at,
                sha256=record.sha256,
                key_ids=list(record.key_ids),
                rehearsed_at=record.rehearsed_at,
                rehearsed_in=record.rehearsed_in,
            )
        )

    async def rehearsals_of(self, key_id: str, engine_id: str) -> Rehearsals:
        query = select(rehearsals.c.number, rehearsals.c.under_way)
        found = await self._connection.execute(query.where(_of_rehearsal(key_id, engine_id)))
        row = found.one_or_none()
        return Rehearsals() if row is None else Rehearsals(row.number, row.under_way)

    async def begin_rehearsal(self, key_id: str, engine_id: str) -> None:
        held = await self.rehearsals_of(key_id, engine_id)
        place = _of_rehearsal(key_id, engine_id)
        await self._connection.execute(delete(rehearsals).where(place))
        await self._connection.execute(
            insert(rehearsals).values(
                key_id=key_id, engine_id=engine_id, number=held.number + 1, under_way=True
            )
        )

    async def end_rehearsal(self, key_id: str, engine_id: str) -> None:
        place = _of_rehearsal(key_id, engine_id)
        await self._connection.execute(update(rehearsals).where(place).values(under_way=False))

    async def delete(self, key: Key) -> None:
        for table in (aliases, bindings, moves, rehearsals, keys):
            await self._connection.execute(delete(table).where(table.c.key_id == key.key_id))
        await self._count(key, -1)

    async def _count(self, key: Key, change: int) -> None:
        row = {
            "engine_id": key.engine_id,
            "algorithm": key.spec.algorithm.value,
            "purpose": key.purpose.value,
            "keys": change,
        }
        of = (counts.c.engine_id, counts.c.algorithm, counts.c.purpose)
        by = {"keys": counts.c["keys"] + change}
        if self._connection.dialect.name == "postgresql":
            in_postgresql = postgresql.insert(counts).values(row)
            await self._connection.execute(
                in_postgresql.on_conflict_do_update(index_elements=of, set_=by)
            )
        else:
            in_sqlite = sqlite.insert(counts).values(row)
            await self._connection.execute(
                in_sqlite.on_conflict_do_update(index_elements=of, set_=by)
            )


def _changeable(key: Key) -> dict[str, object]:
    return {
        "name": key.name,
        "tags": list(key.tags),
        "metadata": dict(key.metadata),
        "has_signed": key.has_signed,
        "version": key.version,
    }


async def _find(connection: AsyncConnection, query: Select[tuple[object, ...]]) -> Key | None:
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    [key] = await _keys(connection, [row])
    return key


async def _keys(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Key]:
    """The keys of these rows, with what other tables say of them."""
    key_ids = [row.key_id for row in rows]
    named = await _aliases_of(connection, key_ids)
    bound = await _bindings_of(connection, key_ids)
    return [_key(row, named.get(row.key_id, ()), bound.get(row.key_id, ())) for row in rows]


async def _aliases_of(connection: AsyncConnection, key_ids: Sequence[str]) -> dict[str, list[str]]:
    query = (
        select(aliases.c.key_id, aliases.c.alias)
        .where(aliases.c.key_id.in_(key_ids))
        .order_by(aliases.c.position)
    )
    found: dict[str, list[str]] = {}
    for key_id, alias in await connection.execute(query):
        found.setdefault(key_id, []).append(alias)
    return found


async def _bindings_of(
    connection: AsyncConnection, key_ids: Sequence[str]
) -> dict[str, list[Binding]]:
    query = (
        select(bindings.c.key_id, bindings.c.resource_type, bindings.c.resource_id)
        .where(bindings.c.key_id.in_(key_ids))
        .order_by(bindings.c.bound_at, bindings.c.resource_type, bindings.c.resource_id)
    )
    found: dict[str, list[Binding]] = {}
    for key_id, resource_type, resource_id in await connection.execute(query):
        found.setdefault(key_id, []).append(Binding(resource_type, resource_id))
    return found


def _counted(rows: Iterable[Any]) -> KeyCounts:
    by_engine: dict[str, int] = {}
    by_algorithm: dict[KeyAlgorithm, int] = {}
    for engine_id, algorithm, number in rows:
        kind = KeyAlgorithm(algorithm)
        by_engine[engine_id] = by_engine.get(engine_id, 0) + number
        by_algorithm[kind] = by_algorithm.get(kind, 0) + number
    return KeyCounts(by_engine, by_algorithm)


def _of_rehearsal(key_id: str, engine_id: str) -> ColumnElement[bool]:
    return and_(rehearsals.c.key_id == key_id, rehearsals.c.engine_id == engine_id)


def _backup(row: Row[Any]) -> BackupRecord:
    return BackupRecord(
        id=row.id,
        engine_id=row.engine_id,
        created_at=row.created_at,
        sha256=row.sha256,
        key_ids=tuple(row.key_ids),
        rehearsed_at=row.rehearsed_at,
        rehearsed_in=row.rehearsed_in,
    )


async def _move_of(connection: AsyncConnection, key_id: str) -> KeyMove | None:
    row = (await connection.execute(select(moves).where(moves.c.key_id == key_id))).one_or_none()
    return None if row is None else _move(row)


def _move(row: Row[Any]) -> KeyMove:
    return KeyMove(row.key_id, row.source, row.target, MoveStep(row.step), row.begun_at)


def _key(row: Row[tuple[object, ...]], named: Sequence[str], bound: Sequence[Binding]) -> Key:
    return Key(
        key_id=row.key_id,
        name=row.name,
        engine_id=row.engine_id,
        spec=KeySpec(KeyAlgorithm(row.algorithm), row.size),
        purpose=KeyPurpose(row.purpose),
        public_key=ders_of(base64.b64decode(row.public_key), "PUBLIC KEY")[0],
        created_at=row.created_at,
        aliases=tuple(named),
        tags=tuple(row.tags),
        metadata=row.metadata,
        has_signed=row.has_signed,
        origin=KeyOrigin(row.origin),
        bindings=tuple(bound),
        version=row.version,
    )
