"""Devices of another system: what of them is believed, and what went on there since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lamassu.kernel.adoption import Batch, Outcome, Verdict
from lamassu.services.ca.contract import Certificate, CertificateStatus
from lamassu.services.devices.contract import BindMode, DeviceStatus, SlotStatus
from lamassu.services.devices.model import Scope, TimelineLine
from lamassu.services.devices.usecases.adopt_devices import (
    MOST_LINES,
    FoundDevice,
    FoundSlot,
    FoundVersion,
)
from tests.services.devices.world import ADMIN, START, World, sha256

BATCH = Batch("test", 1)


def found(
    device_id: str = "dev-1",
    certificates: Sequence[Certificate] = (),
    *,
    status: SlotStatus = SlotStatus.ACTIVE,
    **more: Any,
) -> FoundDevice:
    slot = None
    if certificates:
        versions: Mapping[int, FoundVersion] = {
            number: FoundVersion(
                one.serial_number, BindMode.RENEWED, START - timedelta(days=10 - number)
            )
            for number, one in enumerate(certificates)
        }
        slot = FoundSlot(status, len(certificates) - 1, versions)
    given = {
        "dms_id": "fleet",
        "icon": "i",
        "icon_color": "c",
        "created_at": START - timedelta(days=90),
        "tags": ["a", "b"],
        "metadata": {"room": [7, {"x": None}]},
    }
    return FoundDevice(id=device_id, slot=slot, **(given | more))


async def take(world: World, *devices: FoundDevice, batch: Batch = BATCH) -> Sequence[Verdict]:
    return await world.service.adoption.adopt(batch, devices, caller=ADMIN)


async def test_a_device_comes_with_its_slot_and_history(world: World) -> None:
    first, second = world.office.add("dev-1"), world.office.add("dev-1")
    line = TimelineLine(Scope.DEVICE, START - timedelta(days=5), "SHADOW-UPDATED", "x")

    (verdict,) = await take(world, found(certificates=[first, second], timeline=[line]))

    assert verdict == Verdict("dev-1", Outcome.ADOPTED)
    device = await world.service.get("dev-1")
    assert (device.status, device.tags, device.metadata) == (
        DeviceStatus.ACTIVE, ("a", "b"), {"room": [7, {"x": None}]},
    )  # fmt: skip
    assert device.slot is not None
    assert [one.serial_number for one in device.slot.versions] == [
        first.serial_number, second.serial_number,
    ]  # fmt: skip
    assert device.slot.current.certificate_sha256 == sha256(second)
    assert device.slot.expires_at == second.not_after
    assert [one.type for one in device.events] == ["CREATED", "SHADOW-UPDATED"]
    assert [one.type for one in device.slot.events] == ["RENEWED", "RENEWED"]


async def test_a_batch_leaves_one_event_and_one_record(world: World) -> None:
    await take(world, *(found(f"dev-{n}", [world.office.add(f"dev-{n}")]) for n in range(7)))

    assert [(kind, subject) for _, kind, subject in await world.records()] == [
        ("device.adopt", "adoption/test"),
        ("device.adopt", "adoption/test"),
    ]


async def test_an_adopted_device_renews(world: World) -> None:
    certificate = world.office.add("dev-1")
    await take(world, found(certificates=[certificate]))

    device, newer = await world.renewed(await world.service.get("dev-1"))

    assert device.slot is not None
    assert device.slot.current.number == 1
    assert device.slot.current.serial_number == newer.serial_number


@pytest.mark.parametrize("fault", ["unknown", "foreign", "of another device", "of a CA"])
async def test_what_is_not_the_devices_fills_no_slot(world: World, fault: str) -> None:
    """Security rule 14."""
    certificate = world.office.add("dev-2" if fault == "of another device" else "dev-1")
    office = world.office.certificates
    if fault == "unknown":
        del office[certificate.serial_number]
    if fault == "foreign":
        office[certificate.serial_number] = replace(certificate, issuer_ca_id="-")
    if fault == "of a CA":
        office[certificate.serial_number] = replace(certificate, is_ca=True)

    (verdict,) = await take(world, found(certificates=[certificate]))

    assert (verdict.outcome, verdict.code) == (Outcome.ADOPTED, "slot_not_adopted")
    device = await world.service.get("dev-1")
    assert (device.status, device.slot) == (DeviceStatus.NO_IDENTITY, None)
    assert await world.service.find_by_certificate(sha256(certificate)) is None


async def test_an_earlier_certificate_that_is_not_the_devices_is_left_out(world: World) -> None:
    other, mine = world.office.add("dev-9"), world.office.add("dev-1")

    (verdict,) = await take(world, found(certificates=[other, mine]))

    assert (verdict.outcome, verdict.code) == (Outcome.ADOPTED, "versions_dropped")
    device = await world.service.get("dev-1")
    assert device.slot is not None
    assert [one.number for one in device.slot.versions] == [1]
    device, _ = await world.renewed(device)
    assert device.slot is not None
    assert device.slot.current.number == 2


async def test_a_certificate_is_one_devices(world: World) -> None:
    certificate = world.office.add("dev-1")
    twin = found("dev-1", [certificate])

    verdicts = await take(world, twin, replace(found("DEV-1", [certificate])))

    assert [(one.outcome, one.code) for one in verdicts] == [
        (Outcome.ADOPTED, ""), (Outcome.SKIPPED, "device_exists"),
    ]  # fmt: skip


async def test_a_certificate_that_a_device_here_has_stays_its_own(world: World) -> None:
    device, certificate = await world.enrolled("dev-1")
    office = world.office.certificates
    renamed = replace(certificate, subject=replace(certificate.subject, common_name="dev-2"))
    office[certificate.serial_number] = renamed

    (verdict,) = await take(world, found("dev-2", [certificate]))

    assert verdict.code == "slot_not_adopted"
    holder = await world.service.find_by_certificate(sha256(certificate))
    assert holder is not None
    assert holder.id == device.id


@pytest.mark.parametrize("how", ["certificate", "authority", "slot"])
async def test_a_revoked_device_comes_revoked(world: World, how: str) -> None:
    certificate = world.office.add("dev-1")
    if how == "certificate":
        world.office.set_status(certificate.serial_number, CertificateStatus.REVOKED)
    if how == "authority":
        world.office.revoked_cas.add(certificate.issuer_ca_id)
    status = SlotStatus.REVOKED if how == "slot" else SlotStatus.ACTIVE

    await take(world, found(certificates=[certificate], status=status))

    assert (await world.service.get("dev-1")).status is DeviceStatus.REVOKED


async def test_a_retired_device_stays_retired(world: World) -> None:
    await take(world, found(decommissioned_at=START - timedelta(days=1)))

    assert (await world.service.get("dev-1")).status is DeviceStatus.DECOMMISSIONED


async def test_a_deleted_device_is_not_brought_back(world: World) -> None:
    """Security rule 17: only a person does that."""
    await world.created("dev-1")
    await world.service.decommission("dev-1", caller=ADMIN)
    await world.service.delete("dev-1", caller=ADMIN)

    (verdict,) = await take(world, found(certificates=[world.office.add("dev-1")]))

    assert (verdict.outcome, verdict.code) == (Outcome.SKIPPED, "device_deleted")
    assert await world.service.find("dev-1") is None


async def test_a_device_without_owner_or_with_a_broken_id_is_skipped(world: World) -> None:
    verdicts = await take(world, found(dms_id=""), found("dev\n1"), found("good"))

    assert [one.outcome for one in verdicts] == [
        Outcome.SKIPPED, Outcome.SKIPPED, Outcome.ADOPTED,
    ]  # fmt: skip


async def test_repeating_brings_nothing_twice_and_what_happened_there_since(world: World) -> None:
    first = world.office.add("dev-1")
    await take(world, found(certificates=[first]), found("dev-2"))
    told = len(await world.records())

    again = await take(world, found(certificates=[first]), found("dev-2"))

    assert {one.outcome for one in again} == {Outcome.PRESENT}
    assert len(await world.records()) == told
    second, given = world.office.add("dev-1"), world.office.add("dev-2")
    since = await take(
        world, found(certificates=[first, second]), found("dev-2", [given]), found("dev-3")
    )
    assert [one.outcome for one in since] == [Outcome.UPDATED, Outcome.UPDATED, Outcome.ADOPTED]
    renewed, provisioned = await world.service.get("dev-1"), await world.service.get("dev-2")
    assert renewed.slot is not None
    assert provisioned.slot is not None
    assert [one.serial_number for one in renewed.slot.versions] == [
        first.serial_number, second.serial_number,
    ]  # fmt: skip
    assert provisioned.slot.current.serial_number == given.serial_number


async def test_what_a_device_did_here_is_not_undone_by_what_it_did_there(world: World) -> None:
    first = world.office.add("dev-1")
    await take(world, found(certificates=[first]))
    device, here = await world.renewed(await world.service.get("dev-1"))
    there, later = world.office.add("dev-1"), world.office.add("dev-1")

    (verdict,) = await take(world, found(certificates=[first, there, later]))

    assert (verdict.outcome, verdict.code) == (Outcome.PRESENT, "device_differs")
    assert (await world.service.get("dev-1")).slot == device.slot
    assert device.slot is not None
    assert device.slot.current.serial_number == here.serial_number


async def test_a_device_that_was_retired_there_since_is_retired_here(world: World) -> None:
    await take(world, found())

    (verdict,) = await take(world, found(decommissioned_at=START))

    assert verdict.outcome is Outcome.UPDATED
    assert (await world.service.get("dev-1")).status is DeviceStatus.DECOMMISSIONED


async def test_a_dry_run_judges_by_what_it_would_have_brought(world: World) -> None:
    certificate = world.office.add("dev-1")
    del world.office.certificates[certificate.serial_number]
    trial = replace(BATCH, dry_run=True)

    (verdict,) = await world.service.adoption.adopt(
        trial,
        [found(certificates=[certificate])],
        caller=ADMIN,
        promised={certificate.serial_number: certificate},
    )

    assert verdict == Verdict("dev-1", Outcome.ADOPTED)
    assert await world.service.find("dev-1") is None
    assert not await world.records()


async def test_a_history_without_end_is_cut_to_its_newest_lines(world: World) -> None:
    lines = [
        TimelineLine(Scope.DEVICE, START - timedelta(hours=n), "STATUS-UPDATED", str(n))
        for n in range(2 * MOST_LINES, 0, -1)
    ]

    await take(world, found(timeline=lines))

    told = (await world.service.get("dev-1")).events
    assert len(told) == MOST_LINES + 1
    assert told[-1].description == "1"


async def test_a_device_made_meanwhile_is_judged_anew(world: World) -> None:
    adoption = world.service.adoption
    store = adoption._store
    taken = store.find_taken
    calls = 0

    async def late(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        seen = await taken(*given)
        if calls == 1:
            await world.created("dev-1")
        return seen

    store.find_taken = late  # type: ignore[method-assign]
    verdicts = await take(world, found(), found("dev-2"))

    assert [one.outcome for one in verdicts] == [Outcome.PRESENT, Outcome.ADOPTED]
