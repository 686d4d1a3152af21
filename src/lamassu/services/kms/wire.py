"""The wire's forms of what the contract speaks of, for every slice that has routes of keys.

Like the contract it is open to others; it knows nothing of this slice but the contract.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, JsonValue, RootModel

from lamassu.platform.http.wire import WireModel
from lamassu.services.kms.contract import Engine, KeyMove

MISSING = "struct validation error"


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SupportedKeys(_Answer):
    """An algorithm and its sizes in bits."""

    type: str
    sizes: list[int]


class EngineAnswer(_Answer):
    """A crypto engine."""

    type: str
    security_level: int
    provider: str
    name: str
    metadata: dict[str, JsonValue]
    supported_key_types: list[SupportedKeys]
    id: str
    default: bool

    @classmethod
    def of(cls, engine: Engine) -> EngineAnswer:
        """An engine, as the KMS and the CA show it (decision 12)."""
        return cls.model_validate(
            {
                "type": engine.type,
                "security_level": engine.security_level,
                "provider": engine.provider,
                "name": engine.name,
                "metadata": dict(engine.metadata),
                "supported_key_types": [
                    {"type": algorithm.value, "sizes": list(sizes)}
                    for algorithm, sizes in engine.supported.items()
                ],
                "id": engine.id,
                "default": engine.default,
            }
        )


class EnginesAnswer(RootModel[list[EngineAnswer]]):
    """All of them."""


class MoveKey(WireModel):
    """The engine that a key moves to; with `dry_run` it is only said what would be done."""

    missing_text = MISSING

    engine_id: str
    dry_run: bool = False


class KeyMoveAnswer(_Answer):
    """A move of a key from one engine to another; `step` is PLANNED, COPYING or SWITCHED for one
    that has not ended, and DONE."""

    key_id: str
    source: str
    target: str
    step: str

    @classmethod
    def planned(cls, move: KeyMove) -> KeyMoveAnswer:
        """What would be done, or goes on."""
        return cls(key_id=move.key_id, source=move.source, target=move.target, step=move.step.value)

    @classmethod
    def done(cls, key_id: str, *, source: str, target: str) -> KeyMoveAnswer:
        """A move that has ended."""
        return cls(key_id=key_id, source=source, target=target, step="DONE")
