"""Rows of the internal CA, and the files that it writes on the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import (
    Column,
    MetaData,
    Row,
    Table,
    and_,
    case,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from lamassu.kernel.errors import Conflict, Unavailable
from lamassu.platform.database import Database, ServiceUnit
from lamassu.platform.database.types import Integer, LargeBinary, Text, UtcDateTime
from lamassu.platform.security.private_files import create_private_file
from lamassu.services.access.contract import Credential, CredentialKind, Mode
from lamassu.services.access.model import Authority, AuthorityRole
from lamassu.services.access.ports import AccessUnit
from lamassu.services.ca.contract import AdminStanding

SERVICE = "access"
MODE = "mode"

metadata = MetaData()

credentials = Table(
    "access_credentials",
    metadata,
    Column("serial_number", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False, index=True),
    Column("revoked_at", UtcDateTime),
    Column("version", Integer, nullable=False),
)
authorities = Table(
    "access_authorities",
    metadata,
    Column("role", Text, primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("der", LargeBinary, nullable=False),
    Column("key_id", Text),
    Column("not_after", UtcDateTime, nullable=False),
)
state = Table(
    "access_state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)


class AccessStorage:
    """The `CredentialStore` port over the platform's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unit(self) -> AbstractAsyncContextManager[AccessUnit]:
        return self._unit()

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[AccessUnit]:
        async with self._database.unit(SERVICE) as unit:
            yield _SqlAccessUnit(unit)

    async def authorities(self) -> Sequence[Authority]:
        query = select(authorities).order_by(authorities.c.generation.desc())
        async with self._database.reading(SERVICE) as connection:
            return [_authority(row) for row in await connection.execute(query)]

    async def find_credential(self, serial_number: str) -> Credential | None:
        query = select(credentials).where(credentials.c.serial_number == serial_number)
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _credential(row)

    async def admin_standings(self, now: datetime) -> Mapping[str, AdminStanding]:
        usable = and_(credentials.c.not_after > now, credentials.c.revoked_at.is_(None))
        query = (
            select(
                credentials.c.name,
                func.max(case((usable, 1), else_=0)).label("usable"),
                func.max(credentials.c.revoked_at).label("revoked_at"),
            )
            .where(credentials.c.kind == CredentialKind.ADMIN.value)
            .group_by(credentials.c.name)
        )
        async with self._database.reading(SERVICE) as connection:
            return {
                row.name: AdminStanding(bool(row.usable), row.revoked_at)
                for row in await connection.execute(query)
            }

    async def unexpired(
        self, now: datetime, *, kind: CredentialKind | None = None
    ) -> Sequence[Credential]:
        query = (
            select(credentials)
            .where(credentials.c.not_after > now)
            .order_by(credentials.c.not_before.desc(), credentials.c.serial_number)
        )
        if kind is not None:
            query = query.where(credentials.c.kind == kind.value)
        async with self._database.reading(SERVICE) as connection:
            return [_credential(row) for row in await connection.execute(query)]


class _SqlAccessUnit(ServiceUnit):
    """The `AccessUnit` port over one transaction."""

    async def add_authority(self, authority: Authority) -> None:
        await self._connection.execute(
            insert(authorities).values(
                role=authority.role.value,
                generation=authority.generation,
                der=authority.der,
                key_id=authority.key_id,
                not_after=authority.not_after,
            )
        )

    async def forget_key(self, role: AuthorityRole, generation: int) -> None:
        await self._connection.execute(
            update(authorities)
            .where(authorities.c.role == role.value, authorities.c.generation == generation)
            .values(key_id=None)
        )

    async def add_credential(self, credential: Credential) -> None:
        await self._connection.execute(
            insert(credentials).values(
                serial_number=credential.serial_number,
                kind=credential.kind.value,
                name=credential.name,
                der=credential.der,
                not_before=credential.not_before,
                not_after=credential.not_after,
                revoked_at=credential.revoked_at,
                version=1,
            )
        )

    async def revoke(self, serial_number: str, at: datetime) -> Credential | None:
        mine = credentials.c.serial_number == serial_number
        changed = await self._connection.execute(
            update(credentials)
            .where(mine, credentials.c.revoked_at.is_(None))
            .values(revoked_at=at, version=credentials.c.version + 1)
        )
        if not changed.rowcount:
            return None
        return _credential((await self._connection.execute(select(credentials).where(mine))).one())

    async def use_approval(self, approval_id: str, subject: str) -> None:
        key = f"approval/{approval_id}"
        try:
            await self._connection.execute(insert(state).values(key=key, value=subject))
        except IntegrityError:
            raise Conflict(
                f"the approval {approval_id} is spent: it was used once; ask anew",
                code="approval_spent",
            ) from None

    async def lock_mode(self) -> Mode | None:
        query = select(state.c.value).where(state.c.key == MODE).with_for_update()
        value = (await self._connection.execute(query)).scalar_one_or_none()
        return None if value is None else Mode(value)

    async def put_mode(self, mode: Mode) -> None:
        changed = await self._connection.execute(
            update(state).where(state.c.key == MODE).values(value=mode.value)
        )
        if not changed.rowcount:
            await self._connection.execute(insert(state).values(key=MODE, value=mode.value))


class HostFiles:
    """The `PrivateFiles` port: files of the host, written in a thread."""

    async def create(self, path: str, content: bytes) -> None:
        try:
            await asyncio.to_thread(create_private_file, Path(path), content)
        except OSError as error:
            raise Unavailable(
                f"cannot write {path}: {error.strerror}", code="file_not_written"
            ) from error


def _credential(row: Row[tuple[object, ...]]) -> Credential:
    return Credential(
        serial_number=row.serial_number,
        kind=CredentialKind(row.kind),
        name=row.name,
        der=bytes(row.der),
        not_before=row.not_before,
        not_after=row.not_after,
        revoked_at=row.revoked_at,
    )


def _authority(row: Row[tuple[object, ...]]) -> Authority:
    return Authority(
        role=AuthorityRole(row.role),
        generation=row.generation,
        der=bytes(row.der),
        key_id=row.key_id,
        not_after=row.not_after,
    )
