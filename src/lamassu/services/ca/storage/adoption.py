"""Rows that come from another system."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, update

from lamassu.platform.database import ServiceUnit
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.storage.rows import changeable_of, values_of_ca, values_of_new
from lamassu.services.ca.storage.tables import cas, certificates


class AdoptionRows(ServiceUnit):
    """This part of the `CaTransaction` port."""

    async def insert_certificates(self, new: Sequence[NewCertificate]) -> None:
        if new:
            rows = [values_of_new(one) for one in new]
            await self._connection.execute(insert(certificates), rows)

    async def insert_ca_of(self, authority: CertificationAuthority) -> None:
        certificate = authority.certificate
        await self._connection.execute(
            update(certificates)
            .where(certificates.c.serial_number == certificate.serial_number)
            .values(type=certificate.type.value, **changeable_of(certificate))
        )
        await self._connection.execute(insert(cas).values(values_of_ca(authority)))
