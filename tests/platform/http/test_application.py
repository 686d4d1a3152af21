"""Every door that a request passes, tried from outside."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import structlog

from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation, Unavailable
from lamassu.kernel.identity import Peer, PrincipalKind
from lamassu.platform.http import Application, Mount, build_app, health
from lamassu.platform.http.errors import STATUS, status_of
from tests.platform.http.conftest import (
    ADMIN,
    DEVICE,
    KEY,
    ORIGIN,
    REVOKED,
    SERVICE,
    STRANGER,
    Client,
    Seen,
    authenticate,
    sample_mounts,
)

THINGS = "/api/things/v1/things"


def refused(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert {"err", "code", "field"} <= set(body)
    assert body["err"]
    return response.status_code, body["code"]


# --- who may ------------------------------------------------------------------------------


async def test_an_admin_may_and_is_named_in_the_call(client: Client, seen: Seen) -> None:
    response = await client("GET", f"{THINGS}/t1", peer=ADMIN)

    assert response.status_code == 204
    assert seen.last.caller.principal.id == "admin/alice"
    assert seen.last.caller.address == "192.0.2.1"
    assert seen.last.path == {"id": "t1"}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (STRANGER, (401, "unauthenticated")),
        (DEVICE, (401, "unauthenticated")),
        (REVOKED, (401, "certificate_revoked")),
        (SERVICE, (403, "forbidden")),
        (Peer((b"device principal",)), (403, "forbidden")),
    ],
)
async def test_who_is_no_admin_gets_nothing_under_api(
    client: Client, seen: Seen, peer: Peer, expected: tuple[int, str]
) -> None:
    response = await client("POST", THINGS, peer=peer, content=b'{"id": "x"}')

    assert refused(response) == expected
    assert seen.calls == []


async def test_a_stranger_is_told_what_to_do(client: Client) -> None:
    response = await client("GET", THINGS, peer=STRANGER)

    assert "lamassu admin issue" in response.json()["err"]


async def test_a_strangers_connection_ends_with_the_refusal(client: Client) -> None:
    """Judging a chain costs us more than asking costs the peer, unless it shakes hands anew."""
    assert (await client("GET", THINGS, peer=STRANGER)).headers["connection"] == "close"
    assert "connection" not in (await client("GET", THINGS, peer=SERVICE)).headers


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        (SERVICE, 200),
        (Peer((b"other service",)), 403),
        (ADMIN, 403),
        (DEVICE, 401),
        (STRANGER, 401),
    ],
)
async def test_an_internal_route_is_for_its_principals_only(
    client: Client, peer: Peer, status: int
) -> None:
    response = await client("POST", "/internal/dms/enroll", peer=peer, content=b"csr")

    assert response.status_code == status


async def test_est_and_public_routes_judge_nobody(client: Client, seen: Seen) -> None:
    enrolled = await client(
        "POST", "/.well-known/est/fleet/simpleenroll", peer=REVOKED, content=b"csr"
    )
    answered = await client("GET", "/api/va/ocsp/abc", peer=REVOKED)

    assert (enrolled.status_code, answered.status_code) == (200, 200)
    assert [c.caller.principal.kind for c in seen.calls] == [PrincipalKind.ANONYMOUS] * 2
    assert seen.calls[0].peer == REVOKED


async def test_where_a_certificate_is_required_not_even_public_routes_are_open_without_one(
    build: Callable[..., Application],
) -> None:
    client = Client(build(certificate_required=True, mode="development"))
    under_api = ("/api/va/ocsp/abc", "/api/docs", "/api/things/health", "/api/things/v1/things")

    for path in under_api:
        answer = await client("GET", path, peer=STRANGER)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path
        assert (await client("GET", path)).status_code == 200, path

    assert (await client("GET", "/health/live", peer=STRANGER)).status_code == 200
    enrolled = await client(
        "POST", "/.well-known/est/fleet/simpleenroll", peer=STRANGER, content=b"csr"
    )
    assert enrolled.status_code == 200, "EST outside /api is the DMS's to judge"


async def test_a_stranger_is_refused_before_the_body_is_read(app: Application) -> None:
    messages: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": THINGS,
        "headers": [(b"content-length", b"5")],
        "query_string": b"",
    }
    await app(scope, receive, send)

    assert messages[0]["status"] == 401


# --- where --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api", "/api/things", f"{THINGS}/a/b/c"])
async def test_an_unknown_path_is_404(client: Client, path: str) -> None:
    assert refused(await client("GET", path)) == (404, "not_found")


async def test_a_wrong_method_is_405_and_names_the_right_ones(client: Client) -> None:
    response = await client("PUT", f"{THINGS}/stats")

    assert refused(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_one_trailing_slash_is_forgiven(client: Client, seen: Seen) -> None:
    assert (await client("GET", f"{THINGS}/t1/")).status_code == 204
    assert (await client("GET", f"{THINGS}/")).status_code == 200
    assert (await client("GET", f"{THINGS}/t1//")).status_code == 404
    assert seen.calls[0].path == {"id": "t1"}


async def test_a_literal_segment_wins_over_a_parameter(client: Client, seen: Seen) -> None:
    await client("GET", f"{THINGS}/stats")

    # for other methods, too: no id is spelt like a path
    assert (await client("DELETE", f"{THINGS}/stats")).status_code == 405
    assert [call.path for call in seen.calls] == [{}]


async def test_the_rest_of_a_path_is_taken_as_it_stands(client: Client, seen: Seen) -> None:
    await client("GET", "/api/va/ocsp/MEw/a//b+c=/")

    assert seen.last.path == {"request": "MEw/a//b+c=/"}


async def test_a_parameter_inside_a_segment(client: Client, seen: Seen) -> None:
    assert (await client("GET", "/api/va/crl/abc.crl")).status_code == 204
    assert (await client("GET", "/api/va/crl/abc")).status_code == 404
    assert seen.last.path == {"ski": "abc"}


async def test_head_is_get_without_the_body(client: Client) -> None:
    got, headed = await client("GET", THINGS), await client("HEAD", THINGS)

    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]


@pytest.mark.parametrize("segment", ["a%00b", "%00"])
async def test_a_nul_in_the_path_is_refused(client: Client, segment: str) -> None:
    assert refused(await client("GET", f"{THINGS}/{segment}")) == (400, "malformed")


# --- foreign pages --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://pki.example:8443"},
        {"origin": "https://pki.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-site", "origin": ORIGIN},
        {"sec-fetch-site": ""},
        {"origin": ""},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", THINGS), ("POST", THINGS), ("POST", "/.well-known/est/fleet/simpleenroll")],
)
async def test_a_foreign_page_is_refused(
    client: Client, seen: Seen, method: str, path: str, headers: dict[str, str]
) -> None:
    response = await client(method, path, headers=headers)

    assert refused(response) == (403, "foreign_origin")
    assert response.headers.get("access-control-allow-origin") in (None, ORIGIN)
    assert seen.calls == []


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": ORIGIN}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}],
)
async def test_our_own_pages_and_programs_are_served(
    client: Client, headers: dict[str, str]
) -> None:
    assert (await client("GET", THINGS, headers=headers)).status_code == 200


async def test_a_preflight_is_answered_for_our_own_names_only(client: Client) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "x-a"}
    own = await client("OPTIONS", THINGS, headers={**asked, "origin": ORIGIN})
    foreign = await client("OPTIONS", THINGS, headers={**asked, "origin": "https://evil.example"})
    plain = await client("OPTIONS", THINGS, peer=STRANGER)

    assert own.status_code == 204
    assert own.headers["access-control-allow-origin"] == ORIGIN
    assert own.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert refused(foreign) == (403, "foreign_origin")
    assert plain.status_code == 204
    assert not any(name.startswith("access-control") for name in plain.headers)


# --- bounds ---------------------------------------------------------------------------------


async def test_a_body_that_announces_too_much_is_refused_unread(client: Client) -> None:
    response = await client("POST", THINGS, content=b"x" * 4097)

    assert refused(response) == (413, "too_large")
    assert response.headers["connection"] == "close"


async def test_a_body_without_length_is_cut_off_at_the_bound(client: Client) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1000
            yield b" " * 1000

    response = await client("POST", THINGS, content=endless())

    assert refused(response) == (413, "too_large")
    assert sent <= 6000


async def test_a_route_can_have_a_bound_of_its_own(client: Client) -> None:
    path = "/.well-known/est/fleet/simpleenroll"

    assert (await client("POST", path, content=b"x" * 100)).status_code == 200
    assert (await client("POST", path, content=b"x" * 101)).status_code == 413


async def test_a_body_that_does_not_come_is_408(build: Callable[..., Application]) -> None:
    async def receive() -> Any:
        await never.wait()

    never = asyncio.Event()
    messages: list[Any] = []

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": THINGS,
        "headers": [],
        "query_string": b"",
        "extensions": {"lamassu.peer": ADMIN},
    }
    await build(read_timeout=0.01)(scope, receive, send)

    assert messages[0]["status"] == 408
    assert (b"connection", b"close") in messages[0]["headers"]


async def test_a_client_that_leaves_gets_no_answer(app: Application) -> None:
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": THINGS,
        "headers": [],
        "query_string": b"",
        "extensions": {"lamassu.peer": ADMIN},
    }
    await app(scope, receive, send)

    assert messages == []


# --- answers --------------------------------------------------------------------------------


async def test_a_sane_request_id_is_kept_and_another_replaced(client: Client, seen: Seen) -> None:
    kept = await client("GET", f"{THINGS}/a", headers={"x-request-id": "trace-7"})
    replaced = await client("GET", f"{THINGS}/a", headers={"x-request-id": "a\tb" * 50})
    made = await client("GET", "/nowhere")

    assert kept.headers["x-request-id"] == "trace-7" == seen.calls[0].caller.request_id
    assert uuid.UUID(replaced.headers["x-request-id"])
    assert uuid.UUID(made.headers["x-request-id"])


async def test_security_headers(client: Client, build: Callable[..., Application]) -> None:
    answer = await client("GET", THINGS)
    development = await Client(build(mode="development"))("GET", THINGS)

    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "max-age" in answer.headers["strict-transport-security"]
    # on localhost it would lock other servers of the developer out
    assert "strict-transport-security" not in development.headers


async def test_an_answer_that_a_handler_keeps_stays_as_it_is(client: Client) -> None:
    first = await client("GET", "/api/va/ocsp/a")
    second = await client("GET", "/api/va/ocsp/b")

    assert first.headers.get_list("x-request-id") != second.headers.get_list("x-request-id")
    assert len(second.headers.get_list("x-request-id")) == 1
    assert second.headers.get_list("cache-control") == ["max-age=60"]


async def test_an_answer_can_be_streamed(client: Client) -> None:
    response = await client("GET", "/api/things/v1/stream")

    assert response.text == "one two"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_an_error_has_its_status_code_and_field(client: Client) -> None:
    response = await client("GET", "/api/things/v1/conflict")

    assert response.status_code == 409
    assert response.json() == {"err": "CA already exists", "code": "conflict", "field": "id"}


async def test_where_waiting_helps_the_answer_says_how_long(client: Client) -> None:
    response = await client("GET", "/api/things/v1/unavailable")

    assert refused(response) == (503, "unavailable")
    assert response.headers["retry-after"] == "7"


async def test_our_own_fault_is_told_to_the_log_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # another test of the run may have started the program's logging, which a logger in use keeps
    monkeypatch.setattr("lamassu.platform.http.application._log", structlog.get_logger())
    with structlog.testing.capture_logs() as logs:
        response = await client("GET", "/api/things/v1/broken", headers={"x-request-id": "r1"})

    assert refused(response) == (500, "internal_error")
    assert response.json()["request_id"] == "r1"
    assert "secret" not in response.text
    assert logs[0]["request_id"] == "r1"
    assert "a secret of the program" in logs[0]["traceback"]


async def test_a_route_can_encode_its_errors_itself(client: Client) -> None:
    with structlog.testing.capture_logs():
        broken = await client("POST", "/api/va/ocsp", content=b"x")
    too_large = await client("POST", "/api/va/ocsp", content=b"x" * 11)

    assert broken.text == "ocsp internal_error 500"
    assert too_large.text == "ocsp too_large 413"


def test_a_status_is_looked_up_by_class_order() -> None:
    class PathInvalid(RuleViolation):
        pass

    assert status_of(PathInvalid("x")) == 400
    assert status_of(Conflict("x")) == 409
    assert status_of(Unavailable("x")) == 503
    assert status_of(LamassuError("x")) == 500
    assert set(STATUS) == set(LamassuError.__subclasses__()) & set(STATUS)


# --- health ---------------------------------------------------------------------------------


async def fails() -> None:
    raise Unavailable("the database is away")


async def breaks() -> None:
    raise ZeroDivisionError


async def passes() -> None:
    return


async def test_live_and_ready_need_no_certificate(client: Client) -> None:
    live = await client("GET", "/health/live", peer=STRANGER)
    ready = await client("GET", "/health/ready", peer=STRANGER)

    assert (live.status_code, ready.status_code) == (200, 200)
    assert ready.json() == {"status": "ready"}


async def test_what_is_not_ready_is_told_to_principals_only(
    build: Callable[..., Application],
) -> None:
    checks = {"keys": passes, "database": fails, "relay": breaks}
    client = Client(build(checks=checks, lesser_checks={"engine hsm": fails}))

    stranger = await client("GET", "/health/ready", peer=STRANGER)
    revoked = await client("GET", "/health/ready", peer=REVOKED)
    admin = await client("GET", "/health/ready", peer=ADMIN)

    assert (stranger.status_code, stranger.json()) == (503, {"status": "unready"})
    assert revoked.json() == {"status": "unready"}
    reasons = {
        "database": "the database is away",
        "relay": "it failed; the log says how",
        "engine hsm": "the database is away",
    }
    assert admin.json() == {
        "status": "unready",
        "failing": ["database", "relay"],
        "reasons": reasons,
    }


async def test_a_lesser_check_that_fails_is_told_and_leaves_the_rest_ready(
    build: Callable[..., Application],
) -> None:
    client = Client(build(checks={"keys": passes}, lesser_checks={"engine hsm": fails}))

    stranger = await client("GET", "/health/ready", peer=STRANGER)
    admin = await client("GET", "/health/ready", peer=ADMIN)

    assert (stranger.status_code, stranger.json()) == (200, {"status": "ready"})
    assert admin.status_code == 200
    assert admin.json()["reasons"] == {"engine hsm": "the database is away"}


async def test_a_check_that_does_not_end_is_waited_for_briefly_and_run_once(
    build: Callable[..., Application], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE", 0.05)
    over = asyncio.Event()
    runs = 0

    async def hangs() -> None:
        nonlocal runs
        runs += 1
        await over.wait()

    client = Client(build(checks={"hanging": hangs}))

    answers = [await client("GET", "/health/ready") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].json()["failing"] == ["hanging"]
    assert runs == 1

    over.set()
    assert (await client("GET", "/health/ready")).status_code == 200


async def test_what_is_costly_to_check_is_looked_at_now_and_then(
    build: Callable[..., Application],
) -> None:
    """Anybody may ask for readiness; an engine may be far away, or be paid by the question."""
    runs = 0
    fault: LamassuError | None = None

    async def costly() -> None:
        nonlocal runs
        runs += 1
        if fault is not None:
            raise fault

    client = Client(build(checks={"keys": health.Spaced(costly, interval=0.3)}))
    begun = asyncio.get_running_loop().time()

    answers = await asyncio.gather(*(client("GET", "/health/ready") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert runs == 1

    fault = Unavailable("gone")
    while (await client("GET", "/health/ready")).status_code == 200:
        assert asyncio.get_running_loop().time() < begun + 5
    assert asyncio.get_running_loop().time() >= begun + 0.3
    fault = None
    assert (await client("GET", "/health/ready")).json()["reasons"] == {"keys": "gone"}
    assert runs == 2


async def test_the_originals_health_keeps_its_fields_and_tells_nothing(client: Client) -> None:
    response = await client("GET", "/api/things/health", peer=STRANGER)

    assert response.json() == {"health": True, "version": "-", "build": "-", "build_time": "-"}


async def test_services_that_share_a_prefix_share_its_health(seen: Seen) -> None:
    mounts = sample_mounts(seen)
    app = build_app(
        [*mounts, Mount(mounts[0].prefix, "other", [])],
        authenticate=authenticate,
        public_hosts=[],
        bookmark_key=KEY,
        checks={},
    )

    assert (await Client(app)("GET", "/api/things/health")).status_code == 200
