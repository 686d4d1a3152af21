"""A writing process is killed again and again: what it acknowledged is there, in order, sealed."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from sqlalchemy import select

from lamassu.kernel.records import StoredEvent
from lamassu.platform.database import DatabaseSettings, Dialect
from lamassu.platform.messaging import EventBus, verify_journal
from tests.support.databases import RECORD_KEY, DatabaseFactory
from tests.support.sample.tables import items

ROOT = Path(__file__).resolve().parents[2]


def url_of(settings: DatabaseSettings) -> str:
    if settings.dialect is Dialect.SQLITE:
        return f"sqlite:///{settings.path}"
    return (
        f"postgresql://{settings.username}@{settings.host}:{settings.port}/{settings.database}"
        "?sslmode=disable"
    )


async def acknowledged_until_killed(url: str, moment: float) -> set[str]:
    """Start the writer, kill it `moment` seconds after its first acknowledgement."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.database_writer", url,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    first = await process.stdout.readline()
    assert first, "the writer did not start"
    asyncio.get_running_loop().call_later(moment, process.kill)
    rest = await process.stdout.read()
    await process.wait()
    complete = (first + rest).decode().splitlines(keepends=True)
    return {line.strip() for line in complete if line.endswith("\n")}


async def test_what_was_acknowledged_survives_a_kill(database_factory: DatabaseFactory) -> None:
    settings = await database_factory.settings(["sample"])
    chosen = random.Random(1)
    acknowledged: set[str] = set()
    for _ in range(5):
        acknowledged |= await acknowledged_until_killed(url_of(settings), chosen.uniform(0.01, 0.4))
    told: list[str] = []

    async def listen(event: StoredEvent) -> None:
        told.append(event.subject.removeprefix("item/"))

    database = await database_factory.open(settings, services=["sample"])
    bus = EventBus(database)
    bus.subscribe(
        consumer="counter", service="sample", sources=["sample"], types=None, handler=listen
    )
    await bus.drained()
    async with database.reading("sample") as connection:
        stored = set((await connection.execute(select(items.c.id))).scalars())
    assert len(acknowledged) > 20
    assert acknowledged <= stored
    assert sorted(told) == sorted(stored)
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert report.intact, report.faults
