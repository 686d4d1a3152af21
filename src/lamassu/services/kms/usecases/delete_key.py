"""Delete a key: its row first, then the key itself."""

from __future__ import annotations

from collections.abc import Callable

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory


async def delete_key(
    key_id: str,
    *,
    identifier: str,
    judge: Callable[[Key], None],
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
) -> None:
    """Remove what `judge` lets go, judged under the row's lock. Raises `NotFound`.

    A crash between the two steps leaves a key without a row, which the sweep at start removes.
    """
    subject = f"kms/{key_id}"
    async with storage.unit() as unit:
        key = await unit.lock(key_id)
        if key is None:
            raise rules.key_not_found()
        judge(key)
        await unit.delete(key)
        if key.purpose in rules.API_PURPOSES:
            data = {"Identifier": identifier}
            unit.emit(Event("kms.delete", subject, key.version + 1, data, caller))
        detail = {"purpose": key.purpose.value, "name": key.name}
        unit.audit(AuditRecord("kms.delete", subject, caller, detail=detail))
    await engines.holding(key.engine_id).delete(key_id)
