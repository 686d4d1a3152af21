"""The application: from an ASGI scope to a handler and back, through every door in order."""

from __future__ import annotations

import asyncio
import re
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lamassu.kernel.errors import LamassuError, Malformed, TooLarge, TooSlow
from lamassu.kernel.identity import ANONYMOUS, Caller, Peer, Principal
from lamassu.platform.http.authorization import check_known, check_may, no_certificate
from lamassu.platform.http.bookmarks import Bookmarks
from lamassu.platform.http.call import Call
from lamassu.platform.http.documentation import documentation_mount
from lamassu.platform.http.errors import InternalError, error_answer, error_object
from lamassu.platform.http.health import Check, health_mount, original_health_route
from lamassu.platform.http.origin import Origins
from lamassu.platform.http.repeats import Keeper, Repeats, key_of
from lamassu.platform.http.routing import AccessKind, Mount, MountedRoute, RouteTable
from lamassu.platform.http.wire import decode

Authenticate = Callable[[Peer], Awaitable[Principal | None]]
RawHeaders = list[tuple[bytes, bytes]]

PEER_EXTENSION = "lamassu.peer"
DEFAULT_BODY_LIMIT = 1024 * 1024  # bytes
DEFAULT_READ_TIMEOUT = 30.0  # seconds, for the whole body
API_PREFIX = "/api/"

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")
_CLOSE = (b"connection", b"close")
# 401: another try costs a stranger another handshake (rule 21); 408, 413: the body is unread.
_CLOSING = (401, 408, 413)
_HSTS = (b"strict-transport-security", b"max-age=31536000")

_log = structlog.get_logger(__name__)


class _Gone(Exception):
    """The client left before it had sent its body."""


async def nobody(peer: Peer) -> Principal | None:
    """The authentication of a listener that knows no principals."""
    return None


def build_app(
    mounts: Sequence[Mount],
    *,
    authenticate: Authenticate,
    public_hosts: Iterable[str],
    bookmark_key: bytes,
    mode: str = "production",
    body_limit: int = DEFAULT_BODY_LIMIT,
    read_timeout: float = DEFAULT_READ_TIMEOUT,
    checks: Mapping[str, Check] | None = None,
    lesser_checks: Mapping[str, Check] | None = None,
    documented: bool = False,
    certificate_required: bool = False,
    access_log: bool = False,
    keeper: Keeper | None = None,
) -> Application:
    """The application of one listener.

    `public_hosts` as in `Origins`; `body_limit` in bytes, `read_timeout` in seconds. With
    `checks` it serves `/health/live` and `/health/ready`, and `GET <prefix>/health` for each
    mount under `/api/`; `lesser_checks` are told there and make nothing unready. `documented`
    adds the API description, public in development mode only.
    `certificate_required` closes even the public routes under `/api/` to whoever shows no
    client certificate (decision 2). With a `keeper`, what creates something may be sent again
    under the same Idempotency-Key.
    Raises `ValueError` for a route that breaks the rules of the table.
    """
    all_mounts = list(mounts)
    if checks is not None:
        health = original_health_route()
        # two services may share a prefix, as EST and the DMS manager do: the first one has it
        api = [mount for mount in mounts if mount.prefix.startswith(API_PREFIX)]
        services = {mount.prefix: mount.service for mount in reversed(api)}
        all_mounts += [Mount(prefix, service, [health]) for prefix, service in services.items()]
        all_mounts.append(health_mount(checks, authenticate, lesser=lesser_checks))
    table = RouteTable(all_mounts)
    if documented:
        docs = documentation_mount(table, public=mode == "development")
        for route in docs.routes:
            table.add(docs, route)
    return Application(
        table,
        authenticate=authenticate,
        origins=Origins(public_hosts),
        bookmarks=Bookmarks(bookmark_key),
        body_limit=body_limit,
        read_timeout=read_timeout,
        hsts=mode == "production",
        certificate_required=certificate_required,
        access_log=access_log,
        repeats=None if keeper is None else Repeats(keeper),
    )


