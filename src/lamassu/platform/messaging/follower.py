"""Work that goes along with a journal at its own pace, and keeps its place by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lamassu.platform.messaging.pulse import Pulse

Step = Callable[[], Awaitable[int]]
"""Does some of what there is to do, and says how much; 0 when nothing is left."""

GATHER = 0.3
"""Seconds. A step costs a few transactions, many or few as the records are."""


class Follower:
    """Calls `step` when the journal of `source` grew, and each `interval` seconds anyway."""

    def __init__(self, name: str, source: str, step: Step, *, interval: float = 1.0) -> None:
        self.name = name
        self.source = source
        self.handled = 0
        self._step = step
        self._pulse = Pulse(interval)
        self._turn = asyncio.Lock()

    def wake(self) -> None:
        """The journal grew."""
        self._pulse.wake()

    def stop(self) -> None:
        """`run` ends after the step that it is in."""
        self._pulse.stop()

    async def run(self) -> None:
        """Follow until told to stop; what is out of reach is waited for."""
        await self._pulse.repeat(
            self.drain, task="follower", gather=lambda _: GATHER, follower=self.name
        )

    async def drain(self) -> None:
        """Do all that there is to do."""
        async with self._turn:
            while done := await self._step():
                self.handled += done
                if self._pulse.stopping:
                    break
