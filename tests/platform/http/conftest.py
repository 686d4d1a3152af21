"""An application over a few routes of its own, as a slice would declare them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import AliasChoices, Field
from starlette.responses import Response, StreamingResponse

from lamassu.kernel.errors import Conflict, LamassuError, Unauthenticated, Unavailable
from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.kernel.listing import FieldType, Filterable, Page
from lamassu.platform.http import (
    Access,
    Application,
    Call,
    Mount,
    Route,
    WireModel,
    build_app,
    empty_answer,
    json_answer,
    page_answer,
)
from lamassu.platform.http.errors import status_of
from lamassu.platform.http.wire import (
    FreeForm,
    JsonPatches,
    WireBase64,
    WireDuration,
    WireTime,
    WireTimeOrZero,
)

HOST = "pki.example:8443"
ORIGIN = f"https://{HOST}"
KEY = b"k" * 32

ADMIN = Peer((b"admin",), "192.0.2.1")
SERVICE = Peer((b"service",), "192.0.2.2")
REVOKED = Peer((b"revoked admin",), "192.0.2.3")
DEVICE = Peer((b"device",), "192.0.2.4")
STRANGER = Peer((), "192.0.2.5")

PRINCIPALS = {
    b"admin": Principal(PrincipalKind.ADMIN, "alice"),
    b"other admin": Principal(PrincipalKind.ADMIN, "bob"),
    b"service": Principal(PrincipalKind.SERVICE, "est"),
    b"other service": Principal(PrincipalKind.SERVICE, "va"),
    b"device principal": Principal(PrincipalKind.DEVICE, "d1"),
}


async def authenticate(peer: Peer) -> Principal | None:
    if peer.certificate == b"revoked admin":
        raise Unauthenticated("the certificate was revoked", code="certificate_revoked")
    return PRINCIPALS.get(peer.certificate or b"")


class Colour(StrEnum):
    RED = "RED"
    BLUE = "BLUE"


class Part(WireModel):
    leftovers: ClassVar[frozenset[str]] = frozenset({"state_province"})

    country: str = ""
    size: int = 0


class Thing(WireModel):
    leftovers: ClassVar[frozenset[str]] = frozenset({"ca_type"})

    id: str = Field(validation_alias=AliasChoices("id", "name"), max_length=64)
    colour: Colour = Colour.RED
    lifetime: WireDuration | None = None
    since: WireTime | None = None
    until: WireTimeOrZero = None
    part: Part = Part()
    parts: list[Part] = Field(default_factory=list)
    by_name: dict[str, Part] = Field(default_factory=dict)
    data: WireBase64 = b""
    enabled: bool = False
    count: int = Field(default=0, ge=0, le=100)
    sizes: list[int] | None = None
    flags: dict[str, bool] = Field(default_factory=dict)
    ratio: float = 0
    metadata: FreeForm = Field(default_factory=dict)


THINGS = Filterable(
    {
        "id": FieldType.STRING,
        "tags": FieldType.STRING_ARRAY,
        "created": FieldType.DATE,
        "size": FieldType.NUMBER,
        "colour": FieldType.ENUM,
        "metadata": FieldType.JSON,
    },
    choices={"colour": ("RED", "BLUE")},
)


@dataclass
class Seen:
    """What reached the handlers."""

    calls: list[Call] = field(default_factory=list)
    page: Page[Part] = field(default_factory=lambda: Page([]))

    @property
    def last(self) -> Call:
        return self.calls[-1]


def ocsp_error(error: LamassuError) -> Response:
    return Response(f"ocsp {error.code} {status_of(error)}".encode(), 200)


def sample_mounts(seen: Seen) -> list[Mount]:
    """A route of each kind of access, body and answer."""

    async def take(call: Call) -> Response:
        seen.calls.append(call)
        return json_answer(call.body) if call.body else empty_answer(204)

    async def items(call: Call) -> Response:
        seen.calls.append(call)
        return page_answer(call, seen.page, lambda part: part)

    async def break_down(call: Call) -> Response:
        raise KeyError("a secret of the program")

    async def conflict(call: Call) -> Response:
        raise Conflict("CA already exists", field="id")

    async def unavailable(call: Call) -> Response:
        raise Unavailable("the engine is away", retry_after=7)

    async def echo(call: Call) -> Response:
        seen.calls.append(call)
        return Response(call.raw, 200, media_type="application/octet-stream")

    kept = Response(b"kept", 200, {"cache-control": "max-age=60"})

    async def keep(call: Call) -> Response:
        seen.calls.append(call)
        return kept

    async def stream(call: Call) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one "
            yield b"two"

        return StreamingResponse(parts())

    def api(method: str, path: str, handler: Callable[[Call], Awaitable[Response]]) -> Route:
        verb = "read" if method == "GET" else "write"
        return Route(
            method=method,
            path=path,
            access=Access.action(f"thing:{verb}"),
            handler=handler,
            summary=f"{method} of {path}",
        )

    return [
        Mount(
            "/api/things",
            "things",
            [
                replace(api("POST", "/v1/things", take), body=Thing, answer=Thing, status=201),
                replace(api("GET", "/v1/things", items), listing=THINGS, answer=Part),
                api("GET", "/v1/things/stats", take),
                replace(
                    api("GET", "/v1/things/{id}", take), access=Access.action("thing:read", "id")
                ),
                replace(api("GET", "/v1/things/{id}/parts", items), listing=THINGS),
                api("DELETE", "/v1/things/{id}", take),
                replace(api("POST", "/v1/things/{id}/touch", take), body=Part, empty_body=True),
                replace(api("PATCH", "/v1/things/{id}/metadata", take), body=JsonPatches),
                api("GET", "/v1/broken", break_down),
                api("GET", "/v1/conflict", conflict),
                api("GET", "/v1/stream", stream),
                api("GET", "/v1/unavailable", unavailable),
            ],
        ),
        Mount(
            "/api/va",
            "va",
            [
                Route(
                    method="GET",
                    path="/ocsp/{request:path}",
                    access=Access.PUBLIC,
                    handler=keep,
                    summary="Answer for a certificate",
                ),
                Route(
                    method="POST",
                    path="/ocsp",
                    access=Access.PUBLIC,
                    handler=break_down,
                    summary="Answer for a certificate",
                    body_limit=10,
                    encode_error=ocsp_error,
                ),
                Route(
                    method="GET",
                    path="/crl/{ski}.crl",
                    access=Access.action("crl:read"),
                    handler=take,
                    summary="Give a CRL",
                ),
            ],
        ),
        Mount(
            "/.well-known/est",
            "est",
            [
                Route(
                    method="POST",
                    path="/{dms}/simpleenroll",
                    access=Access.EST,
                    handler=echo,
                    summary="Enroll",
                    body_limit=100,
                )
            ],
        ),
        Mount(
            "/internal/dms",
            "dms",
            [
                Route(
                    method="POST",
                    path="/enroll",
                    access=Access.internal("service/est"),
                    handler=echo,
                    summary="Enroll for the edge",
                )
            ],
        ),
    ]


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def build(seen: Seen) -> Callable[..., Application]:
    """`build(**changes)` gives the application, otherwise as `app`."""

    def build_one(**changes: Any) -> Application:
        settings: dict[str, Any] = {
            "authenticate": authenticate,
            "public_hosts": [HOST],
            "bookmark_key": KEY,
            "checks": {},
            "documented": True,
            "body_limit": 4096,
        }
        return build_app(sample_mounts(seen), **{**settings, **changes})

    return build_one


@pytest.fixture
def app(build: Callable[..., Application]) -> Application:
    return build()


class Client:
    """Requests as one peer or another."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(
        self, method: str, url: str, *, peer: Peer = ADMIN, **kwargs: Any
    ) -> httpx.Response:
        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            await self._app({**scope, "extensions": {"lamassu.peer": peer}}, receive, send)

        transport = httpx.ASGITransport(with_peer)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            return await client.request(method, url, **kwargs)


@pytest.fixture
def client(app: Application) -> Client:
    return Client(app)
