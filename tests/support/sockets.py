"""HTTP by hand over TLS, for what no HTTP client would send."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.server import Server

WAIT = 30.0  # seconds, beyond every bound of the server


@dataclass(frozen=True)
class Answer:
    """What came back until the connection ended."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def client_context(
    server: Server, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """Trusts the installation, and shows a certificate, if there is one."""
    context = ssl.create_default_context(cafile=str(server.directory / "tls-ca.crt"))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def connect(server: Server, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """A TLS connection to the platform; an admin's, unless `context` says otherwise."""
    if context is None:
        folder = server.directory
        context = client_context(server, folder / "admin.crt", folder / "admin.key")
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)
    return context.wrap_socket(raw, server_hostname="localhost")


def send(wire: socket.socket, parts: Iterable[bytes]) -> Answer | None:
    """Send, then read until the server ends; `None` when it ends without a word."""
    try:
        for part in parts:
            wire.sendall(part)
    except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
        pass  # refused in the midst of it; the answer is there already
    return read(wire)


def read(wire: socket.socket) -> Answer | None:
    """The first answer, from a server that closes after it."""
    received = b""
    while chunk := wire.recv(65_536):
        received += chunk
    if not received:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Answer(int(first.split()[1]), headers, body)
