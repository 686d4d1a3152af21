"""Show that a copy of an engine's storage signs: for engines whose backup is such a copy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import uuid4

from lamassu.kernel.errors import LamassuError, NotFound
from lamassu.kernel.identity import Caller
from lamassu.services.kms.model import BackupRecord
from lamassu.services.kms.ports import CryptoEngine, KeyStorage
from lamassu.services.kms.usecases.backup.rehearse_backup import (
    Rehearsal,
    Trial,
    record_rehearsal,
)
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.prove_copy import prove_copy

Tell = Callable[[str], None]
WHERE = "a copy of its directory"


async def rehearse_copy(
    engine_id: str,
    copy: CryptoEngine,
    *,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
    now: datetime,
    tell: Tell,
) -> Rehearsal:
    """Every key that rows know in the engine signs in the copy, and its stored public key says
    so. Recorded whatever comes of it. Raises `RuleViolation` (`unknown_engine`), `NotFound`
    (`no_keys`)."""
    chosen, _ = engines.choose(engine_id)
    keys = await storage.keys_in(chosen)
    if not keys:
        raise NotFound(f"no key lives in engine {chosen}", code="no_keys")
    guarded = GuardedEngine(copy)
    trials: list[Trial] = []
    for number, key in enumerate(keys, 1):
        tell(f"rehearsing {number} of {len(keys)}: {key.name or key.key_id}")
        try:
            await prove_copy(key, guarded)
        except LamassuError as error:
            trials.append(Trial(key, error.text))
        else:
            trials.append(Trial(key))
    rehearsal = Rehearsal(trials, (), now)
    record = BackupRecord(
        id=str(uuid4()),
        engine_id=chosen,
        created_at=now,
        sha256="",  # no file of ours
        key_ids=tuple(trial.key.key_id for trial in trials if not trial.problem),
    )
    await record_rehearsal(record, WHERE, rehearsal, caller=caller, storage=storage)
    return rehearsal
