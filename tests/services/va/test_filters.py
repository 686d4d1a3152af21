"""Revocation filters: when they are made, what they say, and who believes them."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from sqlalchemy import text

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.revocation_filter import RevocationFilter, Verdict, judge, parse_filter
from lamassu.kernel.x509 import signing
from lamassu.services.ca.contract import RevocationReason, RevokedEntry
from tests.services.va.conftest import Clients, World
from tests.support.pki import Made, spki_of


async def wanted(world: World, clients: Clients, interval: str = "1h") -> None:
    """The root's role asks for filters, and the first is there soon."""
    await world.service.ensure_role("root", world.ski)
    path = f"/api/va/v1/roles/{world.ski}"
    answer = await clients.admin.put(path, json={"filter_interval": interval})
    assert (answer.status_code, answer.json()["filter_interval"]) == (200, interval)
    for _ in range(500):
        if (await clients.public.get("/ca/root.filter")).status_code == 200:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no filter was made")


async def refreshed(world: World) -> int:
    return await world.service.refresh_filters(world.clock.now())


def many(world: World, number: int, *, revoked: int) -> None:
    """So many certificates more, of which only the rows are there."""
    for index in range(1, number + 1):
        serial = f"{index:032x}"
        world.authorities.issued["root"][serial] = world.clock.now() + timedelta(days=30)
        if index <= revoked:
            entry = RevokedEntry(serial, world.clock.now(), RevocationReason.UNSPECIFIED)
            world.authorities.revoked["root"][serial] = entry


async def fetched(clients: Clients, what: str = "filter") -> RevocationFilter:
    """As a device takes it: read, and its signature verified with the CA's key."""
    answer = await clients.public.get(f"/ca/root.{what}")
    assert answer.status_code == 200, answer.text
    return parse_filter(answer.content)


def believed(world: World, one: RevocationFilter) -> bool:
    key = load_der_public_key(spki_of(world.root.key))
    return signing.verify(key, one.signed, one.signature)


def verdict(
    world: World, made: Made, full: RevocationFilter, delta: RevocationFilter | None = None
) -> Verdict:
    certificate = made.certificate
    return judge(
        full,
        certificate.serial_number,
        certificate.not_valid_before_utc,
        now=world.clock.now(),
        delta=delta,
    )


