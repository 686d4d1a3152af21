"""Tables of the VA: how each CA's CRL is made, and the newest ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import (
    Column,
    MetaData,
    Row,
    Select,
    Table,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)

from lamassu.platform.database import Database, ServiceUnit
from lamassu.platform.database.types import (
    BigInteger,
    Boolean,
    Integer,
    LargeBinary,
    Text,
    UtcDateTime,
)
from lamassu.services.va.contract import Crl, CrlRole
from lamassu.services.va.model import (
    CrlFacts,
    FilterEdition,
    FilterState,
    Responder,
    RoleState,
    StoredFilter,
)
from lamassu.services.va.ports import VaUnit

SERVICE = "va"

metadata = MetaData()

roles = Table(
    "va_roles",
    metadata,
    Column("ca_ski", Text, primary_key=True),
    Column("ca_id", Text, nullable=False, index=True),
    Column("refresh_interval_us", BigInteger, nullable=False),
    Column("validity_us", BigInteger, nullable=False),
    Column("subject_key_id_signer", Text, nullable=False),
    Column("regenerate_on_revoke", Boolean, nullable=False),
    Column("next_number", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("filter_interval_us", BigInteger, nullable=False),
    Column("next_filter_number", BigInteger, nullable=False),
)
crls = Table(
    "va_crls",
    metadata,
    Column("ca_ski", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("der", LargeBinary, nullable=False),
    Column("this_update", UtcDateTime, nullable=False),
    Column("next_update", UtcDateTime, nullable=False),
    Column("entries_digest", Text, nullable=False),
)

filters = Table(
    "va_filters",
    metadata,
    Column("ca_ski", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("base", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("this_update", UtcDateTime, nullable=False),
    Column("next_update", UtcDateTime, nullable=False),
)
_EDITION = (filters.c.number, filters.c.base, filters.c.this_update, filters.c.next_update)
responders = Table(
    "va_responders",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("ca_id", Text, nullable=False, index=True),
    Column("engine_id", Text, nullable=False),
    Column("csr", LargeBinary, nullable=False),
    Column("certificate", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False),
)


class VaStorage:
    """The port of the same name over the platform's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unit(self) -> AbstractAsyncContextManager[VaUnit]:
        return self._unit()

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[VaUnit]:
        async with self._database.unit(SERVICE) as unit:
            yield _SqlVaUnit(unit)

    async def find_role(self, ca_ski: str) -> RoleState | None:
        return await self._find(_states().where(roles.c.ca_ski == ca_ski))

    async def find_role_of_ca(self, ca_id: str) -> RoleState | None:
        query = _states().where(roles.c.ca_id == ca_id).order_by(roles.c.ca_ski).limit(1)
        return await self._find(query)

    async def find_crl(self, ca_ski: str, number: int) -> Crl | None:
        query = select(crls).where(crls.c.ca_ski == ca_ski, crls.c.number == number)
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else Crl(**row._asdict())

    async def responders(self, ca_id: str | None = None) -> Sequence[Responder]:
        query = select(responders).order_by(responders.c.created_at, responders.c.key_id)
        if ca_id is not None:
            query = query.where(responders.c.ca_id == ca_id)
        async with self._database.reading(SERVICE) as connection:
            return [Responder(**row._asdict()) for row in await connection.execute(query)]

    async def filters(self, ca_ski: str) -> FilterState:
        query = select(*_EDITION).where(filters.c.ca_ski == ca_ski)
        async with self._database.reading(SERVICE) as connection:
            held = [FilterEdition(*row) for row in await connection.execute(query)]
        return FilterState(
            full=next((one for one in held if not one.base), None),
            delta=next((one for one in held if one.base), None),
        )

    async def find_filter(self, ca_ski: str, number: int) -> StoredFilter | None:
        query = select(*_EDITION, filters.c.content).where(
            filters.c.ca_ski == ca_ski, filters.c.number == number
        )
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else StoredFilter(ca_ski, FilterEdition(*row[:-1]), row[-1])

    async def roles(self) -> Sequence[RoleState]:
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(_states().order_by(roles.c.ca_ski))
            return [_state(row) for row in rows]

    async def _find(self, query: Select[tuple[object, ...]]) -> RoleState | None:
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _state(row)


