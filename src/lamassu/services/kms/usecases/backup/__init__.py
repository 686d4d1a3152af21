"""Wrapped backups of keys: made, judged, restored, rehearsed. `KeyBackups` is their face."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.kms.model import KeyBackup
from lamassu.services.kms.ports import CryptoEngine, KeyStorage
from lamassu.services.kms.usecases.backup.document import decode, mac_key
from lamassu.services.kms.usecases.backup.make_backup import (
    BackupMaking,
    Made,
    Selection,
    Tell,
    Write,
    select_keys,
)
from lamassu.services.kms.usecases.backup.rehearse_backup import (
    BackupRehearsing,
    Rehearsal,
    Trial,
)
from lamassu.services.kms.usecases.backup.rehearse_copy import rehearse_copy
from lamassu.services.kms.usecases.backup.restore_backup import (
    BackupRestoring,
    Restoration,
    Restored,
)
from lamassu.services.kms.usecases.backup.standing import EngineStanding, standings
from lamassu.services.kms.usecases.backup.ways import check_wraps
from lamassu.services.kms.usecases.engines import EngineDirectory

__all__ = [
    "EngineStanding",
    "KeyBackups",
    "Made",
    "Rehearsal",
    "Restoration",
    "Restored",
    "Selection",
    "Trial",
    "Write",
    "read_backup",
    "standings",
]


def read_backup(file: bytes, secret: bytes) -> KeyBackup:
    """The backup in a file whose MAC was made with a key of the `secret`.

    Raises `RuleViolation`: `backup_damaged`, `backup_version`.
    """
    return decode(file, mac_key(secret))


class KeyBackups:
    """For an operator at the host: the API has none of it. Whether approvers of CAs agree to a
    backup is asked before, of whoever knows whose the keys are."""

    def __init__(self, engines: EngineDirectory, storage: KeyStorage, clock: Clock) -> None:
        self._engines = engines
        self._storage = storage
        self._clock = clock
        self._making = BackupMaking(engines, storage)
        self._restoring = BackupRestoring(engines, storage)
        self._rehearsing = BackupRehearsing(engines, storage)

    async def put_backup_key(
        self,
        engine_id: str,
        components: Sequence[bytes],
        *,
        security_officer_pin: bytes | None,
        caller: Caller,
    ) -> str:
        """Put the backup key together in an engine; its check value. With the security officer's
        PIN it may wrap there, else unwrap.

        Idempotent. Raises `RuleViolation` (`unknown_engine`, `key_backup_unsupported`,
        `bad_components`), `Conflict` (`backup_key_exists`), `Unavailable`.
        """
        chosen, engine = self._engines.choose(engine_id)
        check_wraps(engine)
        wraps = security_officer_pin is not None
        if security_officer_pin is not None:
            value = await engine.keep_wrapping_key(
                components, security_officer_pin=security_officer_pin
            )
        else:
            value = await engine.keep_unwrapping_key(components)
        detail = {"check_value": value, "may": "wrap" if wraps else "unwrap"}
        async with self._storage.unit() as unit:
            unit.audit(AuditRecord("kms.backup.key", f"kms-engine/{chosen}", caller, detail=detail))
        return value

    async def select(
        self, engine_id: str, identifiers: Sequence[str], *, partial: bool = False
    ) -> Selection:
        """See `select_keys`."""
        return await select_keys(
            engine_id,
            identifiers,
            partial=partial,
            engines=self._engines,
            storage=self._storage,
        )

    async def make(
        self, selection: Selection, *, secret: bytes, write: Write, caller: Caller, tell: Tell
    ) -> Made:
        """See `BackupMaking.make`; the file's MAC is made with a key of the `secret`."""
        return await self._making.make(
            selection,
            seal=mac_key(secret),
            write=write,
            caller=caller,
            now=self._clock.now(),
            tell=tell,
        )

    async def restore(
        self,
        file: bytes,
        engine_id: str,
        *,
        secret: bytes,
        production: bool,
        caller: Caller,
        tell: Tell,
    ) -> Restoration:
        """See `BackupRestoring.restore`, and `read_backup`."""
        return await self._restoring.restore(
            read_backup(file, secret), engine_id, production=production, caller=caller, tell=tell
        )

    async def rehearse(
        self, file: bytes, engine_id: str, *, secret: bytes, caller: Caller, tell: Tell
    ) -> Rehearsal:
        """See `BackupRehearsing.rehearse`, and `read_backup`."""
        return await self._rehearsing.rehearse(
            read_backup(file, secret),
            file,
            engine_id,
            caller=caller,
            now=self._clock.now(),
            tell=tell,
        )

    async def rehearse_copy(
        self, engine_id: str, copy: CryptoEngine, *, caller: Caller, tell: Tell
    ) -> Rehearsal:
        """See `rehearse_copy`."""
        return await rehearse_copy(
            engine_id,
            copy,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
            now=self._clock.now(),
            tell=tell,
        )

    async def standings(self) -> Sequence[EngineStanding]:
        """How each engine's keys are backed up."""
        return await standings(self._engines, self._storage, self._clock.now())
