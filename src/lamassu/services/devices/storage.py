"""Devices in tables.

`devicemanager_devices` has a row per id that ever was; a deleted one stays as a tombstone.
`devicemanager_certificates` has a row per certificate that was ever claimed: for a slot (with
its number), or refused. One primary key over both decides who was first, so that a certificate
cannot be bound and refused at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Index,
    MetaData,
    Row,
    Select,
    Table,
    UniqueConstraint,
    and_,
    bindparam,
    case,
    func,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.errors import Conflict
from lamassu.kernel.listing import Filter, ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.platform.database import Database, Prepared, ServiceUnit, Step
from lamassu.platform.database.failures import table_of
from lamassu.platform.database.list_fields import Field, JsonField
from lamassu.platform.database.listing import fetch_page, filtered
from lamassu.platform.database.types import (
    BigInteger,
    Integer,
    JsonDocument,
    Text,
    UtcDateTime,
)
from lamassu.services.devices.contract import BindMode, DeviceStatus, SlotStatus
from lamassu.services.devices.model import (
    LIVE_SLOT,
    BoundCertificate,
    Scope,
    StoredDevice,
    StoredSlot,
    TimelineLine,
)
from lamassu.services.devices.ports import Claim, DeviceUnit, Related, Taken
from lamassu.services.devices.rules import device_changed, lookalike_key

SERVICE = "devicemanager"
_BATCH = 500

metadata = MetaData()

devices = Table(
    "devicemanager_devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("lookalike", Text, nullable=False),
    Column("dms_id", Text, nullable=False),
    Column("icon", Text, nullable=False),
    Column("icon_color", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("tags", JsonDocument, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("slot_status", Text),
    Column("active_version", Integer),
    Column("expires_at", UtcDateTime),
    Column("timeline", JsonDocument, nullable=False),
    Column("decommissioned_at", UtcDateTime),
    Column("deleted_at", UtcDateTime),
    Column("version", BigInteger, nullable=False),
    Index("devicemanager_devices_lookalike", "lookalike", unique=True),
    Index("devicemanager_devices_dms", "dms_id", "id"),
    Index("devicemanager_devices_created", "created_at", "id"),
)

certificates = Table(
    "devicemanager_certificates",
    metadata,
    Column("serial_number", Text, primary_key=True),
    Column("device_id", Text, nullable=False),
    Column("number", Integer),
    Column("ca_id", Text),
    Column("certificate_sha256", Text),
    Column("mode", Text),
    Column("bound_at", UtcDateTime),
    Column("status_before", Text),
    Column("first_used_at", UtcDateTime),
    Column("refused_at", UtcDateTime),
    UniqueConstraint("device_id", "number", name="devicemanager_certificates_slot"),
    Index("devicemanager_certificates_sha256", "certificate_sha256", unique=True),
)

_bound = and_(certificates.c.device_id == devices.c.id, certificates.c.number.is_not(None))
_WITH_CERTIFICATES = (
    select(
        devices,
        certificates.c.serial_number,
        certificates.c.number,
        certificates.c.ca_id,
        certificates.c.certificate_sha256,
        certificates.c.mode,
        certificates.c.bound_at,
        certificates.c.status_before,
        certificates.c.first_used_at,
    )
    .select_from(devices.outerjoin(certificates, _bound))
    .order_by(devices.c.id, certificates.c.number)
)

# What each enrolment runs.
_FIND = Prepared(_WITH_CERTIFICATES.where(devices.c.id == bindparam("wanted")))
_holder = (
    select(certificates.c.device_id)
    .where(certificates.c.certificate_sha256 == bindparam("sha256"))
    .scalar_subquery()
)
_FIND_BY_CERTIFICATE = Prepared(_WITH_CERTIFICATES.where(devices.c.id == _holder))
_FIND_RELATED = Prepared(
    _WITH_CERTIFICATES.add_columns(_holder.label("holder_id")).where(
        or_(
            devices.c.id == bindparam("wanted"),
            devices.c.id == _holder,
            devices.c.lookalike == bindparam("key"),
        )
    )
)
_INSERT = Prepared(devices.insert().returning(devices.c.version), columns=devices.c.keys())
_UPDATE = Prepared(
    update(devices)
    .where(devices.c.id == bindparam("wanted"), devices.c.version == bindparam("read_version"))
    .returning(devices.c.version),
    columns=[name for name in devices.c.keys() if name not in ("id", "lookalike")],  # noqa: SIM118
)
_CLAIM = Prepared(
    certificates.insert(),
    columns=[
        "serial_number",
        "device_id",
        "number",
        "ca_id",
        "certificate_sha256",
        "mode",
        "bound_at",
        "status_before",
    ],
)


def _insertion(device: StoredDevice) -> Step:
    return Step(_INSERT, _values(device))


def _values(device: StoredDevice) -> dict[str, object]:
    return {"id": device.id, "lookalike": lookalike_key(device.id), **_mutable(device)}


def _saving(device: StoredDevice, read_version: int) -> Step:
    return Step(_UPDATE, {"wanted": device.id, "read_version": read_version, **_mutable(device)})


def _claim(device_id: str, certificate: BoundCertificate) -> Step:
    return Step(_CLAIM, _claimed(device_id, certificate))


def _claimed(device_id: str, certificate: BoundCertificate) -> dict[str, object]:
    return {
        "serial_number": certificate.serial_number,
        "device_id": device_id,
        "number": certificate.number,
        "ca_id": certificate.ca_id,
        "certificate_sha256": certificate.certificate_sha256,
        "mode": certificate.mode.value,
        "bound_at": certificate.bound_at,
        "status_before": certificate.status_before.value,
    }


def _claims(
    device_id: str, certificates_of_it: Sequence[BoundCertificate]
) -> list[dict[str, object]]:
    return [
        _claimed(device_id, bound) | {"first_used_at": bound.first_used_at}
        for bound in certificates_of_it
    ]


def _exists() -> Conflict:
    return Conflict(
        "a device of this id, or of one that looks like it, exists already",
        code="device_exists",
        field="id",
    )


class DeviceUnitOnDatabase(ServiceUnit):
    """One transaction on devices."""

    async def read(self, device_id: str) -> StoredDevice | None:
        """One statement, no lock: `update` notices whoever came between."""
        return _stored(await self._unit.fetch(_FIND, {"wanted": device_id}))

    async def lock(self, device_id: str) -> StoredDevice | None:
        """The row is locked first and read afterwards: a wait for the lock makes the rest old."""
        await self._connection.execute(
            select(devices.c.version).where(devices.c.id == device_id).with_for_update()
        )
        return await self.read(device_id)

    async def insert(self, device: StoredDevice) -> None:
        """The unique keys on id and lookalike decide between two at once."""
        try:
            await self._unit.fetch(*_insertion(device))
        except IntegrityError as error:
            raise _exists() from error

    async def update(self, device: StoredDevice, *, read_version: int) -> None:
        """Save, unless it changed since it was read. Raises `Conflict`."""
        if not await self._unit.fetch(*_saving(device, read_version)):
            raise device_changed()

    async def insert_all(self, new: Sequence[StoredDevice]) -> None:
        """In two statements."""
        if not new:
            return
        await self._connection.execute(devices.insert(), [_values(one) for one in new])
        claims = [
            claim
            for device in new
            for claim in _claims(device.id, device.slot.versions if device.slot else ())
        ]
        if claims:
            await self._connection.execute(certificates.insert(), claims)

    async def extend(
        self, device: StoredDevice, added: Sequence[BoundCertificate], *, read_version: int
    ) -> None:
        """The device first: who comes between is noticed. Raises `Conflict`."""
        await self.update(device, read_version=read_version)
        if added:
            await self._connection.execute(certificates.insert(), _claims(device.id, added))

    async def bar(self, serial_number: str, device_id: str, *, at: datetime) -> None:
        """The primary key decides here too. Raises `Conflict`."""
        try:
            await self._connection.execute(
                certificates.insert().values(
                    serial_number=serial_number, device_id=device_id, refused_at=at
                )
            )
        except IntegrityError as error:
            raise Conflict("somebody was first", code="certificate_claimed") from error

    async def release_claims(self, device_id: str) -> None:
        """Without a number they are in no slot, and still nobody else's."""
        await self._connection.execute(
            update(certificates).where(certificates.c.device_id == device_id).values(number=None)
        )

    async def mark_used(self, device_id: str, certificate_sha256: str, *, at: datetime) -> None:
        """The first use is the one that counts."""
        await self._connection.execute(
            update(certificates)
            .where(
                certificates.c.certificate_sha256 == certificate_sha256,
                certificates.c.device_id == device_id,
                certificates.c.first_used_at.is_(None),
            )
            .values(first_used_at=at)
        )


