"""Tell of a change of a DMS: the event for others, the record for auditors."""

from __future__ import annotations

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.model.documents import dms_document
from lamassu.services.dms.ports import DmsUnit

CREATE = "dms.create"
UPDATE = "dms.update"
METADATA_UPDATE = "dms.metadata.update"
DELETE = "dms.delete"
ENROLL = "dms.enroll"
REENROLL = "dms.reenroll"
BIND = "dms.bind-device-id"


def tell(unit: DmsUnit, event_type: str, dms: Dms, data: Json, *, caller: Caller) -> None:
    """Emit the event and leave the audit record, both with the version that the change made."""
    subject = f"dms/{dms.id}"
    unit.emit(Event(event_type, subject, dms.version, data, caller))
    unit.audit(AuditRecord(event_type, subject, caller, detail={"version": dms.version}))


def tell_update(unit: DmsUnit, event_type: str, before: Dms, after: Dms, *, caller: Caller) -> None:
    """An update, with the DMS before and after."""
    data: Json = {"previous": dms_document(before), "updated": dms_document(after)}
    tell(unit, event_type, after, data, caller=caller)
