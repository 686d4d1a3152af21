"""One CRL at a time per CA: at most one being made and one waiting, whoever asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lamassu.kernel.errors import LamassuError, NotFound
from lamassu.services.va.contract import Crl
from lamassu.services.va.ports import Pause

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class CrlQueue:
    """Runs `make(ca_ski)` until it succeeds, many askers sharing one run.

    What `ask` returns began after it was asked for. It ends with the CRL, or with `NotFound`
    when there is nothing left to make one for; anything else is tried again, after pauses
    that grow to a minute.
    """

    def __init__(self, make: Callable[[str], Awaitable[Crl]], *, pause: Pause) -> None:
        self._make = make
        self._pause = pause
        self._running: dict[str, asyncio.Task[Crl]] = {}
        self._waiting: dict[str, asyncio.Task[Crl]] = {}

    def ask(self, ca_ski: str) -> asyncio.Task[Crl]:
        """A run that begins after this call. Not to be cancelled: others may share it."""
        waiting = self._waiting.get(ca_ski)
        if waiting is not None:
            return waiting
        running = self._running.get(ca_ski)
        task = asyncio.create_task(self._run(ca_ski, after=running), name=f"crl {ca_ski}")
        task.add_done_callback(_log_fault)
        (self._running if running is None else self._waiting)[ca_ski] = task
        return task

    async def close(self) -> None:
        """Stop what runs and what waits."""
        tasks = [*self._waiting.values(), *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._running.clear()
        self._waiting.clear()

    async def _run(self, ca_ski: str, *, after: asyncio.Task[Crl] | None) -> Crl:
        if after is not None:
            await asyncio.wait([after])
            self._running[ca_ski] = self._waiting.pop(ca_ski)
        try:
            return await self._until_made(ca_ski)
        finally:
            del self._running[ca_ski]

    async def _until_made(self, ca_ski: str) -> Crl:
        seconds = _FIRST_PAUSE
        while True:
            try:
                return await self._make(ca_ski)
            except NotFound:
                raise
            except LamassuError as error:
                _log.warning("CRL of %s could not be made, trying again: %s", ca_ski, error.text)
            await self._pause(seconds)
            seconds = min(seconds * 2, _LONGEST_PAUSE)


def _log_fault(task: asyncio.Task[Crl]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, LamassuError):
        _log.warning("%s: given up: %s", task.get_name(), error.text)
    elif error is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def made_within(task: asyncio.Task[Crl], seconds: float) -> Crl | None:
    """The CRL if it is there in time; `None` if not, or if there will be none.

    Leaves the task running.
    """
    done, _ = await asyncio.wait([task], timeout=max(seconds, 0))
    if not done or task.cancelled() or task.exception() is not None:
        return None
    return task.result()
