"""The VA's routes, on the plain listener and on HTTPS."""

from __future__ import annotations

import base64
from datetime import timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from lamassu.kernel.errors import Unavailable
from tests.services.va.conftest import Clients, World
from tests.services.va.test_ocsp import asks
from tests.support.pki import NOW

Status = ocsp.OCSPResponseStatus


def read(content: bytes) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response(content)


def spellings(request: bytes) -> list[str]:
    standard = base64.b64encode(request).decode()
    safe = base64.urlsafe_b64encode(request).decode()
    return [
        standard,
        standard.rstrip("="),
        safe,
        safe.rstrip("="),
        quote(standard, safe=""),
        quote(standard),
    ]


async def test_get_takes_any_spelling_of_base64(world: World, clients: Clients) -> None:
    # look for a request whose base64 has every awkward character
    while True:
        request = asks(world.issue(), world.root)
        text = base64.b64encode(request).decode()
        if "+" in text and "/" in text and "=" in text:
            break
    for spelling in spellings(request):
        for path in (f"/{spelling}", f"/ocsp/{spelling}"):
            answer = await clients.public.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/ocsp-response"
            assert read(answer.content).certificate_status is ocsp.OCSPCertStatus.GOOD
        answer = await clients.stranger.get(f"/api/va/ocsp/{spelling}")
        assert read(answer.content).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_post_is_answered_on_both_listeners(world: World, clients: Clients) -> None:
    request = asks(world.issue(), world.root)
    for client, path in (
        (clients.public, "/"),
        (clients.public, "/ocsp"),
        (clients.stranger, "/api/va/ocsp"),
    ):
        answer = await client.post(path, content=request)
        assert (answer.status_code, read(answer.content).response_status) == (
            200,
            Status.SUCCESSFUL,
        )


async def test_rubbish_is_a_malformed_request_under_200(world: World, clients: Clients) -> None:
    request = asks(world.issue(), world.root)
    for body in (b"", b"\x30", b"rubbish", request[:-1], request + b"\0", b"\x30" * 4000):
        answer = await clients.public.post("/ocsp", content=body)
        assert answer.status_code == 200
        assert read(answer.content).response_status is Status.MALFORMED_REQUEST
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/ocsp/M!!!", "/ocsp/xyz", "/MAAA", "/ocsp/" + "M" * 15_000):
        answer = await clients.public.get(path)
        assert (answer.status_code, read(answer.content).response_status) == (
            200,
            Status.MALFORMED_REQUEST,
        )


async def test_an_oversize_request_is_refused(world: World, clients: Clients) -> None:
    answer = await clients.public.post("/ocsp", content=b"\x30" * 11_000)
    assert read(answer.content).response_status is Status.MALFORMED_REQUEST


async def test_nothing_else_is_on_the_plain_listener(world: World, clients: Clients) -> None:
    for path in ("/favicon.ico", "/api/ca/v1/cas", "/v1/roles/" + world.ski, "/health"):
        assert (await clients.public.get(path)).status_code == 404
    assert (await clients.public.put("/v1/roles/" + world.ski)).status_code in (404, 405)


async def test_engine_trouble_is_try_later_and_our_faults_are_internal(
    world: World, clients: Clients
) -> None:
    request = asks(world.issue(), world.root)
    world.keys.failure = Unavailable("the engine is away")
    answer = await clients.public.post("/", content=request)
    assert read(answer.content).response_status is Status.TRY_LATER

    world.keys.failure = ZeroDivisionError("a fault of ours")
    answer = await clients.public.post("/", content=request)
    assert (answer.status_code, read(answer.content).response_status) == (
        200,
        Status.INTERNAL_ERROR,
    )


async def test_caches_may_keep_an_answer_for_half_its_life(world: World, clients: Clients) -> None:
    path = "/ocsp/" + base64.b64encode(asks(world.issue(), world.root)).decode()
    world.clock.forward(milliseconds=-250)
    answer = await clients.public.get(path)

    assert "max-age=1800" in answer.headers["cache-control"]
    assert parsedate_to_datetime(answer.headers["last-modified"]) == NOW
    assert parsedate_to_datetime(answer.headers["expires"]) == NOW + timedelta(minutes=30)
    again = await clients.public.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")

    world.clock.forward(minutes=40)
    later = await clients.public.get(path)
    assert "max-age=600" in later.headers["cache-control"]


async def test_a_nonced_answer_is_for_its_asker_alone(world: World, clients: Clients) -> None:
    request = asks(world.issue(), world.root, nonce=b"n" * 16)
    answer = await clients.public.get("/ocsp/" + base64.b64encode(request).decode())
    assert answer.headers["cache-control"] == "no-store"


