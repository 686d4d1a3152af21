"""Counts that are kept are those one would count, whatever happens to certificates."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.ca.model import StatusChange
from lamassu.services.ca.storage.counting import miscounted
from lamassu.services.ca.storage.tables import certificate_changes, certificates

from .world import ALICE, World

S = CertificateStatus


async def wrong(world: World) -> int:
    async with world.database.reading("ca") as connection:
        return await miscounted(connection)


async def recounted(world: World, ca_id: str | None = None) -> dict[CertificateStatus, int]:
    """One by one, by our own reading of each row."""
    query = select(certificates.c.status, certificates.c.not_after)
    if ca_id is not None:
        query = query.where(certificates.c.issuer_ca_id == ca_id)
    counts = dict.fromkeys(S, 0)
    now = world.clock.now()
    async with world.database.reading("ca") as connection:
        for row in await connection.execute(query):
            expired = row.status == "ACTIVE" and row.not_after < now
            counts[S.EXPIRED if expired else S(row.status)] += 1
    return counts


async def stats(world: World, ca_id: str | None = None) -> dict[CertificateStatus, int]:
    counted = await world.ca.stats(issuer_ca_id=ca_id)
    assert counted.certificates == sum(counted.certificates_by_status.values())
    return dict(counted.certificates_by_status)


async def test_counts_are_right_at_every_instant(world: World) -> None:
    await world.hierarchy()
    issued = [await world.issue(f"device-{n}") for n in range(6)]
    await world.issue("elsewhere", ca_id="other")
    for number, reason in ((0, RevocationReason.KEY_COMPROMISE), (1, RevocationReason.UNSPECIFIED)):
        change = StatusChange(S.REVOKED, reason)
        await world.ca.change_certificate_status(issued[number].serial_number, change, caller=ALICE)
    end = issued[2].not_after.astimezone(UTC)
    async with world.database.unit("ca") as unit:  # ends of the same day, around now
        for number, away in ((2, -5), (3, 0), (4, 5)):
            await unit.connection.execute(
                update(certificates)
                .where(certificates.c.serial_number == issued[number].serial_number)
                .values(not_after=end + timedelta(seconds=away))
            )
    for moment in (
        end - timedelta(days=1),
        *(end + timedelta(seconds=s) for s in (-6, -5, -1, 0, 1, 4, 5, 6)),
        end + timedelta(days=1),
        end + timedelta(days=4000),
    ):
        world.clock.time = moment
        for ca_id in (None, "issuing", "other", "unknown"):
            assert await stats(world, ca_id) == await recounted(world, ca_id), (moment, ca_id)
    assert await wrong(world) == 0


async def test_folding_changes_no_count_and_can_be_done_at_any_time(world: World) -> None:
    await world.hierarchy()
    serials = [(await world.issue(f"device-{n}")).serial_number for n in range(4)]
    before = await stats(world)

    await asyncio.gather(*(world.ca.fold_counts() for _ in range(3)))
    assert await stats(world) == before
    async with world.database.reading("ca") as connection:
        left = await connection.scalar(select(func.count()).select_from(certificate_changes))
    assert left == 0
    async with world.database.unit("ca") as unit:
        gone = delete(certificates).where(certificates.c.serial_number.in_(serials[:2]))
        await unit.connection.execute(gone)
    assert await stats(world) == await recounted(world)
    await world.ca.fold_counts()
    assert await stats(world) == await recounted(world)
    assert await wrong(world) == 0


async def test_what_is_not_committed_is_not_counted(world: World) -> None:
    await world.hierarchy()
    certificate = await world.issue()
    before = await stats(world)
    gone = delete(certificates).where(certificates.c.serial_number == certificate.serial_number)

    async def fail_late() -> None:
        async with world.database.unit("ca") as unit:
            await unit.connection.execute(gone)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail_late()
    assert await stats(world) == before
    assert await wrong(world) == 0


async def test_lists_are_asked_by_metadata(world: World) -> None:
    await world.hierarchy()
    for name, site in (("a", 2), ("b", 10), ("c", None)):
        certificate = await world.issue(name, device_id=name, owner="factory")
        value = {"site": site} if site else {}
        patches = [{"op": "add", "path": "/at", "value": value}]
        path = f"/v1/certificates/{certificate.serial_number}/metadata"
        assert (await world.api.patch(path, json={"patches": patches})).status_code == 200

    async def names(**query: str) -> list[str]:
        answer = await world.api.get("/v1/cas/issuing/certificates", params=query)
        assert answer.status_code == 200, answer.text
        return [one["subject"]["common_name"] for one in answer.json()["list"]]

    assert await names(filter="metadata[jsonpath]$.at.site == 10") == ["b"]
    assert await names(filter="metadata[jsonpath]%24.at.site%20%3C%205") == ["a"]
    attached = 'metadata[jsonpath]$."lamassu.io/ra/attached-to".device_id == "c"'
    assert await names(filter=attached) == ["c"]
    assert await names(sort_by="metadata[jsonpath]$.at.site") == ["c", "a", "b"]
    descending = {"sort_by": "metadata[jsonpath]$.at.site", "sort_mode": "desc"}
    assert await names(**descending) == ["b", "a", "c"]
    first = await world.api.get(
        "/v1/cas/issuing/certificates", params={**descending, "page_size": 1}
    )
    rest = await names(bookmark=first.json()["next"])
    assert rest == ["a"]
    for bad in ("metadata[jsonpath]$.at", 'metadata[jsonpath]$."lamassu.io/ca/reissued-as" == "x"'):
        answer = await world.api.get("/v1/certificates", params={"filter": bad})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json_path"), bad
    assert (await world.api.get("/v1/cas", params={"filter": "metadata[jsonpath]$.x == 1"})).json()[
        "list"
    ] == []


async def test_every_plain_field_sorts_and_pages(world: World) -> None:
    """Put together, pages of one are the whole list, in both directions."""
    await world.hierarchy()
    issued = [await world.issue(f"device-{n}") for n in range(3)]
    change = StatusChange(S.REVOKED, RevocationReason.SUPERSEDED)
    await world.ca.change_certificate_status(issued[0].serial_number, change, caller=ALICE)
    for field in (
        *("type", "serial_number", "subject.common_name", "subject_key_id", "issuer_meta.id"),
        *("status", "engine_id", "valid_to", "valid_from", "revocation_timestamp"),
        *("revocation_reason", "extensions.key_usage", "extensions.extended_key_usage", "is_ca"),
    ):
        whole: dict[str, list[str]] = {}
        for mode in ("asc", "desc"):
            query = {"sort_by": field, "sort_mode": mode, "page_size": "1"}
            found: list[str] = []
            while True:
                answer = (await world.api.get("/v1/certificates", params=query)).json()
                found += [one["serial_number"] for one in answer["list"]]
                if not answer["next"]:
                    break
                assert len(found) < 20, (field, mode)
                query = {"bookmark": answer["next"]}
            whole[mode] = found
        assert len(whole["asc"]) == 7, field
        assert whole["desc"] == whole["asc"][::-1], field
