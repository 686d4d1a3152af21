"""Events repair what a lost call left behind, and do nothing when nothing is wrong."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import select

from lamassu.kernel.records import StoredEvent
from lamassu.kernel.x509.serials import serial_hex
from lamassu.platform.database.journal_tables import tables
from lamassu.services.ca.contract import Authorities
from lamassu.services.va.events import CaFollower
from tests.services.va.conftest import World
from tests.support.pki import Made, make


def event(kind: str, subject: str, time: datetime) -> StoredEvent:
    return StoredEvent("ca", 1, kind, subject, json.dumps({"time": time.isoformat()}))


def follower(world: World) -> CaFollower:
    return CaFollower(service=world.service, authorities=cast(Authorities, world.authorities))


def of(made: Made, world: World) -> StoredEvent:
    serial = serial_hex(made.certificate.serial_number)
    return event("certificate.status.update", f"certificate/{serial}", world.clock.now())


async def test_a_revocation_whose_call_was_lost_reaches_the_crl(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    device = world.issue()
    world.revoke(device)

    await follower(world).handle(of(device, world))

    assert await world.listed() == {device.certificate.serial_number}


async def test_an_event_that_comes_twice_makes_one_crl(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    device = world.issue()
    world.revoke(device)
    for _ in range(3):
        await follower(world).handle(of(device, world))

    assert (await world.service.crl(world.ski)).number == 2


async def test_of_a_storm_of_events_the_last_are_looked_into_by_the_refresh(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    await world.service.refresh_due(world.clock.now())
    devices = [world.issue(f"device-{n}") for n in range(20)]
    reads = world.authorities.lists_read
    for device in devices:
        world.revoke(device)
        await follower(world).handle(of(device, world))
    assert world.authorities.lists_read - reads == 2  # compared, then made anew
    assert len(await world.listed()) == 1

    assert await world.service.refresh_due(world.clock.now()) == 1
    assert len(await world.listed()) == 20


async def test_a_start_finds_what_was_missed_while_nobody_listened(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    device = world.issue()
    world.revoke(device)

    started = world.another_process()
    assert await started.refresh_due(world.clock.now()) == 1
    assert await started.refresh_due(world.clock.now()) == 0
    await started.close()
    assert await world.listed() == {device.certificate.serial_number}


async def test_an_old_event_is_not_looked_into(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    device = world.issue()
    told = of(device, world)
    world.clock.forward(minutes=5)
    await world.service.revocation_changed("root", wait=timedelta(seconds=2))
    reads = world.authorities.lists_read

    await follower(world).handle(told)
    assert world.authorities.lists_read == reads


async def test_a_new_ca_gets_its_role_and_its_parent_is_looked_after(world: World) -> None:
    await world.service.ensure_role("root", world.ski)
    child = make("Child", issuer=world.root, ca=True)
    world.add_ca("child", child, parent_id="root")

    await follower(world).handle(event("ca.create", "ca/child", world.clock.now()))
    assert (await world.service.crl_of_ca("child")).number == 1

    world.authorities.issued["root"][serial_hex(child.certificate.serial_number)] = (
        child.certificate.not_valid_after_utc
    )
    world.revoke(child)
    world.clock.forward(seconds=10)
    await follower(world).handle(event("ca.status.update", "ca/child", world.clock.now()))
    assert await world.listed() == {child.certificate.serial_number}


async def test_events_about_unknown_things_are_passed_over(world: World) -> None:
    for subject in ("certificate/0abc", "ca/nobody", "ca/", "certificate/", "x"):
        await follower(world).handle(event("ca.create", subject, world.clock.now()))


async def test_what_the_va_does_is_told_and_recorded(world: World) -> None:
    await world.service.ensure_role("root", world.ski)

    outbox = tables("va").outbox
    async with world.database.reading("va") as connection:
        rows = (await connection.execute(select(outbox).order_by(outbox.c.seq))).all()
    told = [(row.kind, row.type, row.subject) for row in rows]
    subject = f"crl/{world.ski}"
    assert [(t, s) for _, t, s in told] == [
        ("va.role.crl.init", subject),
        ("va.role.crl.init", subject),
        ("va.role.crl.create", subject),
        ("va.role.crl.create", subject),
    ]
    assert len({kind for kind, _, _ in told}) == 2
