"""A process beside the server, for work that would hold up the event loop's own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from lamassu.kernel.errors import Unavailable

A = TypeVar("A")
R = TypeVar("R")

_IDLE = 30.0  # seconds after which it ends


class WorkerProcess:
    """Runs functions one after another in a process that starts with the first of them.

    It is spawned, so that it inherits neither memory nor sockets; functions, arguments and
    results are pickled.
    """

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0
        self._retirement: asyncio.TimerHandle | None = None

    async def run(self, function: Callable[[A], R], argument: A) -> R:
        """Raises what the function raises, `Unavailable` if the process died."""
        loop = asyncio.get_running_loop()
        if self._retirement is not None:
            self._retirement.cancel()
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=_follow_the_parent
            )
        self._waiting += 1
        try:
            return await loop.run_in_executor(self._pool, function, argument)
        except BrokenProcessPool:
            self.close()
            raise Unavailable(
                "the process for this work died; try again", code="worker_died", retry_after=5
            ) from None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._retirement = loop.call_later(_IDLE, self.close)

    def close(self) -> None:
        """End the process; a next `run` starts another."""
        if self._retirement is not None:
            self._retirement.cancel()
            self._retirement = None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


async def run_apart(function: Callable[[A], R], argument: A, *, seconds: int) -> R:
    """Run one function in a process of its own, which ends once it took so many seconds of a
    processor: for what reads input of which nobody can tell how much work it makes.

    Raises what the function raises, `TimeoutError` if the process ended without an answer.
    """
    pool = ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_bounded,
        initargs=(seconds,),
    )
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, function, argument)
    except BrokenProcessPool:
        raise TimeoutError from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _bounded(seconds: int) -> None:
    """Have the kernel end this process, without a core file, when it used so much time."""
    _follow_the_parent()
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + 1 + seconds
    if most not in (resource.RLIM_INFINITY, -1):
        limit = min(limit, most)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _follow_the_parent() -> None:
    """Leave the terminal's interrupts to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
