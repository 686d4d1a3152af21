"""The heartbeat of a background task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import structlog

from lamassu.kernel.errors import LamassuError

log = structlog.get_logger(__name__)

AFTER_TROUBLE = 1.0  # seconds until the work is tried again


class Pulse:
    """Lets a loop sleep until it is woken, a time has passed, or it is to stop."""

    def __init__(self, interval: float) -> None:
        """`interval` in seconds: how long work of other processes may go unseen."""
        self._interval = interval
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        self._woken.set()

    def stop(self) -> None:
        self._stopping.set()
        self._woken.set()

    async def beat(self) -> None:
        """Sleep until there may be work."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._woken.wait()
        self._woken.clear()

    async def repeat(
        self,
        work: Callable[[], Awaitable[int | None]],
        *,
        task: str,
        gather: Callable[[int], float] | None = None,
        **names: str,
    ) -> None:
        """Do the work at each beat until told to stop; what is out of reach is waited for.

        After a beat it waits `gather(done)` seconds for more to do, `done` being what the work
        returned, 0 if it failed. `task` and `names` say in the
        log whose work fails.
        """
        while not self.stopping:
            done = 0
            try:
                done = await work() or 0
            except LamassuError as error:
                log.warning(f"{task}_waits", **names, error=error.text)
                await self.pause(AFTER_TROUBLE)
            except Exception:  # the edge of a task that must not end
                log.exception(f"{task}_failed", **names)
                await self.pause(AFTER_TROUBLE)
            await self.beat()
            if gather is not None:
                await self.pause(gather(done))

    async def pause(self, seconds: float) -> None:
        """Sleep whatever comes, except the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


async def finish(tasks: Sequence[asyncio.Task[None]], *, grace: float) -> None:
    """Wait `grace` seconds for tasks that were told to stop, then cancel them."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=grace)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
