"""A new CA enters the hierarchy: under an issuer that is still the one that signed it, and
under an id that is nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.kernel.errors import Conflict, Forbidden, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.imported import MOST_MOVED, relinked, signed_by
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.issuers import DEEPEST, cas_above
from lamassu.services.ca.usecases.trail import record


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
    if await transaction.names_issuer(authority.id):
        raise taken  # a CA that was deleted had it, and certificates of that one are still here
    try:
        await transaction.insert_ca(
            authority, NewCertificate(authority.certificate, created_at=now)
        )
    except Conflict:
        raise taken from None


async def ids_above(parent: CertificationAuthority | None, store: CaStore) -> Sequence[str]:
    """The ids of the CAs above a new one, from its parent on."""
    if parent is None:
        return ()
    return [parent.id, *(one.id for one in await cas_above(parent, store))]


async def moved_below(
    transaction: CaTransaction, authority: CertificationAuthority, *, above: Sequence[str]
) -> list[tuple[CertificationAuthority, CertificationAuthority]]:
    """The CAs that stand below a new one from now on, before and after: what it signed itself,
    and, level by level, all below these, whose own levels change with it.

    Raises `RuleViolation` (`hierarchy_too_large`), `Forbidden` (`approval_required`).
    """
    orphans = await transaction.lock_orphans(limit=MOST_MOVED)
    children = signed_by(orphans, authority, above=above)
    level = [(child, relinked(child, authority)) for child in children]
    found: list[tuple[CertificationAuthority, CertificationAuthority]] = []
    for _ in range(DEEPEST):
        found += level
        if not level:
            _check_unguarded([before for before, _ in found])
            return found
        if len(found) > MOST_MOVED:
            break
        parents = {after.id: after for _, after in level}
        members = await transaction.lock_children(list(parents))
        level = [
            (member, relinked(member, parents[member.parent_id]))
            for member in members
            if member.parent_id is not None
        ]
    raise RuleViolation(
        f"over {MOST_MOVED} CAs, or {DEEPEST} levels of them, would move below it; import CAs"
        " from the root down",
        code="hierarchy_too_large",
        field="ca",
    )


def _check_unguarded(moved: Sequence[CertificationAuthority]) -> None:
    """Who stands above a CA ends it, bounds what it issues and is handed out with its chain; and
    anybody makes a certificate of the name and key that signed it, without that key. Its
    approvers have a say in that."""
    guarded = [one.id for one in moved if one.approvals is not None]
    if guarded:
        raise Forbidden(
            f"{', '.join(guarded[:5])} would stand below this CA, and has approvers, whom an import"
            " cannot ask: import CAs from the root down and name approvers then, or have them"
            " lifted while you import (lamassu ca approvals clear)",
            code="approval_required",
            field="ca",
        )


def record_moves(
    transaction: CaTransaction,
    moved: Sequence[tuple[CertificationAuthority, CertificationAuthority]],
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Event and audit record for each CA that stands below another one now."""
    for before, after in moved:
        record(
            transaction,
            "ca.parent.update",
            f"ca/{after.id}",
            version=after.version,
            data=update_document(ca_document(before, now), ca_document(after, now)),
            caller=caller,
            detail={"parent_id": after.parent_id, "level": after.level},
        )
