"""What is told of enrolments, off their path, and what is made up for after a crash."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest

from lamassu.platform.messaging import EventBus
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.dms.events import subscribe
from tests.services.dms.world import World

TOLD = {"dms.enroll", "dms.reenroll", "dms.bind-device-id"}


async def told(world: World) -> list[tuple[str, str]]:
    return [(kind, subject) for kind, subject, _ in await world.events() if kind in TOLD]


async def test_enrolments_are_told_once_however_often_delivered(world: World) -> None:
    await world.dms()
    first = await world.enroll(world.bootstrap())
    await world.reenroll(first)

    for event in [*await world.slot_events(), *await world.slot_events()]:
        await world.service.announce(event)

    assert await told(world) == [
        ("dms.enroll", "dms/fleet"),
        ("dms.bind-device-id", "device/dev-1"),
        ("dms.reenroll", "dms/fleet"),
        ("dms.bind-device-id", "device/dev-1"),
    ]
    enroll, bind = [body for kind, _, body in await world.events() if kind in TOLD][:2]
    assert enroll["data"]["aps"] == "fleet"
    assert base64.b64decode(enroll["data"]["certificate"]).startswith(b"-----BEGIN CERT")
    assert bind["data"]["certificate"]["serial_number"] == first.serial_number
    assert bind["data"]["dms"]["id"] == "fleet"
    assert bind["data"]["device"]["id"] == "dev-1"


async def test_the_bus_delivers_what_the_device_manager_committed(world: World) -> None:
    await world.dms()
    bus = EventBus(world.database)
    subscribe(bus, world.service)
    await bus.start()
    try:
        await world.enroll(world.bootstrap())
        await bus.drained()
        kinds = await _journal(world)
    finally:
        await bus.stop()

    assert {"dms.enroll", "dms.bind-device-id"} <= kinds


async def _journal(world: World) -> set[str]:
    from sqlalchemy import text

    async with world.database.reading("dmsmanager") as connection:
        rows = await connection.execute(
            text("SELECT type FROM dmsmanager_journal UNION ALL SELECT type FROM dmsmanager_outbox")
        )
        return {row.type for row in rows}


async def test_slots_that_took_no_certificate_of_a_dms_are_nobodys_enrolment(
    world: World,
) -> None:
    await world.dms()
    first = await world.enroll(world.bootstrap())
    world.revoke(first)
    await world.devices.follow_certificate(first.serial_number)
    del world.authorities.certificates[first.serial_number]

    for event in await world.slot_events():
        await world.service.announce(event)

    assert await told(world) == []


@pytest.mark.parametrize("revoking", [True, False])
async def test_a_revocation_that_a_crash_left_undone_is_made_up_for(
    world: World, revoking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.dms(reenrollment={"revoke_on_reenrollment": revoking})
    first = await world.enroll(world.bootstrap())

    async def die(*args: object, **given: object) -> bool:
        raise RuntimeError("killed")

    with monkeypatch.context() as dying:
        dying.setattr(world.authorities, "revoke", die)
        if revoking:
            with pytest.raises(RuntimeError):
                await world.reenroll(first)
        else:
            await world.reenroll(first)
    for event in await world.slot_events():
        await world.service.announce(event)

    status, reason = world.authorities.status_of(first.der)
    assert (status is CertificateStatus.REVOKED) is revoking
    assert (reason is RevocationReason.SUPERSEDED) is revoking


async def test_the_reaper_revokes_what_is_in_no_slot_and_nothing_else(world: World) -> None:
    await world.dms()
    bound = await world.enroll(world.bootstrap(), "dev-1")

    async def die(binding: object) -> None:
        raise RuntimeError("killed")

    world.devices.before_bind = die
    with pytest.raises(RuntimeError):
        await world.enroll(world.bootstrap(), "dev-2")
    [unbound] = world.authorities.issued_to("dev-2")

    assert await world.service.reap() == 0  # the retry has its ten minutes
    world.clock.advance(timedelta(minutes=10, seconds=1))
    assert await world.service.reap() == 1
    assert await world.service.reap() == 0

    assert world.authorities.status_of(unbound.der) == (
        CertificateStatus.REVOKED,
        RevocationReason.CESSATION_OF_OPERATION,
    )
    assert world.authorities.status_of(bound.der)[0] is CertificateStatus.ACTIVE
    assert world.authorities.reconciled == {bound.serial_number, unbound.serial_number}
