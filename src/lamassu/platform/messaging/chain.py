"""How the records of a journal are chained to each other."""

from __future__ import annotations

import hashlib
from datetime import datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import Protocol

from lamassu.platform.database.records import rfc3339


class Record(Protocol):
    """A row of an outbox or a journal."""

    @property
    def boot(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def time(self) -> datetime: ...
    @property
    def trail(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def mac(self) -> bytes: ...


def link(service: str, position: int, record: Record, previous: bytes) -> bytes:
    """The hash of `record` at `position`: SHA-256 over the hash before it and all its columns.

    The body, by far the longest, comes last and as it is; a JSON array says where it begins.
    """
    # a JSON array, written out: an encoder would take three times as long
    columns = (
        f"[{quoted(service)},{position},{quoted(record.boot)},{record.n},{quoted(record.kind)},"
        f"{quoted(record.type)},{quoted(record.subject)},{quoted(rfc3339(record.time))},"
        f'{quoted(record.trail)},"{record.mac.hex()}"]'
    )
    return hashlib.sha256(previous + f"{columns}\n{record.body}".encode()).digest()
