"""Hold a command of the host to the approvers that it concerns (security rule 7)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.errors import Forbidden
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.access import rules
from lamassu.services.access.contract import Grounds, RootKeyProof
from lamassu.services.access.ports import AccessUnit, CredentialStore
from lamassu.services.access.usecases.hierarchy import get_hierarchy
from lamassu.services.ca.contract import Approvals, Operation


@dataclass(frozen=True, slots=True)
class Settled:
    """On what a command may go on. `text` is for the audit record, empty where nobody guards."""

    text: str = ""
    approval_id: str | None = None
    recovered: bool = False

    async def note(self, unit: AccessUnit, subject: str, caller: Caller) -> None:
        """Leave it with the deed, in its transaction: an approval serves once."""
        if self.approval_id is not None:
            await unit.use_approval(self.approval_id, subject)
        if self.recovered:
            detail = {"by": self.text}
            unit.emit(Event("access.recover", subject, 1, detail, caller))
            unit.audit(AuditRecord("access.recover", subject, caller, detail=detail))


async def grounds_to_issue(
    name: str,
    grounds: Grounds,
    *,
    approvals: Approvals | None,
    storage: CredentialStore,
    now: datetime,
) -> Settled:
    """Whether an admin of this name may be made. Raises as `InternalCa.issue`."""
    if approvals is None:
        return Settled()
    guarded = await approvals.guarded_cas(name)
    if not guarded:
        return Settled()
    if grounds.renews is not None:
        serial_number = rules.serial_number_of(grounds.renews)
        standing = (await storage.admin_standings(now)).get(name)
        rules.check_may_renew(
            name,
            grounds.renews,
            stored=await storage.find_credential(serial_number),
            last_revoked_at=standing.last_revoked_at if standing else None,
            now=now,
        )
        return Settled(f"renews {serial_number}")
    if grounds.root_key is not None:
        return await _recovered(grounds.root_key, storage)
    if grounds.demand is None:
        raise Forbidden(
            f"{name} is an approver of {', '.join(guarded)}: such a certificate is renewed by "
            "its holder (--renew FILE), or made when the other approvers agree; then say which "
            "admin asks (--as FILE)",
            code="approval_required",
        )
    approval_id = await approvals.require(
        Operation.ISSUE_ADMIN, guarded, grounds.demand, excluded=(name,)
    )
    return Settled(f"approval {approval_id}", approval_id)


async def grounds_to_lower_mode(
    grounds: Grounds, *, approvals: Approvals | None, storage: CredentialStore
) -> Settled:
    """Whether the mode may be lowered. Raises as `InstallationMode.lower_mode`."""
    if approvals is None:
        return Settled()
    guarded = await approvals.guarded_cas()
    if not guarded:
        return Settled()
    if grounds.root_key is not None:
        return await _recovered(grounds.root_key, storage)
    if grounds.demand is None:
        raise Forbidden(
            f"the approvers of {', '.join(guarded)} have to agree; say which admin asks "
            "(--as FILE)",
            code="approval_required",
        )
    approval_id = await approvals.require(Operation.LOWER_MODE, guarded, grounds.demand)
    return Settled(f"approval {approval_id}", approval_id)


async def _recovered(proof: RootKeyProof, storage: CredentialStore) -> Settled:
    hierarchy = await get_hierarchy(storage)
    rules.check_root_key(proof, hierarchy.root)
    return Settled("the internal root's key", recovered=True)
