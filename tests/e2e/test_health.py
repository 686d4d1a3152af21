"""Ready means that database, keys, relay and listeners really are: each is broken here."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lamassu.wiring import Listen, Platform, Running, serving
from tests.support.postgres import PostgresCluster
from tests.support.server import Server, copy_installation, free_port, make_installation
from tests.support.server import serving as served
from tests.support.sockets import client_context

MODULE = importlib.import_module("lamassu.wiring.serving")  # the package has a function so named
READY = (200, {"status": "ready"})
UNREADY = (503, {"status": "unready"})


def readiness(server: Server) -> tuple[int, Any]:
    """What a load balancer is told; that the process lives is true in any case."""
    with server.client() as nobody:
        assert nobody.get("/health/live").status_code == 200
        answer = nobody.get("/health/ready")
    return answer.status_code, answer.json()


def failing(server: Server) -> list[str]:
    """What an admin is told."""
    with server.admin() as admin:
        found: list[str] = admin.get("/health/ready").json()["failing"]
    return found


def eventually(server: Server, state: tuple[int, Any]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 15
    while (found := readiness(server)) != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


# From outside, on a process that runs


def test_it_is_ready_and_says_no_more_to_a_stranger(platform: Server) -> None:
    assert readiness(platform) == READY


def test_each_service_has_the_originals_health_without_versions(platform: Server) -> None:
    services = ("kms", "ca", "va", "dmsmanager", "devmanager", "alerts")
    with platform.client() as nobody:
        for service in services:
            answer = nobody.get(f"/api/{service}/health")
            assert answer.status_code == 200
            unsaid = dict.fromkeys(("version", "build", "build_time"), "-")
            assert answer.json() == {"health": True, **unsaid}


def test_a_database_file_that_is_gone_makes_it_unready(platform: Server) -> None:
    file = platform.directory / "data" / "lamassu.db"
    file.rename(file.with_suffix(".away"))
    try:
        assert readiness(platform) == UNREADY
    finally:
        file.with_suffix(".away").rename(file)
    eventually(platform, READY)


def test_a_database_that_somebody_else_writes_all_the_time_makes_it_unready(
    platform: Server,
) -> None:
    other = sqlite3.connect(platform.directory / "data" / "lamassu.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        began = time.monotonic()
        assert failing(platform) == ["database"]
        assert time.monotonic() - began < 8, "who asks does not wait for long"
    finally:
        other.execute("ROLLBACK")
        other.close()
    eventually(platform, READY)


@pytest.mark.parametrize("what", ["the whole keystore", "its header"])
def test_keys_that_are_gone_make_it_unready(platform: Server, what: str) -> None:
    keys = platform.directory / "keys"
    place = keys if what == "the whole keystore" else keys / "keystore.json"
    away = platform.directory / "away"
    place.rename(away)
    try:
        eventually(platform, UNREADY)  # engines are looked at once in two seconds
        assert failing(platform) == ["keys"]
    finally:
        away.rename(place)
    eventually(platform, READY)


def test_another_keystore_in_its_place_makes_it_unready(platform: Server) -> None:
    header = platform.directory / "keys" / "keystore.json"
    own = header.read_bytes()
    text = own.decode()
    salt = text[text.index('"salt": "') + 9 :][:8]
    header.write_text(text.replace(salt, salt[::-1]))
    try:
        eventually(platform, UNREADY)  # engines are looked at once in two seconds
        assert failing(platform) == ["keys"]
    finally:
        header.write_bytes(own)
    eventually(platform, READY)


@pytest.fixture
def on_postgresql(
    postgres_cluster: PostgresCluster, fresh_postgresql: str, tmp_path: Path
) -> Iterator[Server]:
    directory = make_installation(
        tmp_path / "var", database=fresh_postgresql, key_type="ecdsa-p256"
    )
    with served(directory, database=fresh_postgresql) as server:
        yield server


def test_a_postgresql_that_lets_nobody_in_makes_it_unready(
    on_postgresql: Server, postgres_cluster: PostgresCluster
) -> None:
    assert readiness(on_postgresql) == READY
    name = str(on_postgresql.database).rpartition("/")[2].partition("?")[0]
    postgres_cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    postgres_cluster.sql(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    assert readiness(on_postgresql) == UNREADY

    postgres_cluster.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    eventually(on_postgresql, READY)


def test_an_edge_is_ready_when_its_inside_is(fresh: Path, tmp_path: Path) -> None:
    directory = copy_installation(fresh / "est", tmp_path / "edge")
    port = free_port()
    edge = Server(directory, free_port(), free_port(), port, services=("est",))
    edge.start(wait=False)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                assert readiness(edge) == UNREADY
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the edge does not start"
                time.sleep(0.05)
        inside = Server(
            copy_installation(fresh, tmp_path / "inside"), free_port(), free_port(), port
        )
        inside.start()
        try:
            eventually(edge, READY)
        finally:
            inside.stop()
        eventually(edge, UNREADY)
    finally:
        edge.stop()


# From within, where nobody outside can break it


@pytest.fixture
async def inside(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Platform, Running]]:
    """The real platform with its listeners, in this process."""
    directory = copy_installation(fresh, tmp_path / "var")
    seen: list[Platform] = []
    opened = MODULE.opened

    @asynccontextmanager
    async def watched(directory: Path) -> AsyncIterator[Platform]:
        async with opened(directory) as platform:
            seen.append(platform)
            yield platform

    monkeypatch.setattr(MODULE, "opened", watched)
    monkeypatch.setattr(MODULE, "start_logging", lambda *_: None)
    async with AsyncExitStack() as stack:
        listen = Listen(port=0, http_port=0, internal_port=0)
        running = await stack.enter_async_context(serving(directory, listen, ()))
        yield seen[0], running


Ask = Callable[[], Any]


@asynccontextmanager
async def connected(inside: tuple[Platform, Running]) -> AsyncIterator[httpx.AsyncClient]:
    """An admin, over TLS, on one connection that outlives its listener's."""
    platform, running = inside
    folder = platform.installation.directory
    server = Server(folder, running.port, running.http_port, 0)
    context = client_context(server, folder / "admin.crt", folder / "admin.key")
    async with httpx.AsyncClient(base_url=server.url, verify=context) as client:
        await platform.bus.drained()  # what init left is older than a relay may be behind
        assert (await client.get("/health/ready")).status_code == 200
        yield client


