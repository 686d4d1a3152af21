"""Tell of what expired. That it has expired needs no telling: that follows from the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import ApprovalStatus
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.usecases.approvals.trail import record_approval

_AT_ONCE = 100


async def expire_overdue(*, store: CaStore, now: datetime, caller: Caller) -> int:
    """Mark all that is past its time, a hundred to a transaction; how many."""
    count = 0
    while True:
        async with store.unit() as transaction:
            overdue = await transaction.lock_overdue_approvals(now, limit=_AT_ONCE)
            for approval in overdue:
                expired = replace(
                    approval,
                    status=ApprovalStatus.EXPIRED,
                    closed_at=now,
                    version=approval.version + 1,
                )
                await transaction.save_approval(expired)
                record_approval(transaction, "approval.expire", expired, caller=caller, now=now)
        count += len(overdue)
        if len(overdue) < _AT_ONCE:
            return count
