"""Re-issue and deletion of CAs, and jobs that tell how far they are."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from lamassu.kernel.errors import Conflict, LamassuError, NotFound
from lamassu.services.ca.contract import CertificateStatus, IssuanceProfile
from lamassu.services.ca.model import JobStatus, StatusChange
from lamassu.services.ca.usecases import run_cascades
from lamassu.services.ca.usecases.delete_ca import Deletions
from lamassu.services.kms.contract import KeyPurpose

from .world import ALICE, YEAR, World, parsed

REVOKED = StatusChange(CertificateStatus.REVOKED)
DELTAS = "lamassu.io/ca/expiration-deltas"


async def reissue(world: World, ca_id: str, body: str = "{}") -> tuple[int, dict[str, object]]:
    answer = await world.api.post(f"/v1/cas/{ca_id}/reissue", content=body)
    return answer.status_code, answer.json()


async def revoked(world: World, *ca_ids: str) -> None:
    for ca_id in ca_ids:
        await world.ca.change_ca_status(ca_id, REVOKED, caller=ALICE)
    await world.ca.run_jobs()


def allow_cascade(world: World) -> None:
    world.ca.deletions._allow_cascade = True


# --- re-issue ---------------------------------------------------------------------------------


async def test_a_reissued_ca_keeps_key_name_id_metadata_and_chains(world: World) -> None:
    await world.hierarchy()
    await world.ca.patch_ca_metadata("issuing", [], caller=ALICE)
    patch = {"patches": [{"op": "add", "path": "/plant", "value": "7"}]}
    await world.api.put("/v1/cas/issuing/metadata", json=patch)
    before = await world.ca.get_ca("issuing")
    leaf = await world.issue()
    world.clock.advance(YEAR)

    status, answer = await reissue(world, "issuing", "null")

    assert status == 200, answer
    after = await world.ca.get_ca("issuing")
    old, new = before.certificate, after.certificate
    assert new.serial_number != old.serial_number
    assert (after.key_id, new.subject_key_id, new.der != old.der) == (
        before.key_id,
        old.subject_key_id,
        True,
    )
    assert parsed(after).subject == parsed(before).subject
    assert [e.oid for e in parsed(after).extensions] == [e.oid for e in parsed(before).extensions]
    assert new.not_after - new.not_before >= old.not_after - old.not_before - timedelta(minutes=2)
    assert answer["metadata"] == {
        "plant": "7",
        "lamassu.io/ca/reissued-from": old.serial_number,
        "lamassu.io/ca/reissue-reason": "certificate-reissuance",
    }
    kept = (await world.api.get(f"/v1/certificates/{old.serial_number}")).json()
    assert kept["status"] == "ACTIVE", "chains that hold it still verify"
    assert kept["metadata"]["lamassu.io/ca/reissued-as"] == new.serial_number
    parsed(leaf).verify_directly_issued_by(parsed(after))
    parsed(leaf).verify_directly_issued_by(parsed(before))
    event = next(e for e in await world.records() if e["type"] == "ca.reissue")
    assert event["data"]["updated"]["serial_number"] == new.serial_number
    assert await world.issue("device-2")
    # what became of the CA's name for the key becomes of both certificates
    await revoked(world, "issuing")
    listed = {entry.serial_number for entry in await world.ca.revoked_under("between")}
    assert listed >= {old.serial_number, new.serial_number}


async def test_a_root_signs_its_next_certificate_itself(world: World) -> None:
    await world.profile()
    root = await world.root()

    assert (await reissue(world, "root"))[0] == 200

    after = await world.ca.get_ca("root")
    parsed(after).verify_directly_issued_by(parsed(root))
    assert after.certificate.issuer_ca_id == "root"
    key = await world.kms.get(root.key_id, purpose=KeyPurpose.CA)
    assert after.certificate.serial_number in {one.resource_id for one in key.bindings}


async def test_what_cannot_be_reissued_says_why_and_changes_nothing(world: World) -> None:
    await world.hierarchy()
    await world.authority("late", parent="issuing", duration=YEAR)
    await world.profile(IssuanceProfile(id="ca", sign_as_ca=True))
    await revoked(world, "other")
    before = await world.count()

    world.clock.advance(YEAR / 2)
    for ca_id, body, expected in (
        ("none", "{}", (404, "CA not found")),
        ("other", "{}", (400, "CA already revoked")),
        ("issuing", "", (400, "EOF")),
        ("issuing", '{"profile_id":"none"}', (404, "issuance profile not found")),
        ("issuing", '{"profile_id":"device"}', (400, "struct validation error")),
    ):
        status, answer = await reissue(world, ca_id, body)
        assert (status, answer["err"]) == expected, (ca_id, body)
    too_long = '{"profile":{"sign_as_ca":true,"validity":{"type":"Duration","duration":"87600h"}}}'
    status, answer = await reissue(world, "issuing", too_long)
    assert (status, answer["code"]) == (400, "validity_exceeds_issuer")
    too_short = '{"profile":{"sign_as_ca":true,"validity":{"type":"Duration","duration":"24h"}}}'
    status, answer = await reissue(world, "issuing", too_short)
    assert (status, answer["code"]) == (400, "validity_shortened")
    world.clock.advance(YEAR)
    assert (await reissue(world, "late"))[1]["err"] == "CA is expired"
    assert await world.count() == before


async def test_two_reissues_at_once_make_one_or_take_turns(world: World) -> None:
    await world.profile()
    await world.root()

    outcomes = await asyncio.gather(
        *(world.ca.reissue_ca("root", profile=None, profile_id="", caller=ALICE) for _ in range(2)),
        return_exceptions=True,
    )

    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, Conflict)
            assert outcome.code == "ca_changed"
    assert any(not isinstance(outcome, BaseException) for outcome in outcomes)


# --- deletion ---------------------------------------------------------------------------------


async def test_a_ca_that_works_is_on_hold_or_carries_others_is_not_deleted(world: World) -> None:
    await world.hierarchy()
    hold = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
    await world.api.post("/v1/cas/other/status", json=hold)
    before = await world.count()

    for ca_id in ("root", "issuing", "other"):
        answer = await world.api.delete(f"/v1/cas/{ca_id}")
        assert (answer.status_code, answer.json()["err"]) == (400, "CA Status inconsistent")
    cascade = await world.api.delete("/v1/cas/issuing?cascade_delete=true")
    assert (cascade.status_code, cascade.json()["err"]) == (
        403,
        "cascade delete operations are not allowed by configuration",
    )
    missing = await world.api.delete("/v1/cas/none")
    assert (missing.status_code, missing.json()["err"]) == (404, "CA not found")

    assert await world.count() == before


async def test_a_deleted_ca_takes_its_key_and_leaves_what_relying_parties_need(
    world: World,
) -> None:
    await world.hierarchy()
    leaf = await world.issue()
    issuing = await world.ca.get_ca("issuing")
    refused = await world.api.delete(f"/v1/certificates/{leaf.serial_number}")
    assert (refused.status_code, refused.json()["err"]) == (
        400,
        "cannot delete certificate: issuer CA still exists",
    )
    await revoked(world, "issuing")

    answer = await world.api.delete("/v1/cas/issuing")

    assert (answer.status_code, answer.json()) == (200, {}), answer.text
    with pytest.raises(NotFound):
        await world.ca.get_ca("issuing")
    assert await world.kms.find(issuing.key_id) is None
    # never good again: unknown of it, and revoked where the CA above lists it
    assert not (await world.ca.standing("issuing", leaf.serial_number)).known
    listed = {entry.serial_number for entry in await world.ca.revoked_under("between")}
    assert issuing.certificate.serial_number in listed
    with pytest.raises(Conflict, match="CA already exists"):
        await world.authority("issuing", parent="between")
    gone = await world.api.delete(f"/v1/certificates/{leaf.serial_number}")
    assert gone.status_code == 204
    again = await world.api.delete(f"/v1/certificates/{leaf.serial_number}")
    assert (again.status_code, again.json()["err"]) == (404, "certificate not found")
    types = await world.event_types()
    assert types.count("ca.delete") == types.count("certificate.delete") == 1


async def test_a_cascade_deletes_children_and_certificates(world: World) -> None:
    await world.hierarchy()
    allow_cascade(world)
    leaves = [await world.issue(f"device-{n}") for n in range(3)]
    between = await world.ca.get_ca("between")
    await revoked(world, "between")

    answer = await world.api.delete("/v1/cas/between?cascade_delete=1")

    assert answer.status_code == 200, answer.text
    job_id = answer.headers["lamassu-job"]
    assert [one.id for one in await world.ca.list_cas()] == ["root"]
    await world.ca.run_jobs()
    for leaf in leaves:
        assert await world.ca.find_certificate(leaf.serial_number) is None
    assert await world.ca.find_certificate(between.certificate.serial_number) is not None
    job = (await world.api.get(f"/v1/jobs/{job_id}")).json()
    assert (job["operation"], job["state"], job["total"], job["done"]) == (
        "ca.delete",
        "DONE",
        5,
        5,
    )
    assert (await world.event_types()).count("certificate.delete") == 5


async def test_an_expired_ca_is_deleted_and_what_it_left_is_revoked(world: World) -> None:
    await world.hierarchy()
    await world.authority("brief", parent="issuing", duration=timedelta(days=10))
    world.clock.advance(timedelta(days=11))

    answer = await world.api.delete("/v1/cas/brief")

    assert answer.status_code == 200
    assert answer.headers["lamassu-job"]
    await world.ca.run_jobs()


async def test_a_line_of_generations_is_deleted_from_its_end(world: World) -> None:
    await world.profile()
    await world.root()
    from lamassu.services.ca.model import RekeyRequest

    await world.ca.rekey_ca("root", RekeyRequest(), caller=ALICE)
    await revoked(world, "root")
    first = await world.api.delete("/v1/cas/root")
    assert (first.status_code, first.json()["code"]) == (409, "ca_has_successor")

    await revoked(world, "root.2")
    assert (await world.api.delete("/v1/cas/root.2")).status_code == 200
    assert (await world.ca.get_ca("root")).successor_id is None
    assert (await world.api.delete("/v1/cas/root")).status_code == 200


async def test_a_newer_generation_stays_while_the_one_before_would_issue_again(
    world: World,
) -> None:
    await world.profile()
    await world.root()
    from lamassu.services.ca.model import RekeyRequest

    await world.ca.rekey_ca("root", RekeyRequest(), caller=ALICE)
    await revoked(world, "root.2")

    answer = await world.api.delete("/v1/cas/root.2")

    assert (answer.status_code, answer.json()["code"]) == (409, "ca_has_predecessor")
    with pytest.raises(LamassuError):
        await world.issue(ca_id="root")


async def test_no_ca_goes_while_its_revocation_is_being_written(world: World) -> None:
    await world.hierarchy()
    await world.ca.change_ca_status("issuing", REVOKED, caller=ALICE)
    waits: list[float] = []

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    world.ca.deletions._pause = pause
    answer = await world.api.delete("/v1/cas/issuing")

    assert (answer.status_code, answer.json()["code"]) == (409, "cascade_running")
    assert waits
    await world.ca.run_jobs()
    assert (await world.api.delete("/v1/cas/issuing")).status_code == 200


async def test_a_crash_before_the_key_went_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.hierarchy()
    key_id = (await world.ca.get_ca("issuing")).key_id
    await revoked(world, "issuing")
    release = Deletions.release_key

    async def crash(self: Deletions, key_id: str, **more: object) -> None:
        return None

    monkeypatch.setattr(Deletions, "release_key", crash)
    await world.api.delete("/v1/cas/issuing")
    assert await world.kms.find(key_id) is not None
    monkeypatch.setattr(Deletions, "release_key", release)

    await world.ca.deletions.release_key(key_id, caller=ALICE)
    await world.ca.deletions.release_key(key_id, caller=ALICE)

    assert await world.kms.find(key_id) is None
    live = (await world.ca.get_ca("other")).key_id
    await world.ca.deletions.release_key(live, caller=ALICE)
    assert await world.kms.find(live) is not None


# --- jobs -------------------------------------------------------------------------------------


async def test_a_job_tells_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.hierarchy()
    for number in range(7):
        await world.issue(f"device-{number}")
    held = await world.issue("held")
    await world.ca.change_certificate_status(
        held.serial_number, StatusChange(CertificateStatus.INACTIVE), caller=ALICE
    )
    monkeypatch.setattr(run_cascades, "LARGEST_BATCH", 3)
    answer = await world.api.post("/v1/cas/issuing/status", json={"status": "REVOKED"})
    path = f"/v1/jobs/{answer.headers['lamassu-job']}"
    assert (await world.api.get(path)).json()["state"] == "RUNNING"
    runner = world.ca._cascades
    seen = []
    while True:
        before, _ = await runner._batch()
        if before is None:
            break
        job = (await world.api.get(path)).json()
        seen.append((job["state"], job["done"], job["total"], job["announced"]))

    assert seen[0] == ("RUNNING", 0, 8, 0)
    assert ("RUNNING", 3, 8, 0) in seen
    assert seen[-1] == ("DONE", 8, 8, 8)
    previous = {
        event["data"]["previous"]["status"]
        for event in await world.records()
        if event["type"] == "certificate.status.update"
        and event["data"]["updated"]["status"] == "REVOKED"
    }
    assert previous == {"ACTIVE", "INACTIVE"}, "each is told with what it was before"
    unknown = await world.api.get("/v1/jobs/none")
    assert (unknown.status_code, unknown.json()["err"]) == (404, "job not found")
    job_now = await world.ca.find_job(path.rpartition("/")[2])
    assert job_now is not None
    assert job_now.status is JobStatus.DONE


# --- expiry -----------------------------------------------------------------------------------


async def test_each_delta_is_told_once_and_sorted(world: World) -> None:
    await world.hierarchy()
    deltas = [
        {"delta": "30d", "name": "month", "triggered": False},
        {"delta": "1d", "name": "day", "triggered": False},
    ]
    patch = {"patches": [{"op": "add", "path": "/" + DELTAS.replace("/", "~1"), "value": deltas}]}
    leaf = await world.issue()
    await world.api.put(f"/v1/certificates/{leaf.serial_number}/metadata", json=patch)
    await world.api.put("/v1/cas/issuing/metadata", json=patch)
    assert await world.ca.expiry.run() == 0

    world.clock.advance(leaf.not_after - world.clock.now() - timedelta(days=20))
    assert await world.ca.expiry.run() == 1
    assert await world.ca.expiry.run() == 0
    shown = (await world.api.get(f"/v1/certificates/{leaf.serial_number}")).json()
    assert shown["metadata"][DELTAS] == [
        {"delta": "1d", "name": "day", "triggered": False},
        {"delta": "30d", "name": "month", "triggered": True},
    ]
    world.clock.advance(timedelta(days=21))
    assert await world.ca.expiry.run() == 2
    assert await world.ca.expiry.run() == 0

    types = [event["type"] for event in await world.records()]
    assert types.count("certificate.expiring") == 2
    ended = [
        event
        for event in await world.records()
        if event["type"] == "certificate.status.update"
        and event["data"]["updated"]["status"] == "EXPIRED"
    ]
    assert [event["subject"] for event in ended] == [f"certificate/{leaf.serial_number}"]
    assert ended[0]["data"]["previous"]["status"] == "ACTIVE"


async def test_of_a_ca_its_events_tell_too(world: World) -> None:
    await world.hierarchy()
    value = [{"delta": "30d", "name": "month", "triggered": False}]
    patch = {"patches": [{"op": "add", "path": "/" + DELTAS.replace("/", "~1"), "value": value}]}
    await world.api.put("/v1/cas/issuing/metadata", json=patch)
    await world.ca.expiry.run()
    end = (await world.ca.get_ca("issuing")).certificate.not_after

    world.clock.advance(end - world.clock.now() - timedelta(days=20))
    await world.ca.expiry.run()
    world.clock.advance(timedelta(days=21))
    await world.ca.expiry.run()

    types = [e["type"] for e in await world.records() if e["subject"] == "ca/issuing"]
    assert types.count("ca.expiring") == 1
    assert types.count("ca.status.update") == 1


@pytest.mark.parametrize(
    "value", ["soon", [1], [{"delta": 5}], [{"delta": "x"}], [{"delta": "1d", "triggered": "no"}]]
)
async def test_deltas_that_do_not_read_so_are_passed_over(world: World, value: object) -> None:
    await world.hierarchy()
    leaf = await world.issue()
    patch = {"patches": [{"op": "add", "path": "/" + DELTAS.replace("/", "~1"), "value": value}]}
    answer = await world.api.put(f"/v1/certificates/{leaf.serial_number}/metadata", json=patch)
    assert answer.status_code == 200
    world.clock.advance(timedelta(days=300))

    assert await world.ca.expiry.run() == 0


# --- approvals --------------------------------------------------------------------------------


async def test_approvers_have_to_agree_to_reissue_and_deletion(world: World) -> None:
    await world.hierarchy()
    policy = {"required": 1, "of": ["bob"]}
    for ca_id in ("issuing", "other"):
        answer = await world.api.put(f"/v1/cas/{ca_id}/approvals", json=policy)
        assert answer.status_code == 200, answer.text
    before = (await world.ca.get_ca("issuing")).certificate.serial_number

    reissued = await world.api.post("/v1/cas/issuing/reissue", content="{}")
    world.clock.advance(3 * YEAR)
    deleted = await world.api.delete("/v1/cas/other")

    assert (reissued.status_code, reissued.json()["operation"]) == (202, "ca.reissue")
    assert (deleted.status_code, deleted.json()["operation"]) == (202, "ca.delete")
    assert (await world.ca.get_ca("issuing")).certificate.serial_number == before
    assert await world.ca.get_ca("other")
