"""Every bound of the server, attacked over a socket: plain and through TLS."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from lamassu.kernel.errors import Unavailable
from lamassu.platform.http.server import Listener, ServerLimits, start
from tests.platform.server.conftest import Application, Server, Start, TestPki, Wire, refusal

QUICK = 0.2  # seconds
LIMITS = ServerLimits(linger_timeout=0.5)

Serve = Callable[..., Awaitable[Server]]


@pytest.fixture(params=["plain", "tls"])
def serve(request: pytest.FixtureRequest, open_server: Start, pki: TestPki) -> Serve:
    async def opened(**limits: float) -> Server:
        tls = pki.server_tls() if request.param == "tls" else None
        return await open_server(tls=tls, limits=replace(LIMITS, **limits))

    return opened


async def refused_bytes(wire: Wire, data: bytes) -> tuple[int, str]:
    """Send bytes that break a bound; returns status and code, and sees the connection end."""
    await wire.send(data)
    answer = await wire.answer()
    assert answer.headers["connection"] == "close"
    assert await wire.ended() == b""
    return answer.error


# Sizes


async def test_an_oversize_header_is_431(serve: Serve) -> None:
    wire = await (await serve()).connect()
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 33_000 + b"\r\n\r\n"
    assert await refused_bytes(wire, head) == (431, "too_large")


async def test_an_endless_header_is_cut_off_before_it_ends(serve: Serve) -> None:
    server = await serve()
    wire = await server.connect()
    assert await refused_bytes(wire, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000) == (
        431,
        "too_large",
    )
    assert server.application.scopes == []


async def test_too_many_headers_are_431(serve: Serve) -> None:
    wire = await (await serve()).connect()
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(101)) + b"\r\n"
    assert await refused_bytes(wire, head) == (431, "too_large")


async def test_a_long_url_is_414(serve: Serve) -> None:
    wire = await (await serve()).connect()
    head = b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    assert await refused_bytes(wire, head) == (414, "too_large")


async def test_a_declared_oversize_body_is_413_before_it_is_sent(serve: Serve) -> None:
    server = await serve()
    wire = await server.connect()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\nExpect: 100-continue\r\n\r\n"
    assert await refused_bytes(wire, head) == (413, "too_large")
    assert server.application.scopes == []


@pytest.mark.parametrize("length", [b"99999999999999999999999999", b"-1", b"1e3", b"1, 1"])
async def test_odd_lengths_are_refused(serve: Serve, length: bytes) -> None:
    wire = await (await serve()).connect()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: " + length + b"\r\n\r\n"
    status, _ = await refused_bytes(wire, head)
    assert status in {400, 413}


async def test_an_oversize_chunked_body_is_413_though_the_client_still_sends(
    serve: Serve,
) -> None:
    server = await serve()
    wire = await server.connect()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    assert await refused_bytes(wire, head + chunk * 64) == (413, "too_large")
    assert server.application.disconnects == 1


async def test_chunks_that_are_all_frame_are_refused(serve: Serve) -> None:
    wire = await (await serve(max_body_bytes=1_000)).connect()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"1;" + b"e" * 1_000 + b"\r\na\r\n"
    assert await refused_bytes(wire, head + chunk * 500) == (413, "too_large")


# Form


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_the_error_object(serve: Serve, request_bytes: bytes) -> None:
    server = await serve()
    wire = await server.connect()
    status, code = await refused_bytes(wire, request_bytes)
    assert (status, code) == (400, "malformed")
    assert server.application.scopes == []


async def test_another_http_version_is_refused(serve: Serve) -> None:
    wire = await (await serve()).connect()
    status, code = await refused_bytes(wire, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")
    assert (status, code) in {(505, "malformed"), (400, "malformed")}


async def test_a_trailer_field_does_not_become_a_header(serve: Serve) -> None:
    wire = await (await serve()).connect()
    await wire.send(
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\na\r\n0\r\nAuthorization: me\r\n\r\n"
    )
    names = {name for name, _ in (await wire.answer()).json["headers"]}
    assert names == {"host", "transfer-encoding"}


async def test_an_upgrade_is_not_taken(serve: Serve) -> None:
    wire = await (await serve()).connect()
    answer = await wire.ask(headers=["Connection: Upgrade", "Upgrade: h2c"])
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended() == b""


async def test_the_answer_names_no_server_software(serve: Serve) -> None:
    wire = await (await serve()).connect()
    answer = await wire.ask()
    assert set(answer.headers) == {"date", "content-length"}


# Time


async def test_a_header_that_trickles_in_is_408(serve: Serve) -> None:
    wire = await (await serve(header_timeout=QUICK)).connect()
    assert await refused_bytes(wire, b"GET / HTTP/1.1\r\nHost:") == (408, "too_slow")


async def test_bytes_that_keep_coming_do_not_buy_a_slow_header_time(serve: Serve) -> None:
    wire = await (await serve(header_timeout=QUICK)).connect()
    trickle = asyncio.create_task(trickling(wire, b"\r\n"))
    assert (await wire.answer()).error == (408, "too_slow")
    trickle.cancel()


async def test_the_next_request_has_its_own_time_for_the_header(serve: Serve) -> None:
    wire = await (await serve(header_timeout=QUICK)).connect()
    await wire.ask()
    assert await refused_bytes(wire, b"GET / HTTP/1.1\r\nHost:") == (408, "too_slow")


async def test_a_silent_connection_is_closed(serve: Serve) -> None:
    wire = await (await serve(header_timeout=QUICK)).connect()
    assert await wire.ended() == b""


async def test_a_body_that_stalls_is_408(serve: Serve) -> None:
    server = await serve(body_stall_timeout=QUICK)
    wire = await server.connect()
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"
    assert await refused_bytes(wire, head) == (408, "too_slow")
    assert server.application.disconnects == 1


async def test_a_body_that_trickles_in_is_408(serve: Serve) -> None:
    wire = await (await serve(body_timeout=QUICK)).connect()
    await wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n")
    trickle = asyncio.create_task(trickling(wire, b"a"))
    assert (await wire.answer()).error == (408, "too_slow")
    trickle.cancel()


async def trickling(wire: Wire, data: bytes) -> None:
    for _ in range(1_000):
        wire.writer.write(data)
        await asyncio.sleep(QUICK / 10)


async def test_an_idle_connection_is_closed(serve: Serve) -> None:
    wire = await (await serve(idle_timeout=QUICK)).connect()
    assert (await wire.ask()).status == 200
    assert await wire.ended() == b""


async def test_a_slow_application_is_no_idle_client(serve: Serve) -> None:
    server = await serve(idle_timeout=QUICK / 4, header_timeout=QUICK / 4, body_timeout=QUICK / 4)
    wire = await server.connect()
    asking = asyncio.create_task(wire.ask("/held"))
    await asyncio.wait([asking], timeout=QUICK)
    server.application.release.set()
    assert (await asking).status == 200


async def test_an_old_connection_ends_with_its_answer(serve: Serve) -> None:
    server = await serve(max_connection_age=QUICK)
    wire = await server.connect()
    assert "connection" not in (await wire.ask()).headers
    asking = asyncio.create_task(wire.ask("/held"))
    await asyncio.wait([asking], timeout=2 * QUICK)
    server.application.release.set()
    answer = await asking
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended() == b""


async def test_an_old_idle_connection_is_closed(serve: Serve) -> None:
    wire = await (await serve(max_connection_age=QUICK)).connect()
    await wire.ask()
    assert await wire.ended() == b""


async def test_an_answer_in_progress_survives_the_age_but_not_forever(serve: Serve) -> None:
    server = await serve(max_connection_age=QUICK, age_grace=QUICK)
    wire = await server.connect()
    async with refusal():
        await wire.ask("/held")


async def test_a_reader_that_does_not_read_is_cut_off(serve: Serve) -> None:
    server = await serve(write_timeout=QUICK)
    wire = await server.connect()
    wire.reader._limit = 1_024
    await wire.send(b"GET /stream?50000000 HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: server.running.connections == 0)


async def test_a_reader_of_one_large_answer_is_cut_off_too(serve: Serve) -> None:
    server = await serve(write_timeout=QUICK)
    wire = await server.connect()
    wire.reader._limit = 1_024
    await wire.send(b"GET /large?50000000 HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: server.running.connections == 0)


async def until(condition: Callable[[], bool], within: float = 5) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)


# Numbers


async def test_one_connection_too_many_is_told_503(serve: Serve) -> None:
    server = await serve(max_connections=2)
    kept = [await server.connect() for _ in range(2)]
    for wire in kept:
        await wire.ask()
    answer = await (await server.connect()).ask()
    assert answer.error == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert (await kept[0].ask()).status == 200
    kept[1].close()
    await until(lambda: server.running.connections == 1)
    assert (await (await server.connect()).ask()).status == 200


async def test_far_too_many_connections_are_cut_off_unheard(serve: Serve) -> None:
    server = await serve(max_connections=1)
    sockets = [socket.create_connection(("127.0.0.1", server.running.port)) for _ in range(40)]
    await until(lambda: server.running.connections == 17)
    for one in sockets:
        one.close()
    await until(lambda: server.running.connections == 0)


# What still works within the bounds


async def test_a_connection_serves_many_requests(serve: Serve) -> None:
    wire = await (await serve()).connect()
    for size in (0, 1, 16_384, 100_000):
        assert (await wire.ask("/echo", body=b"z" * size)).body == b"z" * size


async def test_a_client_may_wait_for_100_continue(serve: Serve) -> None:
    wire = await (await serve()).connect()
    await wire.send(
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await wire.send(b"abc")
    assert (await wire.answer()).body == b"abc"


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    wire = await (await serve()).connect()
    requests = b"".join(
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%d" % n for n in range(5)
    )
    await wire.send(requests)
    assert [(await wire.answer()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_bad_request_behind_a_good_one_does_not_spoil_its_answer(serve: Serve) -> None:
    server = await serve()
    wire = await server.connect()
    await wire.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\nrubbish\r\n\r\n")
    await server.application.entered.wait()
    server.application.release.set()
    assert (await wire.answer()).status == 200
    assert await wire.ended() == b""


async def test_an_early_answer_is_not_lost_to_a_client_that_still_sends(serve: Serve) -> None:
    wire = await (await serve()).connect()
    answer = await wire.ask("/deaf", body=b"z" * 1_000_000, headers=["Connection: close"])
    assert (answer.status, answer.body) == (401, b"did not listen")


async def test_http_10_is_answered_and_closed(serve: Serve) -> None:
    wire = await (await serve()).connect()
    await wire.send(b"GET / HTTP/1.0\r\n\r\n")
    assert (await wire.answer()).status == 200
    assert await wire.ended() == b""


async def test_large_bodies_go_both_ways_on_many_connections(serve: Serve) -> None:
    server = await serve()
    body = bytes(range(256)) * 4_096

    async def one() -> None:
        wire = await server.connect()
        for _ in range(2):
            assert (await wire.ask("/echo", body=body)).body == body
        wire.close()

    await asyncio.gather(*(one() for _ in range(24)))
    await until(lambda: server.running.connections == 0)


async def test_a_client_that_ends_its_side_still_gets_its_answer(open_server: Start) -> None:
    server = await open_server(tls=None)
    wire = await server.connect()
    await wire.send(b"GET /held HTTP/1.1\r\nHost: h\r\n\r\n")
    wire.writer.write_eof()
    await server.application.entered.wait()
    server.application.release.set()
    assert (await wire.answer()).status == 200
    assert await wire.ended() == b""


async def test_a_plain_connection_has_a_peer_without_certificate(open_server: Start) -> None:
    wire = await (await open_server(tls=None)).connect()
    seen = (await wire.ask()).json
    assert (seen["chain"], seen["address"], seen["scheme"]) == ([], "127.0.0.1", "http")


# Start and stop


async def test_stopping_finishes_the_answer_in_progress(serve: Serve) -> None:
    server = await serve()
    wire, idle = await server.connect(), await server.connect()
    await idle.ask()
    asking = asyncio.create_task(wire.ask("/held"))
    await until(lambda: len(server.application.scopes) == 2)
    stopping = asyncio.create_task(server.running.stop())
    assert await idle.ended() == b""
    with pytest.raises(ConnectionRefusedError):
        await server.connect()
    server.application.release.set()
    answer = await asking
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await wire.ended() == b""
    await stopping
    assert not server.running.listening


async def test_stopping_does_not_wait_longer_than_its_grace(serve: Serve) -> None:
    server = await serve()
    wire = await server.connect()
    asking = asyncio.create_task(wire.ask("/held"))
    await server.application.entered.wait()
    await server.running.stop(grace=QUICK)
    assert server.running.connections == 0
    async with refusal():
        await asking


async def test_a_taken_port_is_named(open_server: Start) -> None:
    server = await open_server(tls=None)
    with pytest.raises(Unavailable, match=f"port {server.running.port}") as fault:
        await start(Listener(Application(), port=server.running.port, setting="--http-port"))
    assert fault.value.code == "listen_failed"
    assert fault.value.text.endswith("its setting is --http-port")


async def test_signal_handlers_stay_the_callers(open_server: Start) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    await open_server(tls=None)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
