"""A circuit breaker: an engine that keeps failing is not asked for a while."""

from __future__ import annotations

from collections.abc import Callable

from lamassu.services.kms.ports import EngineDown

FAILURES_TO_OPEN = 5
FIRST_PAUSE = 2.0  # seconds; doubled with every probe that fails
LONGEST_PAUSE = 60.0


class Breaker:
    """Closed it lets every call pass. After `FAILURES_TO_OPEN` failures in a row it opens: calls
    are refused at once with the last reason. When the pause is over one caller is let through
    to try; its success closes the breaker, its failure lengthens the pause.

    Not for threads: the event loop alone uses it.
    """

    def __init__(self, engine_id: str, now: Callable[[], float]) -> None:
        """`now` is a clock in seconds that never goes back."""
        self._engine_id = engine_id
        self._now = now
        self._failures = 0
        self._pause = FIRST_PAUSE
        self._until: float | None = None
        self._reason: EngineDown | None = None

    @property
    def open(self) -> bool:
        """Whether calls are refused, or only one may try."""
        return self._until is not None

    def check(self) -> None:
        """Let a call pass, or raise the `EngineDown` that says why not and when to come back."""
        if self._until is None:
            return
        wait = self._until - self._now()
        if wait <= 0:
            self._until = self._now() + self._pause  # the next one waits for what this one finds
            return
        raise self.refusal(wait)

    def refusal(self, wait: float) -> EngineDown:
        """What a caller is told while the breaker is open; `wait` in seconds."""
        reason = self._reason
        kind = type(reason) if reason is not None else EngineDown
        text = reason.text if reason is not None else "it failed several times in a row"
        return kind(
            f"crypto engine {self._engine_id} is not asked for now: {text}",
            code=reason.code if reason is not None else "engine_unreachable",
            retry_after=max(1, round(wait)),
        )

    def succeeded(self) -> None:
        """The engine answered, if only to say no to one key."""
        self._failures = 0
        if self._until is not None:
            self._until, self._reason, self._pause = None, None, FIRST_PAUSE

    def failed(self, reason: EngineDown) -> None:
        """The engine as a whole could not be used."""
        self._failures += 1
        self._reason = reason
        if self._until is not None:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._until = self._now() + self._pause
        elif self._failures >= FAILURES_TO_OPEN:
            self._until = self._now() + self._pause
