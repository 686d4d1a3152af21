"""HTTP/1.1 on one connection: uvicorn's protocol, with the bounds that it leaves open."""

from __future__ import annotations

import asyncio
import json
from enum import Enum, auto
from http import HTTPStatus
from typing import cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from lamassu.kernel.identity import Peer
from lamassu.platform.http.connection import PEER_CHAIN
from lamassu.platform.http.limits import ServerLimits

log = structlog.get_logger(__name__)

PEER_EXTENSION = "lamassu.peer"
"""Where the ASGI scope's `extensions` hold the connection's `Peer`."""

_HTTP_VERSIONS = frozenset({"1.0", "1.1"})


class _Reading(Enum):
    """What the next byte from the client belongs to."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()  # between two requests


class _Refused(Exception):
    """The answer is on its way; the parser has nothing more to do."""


class HttpProtocol(HttpToolsProtocol):
    """One connection's requests, each within `ServerLimits`.

    What breaks a bound, or HTTP itself, is answered here with the error object and ends the
    connection; the application never sees it, or sees `http.disconnect` in the midst of a body.
    """

    parser: httptools.HttpRequestParser
    cycle: RequestResponseCycle | None  # type: ignore[assignment]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        *,
        limits: ServerLimits,
        loop: asyncio.AbstractEventLoop,
        overloaded: bool,
    ) -> None:
        """`overloaded`: answer 503 to whatever comes."""
        super().__init__(config, server_state, app_state={}, _loop=loop)
        self._limits = limits
        self._overloaded = overloaded
        self._born = self._last_input = loop.time()
        self._deadline = self._born + limits.header_timeout
        self._reading = _Reading.HEAD
        self._deaf = False  # after a refusal or the last request: input is swallowed
        self._refused = False
        self._head_bytes = 0
        self._body_bytes = 0
        self._raw_body_bytes = 0
        self._header_bytes = 0
        self._hosts = 0
        self._codings = 0
        self._extensions: dict[str, object] = {}

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        chain = cast(tuple[bytes, ...], transport.get_extra_info(PEER_CHAIN, ()))
        address = self.client[0] if self.client else ""
        # one object for all requests of the connection; nobody may change it
        self._extensions = {PEER_EXTENSION: Peer(chain, address)}

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        now = self._last_input = self.loop.time()
        if self._reading is _Reading.NOTHING:
            self._begin_head(now)
        if self._reading is _Reading.HEAD:
            self._head_bytes += len(data)
        else:
            self._raw_body_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # the request itself is answered as plain HTTP/1.1; what follows it would not be HTTP
            self._last_request()
        except httptools.HttpParserError:
            if not self._refused:
                self._refuse(400, "malformed", "the request is not well-formed HTTP/1.1")
        else:
            self._check_unfinished()

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps the connection open until the answer in progress is out."""
        self._deaf = True
        if self._reading is _Reading.NOTHING and self._answering():
            self._last_request()
            return True
        return False

    def check(self, now: float) -> None:
        """Compare the clock with what this connection may take; called about once a second."""
        if self._refused:
            return
        age = now - self._born
        if age >= self._limits.max_connection_age and self._end_of_age(age):
            return
        if self._reading is _Reading.HEAD:
            if now >= self._deadline:
                self._head_is_late()
        elif self._reading is _Reading.BODY:
            if self._body_is_late(now):
                self._refuse(408, "too_slow", "the request's body took too long")
        elif now >= self._deadline and not self._answering():
            self.transport.close()

    # What the parser calls

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = cast("dict[str, dict[object, object]]", self._extensions)
        self._header_bytes = 0
        self._hosts = 0
        self._codings = 0
        if self._reading is _Reading.NOTHING:  # the next of several requests in one packet
            self._begin_head(self._last_input)

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > self._limits.max_request_line_bytes:
            self._refuse_and_stop(414, "too_large", "the request's URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._reading is not _Reading.HEAD:
            return  # trailer fields: nobody here asks for any, so none may pose as a header
        self._header_bytes += len(name) + len(value) + 4
        if (
            self._header_bytes > self._limits.max_header_bytes
            or len(self.headers) >= self._limits.max_header_count
        ):
            self._refuse_and_stop(431, "too_large", "the request's header is too large")
        name = name.lower()
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._check_content_length(value)
        elif name == b"transfer-encoding":
            self._check_transfer_encoding(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in _HTTP_VERSIONS:
            self._refuse_and_stop(505, "malformed", "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            self._refuse_and_stop(400, "malformed", "the request needs exactly one Host")
        if self._codings and version == "1.0":
            self._refuse_and_stop(400, "malformed", "HTTP/1.0 has no Transfer-Encoding")
        if self._overloaded:
            self._refuse_and_stop(
                503, "unavailable", "too many connections; try again", b"retry-after: 5\r\n"
            )
        super().on_headers_complete()
        self._reading = _Reading.BODY
        self._body_bytes = self._raw_body_bytes = 0
        self._deadline = self._last_input + self._limits.body_timeout
        if self._last_input - self._born >= self._limits.max_connection_age and self.cycle:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse_and_stop(413, "too_large", self._body_limit_text())
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._reading = _Reading.NOTHING
        self._deadline = self._last_input + self._limits.idle_timeout
        if self.cycle and not self.cycle.keep_alive:
            self._deaf = True

    # What the answer's cycle calls

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._refused:
            self.transport.close()
        elif self._reading is _Reading.NOTHING:
            self._deadline = self.loop.time() + self._limits.idle_timeout

    # Inside

    def _begin_head(self, now: float) -> None:
        self._reading = _Reading.HEAD
        self._head_bytes = 0
        self._deadline = now + self._limits.header_timeout

    def _check_unfinished(self) -> None:
        """Bound what the parser swallows without a callback: long names, chunk extensions."""
        if self._reading is _Reading.HEAD:
            limits = self._limits
            if self._head_bytes > limits.max_header_bytes + limits.max_request_line_bytes:
                self._refuse(431, "too_large", "the request's header is too large")
        elif (
            self._reading is _Reading.BODY
            # a chunk of one byte takes six
            and self._raw_body_bytes > 8 * self._limits.max_body_bytes + 65_536
        ):
            self._refuse(413, "too_large", "the request's chunks carry too little")

    def _check_content_length(self, value: bytes) -> None:
        # the parser refuses what is not a number, but only after this call
        if value.isdigit() and (len(value) > 18 or int(value) > self._limits.max_body_bytes):
            self._refuse_and_stop(413, "too_large", self._body_limit_text())

    def _check_transfer_encoding(self, value: bytes) -> None:
        # The parser takes any list that ends in chunked, and would hand a coding that it does
        # not undo on as the body; a proxy may frame such a request in another way.
        self._codings += 1
        if self._codings > 1 or value.lower() != b"chunked":
            self._refuse_and_stop(400, "malformed", "the only Transfer-Encoding here is chunked")

    def _body_limit_text(self) -> str:
        return f"the request's body may have at most {self._limits.max_body_bytes} bytes"

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _last_request(self) -> None:
        self._deaf = True
        if self.cycle:
            self.cycle.keep_alive = False

    def _end_of_age(self, age: float) -> bool:
        """Act on a connection that is too old; True when it is gone."""
        if age >= self._limits.max_connection_age + self._limits.age_grace:
            self.transport.abort()
            return True
        if self._reading is _Reading.NOTHING and not self._answering():
            self.transport.close()
            return True
        if self.cycle:
            self.cycle.keep_alive = False
        return False

    def _head_is_late(self) -> None:
        if self._head_bytes:
            self._refuse(408, "too_slow", "the request's header took too long")
        else:  # a connection on which nobody spoke
            self.transport.close()

    def _body_is_late(self, now: float) -> bool:
        if self.flow.read_paused:  # it is the application that takes its time
            self._last_input = now
            self._deadline = max(self._deadline, now + self._limits.body_stall_timeout)
            return False
        return now >= self._deadline or now - self._last_input >= self._limits.body_stall_timeout

    def _refuse_and_stop(self, status: int, code: str, text: str, headers: bytes = b"") -> None:
        self._refuse(status, code, text, headers)
        raise _Refused

    def _refuse(self, status: int, code: str, text: str, headers: bytes = b"") -> None:
        """Answer and close, as far as answers that are still under way allow it."""
        log.info(
            "request_refused",
            status=status,
            reason=text,
            address=self.client[0] if self.client else "",
        )
        self._refused = self._deaf = True
        cycle = self.cycle
        if self._reading is _Reading.BODY and cycle is not None:
            may_answer = not cycle.response_started
            self._abandon(cycle)
            if self.pipeline:  # earlier answers come first, and this request was not started
                self.pipeline.clear()
                return
        else:
            may_answer = not self._answering()
            if not may_answer and cycle is not None:  # the answer under way is the last one
                cycle.keep_alive = False
                return
        if may_answer:
            self.transport.write(self._answer(status, code, text, headers))
        self.transport.close()

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        """Tell the application that the rest of the body will not come."""
        cycle.disconnected = True
        cycle.message_event.set()
        self.flow.resume_writing()

    def _answer(self, status: int, code: str, text: str, headers: bytes) -> bytes:
        body = json.dumps({"err": text, "code": code, "field": None}).encode()
        date = b"".join(n + b": " + v + b"\r\n" for n, v in self.server_state.default_headers)
        return (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode("ascii")
            + date
            + headers
            + b"content-type: application/json; charset=utf-8\r\n"
            + f"content-length: {len(body)}\r\n".encode("ascii")
            + b"cache-control: no-store\r\nconnection: close\r\n\r\n"
            + body
        )
