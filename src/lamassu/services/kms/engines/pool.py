"""Threads for an engine's blocking work: few, its own, with a bounded queue."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lamassu.kernel.errors import Unavailable

T = TypeVar("T")

WAITING_LIMIT = 1024


class WorkerPool:
    """Runs blocking calls off the event loop.

    An engine that hangs fills only its own pool; a caller who finds the queue full is told to
    come back (`Unavailable`, `engine_busy`) instead of waiting without end.
    """

    def __init__(
        self, name: str, *, workers: int | None = None, waiting: int = WAITING_LIMIT
    ) -> None:
        """`workers` defaults to the processors: OpenSSL frees the GIL while it signs."""
        count = workers or os.cpu_count() or 1
        self._limit = count + waiting
        self._taken = 0
        self._lock = threading.Lock()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"engine-{name}")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. A cancelled caller leaves the work to finish alone."""
        with self._lock:
            if self._taken >= self._limit:
                raise Unavailable(
                    "the crypto engine has more work than it can queue; try again shortly",
                    code="engine_busy",
                    retry_after=1,
                )
            self._taken += 1
        try:
            future = self._executor.submit(work)
        except RuntimeError as error:
            self._leave(None)
            raise Unavailable("the crypto engine is closing", code="engine_closed") from error
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _: Future[T] | None) -> None:
        with self._lock:
            self._taken -= 1

    def close(self) -> None:
        """Let running work finish and refuse more."""
        self._executor.shutdown(wait=True, cancel_futures=True)
