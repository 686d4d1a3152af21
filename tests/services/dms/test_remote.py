"""An EST edge in a process of its own enrolls through the DMS manager (decision 5)."""

from __future__ import annotations

import base64

import httpx
import pytest

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.identity import Peer
from lamassu.services.dms.client import RemoteEnrollment
from lamassu.services.dms.contract import CsrPayload, EnrollmentRequest
from tests.services.dms.edge import (
    ADMIN_PEER,
    EDGE_PEER,
    HOST,
    Client,
    app_of,
    est_mounts,
    internal_app,
    told,
)
from tests.services.dms.refusals import refusal, refused
from tests.services.dms.world import STRANGER, World, csr
from tests.support.pki import ec_key


def remote(world: World, peer: Peer = EDGE_PEER) -> RemoteEnrollment:
    transport = Client(internal_app(world), peer).transport()
    return RemoteEnrollment(httpx.AsyncClient(transport=transport, base_url=f"https://{HOST}"))


def request(peer: Peer, payload: CsrPayload, dms: str = "fleet") -> EnrollmentRequest:
    return EnrollmentRequest(dms_id=dms, peer=peer, payload=payload, caller=STRANGER)


async def test_an_edge_enrolls_renews_and_hands_out_cas(world: World) -> None:
    await world.dms()
    edge, key = remote(world), ec_key()
    bootstrap = world.bootstrap()
    payload = CsrPayload(csr(key, "dev-1"))

    first = await edge.enroll(request(bootstrap.peer, payload))
    second = await edge.reenroll(request(Peer((first,)), payload))
    trusted = await edge.ca_certificates("fleet")

    assert first != second
    slot = (await world.device()).slot
    assert slot is not None
    assert [version.number for version in slot.versions] == [0, 1]
    assert list(trusted) == [world.made["fleet-ca"].der, world.made["root-ca"].der]
    caller = world.authorities.requests[0].caller
    assert (caller.request_id, caller.address) == ("r2", "192.0.2.9")


async def test_refusals_arrive_as_they_were_raised(world: World) -> None:
    await world.dms()
    edge = remote(world)
    expired = Peer((world.bootstrap(stored=False).der,))
    revoked = world.bootstrap("revoked")
    world.revoke(revoked)
    fault = CsrPayload(fault_text="not base64", fault_code="base64_malformed", fault_field="csr")
    sound = CsrPayload(csr(ec_key(), "dev-1"))

    assert await refusal(edge.enroll(request(Peer(), sound))) == (
        "Unauthenticated",
        "certificate_missing",
    )
    assert await refusal(edge.enroll(request(expired, sound))) == (
        "Unauthenticated",
        "certificate_unknown",
    )
    assert await refusal(edge.enroll(request(revoked.peer, sound))) == (
        "Forbidden",
        "certificate_revoked",
    )
    assert await refusal(edge.enroll(request(world.bootstrap().peer, sound, "nowhere"))) == (
        "NotFound",
        "dms_not_found",
    )
    malformed = await refused(edge.enroll(request(world.bootstrap().peer, fault)))
    assert (malformed.text, malformed.code, malformed.field) == (
        "not base64",
        "base64_malformed",
        "csr",
    )
    world.authorities.unavailable = True
    unavailable = await refused(edge.enroll(request(world.bootstrap().peer, sound)))
    assert (type(unavailable), unavailable.retry_after) == (Unavailable, 5)


async def test_the_edges_word_on_a_chain_counts_for_nothing(world: World) -> None:
    await world.dms()
    forged = Peer((world.bootstrap(ca="stranger-ca", stored=False).der,))

    attempt = remote(world).enroll(request(forged, CsrPayload(csr(ec_key(), "dev-1"))))

    assert await refusal(attempt) == ("Unauthenticated", "certificate_unknown")


@pytest.mark.parametrize("peer", [Peer(), ADMIN_PEER, Peer((b"va",)), Peer((b"device",))])
async def test_only_the_edge_may_use_its_routes(world: World, peer: Peer) -> None:
    await world.dms()
    bootstrap = world.bootstrap()
    body = {
        "peer": {"chain": [base64.b64encode(bootstrap.der).decode()]},
        "csr": base64.b64encode(csr(ec_key(), "dev-1")).decode(),
    }
    client = Client(internal_app(world), peer)

    for path in ("enroll", "reenroll"):
        answer = await client("POST", f"/internal/dms/fleet/{path}", body)
        assert answer.status_code in (401, 403)
    assert (await client("GET", "/internal/dms/fleet/cacerts")).status_code in (401, 403)
    assert await world.devices.find("dev-1") is None


@pytest.mark.parametrize("word", ["a\nforged", "\x1b[2J", "a b", "x\u2028"])
async def test_an_edge_writes_no_line_of_its_own_into_the_trail(world: World, word: str) -> None:
    await world.dms()
    chain = [base64.b64encode(world.bootstrap().der).decode()]
    request_csr = base64.b64encode(csr(ec_key(), "dev-1")).decode()
    client = Client(internal_app(world), EDGE_PEER)

    for body in (
        {"peer": {"chain": chain, "address": word}, "csr": request_csr},
        {"peer": {"chain": chain}, "csr": request_csr, "request_id": word},
    ):
        answer = await client("POST", "/internal/dms/fleet/enroll", body)
        assert told(answer) == (400, "invalid_value")
    assert await world.devices.find("dev-1") is None


async def test_an_edge_that_is_refused_is_no_business_of_the_device(world: World) -> None:
    await world.dms()
    revoked_edge = remote(world, Peer((b"va",)))
    sound = CsrPayload(csr(ec_key(), "dev-1"))

    attempt = revoked_edge.enroll(request(world.bootstrap().peer, sound))

    assert await refusal(attempt) == ("Unavailable", "upstream_unavailable")


async def test_a_manager_out_of_reach_is_unavailable(world: World) -> None:
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    def babble(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=b"<html>")

    for handler in (away, babble):
        client = httpx.AsyncClient(
            transport=httpx.MockTransport(handler), base_url=f"https://{HOST}"
        )
        attempt = RemoteEnrollment(client).ca_certificates("fleet")
        assert await refusal(attempt) == ("Unavailable", "upstream_unavailable")


@pytest.mark.parametrize("dms_id", ["..", ".", "../../other", "a/b"])
async def test_a_dms_id_leads_to_no_other_route(world: World, dms_id: str) -> None:
    assert await refusal(remote(world).ca_certificates(dms_id)) == ("NotFound", "dms_not_found")


async def test_est_over_a_remote_manager_answers_like_est_itself(world: World) -> None:
    await world.dms()
    bootstrap, key = world.bootstrap(), ec_key()
    body = base64.b64encode(csr(key, "dev-1"))
    headers = {"content-type": "application/pkcs10"}
    est = app_of(*est_mounts(remote(world)))

    enrolled = await Client(est, bootstrap.peer)(
        "POST", "/.well-known/est/fleet/simpleenroll", content=body, headers=headers
    )
    stranger = await Client(est, Peer())(
        "POST", "/.well-known/est/fleet/simpleenroll", content=body, headers=headers
    )

    assert enrolled.status_code == 200
    assert told(stranger) == (401, "certificate_missing")
