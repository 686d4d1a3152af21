"""The identity slot as an operator may change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from lamassu.kernel.errors import NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.devices.contract import DeviceStatus, SlotStatus
from lamassu.services.devices.rules import SlotUpdate
from tests.services.devices.world import ADMIN, World


def wanted(
    versions: Mapping[int, str], status: SlotStatus = SlotStatus.ACTIVE, active: int | None = None
) -> SlotUpdate:
    return SlotUpdate(status, len(versions) - 1 if active is None else active, versions)


async def test_setting_revoked_revokes_the_certificate(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")

    done = await world.service.update_slot(
        "dev-1", wanted({0: certificate.serial_number}, SlotStatus.REVOKED), caller=ADMIN
    )

    assert done.device == await world.service.get("dev-1")
    assert done.device.status is DeviceStatus.REVOKED
    assert world.office.reasons == [(certificate.serial_number, RevocationReason.UNSPECIFIED)]


async def test_a_failed_revocation_leaves_the_slot_as_it_is(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    world.office.failing = 1
    with pytest.raises(Unavailable):
        await world.service.update_slot(
            "dev-1", wanted({0: certificate.serial_number}, SlotStatus.REVOKED), caller=ADMIN
        )
    assert await world.service.get("dev-1") == device


async def test_a_renewal_may_be_announced(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    for status in (SlotStatus.RENEWAL_PENDING, SlotStatus.EXPIRING_SOON, SlotStatus.ACTIVE):
        done = await world.service.update_slot(
            "dev-1", wanted({0: certificate.serial_number}, status), caller=ADMIN
        )
        assert done.device.status.value == status.value
        assert done.device == await world.service.get("dev-1")
    world.clock.advance(timedelta(days=31))
    assert (await world.service.get("dev-1")).status is DeviceStatus.EXPIRED


async def test_the_status_cannot_contradict_the_certificate(world: World) -> None:
    device, certificate = await world.enrolled("dev-1", lifetime=timedelta(days=1))
    versions = {0: certificate.serial_number}
    with pytest.raises(RuleViolation):
        await world.service.update_slot("dev-1", wanted(versions, SlotStatus.EXPIRED), caller=ADMIN)
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    with pytest.raises(RuleViolation):  # the event that tells of it is still under way
        await world.service.update_slot(
            "dev-1", wanted(versions, SlotStatus.RENEWAL_PENDING), caller=ADMIN
        )
    assert await world.service.get("dev-1") == device
    await world.service.follow_certificate(certificate.serial_number)
    with pytest.raises(RuleViolation):
        await world.service.update_slot("dev-1", wanted(versions), caller=ADMIN)
    assert (await world.service.get("dev-1")).status is DeviceStatus.REVOKED


async def test_an_expired_slot_takes_no_status(world: World) -> None:
    _, certificate = await world.enrolled("dev-1", lifetime=timedelta(days=1))
    world.clock.advance(timedelta(days=2))
    versions = {0: certificate.serial_number}
    done = await world.service.update_slot(
        "dev-1", wanted(versions, SlotStatus.EXPIRED), caller=ADMIN
    )
    assert done.device.status is DeviceStatus.EXPIRED
    with pytest.raises(RuleViolation):
        await world.service.update_slot("dev-1", wanted(versions), caller=ADMIN)


async def test_a_certificate_of_the_device_can_be_added(world: World) -> None:
    await world.created("dev-1")
    first, second = world.office.add("dev-1"), world.office.add("dev-1")

    await world.service.update_slot("dev-1", wanted({0: first.serial_number}), caller=ADMIN)
    done = await world.service.update_slot(
        "dev-1", wanted({0: first.serial_number, 1: second.serial_number}), caller=ADMIN
    )

    assert done.device == await world.service.get("dev-1")
    assert done.device.slot is not None
    assert done.device.slot.current.serial_number == second.serial_number
    assert [e.type for e in done.device.slot.events] == ["PROVISIONED", "RE-PROVISIONED"]


async def test_no_serial_number_is_taken_on_trust(world: World) -> None:
    device = await world.created("dev-1")
    office = world.office
    foreign = office.add("dev-2")
    revoked = office.add("dev-1")
    office.set_status(revoked.serial_number, CertificateStatus.REVOKED)
    imported = office.add("dev-1", ca_id="-")
    authority = office.add("dev-1")
    office.certificates[authority.serial_number] = replace(authority, is_ca=True)
    other_case = office.add("dev-1")
    office.certificates[other_case.serial_number] = replace(
        other_case, subject=Subject(common_name="DEV-1")
    )
    expired = office.add("dev-1", lifetime=timedelta(seconds=-1))

    for serial_number in (
        "ffff",
        *(c.serial_number for c in (foreign, revoked, imported, authority, other_case, expired)),
    ):
        with pytest.raises(RuleViolation) as refused:
            await world.service.update_slot("dev-1", wanted({0: serial_number}), caller=ADMIN)
        assert refused.value.field == "versions"
    assert await world.service.get("dev-1") == device


async def test_versions_are_only_appended(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    device, second = await world.renewed(device)
    third, fourth = world.office.add("dev-1"), world.office.add("dev-1")
    one, two = first.serial_number, second.serial_number

    for versions, active in (
        ({}, 0),
        ({0: one}, 0),
        ({0: one}, 1),
        ({0: two, 1: one}, 1),
        ({0: one, 1: third.serial_number}, 1),
        ({0: one, 1: two}, 0),
        ({0: one, 1: two}, 2),
        ({0: one, 1: two, 3: third.serial_number}, 3),
        ({0: one, 1: two, 2: third.serial_number}, 1),
        ({0: one, 1: two, 2: third.serial_number, 3: fourth.serial_number}, 3),
    ):
        with pytest.raises(RuleViolation):
            await world.service.update_slot("dev-1", wanted(versions, active=active), caller=ADMIN)
    assert await world.service.get("dev-1") == device


async def test_a_slot_without_certificate_and_an_unknown_device_are_refused(world: World) -> None:
    await world.created("dev-1")
    with pytest.raises(RuleViolation):
        await world.service.update_slot("dev-1", wanted({}), caller=ADMIN)
    with pytest.raises(NotFound):
        await world.service.update_slot("dev-2", wanted({}), caller=ADMIN)


async def test_a_retired_device_is_returned_as_it_is(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    retired = (await world.service.decommission("dev-1", caller=ADMIN)).device
    done = await world.service.update_slot(
        "dev-1", wanted({0: certificate.serial_number}), caller=ADMIN
    )
    assert done.device == retired
