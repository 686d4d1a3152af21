"""Two people: what waits for approvers, and attacks on that (security rule 7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select

from lamassu.kernel.errors import Conflict, Deferred, Forbidden, NotFound, Unavailable
from lamassu.kernel.identity import Caller, Peer, Principal, PrincipalKind
from lamassu.platform.http import Mount, RouteTable, build_app
from lamassu.platform.http.openapi import openapi_document
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    ApprovalStatus,
    CertificateStatus,
    Demand,
    Operation,
    RevocationReason,
    Verdict,
)
from lamassu.services.ca.http import routes
from lamassu.services.ca.storage import tables
from lamassu.services.ca.storage.transaction import SqlCaTransaction

from .world import ALICE, World

People = Mapping[str, httpx.AsyncClient]
POLICY = {"required": 2, "of": ["alice", "bob", "carol"]}
REVOKE = {"status": "REVOKED", "revocation_reason": "CACompromise"}
HOLD = {"status": "REVOKED", "revocation_reason": "CertificateHold"}
STATUS = "/v1/cas/issuing/status"
CHILD = {
    "id": "child",
    "parent_id": "between",
    "subject": {"common_name": "Child"},
    "key_metadata": {"type": "ECDSA", "bits": 256},
    "ca_expiration": {"type": "Duration", "duration": "24h"},
    "profile_id": "device",
}
HOUR = timedelta(hours=1)


def client_of(world: World, principal: Principal) -> httpx.AsyncClient:
    async def authenticate(peer: Peer) -> Principal | None:
        return principal

    app = build_app(
        [Mount("/api/ca", "ca", routes(world.ca))],
        authenticate=authenticate,
        public_hosts=["localhost:8443"],
        bookmark_key=b"b" * 32,
    )
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="https://localhost/api/ca"
    )


def admin(name: str) -> Principal:
    return Principal(PrincipalKind.ADMIN, name)


@pytest.fixture
async def people(world: World) -> AsyncIterator[People]:
    """A client for each admin, over a hierarchy without any policy yet."""
    await world.hierarchy()
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(client_of(world, admin(name)))
            for name in ("alice", "bob", "carol", "dave")
        }


@pytest.fixture
async def guarded(world: World, people: People) -> People:
    """The same, with a policy on `issuing` and on `between`."""
    for ca_id in ("between", "issuing"):
        answer = await people["dave"].put(f"/v1/cas/{ca_id}/approvals", json=POLICY)
        assert answer.status_code == 200, answer.text
    return people


async def asked(client: httpx.AsyncClient, method: str, path: str, body: Any) -> dict[str, Any]:
    answer = await client.request(method, path, json=body)
    assert answer.status_code == 202, answer.text
    approval: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/ca/v1/approvals/{approval['id']}"
    return approval


async def vote(
    people: People, name: str, approval: Mapping[str, Any], word: str = "approve"
) -> httpx.Response:
    return await people[name].post(f"/v1/approvals/{approval['id']}/{word}")


async def approved(people: People, approval: Mapping[str, Any], *names: str) -> None:
    for name in names:
        answer = await vote(people, name, approval)
        assert answer.status_code == 200, answer.text


def using(approval: Mapping[str, Any]) -> dict[str, str]:
    return {"Lamassu-Approval": str(approval["id"])}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def status_of(world: World, ca_id: str = "issuing") -> CertificateStatus:
    return (await world.ca.get_ca(ca_id)).certificate.stored_status


# --- what waits -----------------------------------------------------------------------------

WIDER = {
    "name": "Devices",
    "validity": {"type": "Duration", "duration": "8760h"},
    "honor_subject": True,
    "honor_extensions": True,
    "honor_key_usage": True,
    "key_usage": ["DigitalSignature"],
    "extended_key_usages": ["ClientAuth"],
}
DANGEROUS = {
    "a child": ("POST", "/v1/cas", CHILD, "ca.create-child"),
    "revocation": ("POST", STATUS, REVOKE, "ca.status"),
    "a hold": ("POST", STATUS, HOLD, "ca.status"),
    "its own certificate": ("PUT", "/v1/certificates/{sn}/status", REVOKE, "ca.status"),
    "the guide's revocation": ("POST", "/v1/certificates/{sn}/revoke", {}, "ca.status"),
    "a new key": ("POST", "/v1/cas/issuing/rekey", {}, "ca.rekey"),
    "another profile": ("POST", "/v1/cas/issuing/profile", {"profile_id": "p2"}, "ca.profile"),
    "a weaker profile": ("PUT", "/v1/profiles/device", WIDER, "profile.weaken"),
    "a weaker profile by its other name": (
        "PUT",
        "/v1/issuanceprofiles/device",
        WIDER,
        "profile.weaken",
    ),
    "other approvers": (
        "PUT",
        "/v1/cas/issuing/approvals",
        {"required": 1, "of": ["dave"]},
        "ca.approvals",
    ),
    "no approvers": ("PUT", "/v1/cas/issuing/approvals", {"required": 0, "of": []}, "ca.approvals"),
}


async def test_a_profile_of_a_guarded_ca_is_not_made_anew_past_its_approvers(
    guarded: People,
) -> None:
    dave = guarded["dave"]
    own = {"id": "own", "name": "own", "ca_id": "issuing"}
    assert (await dave.post("/v1/profiles", json=own)).status_code == 201

    answer = await dave.delete("/v1/profiles/own")

    assert (answer.status_code, answer.json()["code"]) == (409, "profile_guarded")
    approval = await asked(dave, "PUT", "/v1/profiles/own", {**own, "ca_id": ""})
    assert approval["operation"] == "profile.weaken"


@pytest.mark.parametrize("name", DANGEROUS)
async def test_what_is_dangerous_waits_and_changes_nothing(
    world: World, guarded: People, name: str
) -> None:
    await guarded["dave"].post("/v1/profiles", json={"id": "p2", "name": "p2"})
    method, path, body, operation = DANGEROUS[name]
    path = path.format(sn=(await world.ca.get_ca("issuing")).certificate.serial_number)
    cas, before = await world.ca.list_cas(), await world.count()

    approval = await asked(guarded["dave"], method, path, body)

    assert approval["operation"] == operation
    assert (approval["status"], approval["requester"]) == ("PENDING", "dave")
    assert approval["request"]["body"] == body
    assert approval["expires_at"] == "2026-05-02T12:00:00Z"
    after = await world.count()
    records = before.pop("ca_outbox") + 2  # the event, and the audit record of the same step
    assert (after.pop("ca_outbox"), after) == (records, before)
    assert await world.ca.list_cas() == cas
    event = (await world.records())[-1]
    assert (event["type"], event["subject"]) == ("approval.request", f"approval/{approval['id']}")
    assert (await world.records("audit"))[-1]["principal"] == "admin/dave"
    # asked again it is the same
    assert (await asked(guarded["dave"], method, path, body))["id"] == approval["id"]

    await approved(guarded, approval, "alice", "bob")
    done = await guarded["dave"].request(method, path, json=body, headers=using(approval))

    assert done.status_code in (200, 201), done.text
    await guarded["dave"].request(method, path, json=body, headers=using(approval))
    assert (await world.event_types()).count("approval.use") == 1
    shown = (await guarded["bob"].get(f"/v1/approvals/{approval['id']}")).json()
    assert shown["status"] == "SPENT"


async def test_each_step_is_an_event_and_an_audit_record(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol", "carol")
    assert (await guarded["dave"].get(approval_path(approval))).json()["status"] == "APPROVED"
    done = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert done.status_code == 201

    wanted = ["approval.request", "approval.approve", "approval.approve", "approval.use"]
    for kind in ("event", "audit"):
        steps = [r for r in await world.records(kind) if r["type"].startswith("approval.")]
        assert [step["type"] for step in steps] == wanted
        assert {step["subject"] for step in steps} == {f"approval/{approval['id']}"}
    audits = [r for r in await world.records("audit") if r["type"].startswith("approval.")]
    assert [record["principal"] for record in audits] == [
        "admin/alice",
        "admin/bob",
        "admin/carol",
        "admin/alice",
    ]
    assert audits[-1]["detail"]["digest"] == approval["digest"]


def approval_path(approval: Mapping[str, Any]) -> str:
    return f"/v1/approvals/{approval['id']}"


async def test_a_profile_that_allows_less_needs_nobody(world: World, guarded: People) -> None:
    less = {**WIDER, "honor_key_usage": False, "honor_extensions": False}
    less["validity"] = {"type": "Duration", "duration": "100h"}

    assert (await guarded["alice"].put("/v1/profiles/device", json=less)).status_code == 200

    back = await guarded["alice"].put("/v1/profiles/device", json=WIDER)
    assert back.status_code == 202


async def test_what_has_no_approvers_waits_for_nobody(world: World, guarded: People) -> None:
    answer = await guarded["alice"].post("/v1/cas/other/status", json=REVOKE)

    assert answer.status_code == 201


async def test_a_bad_request_is_refused_before_anybody_is_asked(
    world: World, guarded: People
) -> None:
    before = await world.count()
    for method, path, body in (
        ("POST", "/v1/cas", {**CHILD, "ca_expiration": {"type": "Duration", "duration": "9y"}}),
        ("POST", "/v1/cas", {**CHILD, "id": "issuing"}),
        ("POST", STATUS, {"status": "REVOKED", "revocation_reason": "RemoveFromCRL"}),
        ("POST", "/v1/cas/issuing/profile", {"profile_id": "nobody"}),
        ("PUT", "/v1/cas/issuing/approvals", {"required": 1, "of": ["nobody"]}),
    ):
        assert (await guarded["alice"].request(method, path, json=body)).is_client_error
    assert await world.count() == before


# --- who approves ---------------------------------------------------------------------------


async def test_nobody_approves_their_own_request(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob")
    before = await world.count()

    assert refusal(await vote(guarded, "alice", approval)) == (403, "own_request")

    assert await world.count() == before
    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert refusal(answer) == (409, "approval_pending")
    assert "still to ask: carol" in answer.json()["err"]
    assert await status_of(world) is CertificateStatus.ACTIVE


async def test_one_person_approves_once(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "bob", "bob")

    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))

    assert refusal(answer) == (409, "approval_pending")
    shown = (await guarded["alice"].get(approval_path(approval))).json()
    assert [v["approver"] for v in shown["votes"]] == ["bob"]


async def test_nobody_else_has_a_say(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)

    for word in ("approve", "reject"):
        assert refusal(await vote(guarded, "dave", approval, word)) == (403, "not_an_approver")
    shown = (await guarded["alice"].get(approval_path(approval))).json()
    assert (shown["status"], shown["votes"]) == ("PENDING", [])


async def test_a_principal_that_is_no_person_approves_nothing_by_a_persons_name(
    world: World, guarded: People
) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)

    for kind in set(PrincipalKind) - {PrincipalKind.ADMIN}:
        bob = Principal(kind, "bob")
        async with client_of(world, bob) as client:
            assert (await client.post(approval_path(approval) + "/approve")).status_code == 403
        for verdict in Verdict:
            with pytest.raises(Forbidden) as refused:
                await world.ca.approvals.vote(
                    approval["id"], verdict, comment="", caller=Caller(bob)
                )
            assert refused.value.code == "approver_not_a_person"
    assert (await world.ca.approvals.get(approval["id"])).votes == ()


async def test_a_service_by_a_persons_name_uses_no_approval(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    stored = await world.ca.approvals.get(approval["id"])
    service = Caller(Principal(PrincipalKind.SERVICE, "alice"))
    demand = Demand(service, stored.request, stored.id)

    with pytest.raises(Forbidden, match="which an admin asks for"):
        await world.ca.approvals.require(Operation.CHANGE_STATUS, ["issuing"], demand)


async def test_one_rejection_ends_it(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    rejected = await guarded["bob"].post(
        approval_path(approval) + "/reject", json={"comment": "not on a Friday"}
    )
    assert rejected.json()["status"] == "REJECTED"

    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))

    assert refusal(answer) == (409, "approval_rejected")
    assert "rejected by bob" in answer.json()["err"]
    for name in ("bob", "carol"):
        assert refusal(await vote(guarded, name, approval)) == (409, "approval_rejected")
    assert await status_of(world) is CertificateStatus.ACTIVE
    assert (await asked(guarded["alice"], "POST", STATUS, REVOKE))["id"] != approval["id"]


async def test_who_asked_may_withdraw(world: World, guarded: People) -> None:
    approval = await asked(guarded["dave"], "POST", STATUS, REVOKE)

    assert (await vote(guarded, "dave", approval, "reject")).json()["status"] == "REJECTED"
    assert refusal(await vote(guarded, "bob", approval)) == (409, "approval_rejected")


# --- what an approval is good for -----------------------------------------------------------


async def test_an_approval_is_for_this_very_request(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    before = await world.count()
    serial_number = (await world.ca.get_ca("issuing")).certificate.serial_number

    for method, path, body in (
        ("POST", STATUS, HOLD),
        ("POST", STATUS, {**REVOKE, "revocation_reason": "ca_compromise"}),
        ("POST", f"{STATUS}?x=1", REVOKE),
        ("POST", "/v1/cas/between/status", REVOKE),
        ("PUT", f"/v1/certificates/{serial_number}/status", REVOKE),
        ("POST", "/v1/cas", CHILD),
        ("PUT", "/v1/cas/issuing/approvals", {"required": 1, "of": ["alice", "bob"]}),
    ):
        answer = await guarded["alice"].request(method, path, json=body, headers=using(approval))
        assert refusal(answer) == (409, "approval_mismatch"), (method, path)
    assert await world.count() == before
    # one JSON body, written in another way, is the same request
    text = '{ "revocation_reason":"CACompromise",\n "status" : "REVOKED" }'
    done = await guarded["alice"].post(STATUS, content=text, headers=using(approval))
    assert done.status_code == 201


async def test_an_approval_is_for_who_asked(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")

    for name in ("bob", "dave"):
        answer = await guarded[name].post(STATUS, json=REVOKE, headers=using(approval))
        assert refusal(answer) == (403, "approval_of_other")
    assert await status_of(world) is CertificateStatus.ACTIVE


async def test_an_approval_that_is_none_helps_nobody(world: World, guarded: People) -> None:
    for made_up in ("nonsense", "00000000-0000-4000-8000-000000000000", "'", "x" * 5000):
        for path in (STATUS, "/v1/cas/other/status"):
            header = {"Lamassu-Approval": made_up}
            answer = await guarded["alice"].post(path, json=REVOKE, headers=header)
            assert refusal(answer) == (404, "approval_not_found")
    assert await status_of(world) is CertificateStatus.ACTIVE


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("POST", STATUS, REVOKE), ("POST", "/v1/cas", CHILD)],
    ids=["revoke", "create"],
)
async def test_an_approval_is_used_once_by_many_at_once(
    world: World, guarded: People, method: str, path: str, body: Any
) -> None:
    approval = await asked(guarded["alice"], method, path, body)
    await approved(guarded, approval, "bob", "carol")
    keys = (await world.count())["ca keys"]

    answers = await asyncio.gather(
        *(
            guarded["alice"].request(method, path, json=body, headers=using(approval))
            for _ in range(4)
        )
    )

    assert sorted(answer.status_code for answer in answers)[0] == 201
    assert sum(answer.is_success for answer in answers) == 1
    used = [kind for kind in await world.event_types() if kind == "approval.use"]
    assert len(used) == 1
    assert (await world.count())["ca keys"] == keys + (path == "/v1/cas")


async def test_a_deed_that_fails_leaves_the_approval_for_another_try(
    world: World, guarded: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")

    async def full_disk(*_: object) -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(SqlCaTransaction, "save_ca", full_disk)
        answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
        assert answer.status_code == 503

    assert (await world.ca.approvals.get(approval["id"])).status is ApprovalStatus.APPROVED
    done = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert done.status_code == 201


async def test_what_was_approved_is_what_is_done(world: World, guarded: People) -> None:
    profile = {"id": "sub", "sign_as_ca": True, "validity": {"duration": "24h"}, "path_length": 0}
    assert (await guarded["dave"].post("/v1/profiles", json=profile)).status_code == 201
    body = {**CHILD, "ca_issuance_profile_id": "sub"}
    approval = await asked(guarded["alice"], "POST", "/v1/cas", body)
    await approved(guarded, approval, "bob", "carol")
    before = await world.count()

    # the same id and the same version, with another content
    assert (await guarded["alice"].delete("/v1/profiles/sub")).status_code == 204
    wider = {**profile, "path_length": 5}
    assert (await guarded["alice"].post("/v1/profiles", json=wider)).status_code == 201
    answer = await guarded["alice"].post("/v1/cas", json=body, headers=using(approval))

    assert refusal(answer) == (409, "approval_outdated")
    assert "profile/sub changed" in answer.json()["err"]
    assert (await world.count())["ca keys"] == before["ca keys"]
    with pytest.raises(NotFound):
        await world.ca.get_ca("child")


# --- time -----------------------------------------------------------------------------------


async def test_an_approval_expires(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    world.clock.advance(24 * HOUR)

    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))

    assert refusal(answer) == (409, "approval_expired")
    assert refusal(await vote(guarded, "bob", approval, "reject")) == (409, "approval_expired")
    expired = "/v1/approvals?filter=status[eq]EXPIRED"
    assert [one["id"] for one in (await guarded["bob"].get(expired)).json()["list"]] == [
        approval["id"]
    ]
    assert await world.ca.approvals.expire_overdue() == 1
    assert await world.ca.approvals.expire_overdue() == 0
    assert (await world.event_types())[-1] == "approval.expire"
    assert (await world.records("audit"))[-1]["principal"] == "system/approvals"
    shown = (await guarded["bob"].get(expired)).json()["list"]
    assert [one["closed_at"] for one in shown] == ["2026-05-02T12:00:00Z"]


async def test_a_policy_says_how_long_a_request_waits(world: World, people: People) -> None:
    policy = {**POLICY, "lifetime": "30m"}
    await people["dave"].put("/v1/cas/issuing/approvals", json=policy)
    approval = await asked(people["alice"], "POST", STATUS, REVOKE)
    assert approval["expires_at"] == "2026-05-01T12:30:00Z"
    await approved(people, approval, "bob", "carol")
    world.clock.advance(HOUR / 2 - timedelta(microseconds=1))

    done = await people["alice"].post(STATUS, json=REVOKE, headers=using(approval))

    assert done.status_code == 201


async def test_a_revoked_approver_never_approved(world: World, guarded: People) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    world.clock.advance(HOUR)
    world.people.revoke("carol")

    async def use() -> tuple[int, str]:
        answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
        return refusal(answer) if answer.is_error else (answer.status_code, "")

    assert await use() == (409, "approval_pending")
    # another certificate makes carol an admin again, and her former word not good
    world.clock.advance(HOUR)
    world.people.certify("carol")
    assert await use() == (409, "approval_pending")
    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert "carol approved and no longer counts" in answer.json()["err"]
    assert await status_of(world) is CertificateStatus.ACTIVE
    # given anew it is
    await approved(guarded, approval, "carol")
    assert await use() == (201, "")


async def test_an_approver_counts_while_they_hold_a_valid_certificate(
    world: World, guarded: People
) -> None:
    approval = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, approval, "bob", "carol")
    world.people.let_expire("bob")

    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert refusal(answer) == (409, "approval_pending")

    world.people.certify("bob")
    done = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(approval))
    assert done.status_code == 201


# --- the rule itself ------------------------------------------------------------------------


async def test_a_change_of_approvers_is_judged_by_those_before(
    world: World, guarded: People
) -> None:
    path = "/v1/cas/issuing/approvals"
    mine = {"required": 1, "of": ["dave", "alice"]}
    approval = await asked(guarded["dave"], "PUT", path, mine)
    assert refusal(await vote(guarded, "dave", approval)) == (403, "own_request")
    await approved(guarded, approval, "alice")

    early = await guarded["dave"].put(path, json=mine, headers=using(approval))
    assert refusal(early) == (409, "approval_pending")
    await approved(guarded, approval, "carol")
    done = await guarded["dave"].put(path, json=mine, headers=using(approval))

    assert done.json()["approvals"] == {"required": 1, "of": ["dave", "alice"], "lifetime": "1d"}
    policy = (await world.ca.get_ca("issuing")).approvals
    assert policy == ApprovalPolicy(1, ("dave", "alice"))


async def test_who_is_no_approver_any_more_did_not_approve(world: World, guarded: People) -> None:
    waiting = await asked(guarded["alice"], "POST", STATUS, REVOKE)
    await approved(guarded, waiting, "bob", "carol")
    path, policy = "/v1/cas/issuing/approvals", {"required": 2, "of": ["alice", "bob", "dave"]}
    change = await asked(guarded["alice"], "PUT", path, policy)
    await approved(guarded, change, "bob", "carol")
    assert (await guarded["alice"].put(path, json=policy, headers=using(change))).status_code == 200

    answer = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(waiting))

    assert refusal(answer) == (409, "approval_pending")
    await approved(guarded, waiting, "dave")
    done = await guarded["alice"].post(STATUS, json=REVOKE, headers=using(waiting))
    assert done.status_code == 201


async def test_a_ca_is_not_revoked_past_its_approvers_from_above(
    world: World, guarded: People
) -> None:
    approval = await asked(guarded["alice"], "POST", "/v1/cas/root/status", REVOKE)

    assert {policy["ca_id"] for policy in approval["policies"]} == {"between", "issuing"}
    assert await status_of(world, "root") is CertificateStatus.ACTIVE
    await approved(guarded, approval, "bob", "carol")
    done = await guarded["alice"].post("/v1/cas/root/status", json=REVOKE, headers=using(approval))
    assert done.status_code == 201
    assert await status_of(world) is CertificateStatus.REVOKED


async def test_each_policy_concerned_has_to_be_met(world: World, people: People) -> None:
    for ca_id, of in (("issuing", ["bob"]), ("other", ["carol"])):
        policy = {"required": 1, "of": of}
        answer = await people["dave"].put(f"/v1/cas/{ca_id}/approvals", json=policy)
        assert answer.status_code == 200
    approval = await asked(people["dave"], "POST", "/v1/cas/between/status", REVOKE)
    await approved(people, approval, "bob")

    early = await people["dave"].post(
        "/v1/cas/between/status", json=REVOKE, headers=using(approval)
    )
    assert refusal(early) == (409, "approval_pending")
    await approved(people, approval, "carol")
    done = await people["dave"].post("/v1/cas/between/status", json=REVOKE, headers=using(approval))
    assert done.status_code == 201


async def test_a_policy_that_appeared_since_has_to_be_met_too(world: World, people: People) -> None:
    await people["dave"].put("/v1/cas/issuing/approvals", json={"required": 1, "of": ["bob"]})
    approval = await asked(people["dave"], "POST", "/v1/cas/between/status", REVOKE)
    await approved(people, approval, "bob")
    await people["alice"].put("/v1/cas/other/approvals", json={"required": 1, "of": ["carol"]})

    answer = await people["dave"].post(
        "/v1/cas/between/status", json=REVOKE, headers=using(approval)
    )

    assert refusal(answer) == (409, "approval_outdated")
    assert await status_of(world, "between") is CertificateStatus.ACTIVE


async def test_no_ca_gets_a_new_key_past_the_approvers_of_the_one_above(
    world: World, guarded: People
) -> None:
    path = "/v1/cas/other/rekey"
    approval = await asked(guarded["alice"], "POST", path, {})

    assert [policy["ca_id"] for policy in approval["policies"]] == ["between"]
    await approved(guarded, approval, "bob", "carol")
    done = await guarded["alice"].post(path, json={}, headers=using(approval))
    assert done.status_code == 201


async def test_approvers_guard_every_generation_of_a_ca(world: World, people: People) -> None:
    assert (await people["alice"].post("/v1/cas/between/rekey", json={})).status_code == 201
    generations = ("between", "between.2")

    # whichever generation is named
    answer = await people["alice"].put("/v1/cas/between/approvals", json=POLICY)

    assert (answer.status_code, answer.json()["id"]) == (200, "between")
    policy = ApprovalPolicy(2, ("alice", "bob", "carol"))
    for ca_id in generations:
        assert (await world.ca.get_ca(ca_id)).approvals == policy
    child = await asked(people["alice"], "POST", "/v1/cas", CHILD)
    assert child["ca_id"] == "between.2"
    end = {"required": 0, "of": []}
    ending = await asked(people["alice"], "PUT", "/v1/cas/between.2/approvals", end)
    await approved(people, ending, "bob", "carol")
    done = await people["alice"].put("/v1/cas/between.2/approvals", json=end, headers=using(ending))
    assert done.status_code == 200
    for ca_id in generations:
        assert (await world.ca.get_ca(ca_id)).approvals is None
    # a generation to come is guarded as this one is
    await people["alice"].put("/v1/cas/issuing/approvals", json=POLICY)
    rekey = await asked(people["alice"], "POST", "/v1/cas/issuing/rekey", {})
    await approved(people, rekey, "bob", "carol")
    made = await people["alice"].post("/v1/cas/issuing/rekey", json={}, headers=using(rekey))
    assert made.json()["approvals"] == {**POLICY, "lifetime": "1d"}


async def test_a_certificate_across_to_a_guarded_ca_is_guarded_too(
    world: World, guarded: People
) -> None:
    own = (await world.ca.get_ca("issuing")).certificate.serial_number
    across, table = "0c" * 16, tables.certificates
    async with world.database.unit("ca") as unit:
        row = (
            await unit.connection.execute(select(table).where(table.c.serial_number == own))
        ).one()
        values = {**row._mapping, "serial_number": across}
        await unit.connection.execute(insert(table).values(values))
    path = f"/v1/certificates/{across}/status"

    approval = await asked(guarded["alice"], "PUT", path, REVOKE)

    assert {policy["ca_id"] for policy in approval["policies"]} == {"between", "issuing"}
    with pytest.raises(Forbidden):
        await world.ca.revoke(across, RevocationReason.SUPERSEDED, caller=ALICE)
    await approved(guarded, approval, "bob", "carol")
    assert (await guarded["alice"].put(path, json=REVOKE, headers=using(approval))).is_success
    # a device's certificate is nobody's to approve
    device = await world.issue()
    answer = await guarded["alice"].put(
        f"/v1/certificates/{device.serial_number}/status", json=REVOKE
    )
    assert answer.status_code == 200


POLICIES: list[tuple[dict[str, Any], str, str]] = [
    ({"required": 0, "of": ["alice"]}, "approvals_infeasible", "required"),
    ({"required": 2, "of": ["alice"]}, "approvals_infeasible", "required"),
    ({"required": -1, "of": ["alice"]}, "approvals_infeasible", "required"),
    ({"required": 1, "of": []}, "approvers_count", "of"),
    (
        {"required": 4, "of": ["alice", "bob", "carol", "dave"]},
        "approvals_infeasible",
        "required",
    ),
    ({"required": 1, "of": ["alice", "alice"]}, "approver_twice", "of"),
    ({"required": 1, "of": ["alice", "ALICE"]}, "approver_twice", "of"),
    ({"required": 1, "of": ["Alice"]}, "approver_unknown", "of"),
    ({"required": 1, "of": ["eve"]}, "approver_unknown", "of"),
    ({"required": 1, "of": ["mallory"]}, "approver_unknown", "of"),
    ({"required": 1, "of": ["bob"], "lifetime": "1m"}, "lifetime_out_of_range", "lifetime"),
    ({"required": 1, "of": ["bob"], "lifetime": "8d"}, "lifetime_out_of_range", "lifetime"),
]


async def test_a_policy_that_cannot_work_is_refused(world: World, people: People) -> None:
    world.people.certify("mallory")
    world.people.revoke("mallory")
    before = await world.count()

    for policy, code, field in POLICIES:
        answer = await people["alice"].put("/v1/cas/issuing/approvals", json=policy)
        assert (*refusal(answer), answer.json()["field"]) == (400, code, field), policy
        created = await people["alice"].post("/v1/cas", json={**CHILD, "approvals": policy})
        assert (created.status_code, created.json()["field"]) == (400, f"approvals.{field}")

    assert await world.count() == before


async def test_half_a_policy_is_none_and_ends_none(world: World, people: People) -> None:
    await people["dave"].put("/v1/cas/issuing/approvals", json=POLICY)

    for body in ({}, None, {"required": 1}, {"of": ["bob"]}):
        answer = await people["alice"].put("/v1/cas/issuing/approvals", json=body)
        assert answer.status_code == 400
    assert (await world.ca.get_ca("issuing")).approvals is not None


async def test_a_ca_is_born_with_its_approvers(world: World, people: People) -> None:
    answer = await people["alice"].post("/v1/cas", json={**CHILD, "approvals": POLICY})

    assert answer.status_code == 201
    shown = (await people["bob"].get("/v1/cas/child")).json()
    assert shown["approvals"] == answer.json()["approvals"] == {**POLICY, "lifetime": "1d"}
    assert "approvals" not in (await people["bob"].get("/v1/cas/other")).json()
    await asked(people["alice"], "POST", "/v1/cas/child/status", REVOKE)


async def test_what_nobody_could_approve_is_not_stored(world: World, people: People) -> None:
    policy = {"required": 2, "of": ["alice", "bob"]}
    await people["dave"].put("/v1/cas/issuing/approvals", json=policy)
    before = await world.count()

    answer = await people["alice"].post(STATUS, json=REVOKE)

    assert refusal(answer) == (409, "approvals_infeasible")
    assert "somebody else has to ask" in answer.json()["err"]
    assert await world.count() == before
    await asked(people["dave"], "POST", STATUS, REVOKE)


# --- bounds and lists -----------------------------------------------------------------------


async def test_what_waits_is_bounded(world: World, guarded: People) -> None:
    for number in range(16):
        await asked(guarded["alice"], "POST", f"{STATUS}?n={number}", REVOKE)

    answer = await guarded["alice"].post(f"{STATUS}?n=16", json=REVOKE)
    assert refusal(answer) == (409, "too_many_approvals")
    # nobody shuts out the others
    await asked(guarded["bob"], "POST", STATUS, REVOKE)
    long = {**CHILD, "metadata": {"x": "y" * 17_000}}
    refused = await guarded["bob"].post("/v1/cas", json=long)
    assert refusal(refused) == (400, "request_too_long")
    approval = await asked(guarded["dave"], "POST", STATUS, REVOKE)
    spoken = await guarded["bob"].post(
        approval_path(approval) + "/approve", json={"comment": "x" * 501}
    )
    assert refusal(spoken) == (400, "text_too_long")


async def test_approvals_are_listed_as_everything_is(world: World, guarded: People) -> None:
    ids = []
    for number, name in enumerate(("alice", "bob", "carol")):
        ids.append((await asked(guarded[name], "POST", f"{STATUS}?n={number}", REVOKE))["id"])
        world.clock.advance(HOUR)
    await asked(guarded["dave"], "POST", "/v1/cas", CHILD)

    async def listed(query: str) -> list[str]:
        found: list[str] = []
        path = f"/v1/approvals?page_size=2&{query}"
        while path:
            page = (await guarded["dave"].get(path)).json()
            found += [one["id"] for one in page["list"]]
            path = f"/v1/approvals?bookmark={page['next']}" if page["next"] else ""
        return found

    assert await listed("filter=ca_id[eq]issuing&sort_by=creation_ts") == ids
    assert await listed("filter=ca_id[eq]issuing&sort_by=creation_ts&sort_mode=desc") == ids[::-1]
    assert await listed("filter=requester[eq]bob") == [ids[1]]
    assert len(await listed("filter=operation[eq]ca.create-child")) == 1
    assert len(await listed("filter=status[eq]PENDING")) == 4
    assert await listed("filter=status[eq]SPENT") == []
    assert (await guarded["dave"].get("/v1/approvals?filter=digest[eq]x")).status_code == 400
    assert (await guarded["dave"].get("/v1/approvals/nobody")).status_code == 404


# --- other slices ---------------------------------------------------------------------------


async def test_another_slice_asks_by_the_contract(world: World, guarded: People) -> None:
    desk = world.ca.approvals
    request = {"method": "POST", "path": "/api/kms/v1/keys/k/move", "body": {"engine": "hsm"}}
    assert await desk.guarded_cas() == ["between", "issuing"]
    assert await desk.guarded_cas("dave") == []
    assert await desk.require(Operation.EXPORT_KEY, ["other"], None) is None
    with pytest.raises(Forbidden):
        await desk.require(Operation.EXPORT_KEY, ["issuing"], None)

    with pytest.raises(Deferred) as waiting:
        await desk.require(Operation.EXPORT_KEY, ["issuing"], Demand(ALICE, request))
    approval = dict(waiting.value.document)
    demand = Demand(ALICE, request, str(approval["id"]))
    with pytest.raises(Conflict):
        await desk.require(Operation.EXPORT_KEY, ["issuing"], demand)
    await approved(guarded, approval, "bob", "carol")

    assert await desk.require(Operation.EXPORT_KEY, ["issuing"], demand) == approval["id"]
    with pytest.raises(Conflict, match="another request"):
        await desk.require(Operation.REKEY, ["issuing"], demand)
    for _ in range(2):
        await desk.settle(str(approval["id"]), ALICE)
    with pytest.raises(Conflict, match="is spent"):
        await desk.require(Operation.EXPORT_KEY, ["issuing"], demand)
    assert (await world.event_types()).count("approval.use") == 1


async def test_who_is_excluded_has_no_say(world: World, guarded: People) -> None:
    desk = world.ca.approvals
    demand = Demand(Caller(admin("dave")), {"command": "admin issue", "name": "carol"})
    with pytest.raises(Deferred) as waiting:
        await desk.require(Operation.ISSUE_ADMIN, ["issuing"], demand, excluded=("carol",))
    approval = dict(waiting.value.document)

    assert refusal(await vote(guarded, "carol", approval)) == (403, "approver_concerned")

    alice = Demand(ALICE, {"command": "admin issue", "name": "carol"})
    with pytest.raises(Conflict, match="only bob may approve"):
        await desk.require(Operation.ISSUE_ADMIN, ["issuing"], alice, excluded=("carol",))


async def test_no_job_and_no_slice_revokes_a_guarded_ca(world: World, guarded: People) -> None:
    serial_number = (await world.ca.get_ca("issuing")).certificate.serial_number

    with pytest.raises(Forbidden):
        await world.ca.revoke(serial_number, RevocationReason.KEY_COMPROMISE, caller=ALICE)

    assert await status_of(world) is CertificateStatus.ACTIVE


async def test_the_description_says_what_may_have_to_wait(world: World) -> None:
    table = RouteTable([Mount("/api/ca", "ca", routes(world.ca))])
    paths = openapi_document(table)["paths"]

    waiting = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "202" in operation["responses"]
        and any(p["name"] == "Lamassu-Approval" for p in operation["parameters"])
    }

    asked = {
        (method, path.split("/v1/")[1].split("/")[0]) for method, path, *_ in DANGEROUS.values()
    }
    assert {(w.split()[0], w.split("/v1/")[1].split("/")[0]) for w in waiting} >= asked
    described = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation.get("description", "").startswith("202 ")
        or ". 202" in operation.get("description", "")
    }
    assert described <= waiting