class DeviceStorage:
    """The devices that there are."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[DeviceUnit]:
        """A transaction."""
        async with self._database.unit(SERVICE) as unit:
            yield DeviceUnitOnDatabase(unit)

    async def bind(
        self,
        device: StoredDevice,
        certificate: BoundCertificate,
        *,
        read_version: int | None,
        records: Sequence[Event | AuditRecord],
    ) -> None:
        """All at once. Of the certificate too the primary key decides: bound or refused."""
        first = _insertion(device) if read_version is None else _saving(device, read_version)
        steps = [first, _claim(device.id, certificate)]
        try:
            saved = await self._database.write(SERVICE, steps, records)
        except Conflict as conflict:
            if table_of(conflict) != certificates.name:
                raise _exists() from conflict
            raise Conflict(
                "the certificate was refused, or is in a slot already",
                code="certificate_refused",
            ) from conflict
        if not saved:
            raise device_changed()

    async def find(self, device_id: str) -> StoredDevice | None:
        """A device or a tombstone."""
        return _stored(await self._database.fetch(SERVICE, _FIND, {"wanted": device_id}))

    async def find_by_certificate(self, certificate_sha256: str) -> StoredDevice | None:
        """The device, or its tombstone, that claimed the certificate."""
        wanted = {"sha256": certificate_sha256}
        return _stored(await self._database.fetch(SERVICE, _FIND_BY_CERTIFICATE, wanted))

    async def find_claim(self, serial_number: str) -> Claim | None:
        """What became of a certificate."""
        async with self._database.reading(SERVICE) as connection:
            return await _find_claim(connection, serial_number)

    async def find_taken(self, ids: Sequence[str], serial_numbers: Sequence[str]) -> Taken:
        """Three statements, however many there are."""
        keys = [lookalike_key(device_id) for device_id in ids]
        alike = select(devices).where(devices.c.lookalike.in_(keys))
        claimed = select(certificates.c.serial_number, certificates.c.device_id).where(
            certificates.c.serial_number.in_(serial_numbers)
        )
        async with self._database.reading(SERVICE) as connection:
            found = (await connection.execute(alike)).all()
            bound = await _bound_to(connection, [row.id for row in found])
            claims = (await connection.execute(claimed)).all()
        return Taken(
            devices={row.id: _device(row, bound.get(row.id, ())) for row in found},
            lookalikes={row.lookalike: row.id for row in found},
            claims={row.serial_number: row.device_id for row in claims},
        )

    async def find_related(self, device_id: str, certificate_sha256: str) -> Related:
        """One statement: enrolment asks for all of it each time."""
        key = lookalike_key(device_id)
        wanted = {"wanted": device_id, "sha256": certificate_sha256, "key": key}
        rows = await self._database.fetch(SERVICE, _FIND_RELATED, wanted)
        lookalikes = (row.id for row in rows if row.lookalike == key and row.id != device_id)
        return Related(
            device=_stored([row for row in rows if row.id == device_id]),
            lookalike=next(lookalikes, None),
            holder=_stored([row for row in rows if row.id == row.holder_id]),
        )

    async def list(
        self, query: ListQuery, *, now: datetime, dms_id: str | None = None
    ) -> Page[StoredDevice]:
        """A page of devices, and in a second statement the certificates of just these."""
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection,
                _present(select(devices), dms_id),
                columns=_columns(now, connection.dialect.name),
                key=devices.c.id,
                query=query,
            )
            bound = await _bound_to(connection, [row.id for row in page.items])
        return Page([_device(row, bound.get(row.id, ())) for row in page.items], page.after)

    async def count_by_status(
        self, filters: Sequence[Filter], *, now: datetime
    ) -> Mapping[DeviceStatus, int]:
        """One grouped statement."""
        all_of_them = _present(select(_status_column(now).label("status")), None)
        async with self._database.listing(SERVICE) as connection:
            columns = _columns(now, connection.dialect.name)
            seen = filtered(connection, all_of_them, columns=columns, filters=filters).subquery()
            query = select(seen.c.status, func.count()).group_by(seen.c.status)
            rows = (await connection.execute(query)).all()
        return {DeviceStatus(name): count for name, count in rows}

    async def astray(self, ca_id: str, *, revoked: bool) -> AsyncIterator[str]:
        """In batches by id, so that no cursor stays open while devices are changed."""
        is_revoked = devices.c.slot_status == SlotStatus.REVOKED.value
        after = ""
        while True:
            query = (
                select(devices.c.id)
                .join(certificates, _bound)
                .where(
                    devices.c.id > after,
                    certificates.c.number == devices.c.active_version,
                    certificates.c.ca_id == ca_id,
                    devices.c.decommissioned_at.is_(None),
                    not_(is_revoked) if revoked else is_revoked,
                )
                .order_by(devices.c.id)
                .limit(_BATCH)
            )
            async with self._database.reading(SERVICE) as connection:
                batch = (await connection.scalars(query)).all()
            for device_id in batch:
                yield device_id
            if len(batch) < _BATCH:
                return
            after = batch[-1]


def _present(query: Select[Any], dms_id: str | None) -> Select[Any]:
    query = query.where(devices.c.deleted_at.is_(None))
    return query if dms_id is None else query.where(devices.c.dms_id == dms_id)


def _status_column(now: datetime) -> ColumnElement[str]:
    """The device's status as `lamassu.services.devices.model.status_at` has it."""

    def name(status: DeviceStatus) -> ColumnElement[str]:
        return literal(status.value, Text)

    live = devices.c.slot_status.in_([status.value for status in LIVE_SLOT])
    return case(
        (devices.c.decommissioned_at.is_not(None), name(DeviceStatus.DECOMMISSIONED)),
        (devices.c.slot_status.is_(None), name(DeviceStatus.NO_IDENTITY)),
        (and_(live, devices.c.expires_at < now), name(DeviceStatus.EXPIRED)),
        else_=devices.c.slot_status,
    )


