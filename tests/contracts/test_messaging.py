"""Sequencing, the chain that gives tampering away, and delivery at least once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, insert, select, text, update

from lamassu.kernel.errors import Malformed, Unavailable
from lamassu.kernel.identity import Caller, Principal, PrincipalKind, system_caller
from lamassu.kernel.records import AuditRecord, Event, StoredEvent
from lamassu.platform.database import Database, RecordWriter
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.messaging import (
    EventBus,
    Patience,
    Sequencer,
    verify_journal,
)
from lamassu.platform.messaging.chain import link
from tests.support.databases import RECORD_KEY, DatabaseFactory

CALLER = system_caller("test", "request-1")
QUICK = Patience(tries=3, tries_when_unavailable=4, first_pause=0.001, longest_pause=0.002)
JOURNAL = tables("sample").journal


@pytest.fixture
def database_services() -> Sequence[str]:
    return ("sample", "other")


async def happen(
    database: Database, subject: str, version: int = 1, service: str = "sample"
) -> None:
    async with database.unit(service) as unit:
        unit.emit(Event("item.update", subject, version, {"v": version}, CALLER))
        unit.audit(AuditRecord("item.update", subject, CALLER, detail={"v": version}))


async def journal(database: Database) -> list[object]:
    async with database.reading("sample") as connection:
        return list((await connection.execute(select(JOURNAL).order_by(JOURNAL.c.position))).all())


async def sequenced(database: Database, count: int = 6) -> None:
    for number in range(count):
        await happen(database, f"item/{number}")
    await Sequencer(database, "sample").drain()


@dataclass
class Listener:
    """Remembers what it was told; fails where it is asked to."""

    failing: dict[str, Exception] = field(default_factory=dict)
    told: list[StoredEvent] = field(default_factory=list)
    tries: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def __call__(self, event: StoredEvent) -> None:
        self.tries[event.subject] += 1
        if event.subject in self.failing:
            raise self.failing[event.subject]
        self.told.append(event)

    @property
    def subjects(self) -> list[str]:
        return [event.subject for event in self.told]


# --- sequencing -----------------------------------------------------------------------------


async def test_concurrent_writers_leave_each_subject_in_order(database: Database) -> None:
    async def one(subject: str) -> None:
        for version in range(1, 9):
            await happen(database, subject, version)

    sequencers = [Sequencer(database, "sample") for _ in range(2)]
    await asyncio.gather(*(one(f"item/{n}") for n in range(8)), *(s.drain() for s in sequencers))
    await sequencers[0].drain()
    rows = await journal(database)
    assert [row.position for row in rows] == list(range(1, 129))
    by_subject: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.kind == "event":
            by_subject[row.subject].append(row.body)
    for bodies in by_subject.values():
        versions = [int(body.split('"subjectversion":')[1].split(",")[0]) for body in bodies]
        assert versions == list(range(1, 9))
    assert (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_an_event_is_a_cloud_event(database: Database, database_factory: object) -> None:
    listener = Listener()
    bus = EventBus(database, patience=QUICK)
    bus.subscribe(consumer="c", service="other", sources=["sample"], types=None, handler=listener)
    admin = Caller(Principal(PrincipalKind.ADMIN, "alice"), "request-7")
    async with database.unit("sample") as unit:
        unit.emit(Event("item.create", "item/1", 3, {"a": [1]}, admin))
    await bus.drained()
    (event,) = listener.told
    told = dict(event.cloud_event)
    assert (event.type, event.subject, event.version) == ("item.create", "item/1", 3)
    assert told.pop("id") == event.id
    assert told.pop("time")
    assert told == {
        "specversion": "1.0",
        "source": "source://lamassu.io/ctx/source/service/sample",
        "type": "item.create",
        "subject": "item/1",
        "subjectversion": 3,
        "datacontenttype": "application/json",
        "authtype": "crt",
        "authid": "alice",
        "traceid": "request-7",
        "data": {"a": [1]},
    }


# --- the chain ------------------------------------------------------------------------------


async def test_an_untouched_journal_verifies(database: Database) -> None:
    await sequenced(database)
    await happen(database, "item/pending")
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert report.intact
    assert (report.records, report.pending, report.anchored) == (12, 2, False)
    anchored = await verify_journal(
        database, "sample", RECORD_KEY, anchor=(report.position, report.hash)
    )
    assert anchored.intact
    assert anchored.anchored


async def test_another_key_verifies_nothing(database: Database) -> None:
    await sequenced(database)
    assert not (await verify_journal(database, "sample", b"x" * 32)).intact


async def rechain(database: Database, first: int) -> None:
    """What an attacker without the key can do: make positions and hashes fit again."""
    rows = await journal(database)
    async with database.unit("sample") as unit:
        connection = unit.connection
        previous = rows[first - 2].hash if first > 1 else bytes(32)
        await connection.execute(delete(JOURNAL).where(JOURNAL.c.position >= first))
        kept = rows[first - 1 :]
        for position, row in enumerate(kept, first):
            hash_ = link("sample", position, row, previous)
            columns = dict(row._mapping) | {
                "position": position,
                "prev_hash": previous,
                "hash": hash_,
            }
            await connection.execute(insert(JOURNAL), [columns])
            previous = hash_
        head = tables("sample").head
        last = first + len(kept) - 1
        await connection.execute(update(head).values(position=last, hash=previous))


async def swap(database: Database, one: int, two: int) -> None:
    async with database.unit("sample") as unit:
        for old, new in ((one, 1000), (two, one), (1000, two)):
            await unit.connection.execute(
                update(JOURNAL).where(JOURNAL.c.position == old).values(position=new)
            )


async def change(database: Database, position: int, **values: object) -> None:
    async with database.unit("sample") as unit:
        await unit.connection.execute(
            update(JOURNAL).where(JOURNAL.c.position == position).values(**values)
        )


async def remove(database: Database, position: int) -> None:
    async with database.unit("sample") as unit:
        await unit.connection.execute(delete(JOURNAL).where(JOURNAL.c.position == position))


@pytest.mark.parametrize("again", [False, True], ids=["left", "chained anew"])
async def test_a_changed_row_is_found(database: Database, again: bool) -> None:
    await sequenced(database)
    await change(database, 5, body='{"subject":"item/evil"}')
    if again:
        await rechain(database, 5)
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert 5 in {fault.position for fault in report.faults}


@pytest.mark.parametrize("column", ["type", "subject", "kind", "trail", "boot", "n"])
async def test_every_column_is_covered(database: Database, column: str) -> None:
    await sequenced(database)
    await change(database, 5, **{column: 77 if column == "n" else "evil"})
    await rechain(database, 5)
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert 5 in {fault.position for fault in report.faults}


@pytest.mark.parametrize("again", [False, True], ids=["left", "chained anew"])
async def test_a_removed_row_is_found(database: Database, again: bool) -> None:
    await sequenced(database)
    await remove(database, 5)
    if again:
        await rechain(database, 5)
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert any("missing: 5" in fault.text for fault in report.faults)


@pytest.mark.parametrize("again", [False, True], ids=["left", "chained anew"])
async def test_swapped_rows_are_found(database: Database, again: bool) -> None:
    await sequenced(database)
    await swap(database, 4, 6)
    if again:
        await rechain(database, 4)
    assert not (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_a_copied_row_is_found(database: Database) -> None:
    await sequenced(database)
    rows = await journal(database)
    async with database.unit("sample") as unit:
        columns = dict(rows[2]._mapping) | {"position": 13}
        await unit.connection.execute(insert(JOURNAL), [columns])
    await rechain(database, 13)
    report = await verify_journal(database, "sample", RECORD_KEY)
    assert any(fault.position == 13 and "twice" in fault.text for fault in report.faults)


async def test_a_removed_tail_is_found(database: Database) -> None:
    await sequenced(database)
    await remove(database, 12)
    assert not (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_a_tail_removed_together_with_the_head_shows_against_an_anchor(
    database: Database,
) -> None:
    head = tables("sample").head
    await sequenced(database, 3)
    async with database.reading("sample") as connection:
        old = (await connection.execute(select(head))).one()
    await sequenced(database, 3)
    anchor = await verify_journal(database, "sample", RECORD_KEY)
    async with database.unit("sample") as unit:
        await unit.connection.execute(delete(JOURNAL).where(JOURNAL.c.position > old.position))
        await unit.connection.execute(
            update(head).values(position=old.position, hash=old.hash, mac=old.mac)
        )
    assert not (
        await verify_journal(database, "sample", RECORD_KEY, anchor=(anchor.position, anchor.hash))
    ).intact
    # and it shows to whoever goes on: numbers of the boot are missing
    await happen(database, "item/next")
    assert not (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_a_row_removed_from_the_outbox_is_found(database: Database) -> None:
    outbox = tables("sample").outbox
    for number in range(3):
        await happen(database, f"item/{number}")
    async with database.unit("sample") as unit:
        await unit.connection.execute(delete(outbox).where(outbox.c.n == 3))
    assert not (await verify_journal(database, "sample", RECORD_KEY)).intact


async def test_transactions_that_fail_are_no_faults(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.settings(("sample",))
    database = await database_factory.open(settings, services=("sample",))
    await happen(database, "item/1")
    with pytest.raises(TypeError):  # before it was numbered
        await happen(database, "item/2", object())  # type: ignore[arg-type]
    with pytest.raises(Malformed):  # after
        await happen(database, "item/\ud800")
    await happen(database, "item/3")
    assert (await verify_journal(database, "sample", RECORD_KEY)).intact
    await database.close()
    again = await database_factory.open(settings, services=("sample",))
    assert (await verify_journal(again, "sample", RECORD_KEY)).intact


async def test_a_process_that_ends_in_order_must_have_all_its_numbers(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.settings(("sample",))
    first = await database_factory.open(settings, services=("sample",))
    await sequenced(first)
    await first.close()
    second = await database_factory.open(settings, services=("sample",))
    await sequenced(second)
    report = await verify_journal(second, "sample", RECORD_KEY)
    assert report.intact
    assert report.records == 25
    await remove(second, 12)
    await rechain(second, 12)
    assert not (await verify_journal(second, "sample", RECORD_KEY)).intact


async def test_a_killed_process_leaves_a_journal_that_verifies(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.settings(("sample",))
    first = await database_factory.open(settings, services=("sample",))
    entered, never = asyncio.Event(), asyncio.Event()

    async def interrupted() -> None:
        async with first.unit("sample") as unit:
            await unit.connection.execute(text("SELECT 1"))
            unit.audit(AuditRecord("item.update", "item/lost", CALLER))
            entered.set()
            await never.wait()

    await happen(first, "item/1")
    task = asyncio.create_task(interrupted())
    await entered.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # no close(): the process is gone
    second = await database_factory.open(settings, services=("sample",))
    await sequenced(second)
    assert (await verify_journal(second, "sample", RECORD_KEY)).intact


def test_numbers_under_way_at_a_crash_are_excused_and_others_are_not() -> None:
    now = datetime.now(UTC)
    writer = RecordWriter(RECORD_KEY)
    record = AuditRecord("a", "b", CALLER)
    first = writer.stamp("sample", [record], now)
    second = writer.stamp("sample", [record], now)
    assert second.rows[0]["trail"] == '{"open":"1"}'
    writer.settle(first, committed=False)
    third = writer.stamp("sample", [record, record], now)
    assert [row["trail"] for row in third.rows] == ["", '{"open":"2","skipped":"1"}']
    writer.settle(third, committed=False)
    writer.settle(second, committed=True)
    fourth = writer.stamp("sample", [record], now)
    assert fourth.rows[0]["trail"] == '{"skipped":"1,3-4"}'


# --- delivery -------------------------------------------------------------------------------


async def test_consumers_get_what_they_subscribed_to_in_order(database: Database) -> None:
    everything, some = Listener(), Listener()
    bus = EventBus(database, patience=QUICK)
    bus.subscribe(
        consumer="all", service="other", sources=["sample", "other"], types=None, handler=everything
    )
    bus.subscribe(
        consumer="some", service="other", sources=["sample"], types=["item.none"], handler=some
    )
    for number in range(150):
        await happen(database, f"item/{number}")
    await happen(database, "thing/1", service="other")
    await bus.drained()
    assert everything.subjects == [*(f"item/{n}" for n in range(150)), "thing/1"]
    assert some.told == []
    assert (await bus.lag()).consumers == {
        ("all", "sample"): 0,
        ("all", "other"): 0,
        ("some", "sample"): 0,
    }


async def test_the_running_bus_delivers_without_being_asked(database: Database) -> None:
    done = asyncio.Event()

    async def handler(event: StoredEvent) -> None:
        if event.type == "item.update":
            # a consequence in another service is delivered too
            async with database.unit("other") as unit:
                unit.emit(Event("item.followed", event.subject, 1, None, CALLER))
        else:
            done.set()

    bus = EventBus(database, patience=QUICK)
    bus.subscribe(
        consumer="c", service="other", sources=["sample", "other"], types=None, handler=handler
    )
    await bus.start()
    await bus.check()
    await happen(database, "item/1")
    async with asyncio.timeout(5):
        await done.wait()
    await bus.stop()
    with pytest.raises(Unavailable):
        await bus.check()


async def test_after_a_crash_events_are_told_again_and_none_is_lost(
    database_factory: DatabaseFactory,
) -> None:
    settings = await database_factory.settings(("sample",))

    def bus_for(database: Database, listener: Listener) -> EventBus:
        bus = EventBus(database, patience=QUICK)
        bus.subscribe(
            consumer="c", service="sample", sources=["sample"], types=None, handler=listener
        )
        return bus

    first = await database_factory.open(settings, services=("sample",))
    for number in range(3):
        await happen(first, f"item/{number}")
    await bus_for(first, Listener()).drained()
    await happen(first, "item/3")
    await happen(first, "item/4")

    class Killed(BaseException):
        pass

    async def dies(event: StoredEvent) -> None:
        if event.subject == "item/4":
            raise Killed

    with pytest.raises(Killed):
        await bus_for(first, dies).drained()  # type: ignore[arg-type]
    again = Listener()
    second = await database_factory.open(settings, services=("sample",))
    await bus_for(second, again).drained()
    assert again.subjects == ["item/3", "item/4"]


async def test_an_event_that_keeps_failing_is_set_aside_and_blocks_nobody(
    database: Database,
) -> None:
    letters = tables("other").dead_letters
    bad = Listener({"item/1": LookupError("no"), "item/2": Unavailable("away")})
    good = Listener()
    bus = EventBus(database, patience=QUICK)
    for name, listener in (("bad", bad), ("good", good)):
        bus.subscribe(
            consumer=name, service="other", sources=["sample"], types=None, handler=listener
        )
    for number in range(4):
        await happen(database, f"item/{number}")
    await bus.drained()
    assert good.subjects == [f"item/{n}" for n in range(4)]
    assert bad.subjects == ["item/0", "item/3"]
    assert (bad.tries["item/1"], bad.tries["item/2"]) == (3, 4)
    async with database.reading("other") as connection:
        rows = (await connection.execute(select(letters).order_by(letters.c.id))).all()
    assert [(row.consumer, row.position, row.tries, row.error) for row in rows] == [
        ("bad", 3, 3, "LookupError: no"),
        ("bad", 5, 4, "Unavailable: away"),
    ]


async def test_a_letter_that_cannot_be_written_does_not_cost_the_event(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener({"item/1": LookupError("no")})
    bus = EventBus(database, patience=QUICK)
    bus.subscribe(consumer="c", service="other", sources=["sample"], types=None, handler=listener)
    await happen(database, "item/1")
    await Sequencer(database, "sample").drain()

    def refuse(service: str) -> object:
        raise Unavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(database, "unit", refuse)
        with pytest.raises(Unavailable):
            await bus.drained()
    listener.failing.clear()
    await bus.drained()
    assert listener.subjects == ["item/1"]


async def test_a_relay_that_stands_still_is_unhealthy(database: Database) -> None:
    bus = EventBus(database, patience=QUICK)
    await happen(database, "item/1")
    assert (await bus.lag()).outbox["sample"] > timedelta()
    assert (await bus.lag()).outbox["other"] == timedelta()
