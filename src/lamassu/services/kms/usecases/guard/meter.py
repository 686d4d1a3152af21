"""What is measured of an engine: how long each operation took, and whether it may be asked."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Operation(StrEnum):
    """What an engine was asked."""

    GENERATE = "generate"
    SIGN = "sign"
    PUBLIC_KEY = "public_key"
    IMPORT = "import"
    EXPORT = "export"
    DELETE = "delete"
    LIST = "list"
    CHECK = "check"


class Outcome(StrEnum):
    """How it ended: `refused` is our own doing, without the engine being asked."""

    DONE = "done"
    FAILED = "failed"
    TIMEOUT = "timeout"
    REFUSED = "refused"


class EngineMeter(Protocol):
    """Where figures go."""

    def observe(
        self, engine_id: str, operation: Operation, outcome: Outcome, seconds: float
    ) -> None:
        """An operation ended."""
        ...

    def usable(self, engine_id: str, usable: bool) -> None:
        """Whether the engine is asked at all now."""
        ...


class Unmetered:
    """For who measures nothing."""

    def observe(
        self, engine_id: str, operation: Operation, outcome: Outcome, seconds: float
    ) -> None:
        """Forget it."""

    def usable(self, engine_id: str, usable: bool) -> None:
        """Forget it."""
