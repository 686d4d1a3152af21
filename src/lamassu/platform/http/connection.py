"""One accepted connection: a transport for the HTTP protocol above, TLS or plain below.

It stands in for asyncio's own TLS layer because that one loses alerts, closes with a reset while
the client still sends, and keeps a quarter of a megabyte of buffer per connection. Each
connection passes through `Phase` in order; deadlines are compared by the listener's sweep, so
that no timer is set per request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Protocol

import structlog
from OpenSSL import SSL

from lamassu.kernel.errors import TooLarge
from lamassu.platform.http.limits import ServerLimits
from lamassu.platform.security.tls import ServerTls

log = structlog.get_logger(__name__)

PEER_CHAIN = "lamassu.peer_chain"
"""The extra info of a transport that holds the peer's chain as a tuple of DER."""

_SLICE = 65_536
_RECORD = 16_384
_FOREVER = float("inf")


class Phase(Enum):
    """Where a connection stands."""

    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()


class UpperProtocol(Protocol):
    """What a connection tells the HTTP protocol above it."""

    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def check(self, now: float) -> None: ...
    def shutdown(self) -> None: ...


class Hub(Protocol):
    """What a connection asks of its listener."""

    limits: ServerLimits
    buffer: memoryview

    def now(self) -> float: ...
    def admit(self, connection: PlainConnection) -> bool: ...
    def new_protocol(self) -> UpperProtocol: ...
    def forget(self, connection: PlainConnection) -> None: ...


class PlainConnection(asyncio.BufferedProtocol, asyncio.Transport):
    """A connection without TLS."""

    def __init__(self, hub: Hub) -> None:
        super().__init__()
        self._hub = hub
        self._limits = hub.limits
        self._phase = Phase.OPENING
        self._deadline = hub.now() + hub.limits.handshake_timeout
        self._lower: asyncio.Transport
        self._upper: UpperProtocol
        self._has_upper = False
        self._backlog: deque[memoryview] = deque()
        self._blocked = False  # the lower transport holds more than its high-water mark
        self._reading_paused = False
        self._peer_ended = False  # the peer will send nothing more
        self._input_over = False  # ... and the protocol above knows it
        self._output_over = False  # our goodbye was said
        self._written = 0  # bytes handed to the lower transport
        self._write_mark: tuple[float, int] | None = None  # when, and how much had drained

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # asyncio's promise for TCP
        self._lower = transport
        if self._hub.admit(self):
            self._begin()
        else:
            self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._hub.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase is Phase.OPEN or self._phase is Phase.OPENING:
            self._received(self._hub.buffer[:nbytes])
        # else: what still comes after our end is swallowed; closing the socket over it would
        # reset the connection, and the client might lose our last answer

    def eof_received(self) -> bool:
        self._peer_ended = True
        if self._phase is Phase.OPENING:
            self.abort()
        elif self._phase is Phase.OPEN:
            self._end_input_unless_paused()
        elif self._phase is Phase.CLOSING and not self._backlog:
            self._lower.close()
        return True  # closing is up to us

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.CLOSED
        self._backlog.clear()
        self._hub.forget(self)
        if self._has_upper:
            self._has_upper = False
            self._upper.connection_lost(exc)

    def pause_writing(self) -> None:
        self._blocked = True
        if self._has_upper:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        self._blocked = False
        self._pump()
        if self._blocked:
            return
        if self._phase is Phase.OPEN:
            self._upper.resume_writing()
        elif self._phase is Phase.CLOSING:
            self._end_output()

    # What the protocol above calls

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._lower.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._phase is not Phase.OPEN

    def is_reading(self) -> bool:
        return not self._reading_paused

    def pause_reading(self) -> None:
        if self._phase is Phase.OPEN and not self._reading_paused:
            self._reading_paused = True
            self._lower.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading_paused:
            return
        self._reading_paused = False
        self._lower.resume_reading()

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._backlog)) + self._lower.get_write_buffer_size()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._phase is not Phase.OPEN or not data:
            return
        # a view of a bytearray would keep its owner from resizing it
        self._backlog.append(memoryview(data if isinstance(data, bytes) else bytes(data)))
        self._pump()

    def close(self) -> None:
        """End in order: send what waits, say goodbye, then swallow input for a moment."""
        if self._phase is Phase.OPENING:
            self.abort()
        if self._phase is not Phase.OPEN:
            return
        self._phase = Phase.CLOSING
        self._deadline = _FOREVER
        self.resume_reading()
        if not self._backlog:
            self._end_output()

    def abort(self) -> None:
        """End at once; what waits is lost."""
        self._phase = Phase.CLOSED
        self._backlog.clear()
        self._lower.abort()

    # What the listener's sweep calls

    def check(self, now: float) -> None:
        """Cut the connection off if it has overstayed in its phase."""
        if self._phase is Phase.OPENING:
            if now >= self._deadline:
                self.abort()
        elif self._reader_is_stuck(now):
            self.abort()
        elif self._phase is Phase.OPEN:
            self._upper.check(now)
        elif self._phase is Phase.CLOSING and self._write_mark is None:
            self._deadline = min(self._deadline, now + self._limits.linger_timeout)
            if now >= self._deadline:
                self.abort()

    def shutdown(self) -> None:
        """Finish the answer in progress, then close."""
        if self._phase is Phase.OPEN:
            self._upper.shutdown()
        elif self._phase is Phase.OPENING:
            self.abort()

    # Inside

    def _begin(self) -> None:
        self._open()

    def _open(self) -> None:
        self._phase = Phase.OPEN
        self._deadline = _FOREVER
        self._upper = self._hub.new_protocol()
        self._has_upper = True
        self._upper.connection_made(self)

    def _received(self, data: memoryview) -> None:
        self._upper.data_received(bytes(data))

    def _emit(self, data: memoryview) -> None:
        self._write_lower(data)

    def _say_goodbye(self) -> None:
        pass

    def _write_lower(self, data: bytes | memoryview) -> None:
        self._written += len(data)
        self._lower.write(data)

    def _pump(self) -> None:
        backlog = self._backlog
        while backlog and not self._blocked:
            data = backlog.popleft()
            if len(data) > _SLICE:
                backlog.appendleft(data[_SLICE:])
                data = data[:_SLICE]
            self._emit(data)

    def _end_output(self) -> None:
        if not self._output_over:
            self._output_over = True
            self._say_goodbye()
            self._half_close()

    def _half_close(self) -> None:
        if self._peer_ended:
            self._lower.close()
            return
        try:
            self._lower.write_eof()
        except OSError:  # the peer is gone already
            self.abort()

    def _end_input_unless_paused(self) -> None:
        if self._input_over or self._reading_paused:
            return
        self._input_over = True
        if not self._upper.eof_received():
            self.close()

    def _reader_is_stuck(self, now: float) -> bool:
        waiting = self._lower.get_write_buffer_size()
        if not waiting:
            self._write_mark = None
            return False
        drained = self._written - waiting
        mark = self._write_mark
        if mark is None or drained - mark[1] >= self._limits.min_write_progress:
            self._write_mark = (now, drained)
            return False
        return now - mark[0] >= self._limits.write_timeout


