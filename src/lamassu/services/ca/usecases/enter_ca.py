"""A new CA enters the hierarchy: under an issuer that is still the one that signed it, and
under an id that is nobody's."""

from __future__ import annotations

from datetime import datetime

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaTransaction
from lamassu.services.ca.rules.status import check_may_sign


async def lock_issuer(
    transaction: CaTransaction,
    signed_by: CertificationAuthority,
    now: datetime,
    *,
    field: str | None = None,
) -> CertificationAuthority:
    """The CA that signed what is about to be stored, which nobody else may change now.

    Raises `NotFound` (at `field`), `RuleViolation` if it may sign no longer, and `Conflict`
    (`ca_changed`) if it got another certificate or key since it signed.
    """
    issuer = await transaction.lock_ca(signed_by.id)
    if issuer is None:
        raise NotFound("CA not found", code="ca_not_found", field=field)
    check_may_sign(issuer, now)
    renewed = issuer.certificate.serial_number != signed_by.certificate.serial_number
    if renewed or issuer.successor_id is not None:
        raise Conflict(
            f"the CA {issuer.id}, which signed, was renewed meanwhile; ask again",
            code="ca_changed",
        )
    return issuer


async def insert_new_ca(
    transaction: CaTransaction, authority: CertificationAuthority, now: datetime, *, taken: Conflict
) -> None:
    """Store it with its certificate. Raises `taken` where a CA, or one that waits, has its id."""
    if await transaction.lock_awaited(authority.id) is not None:
        raise taken
    try:
        await transaction.insert_ca(
            authority, NewCertificate(authority.certificate, created_at=now)
        )
    except Conflict:
        raise taken from None
