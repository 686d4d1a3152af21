"""CAs whose place in the hierarchy is found out late: their issuer came after them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.storage.tables import cas, certificates

_MOVE_CA = (
    update(cas)
    .where(cas.c.id == bindparam("moved"))
    .values(
        parent_id=bindparam("new_parent"),
        level=bindparam("new_level"),
        revoked_by=bindparam("with"),
        version=bindparam("next"),
    )
)
_MOVE_CERTIFICATE = (
    update(certificates)
    .where(certificates.c.serial_number == bindparam("moved"))
    .values(
        issuer_ca_id=bindparam("new_issuer"),
        issuer_serial_number=bindparam("new_issuer_serial"),
        issuer_level=bindparam("new_issuer_level"),
        version=bindparam("next"),
    )
)


async def relink(connection: AsyncConnection, moved: Sequence[CertificationAuthority]) -> None:
    """Write parents, levels and issuers of locked CAs."""
    if not moved:
        return
    await connection.execute(
        _MOVE_CA,
        [
            {
                "moved": one.id,
                "new_parent": one.parent_id,
                "new_level": one.level,
                "with": one.revoked_by,
                "next": one.version,
            }
            for one in moved
        ],
    )
    await connection.execute(
        _MOVE_CERTIFICATE,
        [
            {
                "moved": one.certificate.serial_number,
                "new_issuer": one.certificate.issuer_ca_id,
                "new_issuer_serial": one.certificate.issuer_serial_number,
                "new_issuer_level": one.certificate.issuer_level,
                "next": one.certificate.version,
            }
            for one in moved
        ],
    )
