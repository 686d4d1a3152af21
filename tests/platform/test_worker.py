"""Work in a process beside the server."""

from __future__ import annotations

import asyncio
import os

import pytest

from lamassu.kernel.errors import Unavailable
from lamassu.platform.worker import WorkerProcess, run_apart


def process_of(_: int) -> int:
    return os.getpid()


def double(number: int) -> int:
    return 2 * number


def die(_: int) -> int:
    os._exit(3)


def refuse(number: int) -> int:
    raise ValueError(number)


async def test_functions_run_in_one_other_process() -> None:
    worker = WorkerProcess()
    try:
        assert await asyncio.gather(*(worker.run(double, n) for n in range(5))) == [0, 2, 4, 6, 8]
        processes = {await worker.run(process_of, 0), await worker.run(process_of, 0)}
        assert len(processes) == 1
        assert os.getpid() not in processes
        with pytest.raises(ValueError, match="7"):
            await worker.run(refuse, 7)
    finally:
        worker.close()


async def test_a_process_that_died_is_told_of_and_followed_by_another() -> None:
    worker = WorkerProcess()
    try:
        with pytest.raises(Unavailable) as caught:
            await worker.run(die, 0)
        assert (caught.value.code, caught.value.retry_after) == ("worker_died", 5)
        assert await worker.run(double, 4) == 8
    finally:
        worker.close()


def spin(_: int) -> int:
    while True:
        pass


async def test_what_takes_too_long_ends_and_holds_up_nobody() -> None:
    loop = asyncio.get_running_loop()
    spinning = asyncio.ensure_future(run_apart(spin, 0, seconds=1))
    longest, before = 0.0, loop.time()
    async with asyncio.timeout(60):
        while not spinning.done():
            await asyncio.sleep(0.01)
            longest, before = max(longest, loop.time() - before), loop.time()
        with pytest.raises(TimeoutError):
            await spinning
    assert longest < 1
    assert await run_apart(double, 4, seconds=1) == 8
    with pytest.raises(ValueError, match="7"):
        await run_apart(refuse, 7, seconds=1)
