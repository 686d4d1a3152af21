"""Revocation, holds and release; CAs with all below them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lamassu.kernel.errors import LamassuError, NotFound, Unavailable
from lamassu.services.ca.contract import (
    CertificateStanding,
    CertificateStatus,
    RevocationReason,
)
from lamassu.services.ca.model import JobStatus, StatusChange
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import run_cascades

from .world import ALICE, START, YEAR, Listener, World

HOLD = RevocationReason.CERTIFICATE_HOLD
ZERO_TIME = "0001-01-01T00:00:00Z"


async def put_status(world: World, serial_number: str, status: str, **more: str) -> tuple[int, str]:
    """Status and text (or the certificate's new status) of the answer."""
    answer = await world.api.put(
        f"/v1/certificates/{serial_number}/status", json={"status": status, **more}
    )
    body = answer.json()
    return answer.status_code, body.get("err") or body["status"]


async def standing(world: World, serial_number: str, ca_id: str = "issuing") -> CertificateStanding:
    return await world.ca.standing(ca_id, serial_number)


REFUSED = (400, "new status transition not allowed for certificate")


async def test_every_reason_revokes(world: World) -> None:
    await world.hierarchy()

    for reason in set(RevocationReason) - {RevocationReason.REMOVE_FROM_CRL}:
        issued = await world.issue()
        answer = await world.api.put(
            f"/v1/certificates/{issued.serial_number}/status",
            json={"status": "REVOKED", "revocation_reason": reason.value.upper()},
        )

        assert answer.status_code == 200, answer.text
        certificate = answer.json()
        assert certificate["status"] == "REVOKED"
        assert certificate["revocation_reason"] == reason.value
        assert certificate["revocation_timestamp"] == "2026-05-01T12:00:00Z"
        assert "lamassu-revocation" not in answer.headers
        now = await standing(world, issued.serial_number)
        assert (now.known, now.revoked, now.reason) == (True, True, reason)
        assert now.revocation_time == START
        listed = {e.serial_number: e.reason for e in await world.ca.revoked_under("issuing")}
        assert listed[issued.serial_number] is reason
        event = (await world.records())[-1]
        assert event["type"] == "certificate.status.update"
        assert event["subject"] == f"certificate/{issued.serial_number}"
        assert event["data"]["previous"]["status"] == "ACTIVE"
        assert event["data"]["updated"] == certificate
    assert set(world.va.told) == {"issuing"}


async def test_the_seeds_revocation(world: World) -> None:
    await world.hierarchy()
    world.va.shows = False

    for reason in ("key_compromise", "KeyCompromise", "keycompromise"):
        issued = await world.issue()
        path = f"/v1/certificates/{issued.serial_number}/revoke"
        answer = await world.api.post(path, json={"reason": reason})

        assert answer.status_code == 200, answer.text
        assert answer.json()["revocation_reason"] == "KeyCompromise"
        assert answer.headers["lamassu-revocation"] == "pending"
        again = await world.api.post(path, json={"reason": reason})
        assert (again.status_code, again.json()["err"]) == REFUSED
    unknown = await world.api.post("/v1/certificates/00/revoke", json={})
    assert (unknown.status_code, unknown.json()["err"]) == (404, "certificate not found")


BAD_CHANGES: list[dict[str, object]] = [
    {"status": "REVOKED", "revocation_reason": "RemoveFromCRL"},
    {"status": "REVOKED", "revocation_reason": "Boredom"},
    {"status": "REVOKED", "revocation_reason": ""},
    {"status": "REVOKED", "revocation_reason": 1},
    {"status": "EXPIRED"},
    {"status": "Gone"},
    {"status": ""},
    {},
]


async def test_a_bad_change_of_status_changes_nothing(world: World) -> None:
    await world.hierarchy()
    issued = await world.issue()
    before = await world.count()

    for body in BAD_CHANGES:
        for answer in (
            await world.api.put(f"/v1/certificates/{issued.serial_number}/status", json=body),
            await world.api.post("/v1/cas/issuing/status", json=body),
        ):
            assert answer.status_code == 400, answer.text

    assert await world.count() == before
    assert not (await standing(world, issued.serial_number)).revoked


async def test_certificates_are_found_by_when_they_were_revoked(world: World) -> None:
    await world.hierarchy()
    serials = [(await world.issue()).serial_number for _ in range(2)]
    await put_status(world, serials[0], "REVOKED")

    async def found(condition: str) -> set[str]:
        query = {"filter": [f"revocation_timestamp{condition}", "is_ca[eq]false"]}
        answer = await world.api.get("/v1/certificates", params=query)
        return {each["serial_number"] for each in answer.json()["list"]}

    # never is the zero time, on the wire and in filters
    assert await found("[af]2000-01-01T00:00:00Z") == {serials[0]}
    assert await found("[bf]2000-01-01T00:00:00Z") == {serials[1]}
    assert await found(f"[eq]{ZERO_TIME}") == {serials[1]}
    sort = {"sort_by": "revocation_timestamp", "sort_mode": "desc", "page_size": "1"}
    first = (await world.api.get("/v1/certificates", params=sort)).json()
    assert first["list"][0]["serial_number"] == serials[0]
    rest = (await world.api.get("/v1/certificates", params={"bookmark": first["next"]})).json()
    assert rest["list"][0]["revocation_timestamp"] == ZERO_TIME


async def test_a_hold_is_released_and_leaves_no_trace(world: World) -> None:
    await world.hierarchy()
    serial_number = (await world.issue()).serial_number

    assert await put_status(
        world, serial_number, "REVOKED", revocation_reason="CertificateHold"
    ) == (200, "REVOKED")
    assert (await standing(world, serial_number)).reason is HOLD
    assert await put_status(world, serial_number, "INACTIVE") == REFUSED
    assert await put_status(world, serial_number, "ACTIVE") == (200, "ACTIVE")

    certificate = (await world.api.get(f"/v1/certificates/{serial_number}")).json()
    assert certificate["revocation_reason"] == "Unspecified"
    assert certificate["revocation_timestamp"] == ZERO_TIME
    assert await world.ca.revoked_under("issuing") == []
    assert not (await standing(world, serial_number)).revoked
    assert await put_status(
        world, serial_number, "REVOKED", revocation_reason="CertificateHold"
    ) == (200, "REVOKED")
    assert await put_status(world, serial_number, "REVOKED") == (200, "REVOKED")
    assert await put_status(world, serial_number, "ACTIVE") == REFUSED


async def test_an_inactive_certificate_is_answered_for_by_nobody(world: World) -> None:
    await world.hierarchy()
    serial_number = (await world.issue()).serial_number

    assert await put_status(world, serial_number, "INACTIVE") == (200, "INACTIVE")
    assert not (await standing(world, serial_number)).known
    assert await put_status(world, serial_number, "ACTIVE") == (200, "ACTIVE")
    assert (await standing(world, serial_number)).known


async def test_expiry_follows_from_the_end_date(world: World) -> None:
    await world.hierarchy()
    serial_number = (await world.issue()).serial_number
    revoked = (await world.issue("revoked")).serial_number
    await world.ca.revoke(revoked, RevocationReason.UNSPECIFIED, caller=ALICE)
    world.clock.advance(YEAR + timedelta(seconds=1))

    async def serial_numbers(path: str) -> list[str]:
        answer = await world.api.get(f"/v1/cas/issuing/certificates{path}")
        return [c["serial_number"] for c in answer.json()["list"]]

    assert await serial_numbers("?filter=status[eq]EXPIRED") == [serial_number]
    assert await serial_numbers("/status/EXPIRED") == [serial_number]
    assert await serial_numbers("/status/ACTIVE") == []
    assert await serial_numbers("/status/REVOKED") == [revoked]
    assert await serial_numbers("/status/NONSENSE") == []
    assert await put_status(world, serial_number, "REVOKED") == REFUSED
    assert await world.ca.revoked_under("issuing") == [], "expired entries leave the CRL"
    # security rule 23: the platform's own slices still can
    assert await world.ca.revoke(serial_number, RevocationReason.SUPERSEDED, caller=ALICE)
    assert (await standing(world, serial_number)).revoked


async def test_certificates_that_expire_within_a_window(world: World) -> None:
    await world.profile()
    await world.root()
    early = (await world.issue(ca_id="root")).serial_number
    world.clock.advance(timedelta(days=10))
    late = (await world.issue(ca_id="root")).serial_number

    async def within(query: str) -> list[str]:
        answer = await world.api.get(f"/v1/certificates/expiration?{query}&sort_by=valid_to")
        assert answer.status_code == 200, answer.text
        return [c["serial_number"] for c in answer.json()["list"]]

    window = "expires_after=2027-01-01T00:00:00Z&expires_before=2027-12-31T00:00:00Z"
    assert await within(window) == [early, late]
    assert await within(
        "expires_after=2027-05-01T12:00:00Z&expires_before=2027-12-31T00:00:00Z"
    ) == [late]
    await world.ca.revoke(late, RevocationReason.UNSPECIFIED, caller=ALICE)
    assert await within(window) == [early]
    assert await within("expires_after=2027-01-01T00:00:00Z") == []
    bad = await world.api.get("/v1/certificates/expiration?expires_after=tomorrow")
    assert (bad.status_code, bad.json()["field"]) == (400, "expires_after")


async def test_revoking_a_ca_revokes_its_subtree_at_once(world: World) -> None:
    """Attack on security rule 24: no status below is good from the commit on."""
    await world.hierarchy()
    leaf = await world.issue()
    held = await world.issue("held")
    revoked = await world.issue("revoked")
    await put_status(world, held.serial_number, "REVOKED", revocation_reason="CertificateHold")
    await world.ca.revoke(revoked.serial_number, RevocationReason.KEY_COMPROMISE, caller=ALICE)
    elsewhere = await world.issue(ca_id="root")

    answer = await world.api.post(
        "/v1/cas/between/status",
        json={"status": "REVOKED", "revocation_reason": "CACompromise"},
    )

    assert answer.status_code == 201, answer.text
    assert answer.json()["certificate"]["status"] == "REVOKED"
    assert answer.json()["certificate"]["revocation_reason"] == "CACompromise"
    job_id = answer.headers["lamassu-job"]
    assert world.ca.jobs_pending.is_set()
    for serial_number, reason in (
        (leaf.serial_number, RevocationReason.CESSATION_OF_OPERATION),
        (held.serial_number, RevocationReason.CESSATION_OF_OPERATION),
        (revoked.serial_number, RevocationReason.KEY_COMPROMISE),
    ):
        now = await standing(world, serial_number)
        assert (now.revoked, now.reason) == (True, reason)
    for ca_id, parent in (("issuing", "between"), ("other", "between"), ("between", "root")):
        ca = await world.ca.get_ca(ca_id)
        assert ca.revoked_by == "between"
        assert (await standing(world, ca.certificate.serial_number, parent)).revoked
        with pytest.raises(LamassuError, match="CA Status inconsistent"):
            await world.issue(ca_id=ca_id)
    assert not (await standing(world, elsewhere.serial_number, "root")).revoked
    assert (await world.ca.get_ca("issuing")).certificate.revocation_reason is (
        RevocationReason.CESSATION_OF_OPERATION
    )
    assert set(world.va.told) >= {"root", "between"}

    assert await world.ca.run_jobs() == 2

    job = await world.ca.find_job(job_id)
    assert job is not None
    assert job.status is JobStatus.DONE
    assert not world.ca.jobs_pending.is_set()
    rows = {entry.serial_number: entry.reason for entry in await world.ca.revoked_under("issuing")}
    assert rows == {
        leaf.serial_number: RevocationReason.CESSATION_OF_OPERATION,
        held.serial_number: RevocationReason.CESSATION_OF_OPERATION,
        revoked.serial_number: RevocationReason.KEY_COMPROMISE,
    }
    assert await world.ca.run_jobs() == 0
    again = await world.api.post("/v1/cas/between/status", json={"status": "REVOKED"})
    assert (again.status_code, again.json()["err"]) == REFUSED
    types = await world.event_types()
    assert types.count("ca.status.update") == 3
    assert types.count("certificate.status.update") == 2 + 2


async def test_a_cascade_goes_on_after_a_crash(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    for number in range(7):
        await world.issue(f"device-{number}")
    await world.ca.change_ca_status(
        "issuing", StatusChange(CertificateStatus.REVOKED), caller=ALICE
    )
    monkeypatch.setattr(run_cascades, "LARGEST_BATCH", 3)
    batches = 0
    finish = CaStorage.unit

    def crashing(self: CaStorage) -> object:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise Unavailable("the process is gone")
        return finish(self)

    monkeypatch.setattr(CaStorage, "unit", crashing)
    with pytest.raises(Unavailable):
        await world.ca.run_jobs()
    assert len(await world.ca.revoked_under("issuing")) == 3

    assert await world.ca.run_jobs() == 4
    assert len(await world.ca.revoked_under("issuing")) == 7


async def test_two_runners_share_a_cascade(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.hierarchy()
    for number in range(5):
        await world.issue(f"device-{number}")
    await world.ca.change_ca_status(
        "issuing", StatusChange(CertificateStatus.REVOKED), caller=ALICE
    )
    monkeypatch.setattr(run_cascades, "LARGEST_BATCH", 2)

    done = await asyncio.gather(world.ca.run_jobs(), world.ca.run_jobs())

    assert sum(done) == 5
    assert (await world.event_types()).count("certificate.status.update") == 5


async def test_a_held_ca_holds_its_subtree_and_lets_it_go(world: World) -> None:
    await world.hierarchy()
    leaf = await world.issue()
    hold = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
    await world.api.post("/v1/cas/other/status", json=hold)

    held = await world.api.post("/v1/cas/between/status", json=hold)

    assert "lamassu-job" not in held.headers
    now = await standing(world, leaf.serial_number)
    assert (now.revoked, now.reason) == (True, HOLD)
    assert await world.ca.run_jobs() == 0
    below = await world.api.post("/v1/cas/issuing/status", json={"status": "ACTIVE"})
    assert (below.status_code, below.json()["code"]) == (400, "issuer_revoked")

    released = await world.api.post("/v1/cas/between/status", json={"status": "ACTIVE"})

    assert released.status_code == 201
    assert not (await standing(world, leaf.serial_number)).revoked
    assert await world.issue("device-2")
    other = await world.ca.get_ca("other")
    assert other.revoked_by == "other", "its own hold stays"
    assert (await world.api.post("/v1/cas/other/status", json={"status": "ACTIVE"})).is_success
    assert await world.issue(ca_id="other")


async def test_a_held_root_can_return(world: World) -> None:
    await world.hierarchy()
    hold = {"status": "REVOKED", "revocation_reason": "CertificateHold"}

    await world.api.post("/v1/cas/root/status", json=hold)
    held = (await world.api.get("/v1/cas/root")).json()["certificate"]
    await world.api.post("/v1/cas/root/status", json={"status": "ACTIVE"})

    assert (held["status"], held["revocation_reason"]) == ("REVOKED", "CertificateHold")
    assert (await world.api.get("/v1/cas/root")).json()["certificate"]["status"] == "ACTIVE"
    assert await world.issue()


async def test_a_hold_can_become_final(world: World) -> None:
    await world.hierarchy()
    hold = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
    await world.api.post("/v1/cas/issuing/status", json=hold)
    await world.api.post("/v1/cas/between/status", json=hold)

    final = await world.api.post("/v1/cas/between/status", json={"status": "REVOKED"})

    assert final.status_code == 201
    for ca_id in ("between", "issuing", "other"):
        answer = await world.api.post(f"/v1/cas/{ca_id}/status", json={"status": "ACTIVE"})
        assert (answer.status_code, answer.json()["err"]) == REFUSED


async def test_revoking_a_cas_own_certificate_revokes_the_ca(world: World) -> None:
    await world.hierarchy()
    leaf = await world.issue()
    own = (await world.ca.get_ca("issuing")).certificate.serial_number

    answer = await world.api.put(f"/v1/certificates/{own}/status", json={"status": "REVOKED"})

    assert answer.status_code == 200
    assert answer.headers["lamassu-job"]
    assert (await standing(world, leaf.serial_number)).revoked
    with pytest.raises(LamassuError, match="CA Status inconsistent"):
        await world.issue()
    assert await world.ca.revoke(own, RevocationReason.KEY_COMPROMISE, caller=ALICE)
    unchanged = await world.ca.get_certificate(own)
    assert unchanged.revocation_reason is RevocationReason.UNSPECIFIED


async def test_a_ca_made_while_its_parent_is_revoked_is_revoked_too(world: World) -> None:
    await world.hierarchy()

    outcomes = await asyncio.gather(
        world.authority("late", parent="issuing", duration=timedelta(days=30)),
        world.ca.change_ca_status("root", StatusChange(CertificateStatus.REVOKED), caller=ALICE),
        return_exceptions=True,
    )

    late = await world.api.get("/v1/cas/late")
    if isinstance(outcomes[0], LamassuError):
        assert late.status_code == 404
    else:
        assert late.json()["certificate"]["status"] == "REVOKED"


async def test_a_silent_va_does_not_undo_a_revocation(world: World) -> None:
    await world.hierarchy()
    issued = await world.issue()

    class Broken(Listener):
        async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool:
            raise Unavailable("no VA")

    world.ca.revocations = Broken()
    assert not await world.ca.revoke(
        issued.serial_number, RevocationReason.UNSPECIFIED, caller=ALICE
    )
    assert (await standing(world, issued.serial_number)).revoked
    with pytest.raises(NotFound):
        await world.ca.revoke("00", RevocationReason.UNSPECIFIED, caller=ALICE)


async def test_a_serial_number_stands_under_its_own_ca_only(world: World) -> None:
    await world.hierarchy()
    issued = await world.issue()

    assert (await standing(world, issued.serial_number)).known
    assert not (await standing(world, issued.serial_number, "other")).known
    assert not (await standing(world, issued.serial_number, "none")).known
    assert not (await standing(world, "00")).known
    another = issued.der[:-1] + bytes([issued.der[-1] ^ 1])
    assert await world.ca.find_certificate_by_der(another) is None
    assert await world.ca.find_certificate_by_der(b"no certificate") is None
