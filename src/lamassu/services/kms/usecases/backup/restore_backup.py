"""Bring wrapped keys into another engine, and have their rows point there.

Each key by itself: unwrapped, proven by a signature, and only then switched. A restore that was
cut off goes on when it is repeated; what was switched stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.model import BackedUpKey, KeyBackup
from lamassu.services.kms.ports import KeyStorage, KeyUnit
from lamassu.services.kms.usecases.backup.ways import check_wraps
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.key_document import key_document
from lamassu.services.kms.usecases.prove_copy import prove_copy

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """A key that signs in its new engine now; it was known to be in `was_in` before."""

    key: Key
    was_in: str


@dataclass(frozen=True, slots=True)
class Restoration:
    """What came of it. `unknown` are keys of the backup that this database does not know: they
    were deleted since, and do not come back."""

    restored: Sequence[Restored]
    unknown: Sequence[BackedUpKey]


class BackupRestoring:
    """Between the configured engines."""

    def __init__(self, engines: EngineDirectory, storage: KeyStorage) -> None:
        self._engines = engines
        self._storage = storage

    async def restore(
        self,
        backup: KeyBackup,
        engine_id: str,
        *,
        production: bool,
        caller: Caller,
        tell: Tell,
    ) -> Restoration:
        """Everything is judged before the first key is touched.

        Raises `RuleViolation` (`unknown_engine`, `key_backup_unsupported`, `backup_unfit`,
        `unsupported_key`, `engine_not_for_ca_keys`, and what `WrapsKeys.unwrap` raises),
        `NotFound` (`no_keys`), `Conflict` (`move_in_progress`, `rehearsal_in_progress`),
        `Unavailable`.
        """
        target_id, target = self._engines.choose(engine_id)
        check_wraps(target)
        fitting, unknown = await fitting_keys(backup, self._storage)
        facts = self._engines.facts_of(target_id)
        for key, _ in fitting:
            rules.check_spec(key.spec, facts)
            if production:
                rules.check_may_hold(key.purpose, facts, self._engines.facts())
            if await self._storage.find_move(key.key_id) is not None:
                raise Conflict(
                    f"key {key.key_id} is on its way to another engine; end that move first",
                    code="move_in_progress",
                )
        await target.check()
        restored: list[Restored] = []
        for number, (key, held) in enumerate(fitting, 1):
            tell(f"restoring {number} of {len(fitting)}: {key.name or key.key_id}")
            async with self._storage.unit() as unit:
                rehearsed = await _rehearsed(unit, key.key_id, target_id)
            await bring_in(key, held, target)
            await prove_copy(key, target)
            restored.append(await self._switch(key.key_id, target_id, rehearsed, backup, caller))
        return Restoration(restored, unknown)

    async def _switch(
        self, key_id: str, engine_id: str, rehearsed: int, backup: KeyBackup, caller: Caller
    ) -> Restored:
        """`rehearsed` is what `_rehearsed` said before the key was brought in."""
        subject = f"kms/{key_id}"
        async with self._storage.unit() as unit:
            key = await unit.lock(key_id)
            if key is None:
                raise rules.key_not_found()
            if await _rehearsed(unit, key_id, engine_id) != rehearsed:
                raise Conflict(
                    f"a rehearsal in engine {engine_id} came between and removed its copy; restore"
                    " again",
                    code="rehearsal_in_progress",
                )
            restored = key
            if key.engine_id != engine_id:
                restored = replace(key, engine_id=engine_id, version=key.version + 1)
                await unit.rehome(key, restored)
                if key.purpose in rules.API_PURPOSES:
                    data: dict[str, Json] = {
                        "updated": key_document(restored),
                        "previous": key_document(key),
                    }
                    # what follows a key to its engine follows it wherever it comes from
                    unit.emit(Event("kms.move", subject, restored.version, data, caller))
            detail = {"from": key.engine_id, "to": engine_id, "backup": backup.id}
            unit.audit(AuditRecord("kms.restore", subject, caller, detail=detail))
        return Restored(restored, key.engine_id)


async def _rehearsed(unit: KeyUnit, key_id: str, engine_id: str) -> int:
    """How many rehearsals of this key there were in the engine; `Conflict` while there is one."""
    await unit.lock(key_id)
    rehearsals = await unit.rehearsals_of(key_id, engine_id)
    if rehearsals.under_way:
        raise Conflict(
            f"a rehearsal uses engine {engine_id}, or was cut off there and will remove"
            " its copies; run the rehearsal to its end, then restore",
            code="rehearsal_in_progress",
        )
    return rehearsals.number


async def fitting_keys(
    backup: KeyBackup, storage: KeyStorage
) -> tuple[list[tuple[Key, BackedUpKey]], list[BackedUpKey]]:
    """The keys of a backup that rows know, and those that none does.

    Raises `RuleViolation` (`backup_unfit`), `NotFound` (`no_keys`).
    """
    fitting: list[tuple[Key, BackedUpKey]] = []
    unknown: list[BackedUpKey] = []
    for held in backup.keys:
        key = await storage.find(held.key_id)
        if key is None:
            unknown.append(held)
            continue
        told = (held.wrapped.public_key, held.spec, held.purpose)
        if told != (key.public_key, key.spec, key.purpose):
            raise RuleViolation(
                f"the backup tells another kind or purpose of key {key.key_id} than the database;"
                " one of them is not what it was",
                code="backup_unfit",
            )
        fitting.append((key, held))
    if not fitting:
        raise NotFound(
            "this database knows no key of the backup; restore the database that belongs to it"
            " first",
            code="no_keys",
        )
    return fitting, unknown


async def bring_in(key: Key, held: BackedUpKey, engine: GuardedEngine) -> None:
    """Unwrap the key in this engine. Raises as `WrapsKeys.unwrap`."""
    made = await engine.unwrap(held.wrapped, purpose=key.purpose)
    if (made.key_id, made.public_key) != (key.key_id, key.public_key):
        raise Unavailable(
            f"engine {engine.id} keeps another key than it was given; nothing was switched",
            code="key_damaged",
        )
