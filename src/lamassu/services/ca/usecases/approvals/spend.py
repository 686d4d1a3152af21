"""Use an approval, once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import Approval, ApprovalStatus
from lamassu.services.ca.ports import CaTransaction
from lamassu.services.ca.usecases.approvals.trail import record_approval


async def spend(
    transaction: CaTransaction, approval: Approval, *, caller: Caller, now: datetime
) -> None:
    """Mark a locked approval as used, in the transaction of the deed it was given for."""
    spent = replace(
        approval, status=ApprovalStatus.SPENT, closed_at=now, version=approval.version + 1
    )
    await transaction.save_approval(spent)
    record_approval(transaction, "approval.use", spent, caller=caller, now=now)
