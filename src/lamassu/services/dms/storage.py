"""DMSs in tables.

`dmsmanager_dms` has a row per DMS, its settings as one document. `dmsmanager_bootstrap_uses`
has a row per single-use bootstrap certificate that was used; its primary key decides who was
first. `dmsmanager_announcements` says up to which version of a device its enrolments were told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    Column,
    Index,
    Insert,
    MetaData,
    Row,
    Table,
    TableValuedAlias,
    bindparam,
    cast,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.errors import Conflict
from lamassu.kernel.listing import ListQuery, Page
from lamassu.platform.database import Database, Prepared, ServiceUnit
from lamassu.platform.database.list_fields import Field, JsonField
from lamassu.platform.database.listing import fetch_page, filtered
from lamassu.platform.database.types import BigInteger, Boolean, JsonDocument, Text, UtcDateTime
from lamassu.services.dms.model.dms import BootstrapUse, Dms
from lamassu.services.dms.model.settings import DmsSettings
from lamassu.services.dms.ports import DmsUnit

SERVICE = "dmsmanager"

metadata = MetaData()

dmss = Table(
    "dmsmanager_dms",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("settings", JsonDocument, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("version", BigInteger, nullable=False),
    Index("dmsmanager_dms_name", "name", "id"),
    Index("dmsmanager_dms_created", "created_at", "id"),
)

bootstrap_uses = Table(
    "dmsmanager_bootstrap_uses",
    metadata,
    Column("issuer_sha256", Text, primary_key=True),
    Column("serial_number", Text, primary_key=True),
    Column("dms_id", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("used_at", UtcDateTime, nullable=False),
    Column("contested", Boolean, nullable=False),  # more than one request relies on it
)

announcements = Table(
    "dmsmanager_announcements",
    metadata,
    Column("device_id", Text, primary_key=True),
    Column("device_version", BigInteger, nullable=False),
)

_COLUMNS: Mapping[str, Field] = {
    "id": dmss.c.id,
    "name": dmss.c.name,
    "creation_date": dmss.c.created_at,
    "metadata": JsonField(dmss.c.metadata),
}
_SETTINGS = TypeAdapter(DmsSettings)


def _announce(insert: postgresql.Insert | sqlite.Insert, versions: TableValuedAlias) -> Insert:
    """`versions` are rows of a JSON object: a device's id and a version each."""
    given = select(versions.c.key, cast(versions.c.value, BigInteger)).where(true())
    put = insert.from_select(announcements.c.keys(), given)
    return put.on_conflict_do_update(
        index_elements=[announcements.c.device_id],
        set_={"device_version": put.excluded.device_version},
        where=announcements.c.device_version < put.excluded.device_version,
    ).returning(announcements.c.device_id)


_VERSIONS = bindparam("versions", type_=JsonDocument)
_ANNOUNCE = Prepared(
    {
        "postgresql": _announce(
            postgresql.insert(announcements),
            func.jsonb_each_text(_VERSIONS).table_valued("key", "value"),
        ),
        "sqlite": _announce(
            sqlite.insert(announcements), func.json_each(_VERSIONS).table_valued("key", "value")
        ),
    },
)


