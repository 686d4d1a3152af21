"""The latest event of each type, counted once however often it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from lamassu.kernel.identity import Peer, Principal, PrincipalKind, system_caller
from lamassu.kernel.records import Event, StoredEvent
from lamassu.platform.database import Database
from lamassu.platform.http import Mount, build_app
from lamassu.platform.messaging import EventBus
from lamassu.platform.messaging.feed import BATCH
from lamassu.services.alerts import events
from lamassu.services.alerts.http import routes
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.alerts.storage import AlertsStorage
from lamassu.services.alerts.usecases import AlertsService

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
HOST = "pki.example:8443"


class MovedClock:
    time = NOW

    def now(self) -> datetime:
        return self.time


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["alerts", *events.SOURCES]


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def service(database: Database, clock: MovedClock) -> AlertsService:
    return AlertsService(store=AlertsStorage(database), clock=clock)


def told(position: int, kind: str = "ca.create", source: str = "ca") -> StoredEvent:
    document = {"id": f"{source}-{position}", "type": kind, "data": {"id": f"thing-{position}"}}
    return StoredEvent(source, position, kind, "ca/x", json.dumps(document))


def summary(latest: Sequence[LatestEvent]) -> list[tuple[str, object, int]]:
    return [(seen.event_type, seen.cloud_event["id"], seen.counter) for seen in latest]


async def test_the_last_event_of_each_type_is_kept_and_counted(
    service: AlertsService, clock: MovedClock
) -> None:
    await service.count([told(1), told(2, "certificate.create")])
    clock.time = NOW + timedelta(minutes=1)
    await service.count([told(3), told(7), told(4, "device.create", "devicemanager")])

    latest = await service.latest()

    assert summary(latest) == [
        ("ca.create", "ca-7", 3),
        ("certificate.create", "ca-2", 1),
        ("device.create", "devicemanager-4", 1),
    ]
    assert [seen.seen_at for seen in latest] == [clock.time, NOW, clock.time]


async def test_an_event_told_again_counts_once(service: AlertsService) -> None:
    first = [told(1), told(2), told(3, "ca.delete")]
    for repeated in (first, first, first[:1], first[1:], [told(3, "ca.delete"), told(4)]):
        await service.count(repeated)
    assert summary(await service.latest()) == [("ca.create", "ca-4", 3), ("ca.delete", "ca-3", 1)]


async def test_positions_of_different_services_do_not_mix(service: AlertsService) -> None:
    await service.count([told(9)])
    await service.count([told(1, source="kms"), told(2, source="va")])
    assert summary(await service.latest()) == [("ca.create", "va-2", 3)]


async def test_no_count_is_lost_between_writers(service: AlertsService) -> None:
    sources = [f"source-{n}" for n in range(5)]
    for source in sources:
        await service.count([told(1, source=source)])
    await asyncio.gather(
        *(service.count([told(n, source=source) for n in (2, 3, 4)]) for source in sources)
    )
    assert [seen.counter for seen in await service.latest()] == [20]


async def test_events_of_every_service_arrive(database: Database, service: AlertsService) -> None:
    bus = EventBus(database)
    events.subscribe(bus, service)
    await bus.start()
    try:
        for source in events.SOURCES:
            async with database.unit(source) as unit:
                unit.emit(Event(f"{source}.happened", "thing/1", 1, {"n": 1}, system_caller("t")))
        await bus.drained()
    finally:
        await bus.stop()
    latest = await service.latest()
    assert [seen.event_type for seen in latest] == sorted(f"{s}.happened" for s in events.SOURCES)
    assert {seen.counter for seen in latest} == {1}
    assert all(seen.cloud_event["data"] == {"n": 1} for seen in latest)


async def test_a_backlog_is_counted_in_few_transactions(
    database: Database, service: AlertsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    count = service.count

    async def counted(heard: Sequence[StoredEvent]) -> None:
        calls.append(len(heard))
        if len(calls) == 1:
            raise RuntimeError("the first batch fails: its events come one by one")
        await count(heard)

    monkeypatch.setattr(service, "count", counted)
    async with database.unit("ca") as unit:
        for number in range(BATCH + 50):
            unit.emit(Event("ca.happened", "ca/x", number, {}, system_caller("t")))
    bus = EventBus(database)
    events.subscribe(bus, service)
    await bus.drained()
    await bus.stop()

    assert [seen.counter for seen in await service.latest()] == [BATCH + 50]
    assert calls == [BATCH, *[1] * BATCH, 50]


async def request(service: AlertsService, method: str, path: str, *chain: bytes) -> httpx.Response:
    async def authenticate(peer: Peer) -> Principal | None:
        return Principal(PrincipalKind.ADMIN, "alice") if peer.chain else None

    app = build_app(
        [Mount("/api/alerts", "alerts", routes(service))],
        authenticate=authenticate,
        public_hosts=[HOST],
        bookmark_key=b"k" * 32,
    )

    async def with_peer(scope: Any, receive: Any, send: Any) -> None:
        peer = Peer(chain, "192.0.2.1")
        await app({**scope, "extensions": {"lamassu.peer": peer}}, receive, send)

    transport = httpx.ASGITransport(with_peer)
    async with httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}") as client:
        return await client.request(method, f"/api/alerts{path}")


async def test_the_route_answers_a_bare_array(service: AlertsService) -> None:
    assert (await request(service, "GET", "/v1/events/latest", b"admin")).json() == []
    await service.count([told(1)])
    answer = await request(service, "GET", "/v1/events/latest", b"admin")
    assert answer.json() == [
        {
            "event_types": "ca.create",
            "event": {"id": "ca-1", "type": "ca.create", "data": {"id": "thing-1"}},
            "seen_at": "2026-05-01T12:00:00Z",
            "counter": 1,
        }
    ]


async def test_events_are_for_principals_only(service: AlertsService) -> None:
    assert (await request(service, "GET", "/v1/events/latest")).status_code == 401


async def test_subscriptions_are_not_there_yet(service: AlertsService) -> None:
    for method, path in (
        ("GET", "/v1/user/alice/subscriptions"),
        ("POST", "/v1/user/alice/subscribe"),
    ):
        assert (await request(service, method, path, b"admin")).status_code == 404


async def test_counts_of_another_installation_are_added_once(service: AlertsService) -> None:
    await service.count([told(1)])
    theirs = [
        LatestEvent("ca.create", {"id": "theirs"}, NOW - timedelta(days=1), 7),
        LatestEvent("ca.reissue", {"id": "old"}, NOW - timedelta(days=2), 2),
    ]
    caller = system_caller("t")

    trial = await service.adopt(theirs, source="old", caller=caller, dry_run=True)
    first = await service.adopt(theirs, source="old", caller=caller, dry_run=False)
    again = await service.adopt(theirs, source="old", caller=caller, dry_run=False)

    # the event that is here was seen later than theirs
    assert summary(await service.latest()) == [("ca.create", "ca-1", 8), ("ca.reissue", "old", 2)]
    assert [one.outcome.value for one in (*trial, *first, *again)] == [
        *("adopted",) * 4, *("present",) * 2,
    ]  # fmt: skip