class TlsConnection(PlainConnection):
    """A connection whose bytes pass through OpenSSL, over memory buffers."""

    def __init__(self, hub: Hub, tls: ServerTls) -> None:
        super().__init__(hub)
        self._tls = tls
        self._connection = tls.new_connection()
        self._chain: tuple[bytes, ...] = ()

    def get_extra_info(self, name: str, default: object = None) -> object:
        if name == PEER_CHAIN:
            return self._chain
        if name == "sslcontext":  # how uvicorn knows the scheme
            return self._tls
        return super().get_extra_info(name, default)

    def resume_reading(self) -> None:
        if self._reading_paused:
            super().resume_reading()
            asyncio.get_running_loop().call_soon(self._read)

    def _begin(self) -> None:
        pass  # the client speaks first

    def _received(self, data: memoryview) -> None:
        self._connection.bio_write(data)
        if self._phase is Phase.OPENING:
            self._shake_hands()
        else:
            self._read()

    def _shake_hands(self) -> None:
        try:
            self._connection.do_handshake()
            self._chain = self._tls.peer_chain(self._connection)
        except SSL.WantReadError:
            self._flush()
        except (SSL.Error, TooLarge) as fault:
            log.debug("tls_handshake_failed", reason=str(fault))
            self._refuse()
        else:
            self._flush()
            self._open()
            self._read()

    def _read(self) -> None:
        receive = self._connection.recv
        try:
            while self._phase is Phase.OPEN and not self._reading_paused:
                self._upper.data_received(receive(_RECORD))
        except SSL.WantReadError:
            if self._peer_ended:  # without a close_notify; HTTP tells what is complete
                self._end_input_unless_paused()
        except SSL.ZeroReturnError:
            self._end_input_unless_paused()
        except SSL.Error as fault:
            log.debug("tls_connection_failed", reason=str(fault))
            self._refuse()
        if self._phase is Phase.OPEN:
            self._flush()

    def _refuse(self) -> None:
        """Let OpenSSL's alert out, then end."""
        self._backlog.clear()
        self._phase = Phase.CLOSING
        self._deadline = _FOREVER
        self._flush()
        self._output_over = True
        self._half_close()

    def _emit(self, data: memoryview) -> None:
        send = self._connection.send
        try:
            while data:
                data = data[send(data) :]
        except SSL.Error as fault:
            log.debug("tls_write_failed", reason=str(fault))
            self.abort()
            return
        self._flush()

    def _flush(self) -> None:
        read = self._connection.bio_read
        try:
            while True:
                data = read(_SLICE)
                self._write_lower(data)
                if len(data) < _SLICE:
                    return
        except SSL.WantReadError:
            return

    def _say_goodbye(self) -> None:
        try:
            self._connection.shutdown()
        except SSL.Error as fault:
            log.debug("tls_close_notify_failed", reason=str(fault))
        self._flush()
