"""Decommissioning, deleting and creating anew."""

from __future__ import annotations

import json

import pytest

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable, WrongState
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.devices.contract import DeviceStatus, SlotStatus
from lamassu.services.devices.rules import check_new_device
from tests.services.devices.world import ADMIN, World, new, sha256


async def test_a_retired_device_holds_no_living_certificate(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    _, second = await world.renewed(device)

    done = await world.service.decommission("dev-1", caller=ADMIN)

    assert done.published
    assert done.device == await world.service.get("dev-1")
    assert done.device.status is DeviceStatus.DECOMMISSIONED
    assert done.device.slot is not None
    assert done.device.slot.status is SlotStatus.REVOKED
    assert done.device.events[-1].type == "DECOMMISSIONED"
    assert world.office.reasons == [
        (first.serial_number, RevocationReason.CESSATION_OF_OPERATION),
        (second.serial_number, RevocationReason.CESSATION_OF_OPERATION),
    ]
    assert (await world.records())[-2:] == [
        ("event", "device.status.update", "device/dev-1"),
        ("audit", "device.decommission", "device/dev-1"),
    ]


async def test_a_failed_revocation_leaves_the_device_in_service(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    device, second = await world.renewed(device)
    records = await world.records()
    world.office.failing = 1

    with pytest.raises(Unavailable):
        await world.service.decommission("dev-1", caller=ADMIN)
    assert await world.service.get("dev-1") == device
    assert await world.records() == records

    done = await world.service.decommission("dev-1", caller=ADMIN)
    assert done.device.status is DeviceStatus.DECOMMISSIONED
    for certificate in (first, second):
        stored = world.office.certificates[certificate.serial_number]
        assert stored.stored_status is CertificateStatus.REVOKED


async def test_a_certificate_that_slips_in_is_revoked_too(world: World) -> None:
    device, _ = await world.enrolled("dev-1")

    async def renew() -> None:
        await world.renewed(device)

    world.office.before_revoking.append(renew)
    done = await world.service.decommission("dev-1", caller=ADMIN)

    assert done.device.slot is not None
    assert len(done.device.slot.versions) == 2
    assert all(
        c.stored_status is CertificateStatus.REVOKED for c in world.office.certificates.values()
    )


async def test_retiring_twice_changes_nothing(world: World) -> None:
    await world.enrolled("dev-1")
    first = await world.service.decommission("dev-1", caller=ADMIN)
    records = await world.records()
    assert await world.service.decommission("dev-1", caller=ADMIN) == first
    assert await world.records() == records


async def test_a_device_without_identity_retires(world: World) -> None:
    await world.created("dev-1")
    done = await world.service.decommission("dev-1", caller=ADMIN)
    assert done.device.status is DeviceStatus.DECOMMISSIONED
    assert world.office.reasons == []


async def test_a_revoked_device_retires_without_revoking_again(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    await world.service.decommission("dev-1", caller=ADMIN)
    assert world.office.reasons == []


async def test_later_events_do_not_wake_a_retired_device(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    done = await world.service.decommission("dev-1", caller=ADMIN)
    world.office.set_status(certificate.serial_number, CertificateStatus.ACTIVE)
    await world.service.follow_certificate(certificate.serial_number)
    assert await world.service.get("dev-1") == done.device


async def test_what_is_not_yet_published_is_said_so(world: World) -> None:
    await world.enrolled("dev-1")
    world.office.published = False
    assert not (await world.service.decommission("dev-1", caller=ADMIN)).published


async def test_only_a_retired_device_is_deleted(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    with pytest.raises(WrongState):
        await world.service.delete("dev-1", caller=ADMIN)
    assert await world.service.get("dev-1") == device

    await world.service.decommission("dev-1", caller=ADMIN)
    await world.service.delete("dev-1", caller=ADMIN)

    assert await world.service.find("dev-1") is None
    for gone in (world.service.delete, world.service.decommission):
        with pytest.raises(NotFound):
            await gone("dev-1", caller=ADMIN)
    body = json.loads((await world.bodies("device.delete"))[0])
    assert json.dumps({"ID": "dev-1"}) in json.dumps(body)
    assert not await world.service.refuse(certificate.serial_number, "dev-1")


async def test_a_person_may_create_a_deleted_id_anew(world: World) -> None:
    _, old = await world.enrolled("dev-1")
    await world.service.decommission("dev-1", caller=ADMIN)
    await world.service.delete("dev-1", caller=ADMIN)
    with pytest.raises(Conflict):
        await world.created("DEV-1")

    device = await world.created("dev-1", dms_id="other")

    assert device == await world.service.find("dev-1")
    assert device.status is DeviceStatus.NO_IDENTITY
    assert device.dms_id == "other"
    assert not (await world.service.find_candidate("dev-1", "")).was_deleted
    certificate = world.office.add("dev-1")
    bound = await world.service.bind(
        world.binding("dev-1", certificate, judged=device.version, dms_id="other")
    )
    assert bound.slot is not None
    assert [v.number for v in bound.slot.versions] == [0]
    # the certificate of its former life is its own, but in no slot
    owner = await world.service.find_by_certificate(sha256(old))
    assert owner == bound


async def test_a_device_is_created_once(world: World) -> None:
    device = await world.created("dev-1", tags=("a",), metadata={"k": {"n": 1}})
    assert device.tags == ("a",)
    for taken in ("dev-1", "DEV-1"):
        with pytest.raises(Conflict) as refused:
            await world.created(taken)
        assert refused.value.code == "device_exists"
    assert await world.service.get("dev-1") == device


@pytest.mark.parametrize(
    "given",
    [
        {"device_id": ""},
        {"device_id": " "},
        {"device_id": "a\nb"},
        {"device_id": "x" * 256},
        {"device_id": "dev-1", "dms_id": ""},
        {"device_id": "dev-1", "dms_id": "a\x00b"},
    ],
)
def test_an_id_that_nobody_could_read_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(RuleViolation):
        check_new_device(new(given.pop("device_id"), **given))
