"""HTTP/1.1 over kept connections, as little of it as Vault's API needs. Safe for threads.

A signature by Transit costs 0.30 ms of our processor's time with it; through urllib3's pool it was
0.53 ms, and `requests` comes on top of that. The parser is the server's own (`httptools`), and a
request leaves in one piece.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 3.0
IDLE_SECONDS = 60.0  # a kept connection that was idle for longer is not trusted
LARGEST_ANSWER = 16 * 1024 * 1024  # bytes; names of some hundred thousand keys
CHUNK = 64 * 1024


class BrokenOff(OSError):
    """The other side ended the connection, or speaks something else. `unused`: it was a kept
    one, and not a byte of an answer came."""

    def __init__(self, text: str, *, unused: bool) -> None:
        super().__init__(text)
        self.unused = unused


@dataclass
class Answer:
    """What came back; names of headers in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    # as httptools calls them
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        if len(self.body) + len(data) > LARGEST_ANSWER:
            raise ValueError("an answer over 16 MiB")
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@dataclass
class _Kept:
    sock: socket.socket
    since: float

    @property
    def usable(self) -> bool:
        """Nobody has spoken since, which could only be to say goodbye."""
        if time.monotonic() - self.since > IDLE_SECONDS:
            return False
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)


class Wire:
    """Connections to the hosts of one Vault; at most `at_once` requests run."""

    def __init__(self, context: ssl.SSLContext | None, *, at_once: int) -> None:
        self._context = context
        self._turns = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[_Kept]] = {}
        self._closed = False

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        left: Callable[[], float],
    ) -> Answer:
        """`left` gives the seconds that remain, and raises when there are none.

        Raises `TimeoutError`, `socket.gaierror`, `ssl.SSLError`, `BrokenOff`, other `OSError`s.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        place = (host, parts.port or (443 if parts.scheme == "https" else 80))
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content is not None:
            lines.append(f"Content-Length: {len(content)}")
        message = "\r\n".join((*lines, "", "")).encode("latin-1") + (content or b"")
        if not self._turns.acquire(timeout=left()):
            raise TimeoutError
        try:
            return self._exchange(place, parts.scheme == "https", message, left)
        finally:
            self._turns.release()

    def close(self) -> None:
        """End what is idle; what is in use ends with its request."""
        with self._lock:
            self._closed = True
            kept = [one for idle in self._idle.values() for one in idle]
            self._idle.clear()
        for one in kept:
            one.sock.close()

    def _exchange(
        self, place: tuple[str, int], secure: bool, message: bytes, left: Callable[[], float]
    ) -> Answer:
        sock = self._kept(place)
        kept = sock is not None
        if sock is None:
            sock = self._connect(place, secure, left())
        try:
            answer, reusable = _spoken(sock, message, left, kept=kept)
        except BaseException:
            sock.close()
            raise
        if reusable:
            self._keep(place, sock)
        else:
            sock.close()
        return answer

    def _kept(self, place: tuple[str, int]) -> socket.socket | None:
        while True:
            with self._lock:
                idle = self._idle.get(place)
                one = idle.pop() if idle else None
            if one is None:
                return None
            if one.usable:
                return one.sock
            one.sock.close()

    def _keep(self, place: tuple[str, int], sock: socket.socket) -> None:
        with self._lock:
            if not self._closed:
                self._idle.setdefault(place, []).append(_Kept(sock, time.monotonic()))
                return
        sock.close()

    def _connect(self, place: tuple[str, int], secure: bool, left: float) -> socket.socket:
        sock = socket.create_connection(place, timeout=min(CONNECT_SECONDS, left))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure and self._context is not None:
                sock.settimeout(left)
                return self._context.wrap_socket(sock, server_hostname=place[0])
        except BaseException:
            sock.close()
            raise
        return sock


def _spoken(
    sock: socket.socket, message: bytes, left: Callable[[], float], *, kept: bool
) -> tuple[Answer, bool]:
    answer = Answer()
    parser = httptools.HttpResponseParser(answer)
    heard = False
    try:
        sock.settimeout(left())
        sock.sendall(message)
        while not answer.complete:
            data = sock.recv(CHUNK)
            if not data:
                raise BrokenOff("the connection was ended", unused=kept and not heard)
            heard = True
            parser.feed_data(data)
            if not answer.complete:
                sock.settimeout(left())
    except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        raise BrokenOff("the connection was ended", unused=kept and not heard) from error
    except httptools.HttpParserError as error:
        raise BrokenOff("the answer is no HTTP", unused=False) from error
    answer.status = parser.get_status_code()
    ends = "close" in answer.headers.get("connection", "").lower()
    return answer, parser.get_http_version() == "1.1" and not ends
