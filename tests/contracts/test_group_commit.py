"""SQLite's one writer: units share a COMMIT, and nobody is told of success before it."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Unavailable
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord
from lamassu.platform.database import (
    Database,
    DatabaseSettings,
    Dialect,
    RecordWriter,
    migrate,
)
from lamassu.platform.database.sqlite import SqliteStore
from lamassu.platform.messaging import verify_journal
from tests.support.databases import RECORD_KEY
from tests.support.sample.tables import items

CALLER = system_caller("test")


class Tap:
    """Listens to transaction control, and makes a statement of it fail on demand."""

    def __init__(self, database: Database) -> None:
        store = database._store
        assert isinstance(store, SqliteStore)
        self.writer = store._group_commit.connection
        self.seen: list[str] = []
        self.failing: str | None = None
        self._command = self.writer.command
        self.writer.command = self._tapped  # type: ignore[method-assign]

    async def _tapped(self, statement: str) -> None:
        import sqlite3

        self.seen.append(statement)
        if statement == self.failing:
            raise sqlite3.OperationalError("disk I/O error")
        await self._command(statement)


@pytest.fixture
async def settings(tmp_path: Path) -> DatabaseSettings:
    return DatabaseSettings(Dialect.SQLITE, path=tmp_path / "group.db", durable=False)


@pytest.fixture
async def database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    database = await Database.open(
        settings, services=["sample"], writer=RecordWriter(RECORD_KEY), clock=SystemClock()
    )
    yield database
    await database.close()


@pytest.fixture
def tap(database: Database) -> Tap:
    return Tap(database)


async def put(database: Database, name: str, error: Exception | None = None) -> None:
    async with database.unit("sample") as unit:
        await unit.connection.execute(insert(items), {"id": name})
        unit.audit(AuditRecord("item.create", f"item/{name}", CALLER))
        if error:
            raise error


async def ids(database: Database) -> list[str]:
    async with database.reading("sample") as connection:
        return list((await connection.execute(select(items.c.id).order_by(items.c.id))).scalars())


async def intact(database: Database) -> bool:
    return (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_units_that_wait_share_one_commit(database: Database, tap: Tap) -> None:
    await asyncio.gather(*(put(database, f"{n:02}") for n in range(10)))
    assert len(await ids(database)) == 10
    assert tap.seen.count("COMMIT") == 1
    assert tap.seen.count("SAVEPOINT unit") == 9


async def test_a_group_is_bounded(database: Database, tap: Tap) -> None:
    await asyncio.gather(*(put(database, f"{n:03}") for n in range(130)))
    assert len(await ids(database)) == 130
    assert tap.seen.count("COMMIT") == 3


async def test_a_unit_that_fails_takes_only_itself_back(database: Database, tap: Tap) -> None:
    errors = [LookupError() if n in (0, 3, 9) else None for n in range(10)]
    results = await asyncio.gather(
        *(put(database, str(n), error) for n, error in enumerate(errors)), return_exceptions=True
    )
    assert [type(r) for r in results] == [type(e) for e in errors]
    assert await ids(database) == ["1", "2", "4", "5", "6", "7", "8"]
    assert await intact(database)


async def test_nobody_is_told_of_success_when_the_commit_fails(
    database: Database, tap: Tap
) -> None:
    tap.failing = "COMMIT"
    results = await asyncio.gather(
        *(put(database, str(n)) for n in range(5)), return_exceptions=True
    )
    assert [type(r) for r in results] == [Unavailable] * 5
    assert await ids(database) == []
    tap.failing = None
    await put(database, "later")
    assert await ids(database) == ["later"]
    assert await intact(database)


async def test_a_broken_group_fails_as_a_whole(database: Database, tap: Tap) -> None:
    """SQLite takes a whole transaction back by itself when the disk is full."""

    async def breaks() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "breaks"})
            await tap.writer.trip(lambda: tap.writer.raw.execute("ROLLBACK"))

    results = await asyncio.gather(
        put(database, "0"), breaks(), put(database, "2"), return_exceptions=True
    )
    assert [type(r) for r in results] == [Unavailable, Unavailable, type(None)]
    assert await ids(database) == ["2"]
    assert await intact(database)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "SAVEPOINT unit", "RELEASE unit"])
async def test_failing_transaction_control_leaves_the_writer_usable(
    database: Database, tap: Tap, statement: str
) -> None:
    tap.failing = statement
    results = await asyncio.gather(
        *(put(database, str(n)) for n in range(4)), return_exceptions=True
    )
    assert Unavailable in [type(r) for r in results]
    stored = [str(n) for n, result in enumerate(results) if result is None]
    assert await ids(database) == stored
    tap.failing = None
    await put(database, "later")
    assert await ids(database) == [*stored, "later"]


async def test_a_cancelled_unit_leaves_nothing_and_hurts_nobody(
    database: Database, tap: Tap
) -> None:
    """Cancelled at every step that a unit can be at."""
    for steps in range(40):
        others = [asyncio.create_task(put(database, f"{steps:02}-{n}")) for n in (0, 2)]
        victim = asyncio.create_task(put(database, f"{steps:02}-1"))
        for _ in range(steps):
            await asyncio.sleep(0)
        victim.cancel()
        results = await asyncio.gather(others[0], victim, others[1], return_exceptions=True)
        assert (results[0], results[2]) == (None, None)
        stored = [name for name in await ids(database) if name.startswith(f"{steps:02}")]
        assert {f"{steps:02}-0", f"{steps:02}-2"} <= set(stored)
        if results[1] is None:
            assert f"{steps:02}-1" in stored
    assert not tap.writer.cancelled
    assert not tap.writer.in_transaction
    assert await intact(database)


async def test_a_cancellation_inside_a_statement_rolls_the_unit_back(database: Database) -> None:
    begun = asyncio.Event()

    async def slow() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "slow"})
            begun.set()
            await unit.connection.execute(
                text(
                    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 300000)"
                    " SELECT max(x) FROM c"
                )
            )

    task = asyncio.create_task(slow())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await put(database, "next")
    assert await ids(database) == ["next"]


async def test_a_deadline_applies_to_a_unit(database: Database) -> None:
    async def late() -> None:
        async with asyncio.timeout(0.3):
            async with database.unit("sample") as unit:
                await unit.connection.execute(insert(items), {"id": "late"})
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await late()
    assert await ids(database) == []


LONG = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < {rows})"
ENDLESS = LONG.format(rows=10**9)  # minutes


@pytest.mark.parametrize(
    "statement",
    [f"{ENDLESS} SELECT max(x) FROM c", f"INSERT INTO sample_items (id) {ENDLESS} SELECT x FROM c"],
    ids=["reading", "writing"],
)
async def test_a_deadline_cuts_a_statement_short(database: Database, statement: str) -> None:
    async def late() -> None:
        async with asyncio.timeout(0.2):
            async with database.unit("sample") as unit:
                await unit.connection.execute(insert(items), {"id": "late"})
                await unit.connection.execute(text(statement))

    began = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await late()

    assert asyncio.get_running_loop().time() - began < 5
    await put(database, "next")
    assert await ids(database) == ["next"]
    assert await intact(database)


@pytest.mark.parametrize("kind", ["reading", "writing"])
async def test_a_statement_cut_short_takes_nobody_else_along(
    database: Database, tap: Tap, kind: str
) -> None:
    """SQLite takes the whole transaction back for a writing one: it is waited for."""
    begun = asyncio.Event()
    rows = 10**9 if kind == "reading" else 200_000
    statement = {
        "reading": "SELECT max(x) FROM c",
        "writing": "SELECT x FROM c",
    }[kind]
    statement = f"{LONG.format(rows=rows)} {statement}"
    if kind == "writing":
        statement = f"INSERT INTO sample_items (id) {statement}"

    async def victim() -> None:
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": "victim"})
            begun.set()
            await unit.connection.execute(text(statement))
            raise AssertionError("nothing is begun after it")

    first = asyncio.create_task(put(database, "a"))
    second = asyncio.create_task(victim())
    third = asyncio.create_task(put(database, "b"))
    await begun.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    second.cancel()

    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await third
    assert await ids(database) == ["a", "b"]
    assert tap.seen.count("COMMIT") == 1, "they shared one"
    assert not tap.writer.cancelled
    assert await intact(database)


async def test_who_waits_too_long_is_told_so(settings: DatabaseSettings) -> None:
    from dataclasses import replace
    from datetime import timedelta

    hasty = replace(settings, patience=timedelta(milliseconds=50))
    database = await Database.open(
        hasty, services=["sample"], writer=RecordWriter(RECORD_KEY), clock=SystemClock()
    )
    async with database.unit("sample"):
        with pytest.raises(Unavailable):
            await asyncio.create_task(put(database, "a"))
    await put(database, "b")
    assert await ids(database) == ["b"]
    await database.close()


async def test_units_do_not_nest(database: Database) -> None:
    async with database.unit("sample"):
        with pytest.raises(RuntimeError):
            await put(database, "a")


async def test_the_file_is_private_and_synced(
    settings: DatabaseSettings, database: Database, tmp_path: Path
) -> None:
    await put(database, "a")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "group.db-wal" in modes
    durable = await Database.open(
        DatabaseSettings(Dialect.SQLITE, path=tmp_path / "durable.db"),
        services=["sample"],
        writer=RecordWriter(RECORD_KEY),
        clock=SystemClock(),
    )
    async with durable.unit("sample") as unit:
        assert (await unit.connection.execute(text("PRAGMA synchronous"))).scalar() == 2
        assert (await unit.connection.execute(text("PRAGMA journal_mode"))).scalar() == "wal"
        assert (await unit.connection.execute(text("PRAGMA foreign_keys"))).scalar() == 1
    await durable.close()


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.reading("sample") as connection:
            await connection.execute(insert(items), {"id": "a"})
    assert await ids(database) == []


async def test_a_file_that_was_removed_or_replaced_is_unavailable(
    settings: DatabaseSettings, database: Database
) -> None:
    await database.check()
    path = settings.path
    assert path is not None
    path.rename(path.with_suffix(".gone"))
    with pytest.raises(Unavailable):
        await database.check()
    path.write_bytes(b"")
    with pytest.raises(Unavailable):
        await database.check()


async def test_a_writer_that_cannot_write_is_unavailable(database: Database, tap: Tap) -> None:
    tap.failing = "BEGIN IMMEDIATE"
    with pytest.raises(Unavailable):
        await database.check()
    tap.failing = None
    await database.check()


async def test_a_migration_that_is_cancelled_ends_at_once_and_can_be_repeated(
    tmp_path: Path,
) -> None:
    """Ctrl-C during `lamassu init`, at every step that a migration can be at."""
    ended = set()
    for steps in range(0, 600, 7):
        settings = DatabaseSettings(
            Dialect.SQLITE, path=tmp_path / f"{steps % 28}.db", durable=False
        )
        task = asyncio.create_task(migrate(settings, ["sample"]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            ended.add("done")
        except asyncio.CancelledError:
            ended.add("cancelled")
    assert "cancelled" in ended
    for number in range(0, 28, 7):
        settings = DatabaseSettings(Dialect.SQLITE, path=tmp_path / f"{number}.db", durable=False)
        database = await Database.open(
            settings, services=["sample"], writer=RecordWriter(RECORD_KEY), clock=SystemClock()
        )
        await put(database, "a")
        await database.close()
