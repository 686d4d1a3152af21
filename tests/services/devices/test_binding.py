"""Filling the identity slot."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy.engine import Dialect

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.platform.database import Prepared
from lamassu.platform.database.prepared import Plan
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.devices.contract import (
    BindMode,
    DeviceStatus,
    SlotStatus,
)
from tests.services.devices.world import ADMIN, World, sha256


async def test_just_in_time_the_device_appears_with_its_identity(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")

    assert device == await world.service.find("dev-1")
    assert device.status is DeviceStatus.ACTIVE
    assert device.slot is not None
    assert device.slot.current.serial_number == certificate.serial_number
    assert device.slot.current.number == 0
    assert device.slot.expires_at == certificate.not_after
    assert [(e.type, e.description) for e in device.slot.events] == [("PROVISIONED", "")]
    assert [e.type for e in device.events] == ["CREATED", "STATUS-UPDATED"]


async def test_a_binding_tells_of_creation_status_and_identity(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")

    assert [name for _, name, _ in await world.records("event")] == [
        "device.create",
        "device.status.update",
        "device.identity.update",
    ]
    assert {subject for _, _, subject in await world.records()} == {"device/dev-1"}
    told = json.loads((await world.bodies("device.identity.update"))[0])
    data = told["data"] if "data" in told else told["cloud_event"]["data"]
    assert "identity" not in data["previous"]
    assert data["updated"]["identity"]["versions"] == {"0": certificate.serial_number}
    assert device.version == 2


async def test_repeating_a_binding_changes_nothing(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    records = await world.records()

    again = await world.service.bind(world.binding("dev-1", certificate, judged=None, create=True))

    assert again == device
    assert await world.records() == records


async def test_two_retries_at_once_bind_once(world: World) -> None:
    certificate = world.office.add("dev-1")
    binding = world.binding("dev-1", certificate, judged=None, create=True)

    devices = await asyncio.gather(*(world.service.bind(binding) for _ in range(5)))

    assert all(device == devices[0] for device in devices)
    assert len(await world.bodies("device.identity.update")) == 2  # its event and its audit


async def test_a_preregistered_device_gets_its_first_identity(world: World) -> None:
    registered = await world.created("dev-1")
    certificate = world.office.add("dev-1")

    device = await world.service.bind(
        world.binding("dev-1", certificate, judged=registered.version)
    )

    assert registered.status is DeviceStatus.NO_IDENTITY
    assert device.status is DeviceStatus.ACTIVE
    assert [e.description for e in device.events] == ["", "from NO_IDENTITY to ACTIVE"]


async def test_a_renewal_appends_a_version(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    world.clock.advance(timedelta(days=1))

    renewed, second = await world.renewed(device)

    assert renewed == await world.service.find("dev-1")
    assert renewed.slot is not None
    assert [v.serial_number for v in renewed.slot.versions] == [
        first.serial_number,
        second.serial_number,
    ]
    assert renewed.slot.active_version == 1
    assert [(e.type, e.description) for e in renewed.slot.events] == [
        ("PROVISIONED", ""),
        ("RENEWED", "New Active Version set to 1"),
    ]
    assert [e.type for e in renewed.events] == ["CREATED", "STATUS-UPDATED"]


async def test_earlier_certificates_still_lead_to_their_device(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    renewed, second = await world.renewed(device)
    assert await world.service.find_by_certificate(sha256(first)) == renewed
    assert await world.service.find_by_certificate(sha256(second)) == renewed
    assert await world.service.find_by_certificate("00" * 32) is None


async def test_what_was_judged_on_another_state_is_refused(world: World) -> None:
    device, _ = await world.enrolled("dev-1")
    await world.renewed(device)
    late = world.office.add("dev-1")

    for stale in (
        world.binding("dev-1", late, judged=device.version, mode=BindMode.RENEWED),
        world.binding("dev-1", late, judged=None, mode=BindMode.RENEWED),
        world.binding("dev-1", late, judged=device.version + 1),  # PROVISIONED, but it has a slot
        world.binding(
            "dev-1", late, judged=device.version + 1, mode=BindMode.RENEWED, dms_id="foreign"
        ),
    ):
        with pytest.raises(Conflict) as refused:
            await world.service.bind(stale)
        assert refused.value.code == "device_changed"
    assert await world.service.find_by_certificate(sha256(late)) is None


async def test_of_two_renewals_at_once_one_wins(world: World) -> None:
    device, _ = await world.enrolled("dev-1")
    bindings = [
        world.binding("dev-1", world.office.add("dev-1"), judged=device.version, mode=mode)
        for mode in [BindMode.RENEWED] * 4
    ]

    results = await asyncio.gather(*map(world.service.bind, bindings), return_exceptions=True)

    lost = [r for r in results if isinstance(r, Conflict)]
    assert len(lost) == 3
    assert {error.code for error in lost} == {"device_changed"}
    after = await world.service.get("dev-1")
    assert after.slot is not None
    assert [v.number for v in after.slot.versions] == [0, 1]


async def test_of_two_first_enrollments_at_once_one_wins(world: World) -> None:
    bindings = [
        world.binding("dev-1", world.office.add("dev-1"), judged=None, create=True)
        for _ in range(4)
    ]

    results = await asyncio.gather(*map(world.service.bind, bindings), return_exceptions=True)

    assert sorted(r.code for r in results if isinstance(r, Conflict)) == ["device_exists"] * 3
    after = await world.service.get("dev-1")
    assert after.slot is not None
    assert len(after.slot.versions) == 1


async def test_a_device_that_looks_like_another_is_not_made(world: World) -> None:
    await world.enrolled("Dev 1")
    for imitation in ("dev 1", "DEV  1", " Dev 1", "Dev\u00a01"):
        certificate = world.office.add(imitation)
        assert (await world.service.find_candidate(imitation, "")).lookalike == "Dev 1"
        with pytest.raises(Conflict) as refused:
            await world.service.bind(
                world.binding(imitation, certificate, judged=None, create=True)
            )
        assert refused.value.code == "device_exists"
        assert await world.service.find(imitation) is None
    assert (await world.service.find_candidate("Dev 1", "")).lookalike is None


async def test_a_certificate_fills_one_slot_only(world: World) -> None:
    _, certificate = await world.enrolled("dev-1")
    with pytest.raises(Conflict) as refused:
        await world.service.bind(world.binding("dev-2", certificate, judged=None, create=True))
    assert refused.value.code == "certificate_refused"
    assert await world.service.find("dev-2") is None


async def test_a_refused_certificate_is_never_bound(world: World) -> None:
    certificate = world.office.add("dev-1")

    assert await world.service.refuse(certificate.serial_number, "dev-1")
    assert await world.service.refuse(certificate.serial_number, "dev-1")

    with pytest.raises(Conflict) as refused:
        await world.service.bind(world.binding("dev-1", certificate, judged=None, create=True))
    assert refused.value.code == "certificate_refused"
    assert await world.service.find("dev-1") is None
    audits = await world.records("audit")
    assert [name for _, name, _ in audits] == ["device.certificate.refuse"]


async def test_a_bound_certificate_cannot_be_refused(world: World) -> None:
    device, first = await world.enrolled("dev-1")
    await world.renewed(device)
    assert not await world.service.refuse(first.serial_number, "dev-1")
    assert await world.service.find_by_certificate(sha256(first)) is not None


async def test_binding_and_refusing_at_once_do_not_both_succeed(world: World) -> None:
    for number in range(10):
        device_id = f"dev-{number}"
        certificate = world.office.add(device_id)
        binding = world.binding(device_id, certificate, judged=None, create=True)
        bound, refused = await asyncio.gather(
            world.service.bind(binding),
            world.service.refuse(certificate.serial_number, device_id),
            return_exceptions=True,
        )
        assert isinstance(refused, bool)
        assert refused is isinstance(bound, Conflict)
        assert (await world.service.find(device_id) is None) is refused


async def test_an_unknown_device_is_not_made_unasked(world: World) -> None:
    certificate = world.office.add("dev-1")
    with pytest.raises(NotFound):
        await world.service.bind(world.binding("dev-1", certificate, judged=None))


async def test_a_bound_certificate_that_was_overtaken_is_not_given_again(world: World) -> None:
    _device, certificate = await world.enrolled("dev-1")
    binding = world.binding("dev-1", certificate, judged=None, create=True)
    world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    await world.service.follow_certificate(certificate.serial_number)
    with pytest.raises(Conflict):
        await world.service.bind(binding)

    other, first = await world.enrolled("dev-2")
    await world.renewed(other)
    with pytest.raises(Conflict):
        await world.service.bind(world.binding("dev-2", first, judged=None, create=True))


async def test_a_deleted_device_does_not_come_back_just_in_time(world: World) -> None:
    _device, certificate = await world.enrolled("dev-1")
    await world.service.decommission("dev-1", caller=ADMIN)
    await world.service.delete("dev-1", caller=ADMIN)

    assert (await world.service.find_candidate("dev-1", "")).was_deleted
    assert (await world.service.find_candidate("DEV-1", "")).lookalike == "dev-1"
    late = world.office.add("dev-1")
    with pytest.raises(Conflict) as refused:
        await world.service.bind(world.binding("dev-1", late, judged=None, create=True))
    assert refused.value.code == "device_deleted"
    # its old certificate is still known as its own, and grants nothing
    owner = await world.service.find_by_certificate(sha256(certificate))
    assert owner is not None
    assert (owner.id, owner.status) == ("dev-1", DeviceStatus.DECOMMISSIONED)
    with pytest.raises(Conflict):
        await world.service.bind(world.binding("dev-1", certificate, judged=None, create=True))


async def test_a_retired_device_takes_no_certificate(world: World) -> None:
    await world.enrolled("dev-1")
    device = (await world.service.decommission("dev-1", caller=ADMIN)).device
    late = world.office.add("dev-1")
    with pytest.raises(Conflict):
        await world.service.bind(
            world.binding("dev-1", late, judged=device.version, mode=BindMode.RE_PROVISIONED)
        )


async def test_the_first_use_is_noted_once(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    await world.service.mark_used("dev-1", sha256(certificate))
    first_use = world.clock.now()
    world.clock.advance(timedelta(hours=1))
    await world.service.mark_used("dev-1", sha256(certificate))
    await world.service.mark_used("other", sha256(certificate))

    after = await world.service.get("dev-1")

    assert after.slot is not None
    assert after.slot.current.first_used_at == first_use
    assert after.version == device.version  # nothing that an enrolment was judged on changed


async def test_an_identity_expires_with_its_certificate(world: World) -> None:
    device, _certificate = await world.enrolled("dev-1", lifetime=timedelta(days=1))
    world.clock.advance(timedelta(days=1, seconds=1))

    expired = await world.service.get("dev-1")

    assert expired.status is DeviceStatus.EXPIRED
    assert expired.slot is not None
    assert expired.slot.status is SlotStatus.EXPIRED
    assert replace(expired, status=device.status, slot=device.slot) == device


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verb of each prepared statement that ran."""
    seen: list[str] = []
    on = Prepared.on

    def noted(prepared: Prepared, dialect: Dialect) -> Plan:
        plan = on(prepared, dialect)
        seen.append(plan.text.split(maxsplit=1)[0])
        return plan

    monkeypatch.setattr(Prepared, "on", noted)
    return seen


async def test_a_binding_takes_few_statements(world: World, statements: list[str]) -> None:
    enrolled, _ = await world.enrolled("dev-1")
    assert statements == ["INSERT", "INSERT", "INSERT"]
    statements.clear()
    await world.renewed(enrolled)
    assert statements == ["SELECT", "UPDATE", "INSERT", "INSERT"]
