"""What enrolment remembers, and for how long."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from lamassu.services.dms.usecases.dms_catalog import Memory
from tests.services.devices.world import MovedClock


class Shelf:
    """A slow store of one value."""

    def __init__(self) -> None:
        self.value: str | None = "first"
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, key: str) -> str | None:
        self.reads += 1
        value = self.value
        await self.gate.wait()
        return value


async def test_a_value_is_read_once_within_its_lifetime() -> None:
    shelf, clock = Shelf(), MovedClock()
    memory = Memory(shelf.read, lifetime=timedelta(seconds=1), clock=clock)

    assert await asyncio.gather(*(memory.find("a") for _ in range(9))) == ["first"] * 9
    assert shelf.reads == 1
    clock.advance(timedelta(seconds=1))
    shelf.value = "second"
    assert await memory.find("a") == "second"
    clock.advance(timedelta(seconds=-9))  # a clock set back makes nothing live longer
    shelf.value = "third"
    assert await memory.find("a") == "third"


async def test_a_change_shows_at_once_even_to_a_reader_under_way() -> None:
    shelf, clock = Shelf(), MovedClock()
    memory = Memory(shelf.read, lifetime=timedelta(seconds=1), clock=clock)
    shelf.gate.clear()
    reading = asyncio.create_task(memory.find("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    shelf.value = "changed"
    memory.forget("a")
    shelf.gate.set()
    await reading

    assert await memory.find("a") == "changed"


async def test_what_is_not_there_is_not_remembered() -> None:
    shelf, clock = Shelf(), MovedClock()
    memory = Memory(shelf.read, lifetime=timedelta(seconds=1), clock=clock)
    shelf.value = None
    assert await memory.find("a") is None

    shelf.value = "made"

    assert await memory.find("a") == "made"
