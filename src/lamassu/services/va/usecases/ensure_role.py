"""Give a CA its role."""

from __future__ import annotations

from contextlib import suppress

from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.va import rules
from lamassu.services.va.model import RoleState
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.role_document import role_document

_CALLER = system_caller("va/role")


async def ensure_role(ca_id: str, subject_key_id: str, *, storage: VaStorage) -> RoleState:
    """The CA's role, made now if it had none."""
    state = await storage.find_role(subject_key_id)
    if state is not None:
        return state
    role = rules.new_role(ca_id, subject_key_id)
    with suppress(Conflict):  # another process was quicker
        async with storage.unit() as unit:
            await unit.add_role(role)
            data = role_document(role)
            subject = f"crl/{role.ca_ski}"
            unit.emit(Event("va.role.crl.init", subject, role.version, data, _CALLER))
            unit.audit(AuditRecord("va.role.crl.init", subject, _CALLER, detail=data))
    return await storage.find_role(subject_key_id) or RoleState(role, None)
