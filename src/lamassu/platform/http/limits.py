"""The bounds of our servers, whatever the libraries below leave open."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Sizes in bytes, times in seconds. Tests shrink them; operators need not know them."""

    max_request_line_bytes: int = 8_192
    max_header_bytes: int = 32_768
    max_header_count: int = 100
    max_body_bytes: int = 1_048_576

    handshake_timeout: float = 10.0
    header_timeout: float = 10.0
    """From the connection's start, or the first byte of a later request, to the head's end."""
    body_timeout: float = 30.0
    """From the head's end to the body's end."""
    body_stall_timeout: float = 10.0
    """Without a byte of an unfinished body."""
    idle_timeout: float = 60.0
    """Between an answer and the next request."""
    write_timeout: float = 20.0
    """In which a reader must take `min_write_progress` of what waits for it."""
    min_write_progress: int = 16_384
    linger_timeout: float = 2.0
    """How long a closed connection still swallows input, so that the answer is not lost."""
    max_connection_age: float = 600.0
    """After which a connection ends with its current answer (security rule 2)."""
    age_grace: float = 60.0
    """After which an over-age connection is cut off even in an answer."""

    max_connections: int = 2_048
    """Beyond it new connections are answered 503, and beyond a quarter more cut off unheard."""

    @property
    def hard_max_connections(self) -> int:
        return self.max_connections + max(16, self.max_connections // 4)

    @property
    def sweep_interval(self) -> float:
        """How often the clock is compared with all deadlines."""
        shortest = min(
            self.handshake_timeout,
            self.header_timeout,
            self.body_timeout,
            self.body_stall_timeout,
            self.idle_timeout,
            self.write_timeout,
            self.linger_timeout,
            self.max_connection_age,
            self.age_grace,
        )
        return max(0.01, min(1.0, shortest / 4))
