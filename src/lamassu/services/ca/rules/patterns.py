"""Regular expressions of profiles, which an admin writes and strangers' names meet.

RE2 matches in time linear in the text, whatever the expression: nothing in it backtracks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import re2

from lamassu.kernel.errors import RuleViolation

LONGEST_PATTERN = 512
_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.max_mem = 1 << 20  # octets, for the program and what it remembers while it matches


class Pattern(Protocol):
    """A compiled expression."""

    def fullmatch(self, text: str) -> object: ...


@lru_cache(maxsize=1024)
def compiled(expression: str) -> Pattern:
    """Raises `ValueError`, its text for people."""
    if not expression or len(expression) > LONGEST_PATTERN:
        raise ValueError(f"a pattern has 1 to {LONGEST_PATTERN} characters")
    try:
        pattern: Pattern = re2.compile(expression, _OPTIONS)
    except re2.error as fault:
        reason = fault.args[0] if fault.args else b""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(
            f"the pattern {expression[:60]!r} cannot be used: {text[:100]} (the syntax is RE2's: "
            "no backreferences, no lookaround)"
        ) from None
    return pattern


def pattern_of(expression: str, *, field: str) -> Pattern:
    """The same for a field of a profile. Raises `RuleViolation` (`pattern_malformed`)."""
    try:
        return compiled(expression)
    except ValueError as fault:
        raise RuleViolation(str(fault), code="pattern_malformed", field=field) from None
