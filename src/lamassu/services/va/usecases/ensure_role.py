"""Give a CA its role."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.ca.contract import Authorities
from lamassu.services.va import rules
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import RoleState
from lamassu.services.va.ports import VaStorage, VaUnit
from lamassu.services.va.usecases.role_document import role_document

_CALLER = system_caller("va/role")


async def ensure_role(
    ca_id: str, subject_key_id: str, *, storage: VaStorage, authorities: Authorities
) -> RoleState:
    """The CA's role, made now if it had none.

    A role that outlived its CA passes to the next CA with that key, and its numbers go on.
    """
    state = await storage.find_role(subject_key_id)
    if state is not None:
        if state.role.ca_id == ca_id or await _exists(state.role.ca_id, authorities):
            return state
        await _hand_over(state.role, ca_id, storage=storage)
    else:
        with suppress(Conflict):  # another process was quicker
            await _add(rules.new_role(ca_id, subject_key_id), storage=storage)
    found = await storage.find_role(subject_key_id)
    if found is None:
        raise NotFound("VA role not found")
    return found


async def _exists(ca_id: str, authorities: Authorities) -> bool:
    try:
        await authorities.get_ca(ca_id)
    except NotFound:
        return False
    return True


async def _add(role: CrlRole, *, storage: VaStorage) -> None:
    async with storage.unit() as unit:
        await unit.add_role(role)
        _tell(unit, role)


async def _hand_over(role: CrlRole, ca_id: str, *, storage: VaStorage) -> None:
    async with storage.unit() as unit:
        current = await unit.lock_role(role.ca_ski)
        if current is None or current.ca_id != role.ca_id:
            return
        heir = replace(current, ca_id=ca_id, version=current.version + 1)
        await unit.save_role(heir)
        _tell(unit, heir)


def _tell(unit: VaUnit, role: CrlRole) -> None:
    data, subject = role_document(role), f"crl/{role.ca_ski}"
    unit.emit(Event("va.role.crl.init", subject, role.version, data, _CALLER))
    unit.audit(AuditRecord("va.role.crl.init", subject, _CALLER, detail=data))
