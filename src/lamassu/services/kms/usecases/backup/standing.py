"""How the keys of each engine are backed up, and what an operator is to be told of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.model import BackupRecord
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.backup.ways import way_of
from lamassu.services.kms.usecases.engines import EngineDirectory

REHEARSED_WITHIN = timedelta(days=180)


@dataclass(frozen=True, slots=True)
class EngineStanding:
    """`way` says how its keys are backed up. `missing` counts keys of an engine that wraps which
    are in no backup yet; `warnings` are for people, each with what to do."""

    engine_id: str
    way: str
    keys: int
    missing: int
    last_backup: BackupRecord | None
    last_rehearsal: BackupRecord | None
    warnings: Sequence[str]


async def standings(
    engines: EngineDirectory, storage: KeyStorage, now: datetime
) -> list[EngineStanding]:
    """Of every configured engine; none is asked anything."""
    records = await storage.backups()
    copies = await storage.rehearsals()
    counts = await storage.count(purposes=list(KeyPurpose), filters=(), limit=0)
    found: list[EngineStanding] = []
    for engine in engines:
        own = [record for record in records if record.engine_id == engine.id]
        # only of an HSM, which has few: a software engine may have any number
        keys = await storage.keys_in(engine.id) if engine.wraps_keys else ()
        saved = {key_id for record in own for key_id in record.key_ids}
        rehearsed = [record for record in own if record.rehearsed_at is not None]
        standing = EngineStanding(
            engine_id=engine.id,
            way=way_of(engine),
            keys=counts.by_engine.get(engine.id, 0) if counts is not None else len(keys),
            missing=sum(key.key_id not in saved for key in keys),
            last_backup=next((record for record in own if record.sha256), None),
            last_rehearsal=max(rehearsed, key=_when, default=None),
            warnings=_of_copies(engine.id, copies.get(engine.id, 0)),
        )
        found.append(_with_warnings(standing, engine.wraps_keys, now))
    return found


def _with_warnings(standing: EngineStanding, wraps: bool, now: datetime) -> EngineStanding:
    warnings = list(standing.warnings)
    engine_id = standing.engine_id
    if standing.keys and wraps:
        if standing.last_backup is None:
            warnings.append(
                f"the keys of engine {engine_id} were never backed up; run: lamassu key backup"
                f" create --engine {engine_id} --to FILE"
            )
        elif standing.missing:
            warnings.append(
                f"{standing.missing} of {standing.keys} keys of engine {engine_id} are in no"
                f" backup; run: lamassu key backup create --engine {engine_id} --to FILE"
            )
        warnings += _of_rehearsal(standing, now)
    return EngineStanding(
        engine_id=engine_id,
        way=standing.way,
        keys=standing.keys,
        missing=standing.missing,
        last_backup=standing.last_backup,
        last_rehearsal=standing.last_rehearsal,
        warnings=warnings,
    )


def _of_copies(engine_id: str, number: int) -> list[str]:
    if not number:
        return []
    return [
        f"engine {engine_id} may still hold copies of {number} key{'s' * (number > 1)}, of a"
        " rehearsal that was cut off or is running; run it again, so that they are removed"
    ]


def _of_rehearsal(standing: EngineStanding, now: datetime) -> list[str]:
    run = "run: lamassu key backup rehearse FILE --engine SCRATCH"
    if standing.last_rehearsal is None:
        return [f"the backup of engine {standing.engine_id} was never rehearsed; {run}"]
    when = _when(standing.last_rehearsal)
    if now - when > REHEARSED_WITHIN:
        return [
            f"the backup of engine {standing.engine_id} was last rehearsed on {when:%Y-%m-%d},"
            f" more than {REHEARSED_WITHIN.days} days ago; {run}"
        ]
    return []


def _when(record: BackupRecord) -> datetime:
    assert record.rehearsed_at is not None  # who asks has looked
    return record.rehearsed_at