async def told(client: httpx.AsyncClient) -> tuple[int, list[str]]:
    answer = await client.get("/health/ready")
    return answer.status_code, answer.json().get("failing", [])


async def test_a_relay_of_which_a_part_ended_makes_it_unready(
    inside: tuple[Platform, Running],
) -> None:
    platform, _ = inside
    async with connected(inside) as admin:
        task = platform.bus._tasks[0]
        task.cancel()
        with pytest.raises(BaseException):  # noqa: B017, PT011 - cancelled, by us
            await task
        assert await told(admin) == (503, ["relay"])


async def test_a_relay_that_was_stopped_makes_it_unready(
    inside: tuple[Platform, Running],
) -> None:
    platform, _ = inside
    async with connected(inside) as admin:
        await platform.bus.stop()
        assert await told(admin) == (503, ["relay"])


async def test_a_closed_engine_makes_it_unready(inside: tuple[Platform, Running]) -> None:
    platform, _ = inside
    async with connected(inside) as admin:
        await platform.kms.close()
        deadline = time.monotonic() + 15
        while (found := await told(admin)) != (503, ["keys"]):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)


async def test_a_closed_database_makes_it_unready(inside: tuple[Platform, Running]) -> None:
    platform, _ = inside
    async with connected(inside) as admin:
        await platform.bus.stop()
        await platform.database.close()
        assert (await admin.get("/health/ready")).status_code == 503


@pytest.mark.parametrize("name", ["http", "internal"])
async def test_a_listener_that_ended_makes_it_unready(
    inside: tuple[Platform, Running], name: str
) -> None:
    _, running = inside
    async with connected(inside) as admin:
        await running.listeners[name].stop()
        assert await told(admin) == (503, ["listeners"])
        assert (await admin.get("/health/live")).status_code == 200


async def test_the_main_listener_missing_makes_it_unready(
    inside: tuple[Platform, Running],
) -> None:
    platform, running = inside
    app = MODULE.applications(platform, running)["https"]
    await running.listeners["https"].stop()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="https://localhost"
    ) as nobody:
        assert (await nobody.get("/health/ready")).json() == {"status": "unready"}
