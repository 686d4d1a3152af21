"""Take over keys that an engine has from an earlier installation: give them rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose
from lamassu.services.kms.model import FoundKey
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.private_keys import check_public_key, spec_of_public_key
from lamassu.services.kms.usecases.store_key import store_key


@dataclass(frozen=True, slots=True)
class Adoption:
    """A key that was found, and why it was not adopted, if it was not."""

    found: FoundKey
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Adopting:
    """Adoption of one engine's keys for one purpose, which stays theirs; `engine_id` absent
    means the default engine. With `key_ids` of these, in any engine; else of all that an engine
    knows to be unclaimed, of which `dry_run` only tells."""

    engine_id: str | None
    purpose: KeyPurpose
    dry_run: bool = False
    key_ids: Sequence[str] = ()


async def adopt_keys(
    wanted: Adopting,
    *,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
    clock: Clock,
    production: bool,
) -> list[Adoption]:
    """One after another: the row, then the engine's claim, so that a repetition finishes what a
    crash cut off. An old name becomes an alias, if it can be one.

    Only this gives such a key its purpose: a row that somebody wrote into the database does not.
    Raises `RuleViolation` (`unknown_engine`, `engine_not_for_ca_keys`), `Unavailable`.
    """
    engine_id, engine = engines.choose(wanted.engine_id)
    facts = engines.facts_of(engine_id)
    if production:
        rules.check_may_hold(wanted.purpose, facts, engines.facts())
    if wanted.dry_run and wanted.key_ids:
        raise RuleViolation(
            "a key named by its id is looked up as it is adopted: a dry run cannot show it",
            code="option_refused",
            field="key_id",
        )
    adoptions: list[Adoption] = []
    for found in await _found(engine, wanted):
        try:
            rules.check_spec(found.spec, facts)
            check_public_key(found.public_key)
            row = await storage.find(found.key_id)
            _check_row(row, engine_id, wanted.purpose)
            if not wanted.dry_run:
                if row is None:
                    free = await storage.find_by_alias(found.name) is None
                    key = _row(found, wanted.purpose, engine_id, clock, named=free)
                    await store_key(key, "kms.import", caller=caller, storage=storage)
                await engine.claim(found.key_id, purpose=wanted.purpose)
        except (RuleViolation, Conflict) as error:
            adoptions.append(Adoption(found, error.text))
        else:
            adoptions.append(Adoption(found))
    return adoptions


async def unclaimed_keys(
    engines: EngineDirectory, problems: Mapping[str, str]
) -> Mapping[str, int]:
    """How many keys wait for adoption, by engine; engines out of reach, also those that are
    known to have `problems`, are passed over."""
    waiting: dict[str, int] = {}
    for engine in engines:
        if problems.get(engine.id):
            continue
        try:
            found = await engine.unclaimed_keys()
        except Unavailable:
            continue
        if found:
            waiting[engine.id] = len(found)
    return waiting


async def _found(engine: GuardedEngine, wanted: Adopting) -> list[FoundKey]:
    unclaimed = await engine.unclaimed_keys()
    if not wanted.key_ids:
        return unclaimed
    by_id = {one.key_id: one for one in unclaimed}
    return [
        by_id.get(key_id) or await _look_up(engine, key_id, wanted.purpose)
        for key_id in wanted.key_ids
    ]


async def _look_up(engine: GuardedEngine, key_id: str, purpose: KeyPurpose) -> FoundKey:
    """A key that its engine finds by its id, for this purpose or for none yet. Raises
    `Unavailable` (`key_lost`, `key_damaged`), `RuleViolation` (`unsupported_key`)."""
    public_key = await engine.public_key(key_id, purpose=purpose)
    if key_id_of(public_key) != key_id:
        raise RuleViolation(
            f"what engine {engine.id} has as {key_id} is another key",
            code="key_damaged",
            field="key_id",
        )
    return FoundKey(key_id, public_key, spec_of_public_key(public_key))


def _check_row(row: Key | None, engine_id: str, purpose: KeyPurpose) -> None:
    if row is not None and (row.engine_id, row.purpose) != (engine_id, purpose):
        raise Conflict(
            f"the key is known already, in engine {row.engine_id} and for {row.purpose}",
            code="already_exists",
        )


def _row(found: FoundKey, purpose: KeyPurpose, engine_id: str, clock: Clock, *, named: bool) -> Key:
    return Key(
        key_id=found.key_id,
        name=found.name if rules.is_name(found.name) else "",
        engine_id=engine_id,
        spec=found.spec,
        purpose=purpose,
        public_key=found.public_key,
        created_at=clock.now(),
        aliases=(found.name,) if named and rules.is_alias(found.name) else (),
        origin=KeyOrigin.ADOPTED,
        version=1,
    )
