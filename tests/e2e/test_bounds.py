"""Too much and too slow, over real TLS: refused with the error object, and nothing is stored."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import csrs
from tests.support.est import Credential, bootstrap, make_dms
from tests.support.footprint import Watched
from tests.support.server import Server
from tests.support.sockets import Answer, client_context, connect, read, send

EST = b"POST /.well-known/est/plant/simpleenroll HTTP/1.1\r\nHost: h\r\n"
PKCS10 = b"Content-Type: application/pkcs10\r\n"
CAS = b"POST /api/ca/v1/cas HTTP/1.1\r\nHost: h\r\n"
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
def bootstrapped(
    platform: Server, watched: Watched, tmp_path_factory: pytest.TempPathFactory
) -> Credential:
    """A certificate that enrolls devices in the DMS `plant`."""
    make_dms(platform, "plant")
    credential = bootstrap(platform, tmp_path_factory.mktemp("bounds"), "bootstrap")
    watched.settle()
    return credential


@pytest.fixture
def device(platform: Server, bootstrapped: Credential) -> ssl.SSLContext:
    return client_context(platform, bootstrapped.certificate_path, bootstrapped.key_path)


def check(answer: Answer | None, status: int, code: str) -> None:
    assert answer is not None
    assert (answer.status, answer.json["code"]) == (status, code), answer.body
    assert set(answer.json) == {"err", "code", "field"}
    assert answer.headers["connection"] == "close"


def chunks(size: int) -> Iterator[bytes]:
    yield b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in range(size // 65_536 + 1):
        yield b"10000\r\n" + b" " * 65_536 + b"\r\n"


TOO_MUCH: dict[str, tuple[Callable[[], list[bytes]], int]] = {
    "a long header": (lambda: [CAS, b"X: ", b"a" * 40_000, b"\r\n\r\n"], 431),
    "an endless header": (lambda: [CAS, b"X: ", *[b"a" * 65_536] * 20], 431),
    "many headers": (lambda: [CAS, *[b"x: y\r\n"] * 150, b"\r\n"], 431),
    "a long URL": (lambda: [b"GET /", b"a" * 9_000, b" HTTP/1.1\r\nHost: h\r\n\r\n"], 414),
    "a long body": (
        lambda: [CAS, b"Content-Length: 1048577\r\n\r\n", b" " * MEBIBYTE, b"{"],
        413,
    ),
    "a body that says that it is endless": (
        lambda: [CAS, b"Content-Length: 999999999999\r\n\r\n"],
        413,
    ),
    "a long body in chunks": (lambda: [CAS, *chunks(2 * MEBIBYTE)], 413),
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_an_admin_who_sends_too_much_is_refused(
    platform: Server, watched: Watched, bootstrapped: Credential, what: str
) -> None:
    parts, status = TOO_MUCH[what]

    with watched.nothing_stored(), connect(platform) as wire:
        check(send(wire, parts()), status, "too_large")


@pytest.mark.parametrize("what", TOO_MUCH)
def test_a_device_that_sends_too_much_is_refused(
    platform: Server, watched: Watched, device: ssl.SSLContext, what: str
) -> None:
    parts, status = TOO_MUCH[what]
    as_device = [part.replace(CAS, EST + PKCS10) for part in parts()]

    with watched.nothing_stored(), connect(platform, device) as wire:
        check(send(wire, as_device), status, "too_large")


@pytest.mark.parametrize("chunked", [False, True])
def test_est_takes_less_than_the_server_does(
    platform: Server, watched: Watched, device: ssl.SSLContext, chunked: bool
) -> None:
    size = 200_000
    body = [b"Content-Length: %d\r\n\r\n" % size, b"A" * size]
    if chunked:
        body = [*chunks(size), b"0\r\n\r\n"]

    with watched.nothing_stored(), connect(platform, device) as wire:
        check(send(wire, [EST, PKCS10, *body]), 413, "too_large")


NO_HTTP: dict[str, bytes] = {
    "no HTTP": b"\x00\x01\x02 nonsense\r\n\r\n",
    "an unknown method": b"BREW /api/ca/v1/cas HTTP/1.1\r\nHost: h\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /api/ca/v1/cas HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /api/ca/v1/cas HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two lengths": CAS + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": CAS + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "a negative length": CAS + b"Content-Length: -2\r\n\r\n{}",
    "a bare line feed in a header": CAS + b"X: a\nY: b\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_HTTP)
def test_what_is_no_http_is_refused(
    platform: Server, watched: Watched, bootstrapped: Credential, what: str
) -> None:
    with watched.nothing_stored(), connect(platform) as wire:
        check(send(wire, [NO_HTTP[what]]), 400, "malformed")


def test_slow_clients_are_refused_and_hold_up_nobody(
    platform: Server, watched: Watched, device: ssl.SSLContext, tmp_path: Path
) -> None:
    csr = base64.b64encode(csrs.request("slow-device"))

    def slow_header() -> Answer | None:
        with connect(platform, device) as wire:
            return trickle(wire, EST)

    def slow_body() -> Answer | None:
        with connect(platform, device) as wire:
            wire.sendall(EST + PKCS10 + b"Content-Length: %d\r\n\r\n" % len(csr) + csr[:-10])
            return read(wire)

    def slow_json() -> Answer | None:
        with connect(platform) as wire:
            wire.sendall(CAS + b'Content-Length: 100\r\n\r\n{"id":')
            return read(wire)

    def silence() -> Answer | None:
        with connect(platform) as wire:
            return read(wire)

    def no_handshake() -> Answer | None:
        with socket.create_connection(("127.0.0.1", platform.port), timeout=30) as wire:
            return read(wire)

    clients = (slow_header, slow_body, slow_json, silence, no_handshake)
    with watched.nothing_stored(), ThreadPoolExecutor(4 * len(clients)) as workers:
        began = time.monotonic()
        waiting = [[workers.submit(client) for _ in range(4)] for client in clients]
        slowest = 0.0
        with platform.admin() as admin:
            while not all(one.done() for group in waiting for one in group):
                asked = time.monotonic()
                assert admin.get("/api/ca/v1/cas").status_code == 200
                slowest = max(slowest, time.monotonic() - asked)
                time.sleep(0.1)
        took = time.monotonic() - began
        headers, bodies, jsons, silent, unshaken = (
            [one.result() for one in group] for group in waiting
        )

    for answer in (*headers, *bodies, *jsons):
        check(answer, 408, "too_slow")
    assert silent == unshaken == [None] * 4, "who says nothing is told nothing"
    assert took < 20
    assert slowest < 5


def trickle(wire: ssl.SSLSocket, head: bytes) -> Answer | None:
    """A byte now and then, for as long as the server stands it."""
    wire.settimeout(0.5)
    for byte in head * 100:
        try:
            wire.sendall(bytes([byte]))
            return read(wire)
        except TimeoutError:
            continue
        except OSError:
            break
    raise AssertionError("the server never ended it")
