"""The slot's status follows the certificate, whatever events come in whatever order."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import Conflict
from lamassu.kernel.records import StoredEvent
from lamassu.services.ca.contract import CertificateStanding, CertificateStatus
from lamassu.services.devices.contract import BindMode, DeviceStatus, SlotStatus
from lamassu.services.devices.events import CA_STATUS, CERTIFICATE_STATUS, DeviceEvents
from lamassu.services.devices.model import (
    BoundCertificate,
    StoredDevice,
    StoredSlot,
    device_at,
    with_slot_status,
)
from lamassu.services.devices.rules import followed_status
from tests.services.devices.world import START, World


def heard(kind: str, subject: str) -> StoredEvent:
    return StoredEvent("ca", 1, kind, subject, "{}")


async def test_a_revoked_certificate_takes_its_device_along(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)

    handler = DeviceEvents(world.service)
    await handler.handle(heard(CERTIFICATE_STATUS, f"certificate/{certificate.serial_number}"))

    device = await world.service.get("dev-1")
    assert device.status is DeviceStatus.REVOKED
    assert device.slot is not None
    assert device.slot.status is SlotStatus.REVOKED
    assert device.slot.events[-1].description == "from ACTIVE to REVOKED"
    assert device.events[-1].type == "STATUS-UPDATED"
    assert (await world.records("event"))[-1][1] == "device.status.update"


async def test_a_repeated_event_changes_nothing(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    await world.service.follow_certificate(certificate.serial_number)
    assert await world.service.get("dev-1") == device
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    await world.service.follow_certificate(certificate.serial_number)
    records = await world.records()
    device = await world.service.get("dev-1")

    await world.service.follow_certificate(certificate.serial_number)

    assert await world.service.get("dev-1") == device
    assert await world.records() == records


async def test_a_released_certificate_brings_its_device_back(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    for status in (CertificateStatus.REVOKED, CertificateStatus.ACTIVE):
        world.office.set_status(certificate.serial_number, status)
        await world.service.follow_certificate(certificate.serial_number)
    assert (await world.service.get("dev-1")).status is DeviceStatus.ACTIVE


async def test_the_end_of_an_earlier_certificate_leaves_the_device_alone(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    renewed, _ = await world.renewed(device)
    world.office.set_status(first.serial_number, CertificateStatus.REVOKED)  # as Superseded
    await world.service.follow_certificate(first.serial_number)
    assert await world.service.get("dev-1") == renewed


async def test_a_forged_or_foreign_event_changes_nothing(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    records = await world.records()
    handler = DeviceEvents(world.service)
    for subject in (
        f"certificate/{certificate.serial_number}",  # it says revoked; the CA does not
        "certificate/ffff",
        "certificate/",
        "dev-1",
        "ca/dev-1",
    ):
        await handler.handle(heard(CERTIFICATE_STATUS, subject))
        await handler.handle(heard(CA_STATUS, subject))
    assert await world.service.get("dev-1") == device
    assert await world.records() == records


async def test_a_revoked_ca_takes_the_devices_under_it_along(world: World) -> None:
    under = [(await world.enrolled(f"dev-{n}"))[0].id for n in range(3)]
    beside, _ = await world.enrolled("beside", ca_id="other-ca")
    moved, _ = await world.enrolled("moved", ca_id="issuing-ca")
    world.office.add(moved.id, ca_id="other-ca")
    moved, _ = await _moved_to_other_ca(world, moved.id)

    world.office.revoked_cas.add("issuing-ca")
    await DeviceEvents(world.service).handle(heard(CA_STATUS, "ca/issuing-ca"))

    for device_id in under:
        assert (await world.service.get(device_id)).status is DeviceStatus.REVOKED
    assert await world.service.get("beside") == beside
    assert await world.service.get("moved") == moved

    world.office.revoked_cas.clear()
    await world.service.follow_authority("issuing-ca")
    for device_id in under:
        assert (await world.service.get(device_id)).status is DeviceStatus.ACTIVE


async def _moved_to_other_ca(world: World, device_id: str):  # type: ignore[no-untyped-def]
    device = await world.service.get(device_id)
    certificate = world.office.add(device_id, ca_id="other-ca")
    binding = world.binding(
        device_id, certificate, judged=device.version, mode=BindMode.RE_PROVISIONED
    )
    return await world.service.bind(binding), certificate


async def test_a_certificate_revoked_before_it_is_bound_never_looks_active(world: World) -> None:
    certificate = world.office.add("dev-1")
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    await world.service.follow_certificate(certificate.serial_number)

    with pytest.raises(Conflict) as refused:
        await world.service.bind(world.binding("dev-1", certificate, judged=None, create=True))

    assert refused.value.code == "certificate_refused"
    assert await world.service.find("dev-1") is None


async def test_a_revoked_certificate_that_is_no_devices_is_passed_over(world: World) -> None:
    certificate = world.office.add("somebody", attached=False)
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    await world.service.follow_certificate(certificate.serial_number)
    assert await world.records() == []


# The state machine by itself: what an event makes of a slot is a function of where the
# certificate stands, so order and number of events cannot matter.

_STATUSES = st.sampled_from([s for s in SlotStatus if s is not SlotStatus.EXPIRED])


def device_with(status: SlotStatus) -> StoredDevice:
    certificate = BoundCertificate(
        0, "ca", "01", "aa", BindMode.PROVISIONED, START, DeviceStatus.NO_IDENTITY
    )
    slot = StoredSlot(status, 0, (certificate,), START + timedelta(days=1))
    return StoredDevice("dev", "fleet", "i", "c", START, slot=slot)


def followed(device: StoredDevice, standing: CertificateStanding) -> StoredDevice:
    assert device.slot is not None
    return with_slot_status(device, followed_status(device.slot, standing), START)


@given(
    start=_STATUSES,
    history=st.lists(st.booleans(), min_size=1, max_size=8),
    told=st.lists(st.integers(0, 7), max_size=8),
)
def test_any_order_of_events_ends_where_the_certificate_stands(
    start: SlotStatus, history: list[bool], told: list[int]
) -> None:
    """`history` is whether it was revoked, step by step; `told` says after which steps an event
    was handled (late, twice or never), the last one after all was over."""
    device = device_with(start)
    for step, revoked in enumerate(history):
        standing = CertificateStanding(True, revoked, START)
        for _ in range(told.count(step)):
            device = followed(device, standing)
    device = followed(device, CertificateStanding(True, history[-1], START))

    status = device_at(device, START).status
    assert (status is DeviceStatus.REVOKED) is history[-1]
    again = followed(device, CertificateStanding(True, history[-1], START))
    assert again is device


@given(start=_STATUSES, standings=st.permutations([True, False, True]))
def test_the_way_there_does_not_matter(start: SlotStatus, standings: list[bool]) -> None:
    ends = set()
    for order in itertools.permutations(standings):
        device = device_with(start)
        for revoked in (*order, True):
            device = followed(device, CertificateStanding(True, revoked, START))
        assert device.slot is not None
        ends.add(device.slot.status)
    assert ends == {SlotStatus.REVOKED}


@given(start=_STATUSES)
def test_a_certificate_that_the_ca_does_not_know_decides_nothing(start: SlotStatus) -> None:
    device = device_with(start)
    assert followed(device, CertificateStanding(False, False, START)) is device
