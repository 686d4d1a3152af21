"""The heartbeat of a background task."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress


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
