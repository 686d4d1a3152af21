"""Listeners: uvicorn's HTTP protocol in our own event loop, several ports in one process.

No signal handler, logging set-up or process is taken over: who starts a listener stops it.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from lamassu.kernel.errors import Unavailable
from lamassu.platform.http.connection import PlainConnection, TlsConnection
from lamassu.platform.http.limits import ServerLimits
from lamassu.platform.http.protocol import PEER_EXTENSION, HttpProtocol
from lamassu.platform.security.tls import ServerTls

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["PEER_EXTENSION", "Listener", "RunningListener", "ServerLimits", "start"]

log = structlog.get_logger(__name__)

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI 3 application; its messages are dictionaries that only the protocol knows."""


@dataclass(frozen=True)
class Listener:
    """A port to open. `tls` absent means plain HTTP; port 0 takes a free one. `setting` says, in
    a refusal, where the port can be changed."""

    app: AsgiApp
    host: str = "127.0.0.1"
    port: int = 0
    tls: ServerTls | None = None
    setting: str = ""
    limits: ServerLimits = field(default_factory=ServerLimits)
    backlog: int = 1_024


class RunningListener:
    """An open port and its connections. Made by `start`."""

    def __init__(self, listener: Listener, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = listener.limits
        self.buffer = memoryview(bytearray(65_536))  # shared: each read is consumed at once
        self.port = 0
        self.host = listener.host
        self._remedy = f"; its setting is {listener.setting}" if listener.setting else ""
        self._tls = listener.tls
        self._loop = loop
        self._backlog = listener.backlog
        self._config = _uvicorn_config(listener.app)
        self._state = ServerState()
        self._connections: set[PlainConnection] = set()
        self._emptied = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return self._server is not None and self._server.is_serving()

    @property
    def connections(self) -> int:
        """How many connections there are, handshakes included."""
        return len(self._connections)

    async def open(self, port: int) -> None:
        """Bind and listen. Raises `Unavailable` (`listen_failed`) when the port cannot be had."""
        self._update_date()
        try:
            self._server = await self._loop.create_server(
                self._new_connection, host=self.host, port=port, backlog=self._backlog
            )
        except OSError as fault:
            raise Unavailable(
                f"cannot listen on {self.host} port {port}: {_why_not(fault)}{self._remedy}",
                code="listen_failed",
            ) from fault
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._sweeper = self._loop.create_task(self._sweep())

    async def stop(self, grace: float = 10.0) -> None:
        """Take no new connection, let answers in progress finish, cut off after `grace` seconds.

        May be called again; the later call returns when all is over too.
        """
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.shutdown()
        self._emptied.clear()
        if self._connections:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace)
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._state.tasks):
            task.cancel()
        await asyncio.gather(*self._state.tasks, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)

    # What connections ask

    def now(self) -> float:
        return self._loop.time()

    def admit(self, connection: PlainConnection) -> bool:
        """Count a connection in; False when there are so many that none may even be answered."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.hard_max_connections

    def forget(self, connection: PlainConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._emptied.set()

    def new_protocol(self) -> HttpProtocol:
        return HttpProtocol(
            self._config,
            self._state,
            limits=self.limits,
            loop=self._loop,
            overloaded=len(self._connections) > self.limits.max_connections,
        )

    # Inside

    def _new_connection(self) -> PlainConnection:
        return PlainConnection(self) if self._tls is None else TlsConnection(self, self._tls)

    async def _sweep(self) -> None:
        dated = self.now()
        while True:
            await asyncio.sleep(self.limits.sweep_interval)
            now = self.now()
            if now - dated >= 1.0:
                dated = now
                self._update_date()
            for connection in list(self._connections):
                try:
                    connection.check(now)
                except Exception:  # the sweep must go on for the others
                    log.exception("sweep_failed")
                    connection.abort()

    def _update_date(self) -> None:
        now = formatdate(time.time(), usegmt=True).encode("ascii")
        self._state.default_headers = [(b"date", now)]


async def start(listener: Listener) -> RunningListener:
    """Open `listener`'s port in the running event loop and serve until `stop`.

    Raises `Unavailable` (`listen_failed`) when the port cannot be had.
    """
    running = RunningListener(listener, asyncio.get_running_loop())
    await running.open(listener.port)
    return running


def _uvicorn_config(app: ASGI3Application) -> Config:
    config = Config(
        app,
        interface="asgi3",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    config.load()
    return config


def _why_not(fault: OSError) -> str:
    """Why a port cannot be had, and what to do; asyncio's own text repeats the address."""
    if fault.errno == errno.EADDRINUSE:
        return "another program has it; end that one, or choose another port"
    if fault.errno == errno.EACCES:
        return "only root may have ports below 1024; choose another port"
    return fault.strerror or str(fault)