class DmsUnitOnDatabase(ServiceUnit):
    """One transaction on DMSs."""

    async def insert(self, dms: Dms) -> None:
        """The primary key decides between two at once. Raises `Conflict`."""
        try:
            await self._connection.execute(
                dmss.insert().values(id=dms.id, created_at=dms.created_at, **_mutable(dms))
            )
        except IntegrityError as error:
            raise Conflict("DMS already exists", code="already_exists", field="id") from error

    async def find_locked(self, dms_id: str) -> Dms | None:
        """The row stays locked until the unit ends."""
        query = select(dmss).where(dmss.c.id == dms_id).with_for_update()
        return _dms((await self._connection.execute(query)).first())

    async def update(self, dms: Dms) -> None:
        """Write what may change."""
        await self._connection.execute(
            update(dmss).where(dmss.c.id == dms.id).values(**_mutable(dms))
        )

    async def delete(self, dms_id: str) -> None:
        """Remove the row."""
        await self._connection.execute(dmss.delete().where(dmss.c.id == dms_id))

    async def claim_bootstrap(self, use: BootstrapUse) -> BootstrapUse:
        """The first use of a certificate is the one that stands. Who meets it there and relies
        on it marks it: the request that made it cannot take it back from under the other one.
        For another device it is spent, and that refusal leaves no mark."""
        await self._connection.execute(
            _upsert(self._connection, bootstrap_uses)
            .values(
                issuer_sha256=use.issuer_sha256,
                serial_number=use.serial_number,
                dms_id=use.dms_id,
                device_id=use.device_id,
                used_at=use.at,
                contested=False,
            )
            .on_conflict_do_update(
                index_elements=[bootstrap_uses.c.issuer_sha256, bootstrap_uses.c.serial_number],
                set_={"contested": True},
                where=(bootstrap_uses.c.dms_id == use.dms_id)
                & (bootstrap_uses.c.device_id == use.device_id),
            )
        )
        standing = await _find_use(self._connection, use.issuer_sha256, use.serial_number)
        return standing or use

    async def release_bootstrap(self, use: BootstrapUse) -> bool:
        """Only the very use that is named, and that nobody else has met since."""
        released = await self._connection.execute(
            bootstrap_uses.delete().where(
                bootstrap_uses.c.issuer_sha256 == use.issuer_sha256,
                bootstrap_uses.c.serial_number == use.serial_number,
                bootstrap_uses.c.device_id == use.device_id,
                bootstrap_uses.c.used_at == use.at,
                bootstrap_uses.c.contested.is_(False),
            )
        )
        return released.rowcount == 1

    async def announce(self, versions: Mapping[str, int]) -> Collection[str]:
        """Versions only go up; one statement says which ones were new."""
        return {row.device_id for row in await self._unit.fetch(_ANNOUNCE, {"versions": versions})}


class DmsStorage:
    """The DMSs that there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[DmsUnit]:
        """A transaction."""
        async with self._database.unit(SERVICE) as unit:
            yield DmsUnitOnDatabase(unit)

    async def find(self, dms_id: str) -> Dms | None:
        """A DMS by its exact id."""
        async with self._database.reading(SERVICE) as connection:
            query = select(dmss).where(dmss.c.id == dms_id)
            return _dms((await connection.execute(query)).first())

    async def list(self, query: ListQuery) -> Page[Dms]:
        """A page of DMSs."""
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection, select(dmss), columns=_COLUMNS, key=dmss.c.id, query=query
            )
        found = (_dms(row) for row in page.items)
        return Page([dms for dms in found if dms is not None], page.after)

    async def count(self, query: ListQuery) -> int:
        """How many DMSs meet the filters."""
        async with self._database.listing(SERVICE) as connection:
            seen = filtered(
                connection, select(dmss.c.id), columns=_COLUMNS, filters=query.filters
            ).subquery()
            total: int | None = await connection.scalar(select(func.count()).select_from(seen))
            return total or 0

    async def find_bootstrap_use(self, issuer_sha256: str, serial: str) -> BootstrapUse | None:
        """The first use of a single-use bootstrap certificate."""
        async with self._database.reading(SERVICE) as connection:
            return await _find_use(connection, issuer_sha256, serial)


def _upsert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that knows `ON CONFLICT`, which both databases spell alike."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


async def _find_use(
    connection: AsyncConnection, issuer_sha256: str, serial: str
) -> BootstrapUse | None:
    query = select(bootstrap_uses).where(
        bootstrap_uses.c.issuer_sha256 == issuer_sha256,
        bootstrap_uses.c.serial_number == serial,
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return BootstrapUse(
        issuer_sha256=row.issuer_sha256,
        serial_number=row.serial_number,
        dms_id=row.dms_id,
        device_id=row.device_id,
        at=row.used_at,
    )


def _mutable(dms: Dms) -> dict[str, Any]:
    return {
        "name": dms.name,
        "metadata": dict(dms.metadata),
        "settings": _SETTINGS.dump_python(dms.settings, mode="json"),
        "version": dms.version,
    }


def _dms(row: Row[Any] | None) -> Dms | None:
    if row is None:
        return None
    return Dms(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        settings=_SETTINGS.validate_python(row.settings),
        metadata=row.metadata,
        version=row.version,
    )
