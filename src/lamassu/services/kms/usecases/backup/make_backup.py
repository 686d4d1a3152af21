"""Wrap the keys of an engine for a file."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from lamassu.kernel.errors import NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.kernel.wire_text import format_time
from lamassu.services.kms.contract import Key
from lamassu.services.kms.model import BackedUpKey, BackupRecord, KeyBackup
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.backup.document import encode
from lamassu.services.kms.usecases.backup.ways import check_wraps
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.find_key import find_key
from lamassu.services.kms.usecases.guard import GuardedEngine

Tell = Callable[[str], None]
Write = Callable[[bytes], Awaitable[None]]
"""Make the file, whole or not at all; durable when it returns."""
NAMED_AT_MOST = 10


@dataclass(frozen=True, slots=True)
class Selection:
    """Keys of one engine that are to be backed up. With `partial`, those that the engine will not
    wrap are left out and named; without, one of them stops it all."""

    engine_id: str
    keys: tuple[Key, ...]
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """A backup whose file is written, and keys that are not in it, with the reason."""

    record: BackupRecord
    left_out: Sequence[tuple[Key, str]]


async def select_keys(
    engine_id: str,
    identifiers: Sequence[str],
    *,
    partial: bool,
    engines: EngineDirectory,
    storage: KeyStorage,
) -> Selection:
    """The keys that are named, or all that rows know in the engine; nothing is asked of it.

    Raises `RuleViolation` (`unknown_engine`, `key_backup_unsupported`, `key_elsewhere`) and
    `NotFound` (`key_not_found`, `no_keys`).
    """
    chosen, engine = engines.choose(engine_id)
    check_wraps(engine)
    if not identifiers:
        keys = tuple(await storage.keys_in(chosen))
        if not keys:
            raise NotFound(f"no key lives in engine {chosen}", code="no_keys")
        return Selection(chosen, keys, partial)
    named: dict[str, Key] = {}
    for identifier in identifiers:
        key = await find_key(identifier, storage=storage)
        if key is None:
            raise NotFound(f"there is no key {identifier}", code="key_not_found", field="key")
        if key.engine_id != chosen:
            raise RuleViolation(
                f"key {identifier} lives in engine {key.engine_id}, not in {chosen}",
                code="key_elsewhere",
                field="key",
            )
        named[key.key_id] = key
    return Selection(chosen, tuple(named.values()), partial)


class BackupMaking:
    """Wraps, writes, remembers."""

    def __init__(self, engines: EngineDirectory, storage: KeyStorage) -> None:
        self._engines = engines
        self._storage = storage

    async def make(
        self,
        selection: Selection,
        *,
        seal: bytes,
        write: Write,
        caller: Caller,
        now: datetime,
        tell: Tell,
    ) -> Made:
        """Wrap each key and have the file written; recorded before it is, and after.

        `seal` is the key of the file's MAC. Whatever fails leaves no file, and can be repeated.
        Raises `RuleViolation` (`keys_not_wrappable`, `backup_key_one_way`), `NotFound`
        (`backup_key_missing`), `Unavailable`.
        """
        engine = self._engines.holding(selection.engine_id)
        await engine.check()
        wrapped: list[BackedUpKey] = []
        left_out: list[tuple[Key, str]] = []
        for number, key in enumerate(selection.keys, 1):
            tell(f"wrapping {number} of {len(selection.keys)}: {key.name or key.key_id}")
            try:
                wrapped.append(await _wrap(key, engine))
            except RuleViolation as refusal:
                if refusal.code != "key_not_wrappable":
                    raise
                left_out.append((key, refusal.text))
        if not wrapped or (left_out and not selection.partial):
            raise _not_wrappable(selection, left_out)
        backup = KeyBackup(
            id=str(uuid4()),
            engine_id=selection.engine_id,
            created_at=now,
            keys=tuple(wrapped),
            left_out=tuple(key.key_id for key, _ in left_out),
        )
        file = encode(backup, seal)
        record = BackupRecord(
            id=backup.id,
            engine_id=backup.engine_id,
            created_at=now,
            sha256=hashlib.sha256(file).hexdigest(),
            key_ids=tuple(key.key_id for key in backup.keys),
        )
        await self._announce(record, caller)
        await write(file)
        await self._keep(record, caller)
        return Made(record, left_out)

    async def _announce(self, record: BackupRecord, caller: Caller) -> None:
        """Before the file is there: no key leaves its engine without a record."""
        detail = {**backup_detail(record), "key_ids": list(record.key_ids)}
        async with self._storage.unit() as unit:
            unit.audit(AuditRecord("kms.backup.begin", subject_of(record), caller, detail=detail))

    async def _keep(self, record: BackupRecord, caller: Caller) -> None:
        detail = backup_detail(record)
        async with self._storage.unit() as unit:
            await unit.save_backup(record)
            unit.emit(Event("kms.backup", subject_of(record), 1, detail, caller))
            unit.audit(AuditRecord("kms.backup", subject_of(record), caller, detail=detail))


def subject_of(record: BackupRecord) -> str:
    """The backup, in events and records."""
    return f"kms-backup/{record.id}"


def backup_detail(record: BackupRecord) -> dict[str, Json]:
    """What is told of a backup."""
    return {
        "engine_id": record.engine_id,
        "created_at": format_time(record.created_at),
        "keys": len(record.key_ids),
        "sha256": record.sha256,
    }


async def _wrap(key: Key, engine: GuardedEngine) -> BackedUpKey:
    wrapped = await engine.wrap(key.key_id, purpose=key.purpose)
    if wrapped.public_key != key.public_key:
        raise Unavailable(
            f"engine {engine.id} has another public key than the database under {key.key_id}",
            code="key_damaged",
        )
    return BackedUpKey(wrapped, key.name, key.spec, key.purpose)


def _not_wrappable(selection: Selection, left_out: Sequence[tuple[Key, str]]) -> RuleViolation:
    lines = [f"  {key.name or 'key'} ({key.key_id}): {why}" for key, why in left_out]
    more = len(lines) - NAMED_AT_MOST
    return RuleViolation(
        f"{len(left_out)} of {len(selection.keys)} keys cannot leave engine"
        f" {selection.engine_id}, so that nothing was written:\n"
        + "\n".join(lines[:NAMED_AT_MOST])
        + (f"\n  and {more} more" if more > 0 else "")
        + "\nback them up the vendor's way (docs/how-to/engine-pkcs11.md), or give their CAs new"
        " keys (lamassu ca rekey); --partial backs up the others",
        code="keys_not_wrappable",
    )
