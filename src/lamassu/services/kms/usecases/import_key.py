"""Keep a private key that a caller sends."""

from __future__ import annotations

import asyncio
import dataclasses

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyOrigin, KeyPurpose, KeySpec
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
        rules.check_spec(spec_of(private_key), self._engines.facts_of(engine_id), field=FIELD)
        key = dataclasses.replace(
            self._row(private_key, KeyPurpose.GENERAL, wanted.name, engine_id),
            tags=tuple(wanted.tags),
            metadata=rules.without_system_keys(wanted.metadata),
        )
        async with self._turn:
            # half a second of a processor for RSA 4096: one at a time, whoever asks
            await asyncio.to_thread(check_private_key, private_key)
            if await self._storage.find(key.key_id) is not None:
                raise _exists()
            await self._keep(key, private_key, engine, caller)
        return key

    async def take_for(
        self,
        data: bytes,
        *,
        public_key: bytes,
        purpose: KeyPurpose,
        name: str,
        caller: Caller,
        production: bool,
    ) -> Key:
        """See `Keys.take_in`."""
        rules.check_name(name)
        private_key = parse_private_key(data)
        key_id = key_id_of(public_key)
        if key_id_of(spki_of(private_key)) != key_id:
            raise RuleViolation(
                "the private key does not match the certificate: they are not of one pair",
                code="key_mismatch",
                field=FIELD,
            )
        async with self._turn:
            known = await self._storage.find(key_id)
            if known is not None:
                return _usable_again(known, purpose)
            engine = self._engine_for(spec_of(private_key), purpose, production)
            await asyncio.to_thread(check_private_key, private_key)
            key = self._row(private_key, purpose, name, engine.id)
            await self._keep(key, private_key, engine, caller)
        return key

    def _engine_for(self, spec: KeySpec, purpose: KeyPurpose, production: bool) -> GuardedEngine:
        """The default engine if it may hold such a key and takes it in, else the first that
        does. Raises `RuleViolation` (`no_engine_for_key`), which says of each why not."""
        faults: list[str] = []
        for engine in sorted(self._engines, key=lambda one: one is not self._engines.default()):
            facts = self._engines.facts_of(engine.id)
            if production and purpose is KeyPurpose.CA and not facts.for_ca_keys:
                faults.append(f"{engine.id} gets no keys of CAs in production")
            elif not engine.takes_in_keys:
                faults.append(f"{engine.id} takes no keys made elsewhere")
            elif spec.size not in facts.supported.get(spec.algorithm, ()):
                faults.append(f"{engine.id} has no {spec.algorithm} keys of {spec.size} bits")
            else:
                return engine
        raise RuleViolation(
            f"no crypto engine can keep this key: {'; '.join(faults)}. Configure one that can",
            code="no_engine_for_key",
            field=FIELD,
        )

    def _row(self, private_key: PrivateKey, purpose: KeyPurpose, name: str, engine_id: str) -> Key:
        public_key = spki_of(private_key)
        return Key(
            key_id=key_id_of(public_key),
            name=name,
            engine_id=engine_id,
            spec=spec_of(private_key),
            purpose=purpose,
            public_key=public_key,
            created_at=self._clock.now(),
            origin=KeyOrigin.IMPORTED,
            version=1,
        )

    async def _keep(
        self, key: Key, private_key: PrivateKey, engine: GuardedEngine, caller: Caller
    ) -> None:
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


def _usable_again(key: Key, purpose: KeyPurpose) -> Key:
    """A key that is here already: one that an import left behind may be asked for again."""
    if key.purpose is not purpose:
        raise Conflict(
            f"the key is here already as a {key.purpose} key, and a key's purpose never changes",
            code="key_exists",
            field=FIELD,
        )
    if key.bindings or key.has_signed:
        raise _exists()
    return key