def _columns(now: datetime, dialect: str) -> Mapping[str, Field]:
    return {
        "id": devices.c.id,
        "dms_owner": devices.c.dms_id,
        "creation_timestamp": devices.c.created_at,
        "status": _status_column(now),
        "tags": devices.c.tags,
        "metadata": JsonField(devices.c.metadata),
        "identity_slot": JsonField(
            _slot_column(now, dialect), closed=frozenset({"versions", "events", "expiration_date"})
        ),
    }


def _slot_column(now: datetime, dialect: str) -> ColumnElement[Any]:
    """What of the slot the device's row knows; nothing while it has none."""
    live = devices.c.slot_status.in_([status.value for status in LIVE_SLOT])
    status = case(
        (and_(live, devices.c.expires_at < now), SlotStatus.EXPIRED.value),
        else_=devices.c.slot_status,
    )
    make = func.jsonb_build_object if dialect == "postgresql" else func.json_object
    slot = make(
        literal("status", Text), status, literal("active_version", Text), devices.c.active_version
    )
    return case((devices.c.slot_status.is_not(None), slot), else_=None)


def _stored(rows: Sequence[Row[Any]]) -> StoredDevice | None:
    """From the rows of one device, one for each of its certificates."""
    if not rows:
        return None
    bound = tuple(_certificate(row) for row in rows if row.number is not None)
    return _device(rows[0], bound)