async def test_crls_are_served_by_key_and_by_ca(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    answers = [
        await clients.public.get(f"/crl/{world.ski}"),
        await clients.public.get(f"/crl/{world.ski.upper()}"),
        await clients.public.get("/ca/root.crl"),
        await clients.stranger.get(f"/api/va/crl/{world.ski}"),
    ]

    assert {a.status_code for a in answers} == {200}
    assert {a.headers["content-type"] for a in answers} == {"application/pkix-crl"}
    assert len({a.content for a in answers}) == 1
    assert x509.load_der_x509_crl(answers[0].content).is_signature_valid(
        world.root.key.public_key()
    )
    etag = answers[0].headers["etag"]
    again = await clients.public.get("/ca/root.crl", headers={"if-none-match": f'W/{etag}, "x"'})
    assert (again.status_code, again.content) == (304, b"")

    await world.service.revocation_changed("root", wait=timedelta(seconds=2))
    fresh = await clients.public.get("/ca/root.crl", headers={"if-none-match": etag})
    assert fresh.status_code == 200


async def test_unknown_crls_and_cas_are_not_found(world: World, clients: Clients) -> None:
    for path in ("/crl/00", "/ca/nobody.crl", "/ca/nobody.crt"):
        assert (await clients.public.get(path)).status_code == 404


async def test_an_ended_crl_is_503_when_no_other_can_be_made(
    world: World, clients: Clients
) -> None:
    await world.service.ensure_role("root", world.ski)
    world.clock.forward(days=8)
    del world.authorities.cas["root"]

    answer = await clients.public.get(f"/crl/{world.ski}")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"


async def test_ca_issuers_gives_the_certificate(world: World, clients: Clients) -> None:
    answer = await clients.public.get("/ca/root.crt")
    assert answer.headers["content-type"] == "application/pkix-cert"
    assert answer.content == world.root.der


ROLE = {
    "refresh_interval": "6d23h",
    "validity": "1w",
    "regenerate_on_revoke": True,
}


async def test_a_role_is_shown_as_the_original_shows_it(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    answer = await clients.admin.get(f"/api/va/v1/roles/{world.ski}")

    assert answer.json() == {
        "ca_ski": world.ski,
        "crl_options": {**ROLE, "subject_key_id_signer": world.ski},
        "latest_crl": {
            "version": 1,
            "valid_from": "2026-05-01T12:00:00Z",
            "valid_until": "2026-05-08T12:00:00Z",
        },
        "filter_interval": "0s",
    }


async def test_the_sdk_finds_roles_without_the_version(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    role = (await clients.admin.get(f"/api/va/v1/roles/{world.ski}")).json()

    assert (await clients.admin.get(f"/api/va/roles/{world.ski}")).json() == role
    put = await clients.admin.put(f"/api/va/roles/{world.ski}", json=role["crl_options"])
    assert (put.status_code, put.json()) == (200, role)
    assert (await clients.stranger.get(f"/api/va/roles/{world.ski}")).status_code == 401


async def test_a_put_changes_what_it_names(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    path = f"/api/va/v1/roles/{world.ski}"
    answer = await clients.admin.put(path, json={"validity": "2w", "regenerate_on_revoke": False})
    assert answer.status_code == 200
    assert answer.json()["crl_options"] == {
        **ROLE,
        "subject_key_id_signer": world.ski,
        "validity": "2w",
        "regenerate_on_revoke": False,
    }
    answer = await clients.admin.put(path, json={"crl_update_interval_hours": 6})
    assert answer.json()["crl_options"]["refresh_interval"] == "6h"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"validity": "0s"}, "validity"),
        ({"validity": "-1d"}, "validity"),
        ({"refresh_interval": "2w"}, "refresh_interval"),
        ({"refresh_interval": "soon"}, "refresh_interval"),
        ({"crl_update_interval_hours": 0}, "crl_update_interval_hours"),
        ({"crl_update_interval_hours": "x"}, "crl_update_interval_hours"),
        ({"crl_update_interval_hours": 1e308}, "crl_update_interval_hours"),
        (
            {"crl_update_interval_hours": 6, "refresh_interval": "5h"},
            "crl_update_interval_hours",
        ),
        ({"subject_key_id_signer": "00"}, "subject_key_id_signer"),
        ({"filter_interval": "1s"}, "filter_interval"),
        ({"filter_interval": "4d"}, "filter_interval"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_a_wrong_put_is_400_and_changes_nothing(
    world: World, clients: Clients, body: dict[str, object], field: str
) -> None:
    await world.service.ensure_role("root", world.ski)
    path = f"/api/va/v1/roles/{world.ski}"
    before = (await clients.admin.get(path)).json()

    answer = await clients.admin.put(path, json=body)

    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert (await clients.admin.get(path)).json() == before


async def test_roles_are_for_those_who_may(world: World, clients: Clients) -> None:
    await world.service.ensure_role("root", world.ski)
    path = f"/api/va/v1/roles/{world.ski}"
    assert (await clients.stranger.get(path)).status_code == 401
    assert (await clients.stranger.put(path, json={"validity": "2w"})).status_code == 401
    assert (await clients.admin.get("/api/va/v1/roles/00")).json()["err"] == "VA role not found"
    assert (await clients.admin.put("/api/va/v1/roles/00", json={})).status_code == 404
