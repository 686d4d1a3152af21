"""Note what needs a key. A key that is needed cannot be deleted."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Binding, Key
from lamassu.services.kms.ports import KeyStorage, KeyUnit
from lamassu.services.kms.usecases.key_document import key_document


async def bind_key(
    key_id: str, binding: Binding, *, caller: Caller, now: datetime, storage: KeyStorage
) -> None:
    """Bind, once. Raises `NotFound`."""
    async with storage.unit() as unit:
        key = await unit.lock(key_id)
        if key is None:
            raise rules.key_not_found()
        if binding in key.bindings:
            return
        await unit.bind(key_id, binding, now)
        changed = dataclasses.replace(key, bindings=(*key.bindings, binding))
        await _save(unit, changed, before=key, caller=caller)
        unit.audit(_record("kms.bind", key, binding, caller))


async def unbind_key(key_id: str, binding: Binding, *, caller: Caller, storage: KeyStorage) -> None:
    """Take a binding back; one that is not there is fine."""
    async with storage.unit() as unit:
        key = await unit.lock(key_id)
        if key is None or binding not in key.bindings:
            return
        await unit.unbind(key_id, binding)
        rest = tuple(one for one in key.bindings if one != binding)
        await _save(unit, dataclasses.replace(key, bindings=rest), before=key, caller=caller)
        unit.audit(_record("kms.unbind", key, binding, caller))


async def _save(unit: KeyUnit, changed: Key, *, before: Key, caller: Caller) -> None:
    """Store it, and publish it as the original does, which patches the metadata."""
    changed = dataclasses.replace(changed, version=before.version + 1)
    await unit.save(changed)
    if changed.purpose in rules.API_PURPOSES:
        data = {"updated": key_document(changed), "previous": key_document(before)}
        subject = f"kms/{changed.key_id}"
        unit.emit(Event("kms.metadata.update", subject, changed.version, data, caller))


def _record(action: str, key: Key, binding: Binding, caller: Caller) -> AuditRecord:
    detail = {"resource_type": binding.resource_type, "resource_id": binding.resource_id}
    return AuditRecord(action, f"kms/{key.key_id}", caller, detail=detail)