async def _find_claim(connection: AsyncConnection, serial_number: str) -> Claim | None:
    query = select(
        certificates.c.device_id, certificates.c.number, certificates.c.refused_at
    ).where(certificates.c.serial_number == serial_number)
    row = (await connection.execute(query)).first()
    return row and Claim(row.device_id, row.number, row.refused_at is not None)


async def _bound_to(
    connection: AsyncConnection, ids: Sequence[str]
) -> Mapping[str, Sequence[BoundCertificate]]:
    if not ids:
        return {}
    query = (
        select(certificates)
        .where(certificates.c.device_id.in_(ids), certificates.c.number.is_not(None))
        .order_by(certificates.c.device_id, certificates.c.number)
    )
    found: dict[str, list[BoundCertificate]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.device_id, []).append(_certificate(row))
    return found


def _certificate(row: Row[Any]) -> BoundCertificate:
    return BoundCertificate(
        number=row.number,
        ca_id=row.ca_id,
        serial_number=row.serial_number,
        certificate_sha256=row.certificate_sha256,
        mode=BindMode(row.mode),
        bound_at=row.bound_at,
        status_before=DeviceStatus(row.status_before),
        first_used_at=row.first_used_at,
    )


def _device(row: Row[Any], bound: Sequence[BoundCertificate]) -> StoredDevice:
    return StoredDevice(
        id=row.id,
        dms_id=row.dms_id,
        icon=row.icon,
        icon_color=row.icon_color,
        created_at=row.created_at,
        tags=tuple(row.tags),
        metadata=row.metadata,
        slot=None
        if row.slot_status is None
        else StoredSlot(
            status=SlotStatus(row.slot_status),
            active_version=row.active_version,
            versions=tuple(bound),
            expires_at=row.expires_at,
        ),
        timeline=tuple(_line(entry) for entry in row.timeline),
        decommissioned_at=row.decommissioned_at,
        deleted_at=row.deleted_at,
        version=row.version,
    )


def _mutable(device: StoredDevice) -> dict[str, object]:
    slot = device.slot
    return {
        "dms_id": device.dms_id,
        "created_at": device.created_at,
        "icon": device.icon,
        "icon_color": device.icon_color,
        "tags": list(device.tags),
        "metadata": dict(device.metadata),
        "slot_status": slot and slot.status.value,
        "active_version": slot and slot.active_version,
        "expires_at": slot and slot.expires_at,
        "timeline": [_entry(line) for line in device.timeline],
        "decommissioned_at": device.decommissioned_at,
        "deleted_at": device.deleted_at,
        "version": device.version,
    }


def _entry(line: TimelineLine) -> Json:
    return [line.scope.value, line.at.isoformat(), line.type, line.description]


def _line(entry: Sequence[str]) -> TimelineLine:
    scope, at, kind, description = entry
    return TimelineLine(Scope(scope), datetime.fromisoformat(at), kind, description)