class Application:
    """The ASGI application over a table of routes."""

    def __init__(
        self,
        routes: RouteTable,
        *,
        authenticate: Authenticate,
        origins: Origins,
        bookmarks: Bookmarks,
        body_limit: int,
        read_timeout: float,
        hsts: bool,
        certificate_required: bool,
        access_log: bool,
        repeats: Repeats | None,
    ) -> None:
        self.routes = routes
        self._authenticate = authenticate
        self._origins = origins
        self._bookmarks = bookmarks
        self._body_limit = body_limit
        self._read_timeout = read_timeout
        self._hsts = hsts
        self._certificate_required = certificate_required
        self._access_log = access_log
        self._repeats = repeats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id"))
        try:
            response = await self._answer(scope, receive, headers, request_id)
        except _Gone:
            return
        if self._access_log:
            _log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=response.status_code,
                request_id=request_id,
            )
        extra = self._extra_headers(scope, headers, request_id, response)
        await _send(response, extra, scope, receive, send)

    async def _answer(
        self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes], request_id: str
    ) -> Response:
        method: str = scope["method"]
        path: str = scope["path"]
        match = self.routes.find(method, path)
        if match.route is None:
            return self._unrouted(method, match.allowed, headers)
        if self._lacks_certificate(path, scope):
            return error_answer(no_certificate())
        route = match.route.route
        try:
            return await self._call(
                match.route,
                values=match.values,
                scope=scope,
                receive=receive,
                headers=headers,
                request_id=request_id,
            )
        except LamassuError as error:
            refusal = error
        except _Gone:
            raise
        except Exception:  # noqa: BLE001 - the edge of the process: our bug, told to the log only
            # as text: a renderer that prints the locals of each frame would print secrets
            _log.error(
                "request_failed",
                request_id=request_id,
                method=method,
                path=path,
                traceback=traceback.format_exc(),
            )
            refusal = InternalError()
        if route.encode_error is not None:
            return route.encode_error(refusal)
        return error_answer(refusal, request_id=request_id)

    async def _call(
        self,
        mounted: MountedRoute,
        *,
        values: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        request_id: str,
    ) -> Response:
        route, access = mounted.route, mounted.route.access
        limit = self._body_limit if route.body_limit is None else route.body_limit
        _check_announced_length(headers.get(b"content-length"), limit)
        _check_path_values(values)
        peer = _peer_of(scope)
        principal = ANONYMOUS
        if access.kind is not AccessKind.PUBLIC:
            self._origins.check(headers)
        if access.kind is AccessKind.ACTION or access.kind is AccessKind.INTERNAL:
            principal = check_known(await self._authenticate(peer), peer)
            check_may(principal, access)
        call = Call(
            route=mounted,
            scope=scope,
            caller=Caller(principal, request_id, peer.address),
            peer=peer,
            path=values,
            public_host=self._origins.first_host,
            bookmarks=self._bookmarks,
        )
        if scope["method"] not in ("GET", "HEAD"):
            call.raw = await _read_body(receive, limit, self._read_timeout)
        if route.body is not None:
            call.body = decode(route.body, b"{}" if route.empty_body and not call.raw else call.raw)
        if route.listing is not None:
            _ = call.listing  # a bad query is refused before the handler runs
        if route.creates and self._repeats is not None:
            key = key_of(scope["headers"])
            if key is not None:
                return await self._repeats.answer(call, key)
        return await route.handler(call)

    def _lacks_certificate(self, path: str, scope: Scope) -> bool:
        """Whether the listener wants a certificate here, and the peer has shown none."""
        wanted = self._certificate_required and path.startswith(API_PREFIX)
        return wanted and _peer_of(scope).certificate is None

    def _unrouted(
        self, method: str, allowed: frozenset[str], headers: Mapping[bytes, bytes]
    ) -> Response:
        if not allowed:
            return error_object(
                {"err": "404 page not found", "code": "not_found", "field": None}, status=404
            )
        methods = set(allowed) | {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
        allow = ", ".join(sorted(methods))
        if method == "OPTIONS":
            return self._options(allow, headers)
        response = error_object(
            {"err": f"the methods here are {allow}", "code": "method_not_allowed", "field": None},
            status=405,
        )
        response.headers["allow"] = allow
        return response

    def _options(self, allow: str, headers: Mapping[bytes, bytes]) -> Response:
        """A CORS preflight, for our own public names only."""
        origin = headers.get(b"origin")
        if origin is not None and not self._origins.is_own(origin):
            return error_object(
                {"err": "foreign origin", "code": "foreign_origin", "field": None}, status=403
            )
        response = Response(None, 204, {"allow": allow})
        if origin is not None and b"access-control-request-method" in headers:
            asked = headers.get(b"access-control-request-headers", b"").decode("latin-1")
            response.headers["access-control-allow-methods"] = allow
            response.headers["access-control-max-age"] = "43200"
            if asked:
                response.headers["access-control-allow-headers"] = asked
        return response

    def _extra_headers(
        self, scope: Scope, headers: Mapping[bytes, bytes], request_id: str, response: Response
    ) -> RawHeaders:
        extra = [(b"x-request-id", request_id.encode("ascii")), _NOSNIFF]
        if not any(name == b"cache-control" for name, _ in response.raw_headers):
            extra.append(_NO_STORE)
        if response.status_code in _CLOSING:
            extra.append(_CLOSE)
        if self._hsts and scope.get("scheme") == "https":
            extra.append(_HSTS)
        origin = headers.get(b"origin")
        if origin is not None and self._origins.is_own(origin):
            extra += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"vary", b"Origin"),
            ]
        return extra


def _request_id(sent: bytes | None) -> str:
    if sent is not None and _REQUEST_ID.fullmatch(sent):
        return sent.decode("ascii")
    return str(uuid.uuid4())


def _peer_of(scope: Scope) -> Peer:
    peer = scope.get("extensions", {}).get(PEER_EXTENSION)
    if isinstance(peer, Peer):
        return peer
    client = scope.get("client")
    return Peer(address=client[0] if client else "")


def _check_announced_length(sent: bytes | None, limit: int) -> None:
    if sent is None:
        return
    if not sent.isdigit() or len(sent) > 15:
        raise Malformed("the Content-Length is no number")
    if int(sent) > limit:
        raise _too_large(limit)


def _check_path_values(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if "\0" in value or not (value.isascii() or _is_text(value)):
            raise Malformed(f"the path has an impossible {name}", field=name)


def _is_text(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body exceeds {limit} bytes")


async def _read_body(receive: Receive, limit: int, timeout: float) -> bytes:
    try:
        async with asyncio.timeout(timeout):
            return await _read_all(receive, limit)
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {timeout:g} s") from None


async def _read_all(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _send(
    response: Response, extra: RawHeaders, scope: Scope, receive: Receive, send: Send
) -> None:
    # the response object is left as it is: a handler may keep and answer it again
    if type(response).__call__ is not Response.__call__:  # it sends in a way of its own

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        await response(scope, receive, send_with_headers)
        return
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [*response.raw_headers, *extra],
        }
    )
    body = b"" if scope["method"] == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})
    if response.background is not None:
        await response.background()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
