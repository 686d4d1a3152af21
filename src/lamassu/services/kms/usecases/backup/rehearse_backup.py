"""Show that a backup restores: into a scratch engine, a signature with each key, and out again.

What a rehearsal puts into an engine is noted before, and only what was noted is ever removed: a
key that was there already stays, and one that was cut off is removed by the next rehearsal.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.model import BackedUpKey, BackupRecord, KeyBackup
from lamassu.services.kms.ports import EngineDown, KeyStorage
from lamassu.services.kms.usecases.backup.make_backup import backup_detail, subject_of
from lamassu.services.kms.usecases.backup.restore_backup import bring_in, fitting_keys
from lamassu.services.kms.usecases.backup.ways import check_wraps
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.prove_copy import prove_copy

Tell = Callable[[str], None]
OF_THE_TOKEN = frozenset({"backup_key_missing", "backup_key_differs", "backup_key_one_way"})
"""Refusals that every key of a backup would meet."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A key that was restored, signed and was removed; or what went wrong."""

    key: Key
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What came of it. `unknown` are keys that this database does not know any more."""

    trials: Sequence[Trial]
    unknown: Sequence[BackedUpKey]
    held_at: datetime

    @property
    def passed(self) -> bool:
        """Every key that is still needed came back."""
        return not any(trial.problem for trial in self.trials)


class BackupRehearsing:
    """Rehearsals in the configured engines."""

    def __init__(self, engines: EngineDirectory, storage: KeyStorage) -> None:
        self._engines = engines
        self._storage = storage

    async def rehearse(
        self,
        backup: KeyBackup,
        file: bytes,
        engine_id: str,
        *,
        caller: Caller,
        now: datetime,
        tell: Tell,
    ) -> Rehearsal:
        """Recorded whatever comes of it; the date counts only if every key came back.

        Raises `RuleViolation` (`unknown_engine`, `key_backup_unsupported`, `backup_unfit`,
        `engine_not_scratch`, `backup_key_differs`, `backup_key_one_way`), `NotFound`
        (`no_keys`, `backup_key_missing`), `Unavailable`.
        """
        scratch_id, scratch = self._engines.choose(engine_id)
        check_wraps(scratch)
        fitting, unknown = await fitting_keys(backup, self._storage)
        for key, _ in fitting:
            _check_scratch(key, scratch_id)
        await scratch.check()
        trials: list[Trial] = []
        for number, (key, held) in enumerate(fitting, 1):
            tell(f"rehearsing {number} of {len(fitting)}: {key.name or key.key_id}")
            trials.append(Trial(key, await self._try(key, held, scratch)))
        rehearsal = Rehearsal(trials, unknown, now)
        await self._record(backup, file, scratch_id, rehearsal, caller)
        return rehearsal

    async def _try(self, key: Key, held: BackedUpKey, scratch: GuardedEngine) -> str:
        """What is wrong with the key; nothing, if it came back."""
        await self._remove_leftover(key, scratch)
        if await _holds(scratch, key):
            return (
                f"engine {scratch.id} had it before the rehearsal, which shows nothing; use a"
                " token without it"
            )
        await self._note(key, scratch.id)
        problem = ""
        try:
            await bring_in(key, held, scratch)
            await prove_copy(key, scratch)
        except EngineDown:
            with contextlib.suppress(LamassuError):
                await self._remove(key, scratch)
            raise
        except LamassuError as error:
            if error.code in OF_THE_TOKEN:
                await self._remove(key, scratch)
                raise
            problem = error.text
        await self._remove(key, scratch)
        if await _holds(scratch, key):
            return problem or f"the copy in engine {scratch.id} could not be removed"
        return problem

    async def _note(self, key: Key, scratch_id: str) -> None:
        async with self._storage.unit() as unit:
            current = await unit.lock(key.key_id)
            if current is None:
                raise rules.key_not_found()
            _check_scratch(current, scratch_id)  # a restore may have come between
            if await unit.find_move(key.key_id) is not None:
                raise Conflict(
                    f"key {key.name or key.key_id} is on its way to another engine; end that move"
                    " first",
                    code="move_in_progress",
                )
            await unit.begin_rehearsal(key.key_id, scratch_id)

    async def _remove_leftover(self, key: Key, scratch: GuardedEngine) -> None:
        async with self._storage.unit() as unit:
            left = await unit.rehearsals_of(key.key_id, scratch.id)
        if left.under_way:
            await self._remove(key, scratch)

    async def _remove(self, key: Key, scratch: GuardedEngine) -> None:
        """While it is noted no restore switches the key to this engine, so it is a copy."""
        async with self._storage.unit() as unit:
            current = await unit.lock(key.key_id)
            noted = await unit.rehearsals_of(key.key_id, scratch.id)
        if noted.under_way and (current is None or current.engine_id != scratch.id):
            await scratch.delete(key.key_id)
        async with self._storage.unit() as unit:
            await unit.end_rehearsal(key.key_id, scratch.id)

    async def _record(
        self,
        backup: KeyBackup,
        file: bytes,
        scratch_id: str,
        rehearsal: Rehearsal,
        caller: Caller,
    ) -> None:
        known = {record.id: record for record in await self._storage.backups()}
        record = known.get(backup.id) or BackupRecord(  # of a database before the backup
            id=backup.id,
            engine_id=backup.engine_id,
            created_at=backup.created_at,
            sha256=hashlib.sha256(file).hexdigest(),
            key_ids=tuple(key.key_id for key in backup.keys),
        )
        await record_rehearsal(record, scratch_id, rehearsal, caller=caller, storage=self._storage)


async def record_rehearsal(
    record: BackupRecord, where: str, rehearsal: Rehearsal, *, caller: Caller, storage: KeyStorage
) -> None:
    """Into the trail in any case; as the backup's date only if it passed."""
    failed = [trial.key.key_id for trial in rehearsal.trials if trial.problem]
    detail = {**backup_detail(record), "in": where, "failed": failed}
    async with storage.unit() as unit:
        if rehearsal.passed:
            await unit.save_backup(
                replace(record, rehearsed_at=rehearsal.held_at, rehearsed_in=where)
            )
        unit.emit(Event("kms.backup.rehearse", subject_of(record), 1, detail, caller))
        outcome = "success" if rehearsal.passed else "failure"
        unit.audit(AuditRecord("kms.backup.rehearse", subject_of(record), caller, outcome, detail))


def _check_scratch(key: Key, scratch_id: str) -> None:
    if key.engine_id == scratch_id:
        raise RuleViolation(
            f"key {key.name or key.key_id} lives in engine {scratch_id}, where a rehearsal would"
            " show nothing and remove it; name a scratch engine",
            code="engine_not_scratch",
            field="engine_id",
        )


async def _holds(engine: GuardedEngine, key: Key) -> bool:
    try:
        await engine.public_key(key.key_id, purpose=key.purpose)
    except EngineDown:
        raise
    except Unavailable as error:
        return error.code != "key_lost"
    return True
