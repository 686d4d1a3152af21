"""Events and audit records of approvals."""

from __future__ import annotations

from datetime import datetime

from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import Approval, approval_document
from lamassu.services.ca.ports import CaTransaction
from lamassu.services.ca.usecases.trail import record


def record_approval(
    transaction: CaTransaction,
    event_type: str,
    approval: Approval,
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """One step of an approval's life."""
    record(
        transaction,
        event_type,
        f"approval/{approval.id}",
        version=approval.version,
        data=approval_document(approval, now),
        caller=caller,
        detail={
            "operation": approval.operation.value,
            "ca_ids": list(approval.ca_ids),
            "requester": approval.requester,
            "digest": approval.digest,
            "status": approval.status.value,
            "votes": {vote.approver: vote.verdict.value for vote in approval.votes},
        },
    )
