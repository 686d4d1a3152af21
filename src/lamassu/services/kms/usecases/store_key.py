"""Write the row of a key that its engine holds durably, with its event and record."""

from __future__ import annotations

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.key_document import key_document


async def store_key(key: Key, action: str, *, caller: Caller, storage: KeyStorage) -> None:
    """`action` is `kms.create` or `kms.import`. Raises `Conflict` if it has a row already."""
    subject = f"kms/{key.key_id}"
    detail = {
        "engine_id": key.engine_id,
        "purpose": key.purpose.value,
        "name": key.name,
        "origin": key.origin.value,
    }
    async with storage.unit() as unit:
        await unit.insert(key)
        if key.aliases:
            await unit.replace_aliases(key.key_id, key.aliases)
        if key.purpose in rules.API_PURPOSES:
            unit.emit(Event(action, subject, key.version, key_document(key), caller))
        unit.audit(AuditRecord(action, subject, caller, detail=detail))