class _SqlVaUnit(ServiceUnit):
    """The `VaUnit` port over one transaction."""

    async def add_role(self, role: CrlRole) -> None:
        await self._connection.execute(
            insert(roles).values(
                ca_ski=role.ca_ski, next_number=1, next_filter_number=1, **_changeable(role)
            )
        )

    async def lock_role(self, ca_ski: str) -> CrlRole | None:
        query = select(roles).where(roles.c.ca_ski == ca_ski).with_for_update()
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _role(row)

    async def save_role(self, role: CrlRole) -> None:
        await self._connection.execute(
            update(roles).where(roles.c.ca_ski == role.ca_ski).values(**_changeable(role))
        )

    async def take_number(self, ca_ski: str) -> int:
        query = (
            update(roles)
            .where(roles.c.ca_ski == ca_ski)
            .values(next_number=roles.c.next_number + 1)
            .returning(roles.c.next_number)
        )
        return int((await self._connection.execute(query)).scalar_one()) - 1

    async def take_filter_number(self, ca_ski: str) -> int:
        query = (
            update(roles)
            .where(roles.c.ca_ski == ca_ski)
            .values(next_filter_number=roles.c.next_filter_number + 1)
            .returning(roles.c.next_filter_number)
        )
        return int((await self._connection.execute(query)).scalar_one()) - 1

    async def has_filter(self, ca_ski: str, number: int) -> bool:
        query = select(filters.c.number).where(filters.c.ca_ski == ca_ski, filters.c.base == 0)
        return (await self._connection.execute(query)).scalar() == number

    async def add_filter(self, made: StoredFilter) -> None:
        replaced = filters.c.ca_ski == made.ca_ski
        if made.edition.base:
            replaced = and_(replaced, filters.c.base > 0)
        await self._connection.execute(delete(filters).where(replaced))
        await self._connection.execute(
            insert(filters).values(ca_ski=made.ca_ski, content=made.content, **asdict(made.edition))
        )

    async def latest_crl(self, ca_ski: str) -> Crl | None:
        query = select(crls).where(crls.c.ca_ski == ca_ski).order_by(crls.c.number.desc()).limit(1)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else Crl(**row._asdict())

    async def skip_numbers(self, ca_ski: str, following: int) -> bool:
        query = (
            update(roles)
            .where(roles.c.ca_ski == ca_ski, roles.c.next_number < following)
            .values(next_number=following)
            .returning(roles.c.next_number)
        )
        return (await self._connection.execute(query)).first() is not None

    async def add_responder(self, responder: Responder) -> None:
        await self._connection.execute(
            insert(responders).values(
                key_id=responder.key_id,
                ca_id=responder.ca_id,
                engine_id=responder.engine_id,
                csr=responder.csr,
                certificate=responder.certificate,
                created_at=responder.created_at,
            )
        )

    async def certify_responder(self, responder: Responder) -> None:
        await self._connection.execute(
            update(responders)
            .where(responders.c.key_id == responder.key_id)
            .values(certificate=responder.certificate)
        )

    async def add_crl(self, crl: Crl, *, keep: int) -> None:
        await self._connection.execute(
            insert(crls).values(
                ca_ski=crl.ca_ski,
                number=crl.number,
                der=crl.der,
                this_update=crl.this_update,
                next_update=crl.next_update,
                entries_digest=crl.entries_digest,
            )
        )
        newest = (
            select(crls.c.number)
            .where(crls.c.ca_ski == crl.ca_ski)
            .order_by(crls.c.number.desc())
            .limit(keep)
            .subquery()
        )
        oldest_kept = select(func.min(newest.c.number)).scalar_subquery()
        await self._connection.execute(
            delete(crls).where(crls.c.ca_ski == crl.ca_ski, crls.c.number < oldest_kept)
        )


def _states() -> Select[tuple[object, ...]]:
    newest = (
        select(crls.c.ca_ski, func.max(crls.c.number).label("number"))
        .group_by(crls.c.ca_ski)
        .subquery()
    )
    joined = roles.outerjoin(newest, newest.c.ca_ski == roles.c.ca_ski).outerjoin(
        crls, and_(crls.c.ca_ski == newest.c.ca_ski, crls.c.number == newest.c.number)
    )
    facts = (crls.c.number, crls.c.this_update, crls.c.next_update, crls.c.entries_digest)
    return select(roles, *facts).select_from(joined)


def _changeable(role: CrlRole) -> dict[str, object]:
    return {
        "ca_id": role.ca_id,
        "refresh_interval_us": role.refresh_interval // timedelta(microseconds=1),
        "validity_us": role.validity // timedelta(microseconds=1),
        "subject_key_id_signer": role.subject_key_id_signer,
        "regenerate_on_revoke": role.regenerate_on_revoke,
        "filter_interval_us": role.filter_interval // timedelta(microseconds=1),
        "version": role.version,
    }


def _role(row: Row[tuple[object, ...]]) -> CrlRole:
    return CrlRole(
        ca_ski=row.ca_ski,
        ca_id=row.ca_id,
        refresh_interval=timedelta(microseconds=row.refresh_interval_us),
        validity=timedelta(microseconds=row.validity_us),
        subject_key_id_signer=row.subject_key_id_signer,
        regenerate_on_revoke=row.regenerate_on_revoke,
        filter_interval=timedelta(microseconds=row.filter_interval_us),
        version=row.version,
    )


def _state(row: Row[tuple[object, ...]]) -> RoleState:
    latest = None
    if row.number is not None:
        latest = CrlFacts(row.number, row.this_update, row.next_update, row.entries_digest)
    return RoleState(_role(row), latest)
