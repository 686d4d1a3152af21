"""Approve, reject or withdraw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import (
    AdminStanding,
    Approval,
    ApprovalStatus,
    Verdict,
    Vote,
)
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.approvals import LONGEST_COMMENT, check_may_vote, enough, stands
from lamassu.services.ca.usecases.approvals.trail import record_approval

_EVENTS = {Verdict.APPROVE: "approval.approve", Verdict.REJECT: "approval.reject"}


async def cast_vote(
    approval_id: str,
    verdict: Verdict,
    *,
    comment: str,
    caller: Caller,
    admins: Mapping[str, AdminStanding],
    store: CaStore,
    now: datetime,
) -> Approval:
    """The approval with the caller's vote, which replaces their earlier one.

    One rejection ends it. The same word again changes nothing. Raises `NotFound`,
    `RuleViolation` for an endless comment, and as `rules.check_may_vote`.
    """
    if len(comment) > LONGEST_COMMENT:
        raise RuleViolation(
            f"the comment is longer than {LONGEST_COMMENT} characters",
            code="text_too_long",
            field="comment",
        )
    voter = caller.principal
    async with store.unit() as transaction:
        approval = await transaction.lock_approval(approval_id)
        if approval is None:
            raise NotFound("approval not found", code="approval_not_found")
        policies = await transaction.policies(approval.ca_ids)
        check_may_vote(approval, verdict, voter, policies, now)
        earlier = {vote.approver: vote for vote in approval.votes}
        before = earlier.get(voter.name)
        if (
            before is not None
            and before.verdict is verdict
            and stands(before, admins.get(voter.name))
        ):
            return approval
        vote = Vote(voter.name, verdict, now, comment)
        await transaction.put_vote(approval.id, vote)
        voted = replace(
            approval,
            votes=tuple({**earlier, voter.name: vote}.values()),
            version=approval.version + 1,
        )
        if verdict is Verdict.REJECT:
            voted = replace(voted, status=ApprovalStatus.REJECTED, closed_at=now)
        else:
            approved = enough(voted, policies, admins)
            voted = replace(
                voted, status=ApprovalStatus.APPROVED if approved else ApprovalStatus.PENDING
            )
        await transaction.save_approval(voted)
        record_approval(transaction, _EVENTS[verdict], voted, caller=caller, now=now)
    return voted
