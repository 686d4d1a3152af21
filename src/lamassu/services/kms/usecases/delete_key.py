"""Delete a key: its row first, then the key itself."""

from __future__ import annotations

from collections.abc import Callable

from lamassu.kernel.errors import Unavailable
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

    A crash between the two steps leaves a key without a row, which the sweep at start sets
    aside; an engine that failed there is told of by `Unavailable` (`key_left_in_engine`).
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
    try:
        await engines.holding(key.engine_id).delete(key_id)
    except Unavailable as error:
        raise Unavailable(
            f"the key is deleted here and signs no more, but engine {key.engine_id} still has it"
            f" ({error.text}); destroy it there, or it is set aside at a later start",
            code="key_left_in_engine",
        ) from error
