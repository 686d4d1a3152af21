"""Store a request that waits for approvals."""

from __future__ import annotations

from datetime import datetime
from uuid import uuid4

from lamassu.kernel.errors import Conflict
from lamassu.services.ca.contract import Approval
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.approvals import check_may_ask, expiry_of
from lamassu.services.ca.usecases.approvals.clearance import Need
from lamassu.services.ca.usecases.approvals.trail import record_approval


async def ask_for_approval(need: Need, *, store: CaStore, now: datetime) -> Approval:
    """The stored request; the one that waits already, if the same was asked before.

    Raises `Conflict` (`approvals_changed`, and as `rules.check_may_ask`), `RuleViolation`.
    """
    demand = need.demand
    async with store.unit() as transaction:
        await transaction.lock_ca(need.ca_ids[0])  # what waits for a CA is counted under its lock
        policies = await transaction.policies(need.ca_ids)
        if tuple(policies) != need.ca_ids:
            raise Conflict(
                "the CA's approvals were changed meanwhile; try again", code="approvals_changed"
            )
        waiting = await transaction.open_approvals(need.ca_ids[0], now=now)
        for approval in waiting:
            asked = (approval.digest, approval.operation, approval.ca_ids, approval.basis)
            if asked == (demand.digest, need.operation, need.ca_ids, need.basis):
                return approval
        check_may_ask(demand, policies, waiting, excluded=need.excluded)
        approval = Approval(
            id=str(uuid4()),
            operation=need.operation,
            ca_ids=need.ca_ids,
            requester=demand.caller.principal.name,
            digest=demand.digest,
            request=demand.request,
            policies=policies,
            created_at=now,
            expires_at=expiry_of(policies, now),
            basis=need.basis,
            excluded=need.excluded,
        )
        await transaction.insert_approval(approval)
        record_approval(transaction, "approval.request", approval, caller=demand.caller, now=now)
    return approval
