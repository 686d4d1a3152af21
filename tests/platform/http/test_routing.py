"""The table refuses what would open a door by mistake."""

from __future__ import annotations

import pytest
from starlette.responses import Response

from lamassu.platform.http import Access, AccessKind, Application, Call, Mount, Route, RouteTable


async def handler(call: Call) -> Response:
    return Response()


def table(path: str, access: Access, *, method: str = "GET", prefix: str = "") -> RouteTable:
    route = Route(method=method, path=path, access=access, handler=handler, summary="")
    return RouteTable([Mount(prefix, "s", [route])])


def test_a_route_says_who_may() -> None:
    with pytest.raises(TypeError):
        Route(method="GET", path="/x", handler=handler, summary="")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="has no access"):
        table("/x", None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/ca/v1/cas"),
        ("GET", "/api/ca/v1/cas/{id}"),
        ("GET", "/api/ca/v1/{id}"),
        ("GET", "/api/va/v1/roles/{ski}"),
        ("GET", "/internal/health/x"),
        ("POST", "/.well-known/est/{dms}/simpleenroll"),
        ("POST", "/.well-known/est/{dms}/cacerts"),
        ("POST", "/api/va/crl/{ski}"),
        ("DELETE", "/api/va/ocsp"),
    ],
)
def test_only_the_named_kinds_are_public(method: str, path: str) -> None:
    with pytest.raises(ValueError, match=r"public|internal"):
        table(path, Access.PUBLIC, method=method)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/va/ocsp"),
        ("GET", "/api/va/ocsp/{request:path}"),
        ("POST", "/"),
        ("GET", "/{request:path}"),
        ("GET", "/api/va/crl/{ski}"),
        ("GET", "/crl/{ski}"),
        ("GET", "/ca/{ca-id}.crl"),
        ("GET", "/ca/{ca-id}.cer"),
        ("GET", "/.well-known/est/{dms}/cacerts"),
        ("GET", "/api/dmsmanager/.well-known/est/{dms}/csrattrs"),
        ("GET", "/.well-known/est/cacerts"),
        ("GET", "/api/kms/health"),
        ("GET", "/health/live"),
    ],
)
def test_what_has_to_be_public_can_be(method: str, path: str) -> None:
    assert len(table(path, Access.PUBLIC, method=method)) == 1


def test_internal_routes_stand_apart() -> None:
    with pytest.raises(ValueError, match="internal"):
        table("/x", Access.internal("service/est"), prefix="/api/dms")
    with pytest.raises(ValueError, match="internal"):
        table("/x", Access.action("dms:read"), prefix="/internal/dms")
    with pytest.raises(ValueError, match="principals"):
        Access.internal()


def test_faults_of_a_table() -> None:
    read = Access.action("a:read")
    with pytest.raises(ValueError, match="twice"):
        RouteTable([Mount("", "s", _same_route_twice())])
    with pytest.raises(ValueError, match="scope"):
        table("/x/{name}", Access.action("a:read", scope="id"))
    with pytest.raises(ValueError, match="twice"):
        table("/x/{id}/{id}", read)
    with pytest.raises(ValueError, match="nothing can follow"):
        table("/x/{rest:path}/y", read)
    with pytest.raises(ValueError, match="method"):
        table("/x", read, method="BREW")
    with pytest.raises(ValueError, match="only EST"):
        table("/api/x", Access.EST)
    with pytest.raises(ValueError, match="resource:verb"):
        Access.action("everything")


def _same_route_twice() -> list[Route]:
    route = Route(
        method="GET", path="/x", access=Access.action("a:read"), handler=handler, summary=""
    )
    return [route, route]


def test_a_walk_of_the_application_meets_every_mounted_route(app: Application) -> None:
    kinds = {(route.method, route.path): route.access.kind for route in app.routes}

    assert kinds[("POST", "/internal/dms/enroll")] is AccessKind.INTERNAL
    assert kinds[("GET", "/api/things/health")] is AccessKind.PUBLIC
    assert kinds[("GET", "/api/docs")] is AccessKind.ACTION
    assert kinds[("POST", "/.well-known/est/{dms}/simpleenroll")] is AccessKind.EST
    public = {path for (_, path), kind in kinds.items() if kind is AccessKind.PUBLIC}
    assert all("health" in path or "ocsp" in path for path in public)
