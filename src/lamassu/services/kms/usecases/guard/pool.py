"""Threads for an engine's blocking work: few, its own, with a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from lamassu.kernel.errors import Unavailable

T = TypeVar("T")

WAITING_LIMIT = 1024
REPLACEMENTS = 4  # threads started in place of stuck ones, for each worker


class WorkerPool:
    """Runs blocking calls off the event loop.

    An engine that hangs fills only its own pool; a caller who finds the queue full is told to
    come back (`Unavailable`, `engine_busy`) instead of waiting without end. The threads are
    daemons: a call that never returns does not keep the process from ending, and
    `replace_stuck` gives its place to a fresh thread. The library's executor can do neither, and
    wakes the event loop for every result; here one wake-up brings all that are ready. For one
    event loop at a time.
    """

    def __init__(self, name: str, *, workers: int, waiting: int = WAITING_LIMIT) -> None:
        self._name = name
        self._workers = workers
        self._limit = workers + waiting
        self._condition = threading.Condition()
        self._queue: deque[_Call[object]] = deque()
        self._ready: deque[_Call[object]] = deque()
        self._waking = False
        self._taken = 0
        self._waiting = 0
        self._threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._stuck: set[threading.Thread] = set()
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. A cancelled caller leaves running work to finish alone;
        work that has not begun is dropped."""
        return await self.submit(work)

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Queue the work. Raises `Unavailable`: `engine_busy`, `engine_closed`."""
        call = _Call(work, asyncio.get_running_loop())
        with self._condition:
            if self._closed:
                raise _closing()
            if self._taken >= self._limit:
                raise Unavailable(
                    "the crypto engine has more work than it can queue; try again shortly",
                    code="engine_busy",
                    retry_after=1,
                )
            self._taken += 1
            self._queue.append(call)  # type: ignore[arg-type]
            self._condition.notify()
            if len(self._queue) > self._waiting and len(self._threads) < self._workers:
                self._start_thread()
        return call.future

    def replace_stuck(self) -> None:
        """Count every thread that works now as lost, and make room for others.

        For who knows that none of them has answered in time. Bounded: an engine that hangs for
        days costs `REPLACEMENTS` threads a worker.
        """
        with self._condition:
            self._stuck = {thread for thread in self._stuck if thread.is_alive()}
            room = self._workers * REPLACEMENTS - len(self._stuck)
            lost = set(list(self._busy)[: max(0, room)])
            self._threads -= lost
            self._busy -= lost
            self._stuck |= lost
            for _ in range(min(len(self._queue), self._workers - len(self._threads))):
                self._start_thread()

    def close(self, patience: float = 5.0) -> None:
        """Refuse more, drop what waits, and give running work `patience` seconds to finish."""
        with self._condition:
            self._closed = True
            dropped, threads = list(self._queue), list(self._threads)
            self._queue.clear()
            self._taken -= len(dropped)
            self._condition.notify_all()
        for call in dropped:
            call.fail(_closing())
            self._hand_over(call)
        for thread in threads:
            thread.join(patience)

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"engine-{self._name}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _serve(self) -> None:
        me = threading.current_thread()
        while (call := self._next(me)) is not None:
            call.run()
            with self._condition:
                self._taken -= 1
                self._busy.discard(me)
            self._hand_over(call)

    def _hand_over(self, call: _Call[object]) -> None:
        """Have the event loop take what was done; whoever finds it woken already says nothing."""
        self._ready.append(call)
        if not self._waking:
            self._waking = True
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                call.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False  # first: what comes from now on wakes again
        while self._ready:
            self._ready.popleft().deliver()

    def _next(self, me: threading.Thread) -> _Call[object] | None:
        """The work that waits longest; `None` when there will be none for this thread."""
        with self._condition:
            while me in self._threads and not self._queue and not self._closed:
                self._waiting += 1
                self._condition.wait()
                self._waiting -= 1
            if me not in self._threads or not self._queue:
                return None
            self._busy.add(me)
            return self._queue.popleft()


def _closing() -> Unavailable:
    return Unavailable("the crypto engine is closing", code="engine_closed")


class _Call(Generic[T]):
    """A piece of work, and the future by which its caller waits on the event loop."""

    __slots__ = ("_error", "_result", "_work", "future", "loop")

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()

    def run(self) -> None:
        """Do it, unless its caller is gone."""
        if self.future.cancelled():
            return
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - the caller's to judge
            self._error = error

    def fail(self, error: Exception) -> None:
        """End it without doing it."""
        self._error = error

    def deliver(self) -> None:
        """On the event loop: tell the caller, if there still is one."""
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)  # type: ignore[arg-type]