async def test_nobody_gets_a_filter_that_no_role_asks_for(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    assert await refreshed(world) == 0
    answer = await clients.public.get("/ca/root.filter")
    assert (answer.status_code, answer.json()["code"]) == (404, "filter_absent")
    assert (await clients.public.get("/ca/nobody.filter")).status_code == 404


async def test_a_filter_tells_the_revoked_from_the_others(world: World, clients: Clients) -> None:
    devices = [world.issue(f"device-{number}") for number in range(40)]
    for device in devices[:3]:
        world.revoke(device)
    await wanted(world, clients)

    full = await fetched(clients)

    assert believed(world, full)
    assert full.facts.issuer == hashlib.sha256(spki_of(world.root.key)).digest()
    assert full.facts.next_update - full.facts.this_update == timedelta(weeks=1)
    told = [verdict(world, device, full) for device in devices]
    assert told == [Verdict.REVOKED] * 3 + [Verdict.GOOD] * 37
    by_key = await clients.stranger.get(f"/api/va/filter/{world.ski.upper()}")
    assert parse_filter(by_key.content) == full


async def test_what_is_issued_later_and_backdated_is_not_covered(
    world: World, clients: Clients
) -> None:
    """A profile may set notBefore a day back; what a filter covers was there by then."""
    await wanted(world, clients)
    full = await fetched(clients)
    now = world.clock.now()
    assert judge(full, 1, now - timedelta(hours=23, minutes=59), now=now) is Verdict.NOT_COVERED
    assert judge(full, 1, now - timedelta(days=1, seconds=1), now=now) is Verdict.GOOD


async def test_a_revocation_comes_as_a_delta_after_the_interval(
    world: World, clients: Clients
) -> None:
    many(world, 20_000, revoked=4_000)
    devices = [world.issue(f"device-{number}") for number in range(4)]
    world.revoke(devices[0])
    world.revoke(devices[1])
    await wanted(world, clients)
    full = await fetched(clients)
    absent = await clients.public.get("/ca/root.filter-delta")
    assert (absent.status_code, absent.json()["code"]) == (404, "delta_absent")

    world.revoke(devices[3])
    world.release(devices[0])
    assert await refreshed(world) == 0
    world.clock.forward(hours=1)
    assert await refreshed(world) == 1

    assert await fetched(clients) == full
    delta = await fetched(clients, "filter-delta")
    assert believed(world, delta)
    assert (delta.facts.base, len(delta.changes)) == (full.facts.number, 2)
    assert verdict(world, devices[3], full) is Verdict.GOOD
    assert verdict(world, devices[3], full, delta) is Verdict.REVOKED
    assert verdict(world, devices[0], full, delta) is Verdict.GOOD
    assert verdict(world, devices[1], full, delta) is Verdict.REVOKED


async def test_too_much_change_and_old_age_make_a_full_one(world: World, clients: Clients) -> None:
    devices = [world.issue(f"device-{number}") for number in range(60)]
    world.revoke(devices[0])
    await wanted(world, clients)
    for device in devices[1:30]:
        world.revoke(device)
    world.clock.forward(hours=1)
    assert await refreshed(world) == 1

    second = await fetched(clients)
    assert verdict(world, devices[29], second) is Verdict.REVOKED
    assert (await clients.public.get("/ca/root.filter-delta")).status_code == 404

    world.clock.forward(days=4)  # more than half of its life
    assert await refreshed(world) == 1
    third = await fetched(clients)
    assert third.facts.number > second.facts.number
    assert not third.facts.base


async def test_numbers_rise_over_processes_and_failures(world: World, clients: Clients) -> None:
    await wanted(world, clients)
    first = (await fetched(clients)).facts.number
    world.keys.failure = Unavailable("the engine is away", code="engine_down")
    world.clock.forward(days=5)
    assert await refreshed(world) == 0
    world.keys.failure = None

    other = world.another_process()
    assert await other.refresh_filters(world.clock.now()) == 1
    assert (await fetched(clients)).facts.number == first + 2
    await other.close()


async def test_an_ended_filter_is_not_served(world: World, clients: Clients) -> None:
    await wanted(world, clients)
    world.clock.forward(days=7)
    answer = await clients.public.get("/ca/root.filter")
    assert (answer.status_code, answer.json()["code"]) == (503, "filter_ended")
    assert answer.headers["retry-after"]


async def test_a_revoked_ca_has_no_filter_from_then_on(world: World, clients: Clients) -> None:
    await wanted(world, clients)
    world.authorities.cas["root"] = replace(world.authorities.cas["root"], revoked_by="root")
    answer = await clients.public.get("/ca/root.filter")
    assert (answer.status_code, answer.json()["code"]) == (404, "filter_absent")
    world.clock.forward(hours=1)
    assert await refreshed(world) == 0


async def test_caches_are_told_and_ask_again_in_few_bytes(world: World, clients: Clients) -> None:
    await wanted(world, clients)
    answer = await clients.public.get("/ca/root.filter")
    assert answer.headers["content-type"] == "application/vnd.lamassu.revocation-filter"
    assert "max-age=60" in answer.headers["cache-control"]
    again = await clients.public.get(
        "/ca/root.filter", headers={"if-none-match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("octet", [5, 60, -1])
async def test_a_changed_octet_is_not_believed(world: World, clients: Clients, octet: int) -> None:
    world.revoke(world.issue())
    await wanted(world, clients)
    content = bytearray((await clients.public.get("/ca/root.filter")).content)
    content[octet] ^= 1
    changed = parse_filter(bytes(content))
    assert not believed(world, changed)


async def test_it_is_recorded(world: World, clients: Clients) -> None:
    await wanted(world, clients)
    async with world.database.reading("va") as connection:
        rows = await connection.execute(
            text("SELECT count(*) FROM va_outbox WHERE type = 'va.filter.create'")
        )
        assert rows.scalar() == 2  # an event and an audit record
