"""The DMS manager and EST behind the HTTP layer, spoken to by any peer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx

from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.platform.http import PEER_EXTENSION, Application, Mount, build_app
from lamassu.services.dms.contract import Enrollment
from lamassu.services.dms.http import internal_routes, routes
from lamassu.services.est.http import routes as est_routes
from tests.services.dms.world import World

HOST = "pki.example:8443"
ADMIN_PEER = Peer((b"admin",), "192.0.2.1")
EDGE_PEER = Peer((b"est",), "192.0.2.2")
_PRINCIPALS = {
    b"admin": Principal(PrincipalKind.ADMIN, "alice"),
    b"est": Principal(PrincipalKind.SERVICE, "est"),
    b"va": Principal(PrincipalKind.SERVICE, "va"),
}


async def authenticate(peer: Peer) -> Principal | None:
    return _PRINCIPALS.get(peer.certificate or b"")


def app_of(*mounts: Mount) -> Application:
    return build_app(mounts, authenticate=authenticate, public_hosts=[HOST], bookmark_key=b"k" * 32)


def est_mounts(enrollment: Enrollment, default_dms: str | None = None) -> list[Mount]:
    return [
        Mount("/api/dmsmanager", "dmsmanager", est_routes(enrollment, default_dms=default_dms)),
        Mount("", "est", est_routes(enrollment, default_dms=default_dms)),
    ]


def whole_app(world: World, default_dms: str | None = None) -> Application:
    return app_of(
        Mount("/api/dmsmanager", "dmsmanager", routes(world.service)),
        *est_mounts(world.service, default_dms),
    )


def internal_app(world: World) -> Application:
    return app_of(Mount("", "dmsmanager", internal_routes(world.service)))


@dataclass
class Client:
    """Requests by one peer; answers as httpx gives them."""

    app: Application
    peer: Peer

    def transport(self) -> httpx.AsyncBaseTransport:
        peer = self.peer

        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            scope["extensions"] = {PEER_EXTENSION: peer}
            await self.app(scope, receive, send)

        return httpx.ASGITransport(with_peer)

    async def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        if body is not None:
            content = json.dumps(body).encode()
        async with httpx.AsyncClient(
            transport=self.transport(), base_url=f"https://{HOST}"
        ) as client:
            return await client.request(method, path, content=content, headers=headers)


def told(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    body = response.json()
    assert set(body) <= {"err", "code", "field", "request_id"}
    return response.status_code, body["code"]
