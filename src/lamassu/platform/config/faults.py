"""What is wrong with a configuration: all of it at once, each fault by its field's path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamassu.kernel.errors import RuleViolation


@dataclass(frozen=True, slots=True)
class Fault:
    """A field (`http.tls.min_version`), what was found there, and what is allowed.

    `found` never holds a secret: a value that came from a variable or file is not repeated.
    """

    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; allowed: {self.allowed}"


class ConfigurationFaults(RuleViolation):
    """A configuration with which nothing starts."""

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        lines = "\n".join(f"  {fault}" for fault in faults)
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"{source} has {count}:\n{lines}", code="configuration_faults")
        self.faults = tuple(faults)
