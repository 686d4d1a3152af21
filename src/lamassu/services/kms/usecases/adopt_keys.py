"""Take over keys that an engine has from an earlier installation: give them rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose
from lamassu.services.kms.model import FoundKey
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.store_key import store_key


@dataclass(frozen=True, slots=True)
class Adoption:
    """A key that was found, and why it was not adopted, if it was not."""

    found: FoundKey
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Adopting:
    """Adoption of one engine's keys for one purpose, which stays theirs; `engine_id` absent
    means the default engine."""

    engine_id: str | None
    purpose: KeyPurpose
    dry_run: bool = False


async def adopt_keys(
    wanted: Adopting,
    *,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
    clock: Clock,
    production: bool,
) -> list[Adoption]:
    """One after another, so that what was adopted before a crash stays so, and a repetition
    goes on. An old name becomes an alias, if it can be one.

    Raises `RuleViolation` (`unknown_engine`, `engine_not_for_ca_keys`).
    """
    engine_id, engine = engines.choose(wanted.engine_id)
    if production:
        rules.check_may_hold(wanted.purpose, engines.facts_of(engine_id), engines.facts())
    adoptions: list[Adoption] = []
    for found in await _unknown(await engine.unclaimed_keys(), storage):
        try:
            rules.check_spec(found.spec, engines.facts_of(engine_id))
            if not wanted.dry_run:
                free = await storage.find_by_alias(found.name) is None
                key = _row(found, wanted.purpose, engine_id, clock, named=free)
                await store_key(key, "kms.import", caller=caller, storage=storage)
        except (RuleViolation, Conflict) as error:
            adoptions.append(Adoption(found, error.text))
        else:
            adoptions.append(Adoption(found))
    return adoptions


async def unclaimed_keys(*, engines: EngineDirectory, storage: KeyStorage) -> Mapping[str, int]:
    """How many keys wait for adoption, by engine; engines out of reach are passed over."""
    waiting: dict[str, int] = {}
    for engine in engines:
        try:
            found = await engine.unclaimed_keys()
        except Unavailable:
            continue
        if unknown := await _unknown(found, storage):
            waiting[engine.id] = len(unknown)
    return waiting


async def _unknown(found: list[FoundKey], storage: KeyStorage) -> list[FoundKey]:
    known = await storage.known_among([one.key_id for one in found])
    return [one for one in found if one.key_id not in known]


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
