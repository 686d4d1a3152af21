"""A listener with a talkative application, and clients that misbehave as told."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lamassu.kernel.x509.pem import pem_of
from lamassu.platform.http.server import Listener, RunningListener, ServerLimits, start
from lamassu.platform.security.tls import ServerTls, build_server_context
from tests.support.pki import CLIENT_AUTH, SERVER_AUTH, Made, make

NOW = datetime.now(UTC)
VALID = {"not_before": NOW - timedelta(days=1), "not_after": NOW + timedelta(days=1)}
EXPIRED = {"not_before": NOW - timedelta(days=9), "not_after": NOW - timedelta(days=1)}


def key_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class TestPki:
    """An internal CA, and devices of a vendor that TLS knows nothing of."""

    __test__ = False

    def __init__(self) -> None:
        self.root = make("Internal root", ca=True, **VALID)
        self.server = make("localhost", issuer=self.root, extended=SERVER_AUTH, **VALID)
        self.service = make("est", issuer=self.root, extended=CLIENT_AUTH, **VALID)
        self.late_service = make("est", issuer=self.root, extended=CLIENT_AUTH, **EXPIRED)
        self.vendor_root = make("Vendor root", ca=True, **VALID)
        self.vendor_ca = make("Vendor CA", issuer=self.vendor_root, ca=True, **VALID)
        self.device = make("device-1", issuer=self.vendor_ca, extended=CLIENT_AUTH, **VALID)
        self.expired_device = make("device-2", issuer=self.vendor_ca, **EXPIRED)
        self.self_signed = make("nobody", **VALID)

    def server_tls(self, **options: Any) -> ServerTls:
        return build_server_context(pem_of(self.server.der), key_pem(self.server.key), **options)


@pytest.fixture(scope="session")
def pki() -> TestPki:
    return TestPki()


@dataclass
class Client:
    """What a client presents, as files that openssl and Python take."""

    folder: Path

    def files(self, chain: Sequence[bytes], key: PrivateKeyTypes) -> tuple[Path, Path]:
        cert_file, key_file = self.folder / "chain.pem", self.folder / "key.pem"
        cert_file.write_bytes(b"".join(pem_of(der) for der in chain))
        key_file.write_bytes(key_pem(key))
        return cert_file, key_file

    def context(
        self, chain: Sequence[bytes] = (), key: PrivateKeyTypes | None = None
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if key is not None:
            context.load_cert_chain(*self.files(chain, key))
        return context

    def presenting(self, *made: Made) -> ssl.SSLContext:
        return self.context([one.der for one in made], made[0].key)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path)


@dataclass
class Application:
    """Answers what it saw; `/echo` the body, `/large?n` n bytes, `/held` after `release`."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    scopes: list[dict[str, Any]] = field(default_factory=list)
    disconnects: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.entered.set()
        if scope["path"] == "/deaf":
            return await self.answer(send, b"did not listen", status=401)
        body = await self.body(receive)
        if body is None:
            self.disconnects += 1
            return None
        if scope["path"] == "/held":
            await self.release.wait()
        if scope["path"] == "/echo":
            return await self.answer(send, body)
        if scope["path"] == "/large":
            return await self.answer(send, b"x" * int(scope["query_string"]))
        if scope["path"] == "/stream":
            return await self.stream(send, int(scope["query_string"]))
        peer = scope["extensions"]["lamassu.peer"]
        seen = {
            "chain": [der.hex() for der in peer.chain],
            "address": peer.address,
            "scheme": scope["scheme"],
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "body": len(body),
        }
        return await self.answer(send, json.dumps(seen).encode())

    async def body(self, receive: Any) -> bytes | None:
        parts = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    async def answer(self, send: Any, body: bytes, *, status: int = 200) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def stream(self, send: Any, size: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size // 65_536):
            await send({"type": "http.response.body", "body": b"y" * 65_536, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        assert set(self.json) == {"err", "code", "field"}
        return self.status, self.json["code"]


class Wire:
    """One client connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        first, *lines = head.decode().rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(first.split()[1]), headers, body)

    async def ask(
        self, path: str = "/", *, body: bytes = b"", headers: Sequence[str] = ()
    ) -> Answer:
        lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)
        return await self.answer()

    async def ended(self, within: float = 5) -> bytes:
        """What else comes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), within)

    def close(self) -> None:
        self.writer.close()


@dataclass
class Server:
    running: RunningListener
    application: Application
    client_context: ssl.SSLContext | None
    wires: list[Wire] = field(default_factory=list)

    async def connect(self, context: ssl.SSLContext | None = None) -> Wire:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.running.port, ssl=context or self.client_context, limit=2**22
        )
        wire = Wire(reader, writer)
        self.wires.append(wire)
        return wire


Start = Callable[..., Awaitable[Server]]


@pytest.fixture
async def open_server(client: Client) -> AsyncIterator[Start]:
    """`await open_server(tls=..., limits=...)`; closed after the test."""
    servers: list[Server] = []

    async def opened(*, tls: ServerTls | None, limits: ServerLimits | None = None) -> Server:
        application = Application()
        listener = Listener(application, tls=tls, limits=limits or ServerLimits())
        context = client.context() if tls else None
        servers.append(Server(await start(listener), application, context))
        return servers[-1]

    yield opened
    for server in servers:
        server.application.release.set()
        for wire in server.wires:
            wire.writer.transport.abort()
        await server.running.stop(grace=1)


@asynccontextmanager
async def refusal() -> AsyncIterator[None]:
    """The block must fail because the server hangs up."""
    with pytest.raises((OSError, EOFError, asyncio.IncompleteReadError)):
        yield
