"""Events and audit records of the CA, in their one spelling."""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json, Recorder


def record(
    recorder: Recorder,
    event_type: str,
    subject: str,
    *,
    version: int,
    data: Json,
    caller: Caller,
    detail: Mapping[str, Json],
) -> None:
    """Emit the event and keep the audit record of the same deed."""
    recorder.emit(Event(event_type, subject, version, data, caller))
    recorder.audit(AuditRecord(event_type, subject, caller, detail=detail))
