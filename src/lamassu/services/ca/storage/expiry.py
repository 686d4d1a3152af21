"""What ended, and of what somebody is to be told: found by the indexes on these times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, insert, or_, select

from lamassu.platform.database import ServiceUnit
from lamassu.services.ca.contract import Certificate, CertificateStatus, CertificationAuthority
from lamassu.services.ca.model import Watermark
from lamassu.services.ca.storage.rows import (
    CA_COLUMNS,
    CERTIFICATE_COLUMNS,
    authority_of,
    certificate_of,
)
from lamassu.services.ca.storage.tables import cas, certificates, watermarks

_ENDED = "ended"
_AUTHORITIES: Select[Any] = select(*CERTIFICATE_COLUMNS, *CA_COLUMNS).join_from(
    cas, certificates, cas.c.serial_number == certificates.c.serial_number
)


class ExpiryRows(ServiceUnit):
    """The part of the `CaTransaction` port that the expiry monitor needs."""

    async def lock_watermark(self) -> Watermark | None:
        query = select(watermarks).where(watermarks.c.name == _ENDED).with_for_update()
        row = (await self._connection.execute(query)).first()
        return None if row is None else Watermark(row.reached, row.serial_number)

    async def save_watermark(self, mark: Watermark) -> None:
        await self._connection.execute(delete(watermarks).where(watermarks.c.name == _ENDED))
        await self._connection.execute(
            insert(watermarks).values(
                name=_ENDED, reached=mark.reached, serial_number=mark.serial_number
            )
        )

    async def ended_since(
        self, mark: Watermark, *, now: datetime, limit: int
    ) -> Sequence[Certificate]:
        c = certificates.c
        query: Select[Any] = (
            select(*CERTIFICATE_COLUMNS)
            .where(
                c.not_after >= mark.reached,
                or_(c.not_after > mark.reached, c.serial_number > mark.serial_number),
                c.not_after < now,
                c.status == CertificateStatus.ACTIVE.value,
            )
            .order_by(c.not_after, c.serial_number)
            .limit(limit)
        )
        return [certificate_of(row) for row in await self._connection.execute(query)]

    async def holders_of(
        self, serial_numbers: Sequence[str]
    ) -> Mapping[str, CertificationAuthority]:
        if not serial_numbers:
            return {}
        query = _AUTHORITIES.where(cas.c.serial_number.in_(serial_numbers))
        found = [authority_of(row) for row in await self._connection.execute(query)]
        return {one.certificate.serial_number: one for one in found}

    async def lock_alerting(self, *, now: datetime, limit: int) -> Sequence[Certificate]:
        query: Select[Any] = (
            select(*CERTIFICATE_COLUMNS)
            .where(certificates.c.alert_at.is_not(None), certificates.c.alert_at <= now)
            .order_by(certificates.c.alert_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [certificate_of(row) for row in await self._connection.execute(query)]

    async def lock_alerting_cas(
        self, *, now: datetime, limit: int
    ) -> Sequence[CertificationAuthority]:
        query = (
            _AUTHORITIES.where(cas.c.alert_at.is_not(None), cas.c.alert_at <= now)
            .order_by(cas.c.alert_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [authority_of(row) for row in await self._connection.execute(query)]
