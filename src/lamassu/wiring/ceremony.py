"""A ceremony's configuration becomes objects: one token, one directory; no network, no database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.clock import Clock, SystemClock
from lamassu.kernel.errors import RuleViolation
from lamassu.platform.config import Settings, load
from lamassu.platform.installation import Installation
from lamassu.platform.security.process import forbid_core_dumps
from lamassu.services.ceremony.model import EngineFacts
from lamassu.services.ceremony.storage import DirectoryLedger
from lamassu.services.ceremony.usecases import Ceremony
from lamassu.services.kms.contract import KeyPurpose, KeySpec
from lamassu.services.kms.ports import CryptoEngine, ListsKeys, NamesLeftovers
from lamassu.wiring.engines import open_engines

T = TypeVar("T")

# `key_ids` wants an instant; every key of a token was made before this one.
_ANY_TIME = datetime(9999, 12, 31, tzinfo=UTC)


class TokenKeys:
    """The ceremony's `RootKeys` over a crypto engine."""

    def __init__(self, engine: CryptoEngine) -> None:
        """Raises `RuleViolation` (`engine_not_listable`): without a list of its keys, a key that
        was made just before a crash could not be found again."""
        if not isinstance(engine, ListsKeys):
            raise RuleViolation(
                f"the engine {engine.facts().id} cannot list its keys; use a pkcs11 engine",
                code="engine_not_listable",
                field="crypto_engines",
            )
        self._engine = engine
        self._lists: ListsKeys = engine

    def facts(self) -> EngineFacts:
        facts = self._engine.facts()
        return EngineFacts(facts.id, facts.type, facts.provider, facts.name)

    async def check_can_make(self, spec: KeySpec) -> None:
        await asyncio.to_thread(self._engine.check)
        sizes = self._engine.facts().supported.get(spec.algorithm, ())
        if spec.size not in sizes:
            raise RuleViolation(
                f"the engine makes no {spec.algorithm.value} keys of {spec.size} bits; it makes"
                f" {', '.join(str(size) for size in sizes) or 'none'}",
                code="unsupported_key",
                field="root.key",
            )

    async def held(self) -> Sequence[str]:
        """Keys too whose making was cut off in the token itself: a ceremony has it to itself."""
        return await asyncio.to_thread(self._held)

    def _held(self) -> Sequence[str]:
        if isinstance(self._engine, NamesLeftovers):
            self._engine.name_leftovers(purpose=KeyPurpose.CA)
        return self._lists.key_ids(made_before=_ANY_TIME)

    async def make(self, spec: KeySpec) -> str:
        made = await asyncio.to_thread(lambda: self._engine.generate(spec, purpose=KeyPurpose.CA))
        return made.key_id

    async def public_key(self, key_id: str) -> bytes:
        return await self.use(
            key_id,
            lambda key: key.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            ),
        )

    async def use(self, key_id: str, build: Callable[[CertificateIssuerPrivateKeyTypes], T]) -> T:
        return await asyncio.to_thread(
            lambda: build(self._engine.private_key(key_id, purpose=KeyPurpose.CA))
        )


def read_transcript(state: Path) -> str:
    """The transcript of a ceremony; empty if there is none. Raises `Conflict` (`ceremony_busy`)."""
    if not state.is_dir():
        return ""
    ledger = DirectoryLedger(state)
    try:
        return ledger.read()
    finally:
        ledger.close()


@asynccontextmanager
async def opened_ceremony(
    state: Path, config: Path, engine_id: str | None, *, clock: Clock | None = None
) -> AsyncIterator[Ceremony]:
    """The ceremony of a state directory, with the engine of this id in a configuration (its
    default one if none is named).

    Raises `ConfigurationFaults`, `RuleViolation` (`unknown_engine`, `engine_not_for_cas`),
    `Conflict` (`ceremony_busy`).
    """
    forbid_core_dumps()
    clock = clock or SystemClock()
    settings = _settings(config)
    engines = await asyncio.to_thread(open_engines, Installation(config.parent), settings)
    try:
        keys = TokenKeys(_chosen(engines, settings, engine_id))
        ledger = DirectoryLedger(state)
        try:
            rehearsal = settings.mode == "development"
            yield Ceremony(ledger=ledger, keys=keys, clock=clock, rehearsal=rehearsal)
        finally:
            ledger.close()
    finally:
        for engine in engines:
            await asyncio.to_thread(engine.close)


def _settings(config: Path) -> Settings:
    if not config.is_file():
        raise RuleViolation(
            f"{config} is missing: write the token's engine into it, under crypto_engines as in a"
            " platform's config.yml, or name another file with --config",
            code="configuration_missing",
            field="config",
        )
    return load(config)


def _chosen(
    engines: Sequence[CryptoEngine], settings: Settings, engine_id: str | None
) -> CryptoEngine:
    wanted = engine_id or settings.crypto_engines.chosen_id
    engine = next((one for one in engines if one.facts().id == wanted), None)
    if engine is None:
        known = ", ".join(one.facts().id for one in engines)
        raise RuleViolation(
            f"there is no engine {wanted!r} in the configuration; it has {known or 'none'}",
            code="unknown_engine",
            field="engine",
        )
    if settings.mode == "production" and not engine.facts().for_ca_keys:
        raise RuleViolation(
            f"the engine {wanted} holds keys in software: a root belongs in a token. Use a"
            " pkcs11 engine; for a rehearsal say mode: development",
            code="engine_not_for_cas",
            field="crypto_engines",
        )
    return engine
