"""What becomes of CAs and their certificates: followed by others, or gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select, update

from lamassu.platform.database import ServiceUnit
from lamassu.services.ca.storage.tables import cas, certificates


class LifecycleRows(ServiceUnit):
    """The part of the `CaTransaction` port that re-issues and deletes."""

    async def mark_reissued(self, serial_number: str, *, as_: str, at: datetime) -> None:
        await self._connection.execute(
            update(certificates)
            .where(certificates.c.serial_number == serial_number)
            .values(reissued_as=as_, reissued_at=at, version=certificates.c.version + 1)
        )

    async def predecessor_of(self, ca_id: str) -> str | None:
        query = select(cas.c.id).where(cas.c.successor_id == ca_id)
        found: str | None = (await self._connection.execute(query)).scalar()
        return found

    async def names_issuer(self, ca_id: str) -> bool:
        query = select(exists().where(certificates.c.issuer_ca_id == ca_id))
        return bool((await self._connection.execute(query)).scalar())

    async def delete_cas(self, ca_ids: Sequence[str]) -> None:
        await self._connection.execute(
            update(cas)
            .where(cas.c.parent_id.in_(ca_ids), cas.c.id.not_in(ca_ids))
            .values(parent_id=None, version=cas.c.version + 1)
        )
        await self._connection.execute(delete(cas).where(cas.c.id.in_(ca_ids)))

    async def delete_certificate(self, serial_number: str, *, ca_id: str) -> None:
        await self._connection.execute(
            delete(certificates).where(certificates.c.serial_number == serial_number)
        )
