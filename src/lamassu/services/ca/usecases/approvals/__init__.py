"""Two people: ask, vote, use, let expire. The other use cases hold a `Clearance` to a request."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Deferred, NotFound
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.listing import ListQuery, Page
from lamassu.services.ca.contract import (
    AdminStanding,
    Approval,
    ApprovalPolicy,
    Demand,
    Operation,
    People,
    Verdict,
    approval_document,
)
from lamassu.services.ca.contract.approvals import APPROVALS_PATH, OPEN
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.approvals import check_policy
from lamassu.services.ca.usecases.approvals.ask import ask_for_approval
from lamassu.services.ca.usecases.approvals.clearance import ApprovalMissing, Clearance
from lamassu.services.ca.usecases.approvals.expire import expire_overdue
from lamassu.services.ca.usecases.approvals.spend import spend
from lamassu.services.ca.usecases.approvals.vote import cast_vote

T = TypeVar("T")


class ApprovalDesk:
    """Implements `lamassu.services.ca.contract.Approvals`."""

    def __init__(self, *, store: CaStore, people: People | None, clock: Clock) -> None:
        """Without `people` nobody is known: no policy can be set, and no approval counts."""
        self._store = store
        self._people = people
        self._clock = clock

    # --- what other slices ask for (contract.Approvals) -----------------------------------

    async def require(
        self,
        operation: Operation,
        ca_ids: Sequence[str],
        demand: Demand | None,
        *,
        excluded: Sequence[str] = (),
    ) -> str | None:
        policies = await self._policies(ca_ids)
        clearance = await self.clearance(demand)
        return await self.or_ask(clearance.judge(operation, policies, excluded=excluded, basis={}))

    async def settle(self, approval_id: str | None, caller: Caller) -> None:
        if approval_id is None:
            return
        async with self._store.unit() as transaction:
            approval = await transaction.lock_approval(approval_id)
            if approval is not None and approval.status in OPEN:
                await spend(transaction, approval, caller=caller, now=self._clock.now())

    async def guarded_cas(self, approver: str | None = None) -> Sequence[str]:
        policies = await self._store.all_policies()
        return [
            ca_id for ca_id, policy in policies.items() if approver is None or approver in policy.of
        ]

    # --- what the CA's own use cases ask for ------------------------------------------------

    async def clearance(self, demand: Demand | None) -> Clearance:
        """What a request may be held against within its transaction."""
        named = demand is not None and demand.approval_id
        admins = await self.admins() if named else {}
        return Clearance(self._store, demand, admins, self._clock.now())

    async def or_ask(self, work: Awaitable[T]) -> T:
        """Do it; or where it lacks approvals, and no word of an approval, ask for them.

        Raises `Deferred` when what was asked is stored, and whatever `work` raises.
        """
        try:
            return await work
        except ApprovalMissing as missing:
            now = self._clock.now()
            approval = await ask_for_approval(missing.need, store=self._store, now=now)
        raise Deferred(
            f"nothing was done yet: the approval {approval.id} is needed, of "
            + " and ".join(
                f"{policy.required} of {', '.join(policy.of)}"
                for policy in approval.policies.values()
            ),
            code="approval_pending",
            document=approval_document(approval, now),
            location=f"{APPROVALS_PATH}/{approval.id}",
        )

    async def check_policy(self, policy: ApprovalPolicy, *, at: str = "") -> None:
        """Refuse a policy that could not be met. Raises `RuleViolation`."""
        check_policy(policy, await self.admins(), at=at)

    async def admins(self) -> Mapping[str, AdminStanding]:
        """Who is an admin now, and who was."""
        return {} if self._people is None else await self._people.admins()

    # --- what the routes ask for -----------------------------------------------------------

    async def get(self, approval_id: str) -> Approval:
        """Raises `NotFound`."""
        approval = await self._store.find_approval(approval_id)
        if approval is None:
            raise NotFound("approval not found", code="approval_not_found")
        return approval

    async def page(self, query: ListQuery) -> Page[Approval]:
        return await self._store.page_approvals(query, now=self._clock.now())

    async def vote(
        self, approval_id: str, verdict: Verdict, *, comment: str, caller: Caller
    ) -> Approval:
        """See `vote.cast_vote`."""
        return await cast_vote(
            approval_id,
            verdict,
            comment=comment,
            caller=caller,
            admins=await self.admins(),
            store=self._store,
            now=self._clock.now(),
        )

    # --- jobs ------------------------------------------------------------------------------

    async def expire_overdue(self) -> int:
        """Mark and tell what expired; how many. Safe at any time and in several processes."""
        return await expire_overdue(
            store=self._store, now=self._clock.now(), caller=system_caller("approvals")
        )

    async def _policies(self, ca_ids: Sequence[str]) -> Mapping[str, ApprovalPolicy]:
        policies = await self._store.all_policies()
        return {ca_id: policies[ca_id] for ca_id in ca_ids if ca_id in policies}
