"""One CRL at a time per CA: at most one being made and one waiting, whoever asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lamassu.kernel.errors import LamassuError, NotFound
from lamassu.services.va.contract import Crl
from lamassu.services.va.ports import Pause

T = TypeVar("T")

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
        task.add_done_callback(log_fault)
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
            return await retried(
                lambda: self._make(ca_ski), what=f"CRL of {ca_ski}", pause=self._pause
            )
        finally:
            del self._running[ca_ski]


async def retried(attempt: Callable[[], Awaitable[T]], *, what: str, pause: Pause) -> T:
    """What `attempt` gives when it succeeds at last. `NotFound` passes: there is no use then."""
    seconds = _FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except NotFound:
            raise
        except LamassuError as error:
            _log.warning("%s: trying again: %s", what, error.text)
        await pause(seconds)
        seconds = min(seconds * 2, _LONGEST_PAUSE)


def log_fault(task: asyncio.Task[T]) -> None:
    """For tasks that nobody may be waiting for when they fail."""
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, LamassuError):
        _log.warning("%s: given up: %s", task.get_name(), error.text)
    elif error is not None:
        _log.error("%s failed", task.get_name(), exc_info=error)


async def ended_well(task: asyncio.Task[T], seconds: float | None) -> T | None:
    """What the task gave, if it did in time (`None`: however long it takes).

    `None` when it did not, or failed. Leaves the task running.
    """
    done, _ = await asyncio.wait([task], timeout=seconds)
    if not done or task.cancelled() or task.exception() is not None:
        return None
    return task.result()
