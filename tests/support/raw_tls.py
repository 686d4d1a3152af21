"""TLS 1.2 by hand: a client that shows what no library would show for it."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

_SUITES = (0xC02B, 0xC02F)  # ECDHE with ECDSA or RSA, AES-128-GCM
_HELLO_DONE = b"\x0e\0\0\0"


def answer_to_certificates(port: int, certificates: Sequence[bytes], within: float = 5) -> bytes:
    """Shake hands up to the client's certificates, whatever octets these are; what the server
    says to them (an alert is a record of type 21), empty if it hangs up without a word.

    The handshake never ends: the client has no key. Raises `TimeoutError` for silence.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
        connection.sendall(_client_hello())
        flight = b""
        while _HELLO_DONE not in flight:
            received = connection.recv(65_536)
            if not received:
                return b""
            flight += received
        connection.sendall(_certificate_message(certificates))
        try:
            return connection.recv(65_536)
        except ConnectionError:
            return b""


def _client_hello() -> bytes:
    extensions = (
        struct.pack("!HHHH", 10, 4, 2, 23)  # P-256
        + struct.pack("!HHBB", 11, 2, 1, 0)  # uncompressed points
        + struct.pack("!HHHHHH", 13, 8, 6, 0x0403, 0x0401, 0x0804)
    )
    suites = b"".join(struct.pack("!H", suite) for suite in _SUITES)
    body = b"\x03\x03" + os.urandom(32) + b"\0" + struct.pack("!H", len(suites)) + suites
    body += b"\x01\0" + struct.pack("!H", len(extensions)) + extensions
    return _records(_message(1, body))


def _certificate_message(certificates: Sequence[bytes]) -> bytes:
    listed = b"".join(len(each).to_bytes(3, "big") + each for each in certificates)
    return _records(_message(11, len(listed).to_bytes(3, "big") + listed))


def _message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def _records(message: bytes) -> bytes:
    parts = (message[i : i + 16_384] for i in range(0, len(message), 16_384))
    return b"".join(b"\x16\x03\x03" + struct.pack("!H", len(part)) + part for part in parts)
