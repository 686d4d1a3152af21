"""The roles of CAs: each that has a key here has one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.ca.contract import Authorities, CertificationAuthority
from lamassu.services.va import rules
from lamassu.services.va.contract import CrlRole
from lamassu.services.va.model import RoleState
from lamassu.services.va.ports import VaStorage, VaUnit
from lamassu.services.va.usecases.role_document import role_document

_CALLER = system_caller("va/role")


class Roles:
    """Finds the role of a CA, and gives it one where it has none yet."""

    def __init__(self, *, storage: VaStorage, authorities: Authorities) -> None:
        self._storage = storage
        self._authorities = authorities

    async def of_ca(self, ca_id: str) -> RoleState | None:
        """The CA's role; `None` for a CA that has no key here and so no CRL."""
        state = await self._storage.find_role_of_ca(ca_id)
        if state is not None:
            return state
        authority = await self.find_ca(ca_id)
        if authority is None or not authority.key_id:
            return None
        return await self.ensure(ca_id, authority.certificate.subject_key_id)

    async def of_key(self, subject_key_id: str) -> RoleState | None:
        """The same by the CA's subject key identifier; a CA just made gets its role now."""
        state = await self._storage.find_role(subject_key_id)
        if state is not None:
            return state
        authority = await self._authorities.find_ca_by_key_id(subject_key_id)
        if authority is None or not authority.key_id:
            return None
        return await self.ensure(authority.id, subject_key_id)

    async def ensure(self, ca_id: str, subject_key_id: str) -> RoleState:
        """The CA's role, made now if it had none.

        A role that outlived its CA passes to the next CA with that key, and its numbers go on.
        """
        state = await self._storage.find_role(subject_key_id)
        if state is None:
            with suppress(Conflict):  # another process was quicker
                await self._add(rules.new_role(ca_id, subject_key_id))
        elif state.role.ca_id == ca_id or await self.find_ca(state.role.ca_id) is not None:
            return state
        else:
            await self._hand_over(state.role, ca_id)
        found = await self._storage.find_role(subject_key_id)
        if found is None:
            raise NotFound("VA role not found")
        return found

    async def find_ca(self, ca_id: str) -> CertificationAuthority | None:
        """The CA, if it is still there."""
        try:
            return await self._authorities.get_ca(ca_id)
        except NotFound:
            return None

    async def _add(self, role: CrlRole) -> None:
        async with self._storage.unit() as unit:
            await unit.add_role(role)
            _tell(unit, role)

    async def _hand_over(self, role: CrlRole, ca_id: str) -> None:
        async with self._storage.unit() as unit:
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
