"""Keep a private key that a caller sends."""

from __future__ import annotations

import asyncio

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose
from lamassu.services.kms.model import ImportedKey, PrivateKey
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.private_keys import (
    FIELD,
    check_private_key,
    parse_private_key,
    spec_of,
    spki_of,
)
from lamassu.services.kms.usecases.store_key import store_key


class KeyImport:
    """Imports go one after another, so that none cleans up what another has just stored, and
    many at once do not take every processor."""

    def __init__(self, *, engines: EngineDirectory, storage: KeyStorage, clock: Clock) -> None:
        self._engines = engines
        self._storage = storage
        self._clock = clock
        self._turn = asyncio.Lock()

    async def take(self, wanted: ImportedKey, *, caller: Caller) -> Key:
        """Judge, look for a duplicate, keep, store: a general key, marked as imported.

        Raises `Malformed`, `RuleViolation` (`unsupported_key`, `weak_key`,
        `key_not_importable`, `unknown_engine`) and `Conflict` (`key_exists`) before anything is
        written.
        """
        if wanted.name:
            rules.check_name(wanted.name)
        rules.check_tags(wanted.tags)
        engine_id, engine = self._engines.choose(wanted.engine_id)
        check_takes_in(engine)
        private_key = parse_private_key(wanted.private_key)
        spec = spec_of(private_key)
        rules.check_spec(spec, self._engines.facts_of(engine_id), field=FIELD)
        public_key = spki_of(private_key)
        key = Key(
            key_id=key_id_of(public_key),
            name=wanted.name,
            engine_id=engine_id,
            spec=spec,
            purpose=KeyPurpose.GENERAL,
            public_key=public_key,
            created_at=self._clock.now(),
            tags=tuple(wanted.tags),
            metadata=rules.without_system_keys(wanted.metadata),
            origin=KeyOrigin.IMPORTED,
            version=1,
        )
        async with self._turn:
            # half a second of a processor for RSA 4096: one at a time, whoever asks
            await asyncio.to_thread(check_private_key, private_key)
            await self._keep(key, private_key, engine, caller)
        return key

    async def _keep(
        self, key: Key, private_key: PrivateKey, engine: GuardedEngine, caller: Caller
    ) -> None:
        if await self._storage.find(key.key_id) is not None:
            raise _exists()
        await engine.take_in(private_key, purpose=key.purpose)
        try:
            await store_key(key, "kms.import", caller=caller, storage=self._storage)
        except Unavailable:
            # the commit may have come through: the sweep at start will know
            raise
        except LamassuError as error:
            stored = await self._storage.find(key.key_id)
            if stored is None or stored.engine_id != key.engine_id:
                await engine.delete(key.key_id)
            raise _exists() if isinstance(error, Conflict) else error from None


def check_takes_in(engine: GuardedEngine) -> None:
    """Refuse an engine whose keys are all its own (`key_not_importable`)."""
    if not engine.takes_in_keys:
        raise RuleViolation(
            f"engine {engine.id} takes no keys made elsewhere; make a new key in it",
            code="key_not_importable",
            field="engine_id",
        )


def _exists() -> Conflict:
    return Conflict("the key is here already", code="key_exists", field=FIELD)
