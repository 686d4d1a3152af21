"""Change how a CA's CRLs are made; it holds from the next one on."""

from __future__ import annotations

from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.va import rules
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import RoleChange
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.role_document import role_document


async def change_role(
    ca_ski: str, change: RoleChange, *, caller: Caller, storage: VaStorage
) -> CrlRole:
    """Raises `NotFound` (`VA role not found`), `RuleViolation` (`invalid_value`)."""
    async with storage.unit() as unit:
        role = await unit.lock_role(ca_ski)
        if role is None:
            raise NotFound("VA role not found")
        changed = rules.changed_role(role, change)
        await unit.save_role(changed)
        data = role_document(changed)
        unit.emit(Event("va.role.update", f"crl/{ca_ski}", changed.version, data, caller))
        unit.audit(AuditRecord("va.role.update", f"crl/{ca_ski}", caller, detail=data))
    return changed
