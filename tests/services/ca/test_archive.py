"""What ended long ago leaves the lists, and is found where it matters."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lamassu.kernel.errors import RuleViolation
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.ca.model import StatusChange
from lamassu.services.ca.storage.counting import miscounted

from .world import ALICE, World

RETENTION = timedelta(days=30)


async def aged(world: World) -> tuple[str, str]:
    """Two certificates that ended long ago, the first revoked before; their serial numbers."""
    await world.hierarchy()
    revoked, plain = await world.issue("revoked"), await world.issue("plain", owner="factory")
    change = StatusChange(CertificateStatus.REVOKED, RevocationReason.KEY_COMPROMISE)
    await world.ca.change_certificate_status(revoked.serial_number, change, caller=ALICE)
    world.clock.time = plain.not_after + RETENTION + timedelta(seconds=1)
    return revoked.serial_number, plain.serial_number


async def test_archived_certificates_are_found_by_serial_number_as_they_were(world: World) -> None:
    serials = await aged(world)
    fresh = await world.ca.get_ca("root")
    before = [await world.ca.get_certificate(serial) for serial in serials]
    standings = [await world.ca.standing("issuing", serial) for serial in serials]

    assert await world.ca.archiving.run(RETENTION, caller=ALICE) == 2
    assert await world.ca.archiving.run(RETENTION, caller=ALICE) == 0

    assert [await world.ca.get_certificate(serial) for serial in serials] == before
    assert await world.ca.find_certificates(serials) == dict(zip(serials, before, strict=True))
    assert [await world.ca.standing("issuing", serial) for serial in serials] == standings
    listed = (await world.api.get("/v1/certificates")).json()["list"]
    assert not {one["serial_number"] for one in listed} & set(serials)
    assert await world.ca.get_ca("root") == fresh
    async with world.database.reading("ca") as connection:
        assert await miscounted(connection) == 0
    [record] = [each for each in await world.records("audit") if "archive" in each["type"]]
    assert record["detail"]["count"] == 2


async def test_nothing_that_may_still_matter_is_archived(world: World) -> None:
    await world.hierarchy()
    await world.issue("alive")
    count = await world.count()
    assert await world.ca.archiving.run(RETENTION, caller=ALICE) == 0
    for short in (timedelta(0), timedelta(days=-1), timedelta(hours=23)):
        with pytest.raises(RuleViolation):
            await world.ca.archiving.run(short, caller=ALICE)
    world.clock.time += timedelta(days=9000)  # CAs' own certificates stay
    await world.ca.archiving.run(RETENTION, caller=ALICE)
    assert len((await world.api.get("/v1/cas")).json()["list"]) == 4
    assert (await world.count())["ca_certificates"] == count["ca_certificates"] - 1


async def test_the_route_says_how_many(world: World) -> None:
    await aged(world)
    path = "/v1/certificates/archive"
    answer = await world.api.post(path, json={"older_than": "30d"})
    assert (answer.status_code, answer.json()) == (200, {"archived": 2})
    assert (await world.api.post(path, json={"older_than": "1h"})).json()["code"] == (
        "retention_too_short"
    )
