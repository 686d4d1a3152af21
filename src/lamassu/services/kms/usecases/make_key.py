"""Make a key: first durably in its engine, then its row."""

from __future__ import annotations

from contextlib import suppress

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyPurpose
from lamassu.services.kms.model import NewKey
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.prove_copy import prove_copy
from lamassu.services.kms.usecases.store_key import store_key


async def make_key(
    wanted: NewKey,
    purpose: KeyPurpose,
    *,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
    clock: Clock,
    production: bool = False,
) -> Key:
    """Judge, generate, store. A row never names a key that its engine does not have."""
    rules.check_name(wanted.name)
    rules.check_tags(wanted.tags)
    engine_id, engine = engines.choose(wanted.engine_id)
    rules.check_spec(wanted.spec, engines.facts_of(engine_id))
    if production:
        rules.check_may_hold(purpose, engines.facts_of(engine_id), engines.facts())
    made = await engine.generate(wanted.spec, purpose=purpose)
    key = Key(
        key_id=made.key_id,
        name=wanted.name,
        engine_id=engine_id,
        spec=wanted.spec,
        purpose=purpose,
        public_key=made.public_key,
        created_at=clock.now(),
        tags=tuple(wanted.tags),
        metadata=rules.without_system_keys(wanted.metadata),
        version=1,
    )
    try:
        # an engine that signs wrongly shows it now, not in the first certificate
        await prove_copy(key, engine)
    except LamassuError:
        with suppress(LamassuError):
            await engine.delete(key.key_id)
        raise
    await _store(key, caller=caller, engine=engine, storage=storage)
    return key


async def _store(key: Key, *, caller: Caller, engine: GuardedEngine, storage: KeyStorage) -> None:
    try:
        await store_key(key, "kms.create", caller=caller, storage=storage)
    except Unavailable:
        # the commit may have come through: the sweep at start will know
        raise
    except LamassuError:
        await engine.delete(key.key_id)
        raise
