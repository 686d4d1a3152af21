"""The configured engines, and which of them is the default."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.services.kms.contract import Engine, EngineHealth
from lamassu.services.kms.ports import CryptoEngine, EngineRefused
from lamassu.services.kms.usecases.guard import EngineMeter, GuardedEngine


class EngineDirectory:
    """Engines by id, in configured order."""

    def __init__(
        self,
        engines: Sequence[CryptoEngine],
        *,
        default_id: str,
        meter: EngineMeter | None = None,
    ) -> None:
        """Raises `RuleViolation` when the default engine is not among the engines."""
        guarded = [GuardedEngine(engine, meter) for engine in engines]
        self._engines: Mapping[str, GuardedEngine] = {engine.id: engine for engine in guarded}
        self._default_id = default_id
        self.choose(default_id)

    def __iter__(self) -> Iterator[GuardedEngine]:
        return iter(self._engines.values())

    def facts(self) -> Sequence[Engine]:
        """What each engine is, the default one marked."""
        return [self.facts_of(engine_id) for engine_id in self._engines]

    def facts_of(self, engine_id: str) -> Engine:
        """What one engine is."""
        facts = self._engines[engine_id].facts()
        return dataclasses.replace(facts, default=engine_id == self._default_id)

    def choose(self, engine_id: str | None) -> tuple[str, GuardedEngine]:
        """The engine that a caller names, or the default one. Raises `RuleViolation`."""
        chosen = engine_id or self._default_id
        if chosen not in self._engines:
            raise RuleViolation(
                f"unknown engine {chosen}; configured: {', '.join(self._engines)}",
                code="unknown_engine",
                field="engine_id",
            )
        return chosen, self._engines[chosen]

    def holding(self, engine_id: str) -> GuardedEngine:
        """The engine in which a stored key lives. Raises `Unavailable` if it is gone."""
        if engine_id not in self._engines:
            raise Unavailable(
                f"engine {engine_id}, which holds the key, is not configured: give it back to "
                f"crypto_engines under this id, or restore the key into one of these: "
                f"{', '.join(self._engines)}",
                code="engine_missing",
            )
        return self._engines[engine_id]

    def default(self) -> GuardedEngine:
        """The default engine."""
        return self._engines[self._default_id]

    async def health(self) -> Sequence[EngineHealth]:
        """How each engine is, all asked at once."""
        return await asyncio.gather(*(self._health_of(engine) for engine in self))

    async def _health_of(self, engine: GuardedEngine) -> EngineHealth:
        default = engine.id == self._default_id
        try:
            await engine.check()
        except LamassuError as error:
            refused = isinstance(error, EngineRefused)
            return EngineHealth(engine.id, default, error.text, error.code, refused)
        return EngineHealth(engine.id, default)
