"""Events and audit records of the CA, in their one spelling."""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.ca.ports import CaTransaction


def record(
    transaction: CaTransaction,
    event_type: str,
    subject: str,
    *,
    version: int,
    data: Json,
    caller: Caller,
    detail: Mapping[str, Json],
) -> None:
    """Emit the event and keep the audit record of the same deed."""
    transaction.emit(Event(event_type, subject, version, data, caller))
    transaction.audit(AuditRecord(event_type, subject, caller, detail=detail))
