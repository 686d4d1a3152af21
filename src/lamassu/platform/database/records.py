"""Events, audit records and log entries become rows: numbered, sealed, ready for the outbox.

A record's number `n` counts what one start of the process (`boot`) wrote for one service. Its
MAC is made with a key that is not in the database, so that whoever can write there can neither
change nor invent a record; numbers that are missing give away what was removed. Where a
transaction fails its numbers are lost: the next record says which (`skipped`), and which were
still under way when it was made (`open`), so that a rollback or a crash does not look like a
removal. `follows` names the journal's last record at the process's start.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypedDict

from pydantic_core import PydanticSerializationError, to_json

from lamassu.kernel.identity import Caller, PrincipalKind
from lamassu.kernel.records import AuditRecord, Event, Json, LogEntry, Record
from lamassu.platform.database.types import time_text

EVENT = "event"
AUDIT = "audit"
LOG = "log"  # an entry of the service's append-only log: the log holds exactly its body
CLOSED = "closed"  # a process ended in order: no number of its boot may be missing

_SOURCES = {"dmsmanager": "ra", "devicemanager": "devmanager"}
_AUTH_TYPES = {
    PrincipalKind.ADMIN: "crt",
    PrincipalKind.SERVICE: "crt",
    PrincipalKind.DEVICE: "crt",
    PrincipalKind.SYSTEM: "system",
}


class RecordRow(TypedDict):
    """A row of an outbox."""

    boot: str
    n: int
    kind: str
    type: str
    subject: str
    time: datetime
    trail: str
    body: str
    mac: bytes


class SealedRow(Protocol):
    """A row of an outbox or a journal, as far as its seal goes."""

    @property
    def boot(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def trail(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def mac(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Stamped:
    """The rows of one transaction, and what its outcome decides about."""

    service: str
    rows: Sequence[RecordRow]
    numbers: frozenset[int]
    reported: frozenset[int]
    follows: tuple[int, bytes] | None


@dataclass(slots=True)
class _Counter:
    last: int = 0
    under_way: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    follows: tuple[int, bytes] | None = None


class RecordWriter:
    """Numbers and seals the records of this process. One per process."""

    def __init__(self, key: bytes, *, boot: str | None = None) -> None:
        """`key` (at least 32 bytes) never reaches the database; `boot` is for tests."""
        if len(key) < 32:
            raise ValueError("the key that seals records must have at least 32 bytes")
        self._seal = hmac.new(key, digestmod=hashlib.sha256)
        self.boot = boot or secrets.token_hex(8)
        self._counters: dict[str, _Counter] = {}

    def follow(self, service: str, position: int, hash_: bytes) -> None:
        """The service's journal stood at `position` when this process opened it."""
        self._counter(service).follows = (position, hash_)

    def stamp(self, service: str, records: Sequence[Record], now: datetime) -> Stamped:
        """Make the rows of one transaction; `settle` must be told how it ended."""
        drafts = [_draft(service, record, now) for record in records]
        return self._stamp(service, drafts, now)

    def sealed(self, service: str, row: SealedRow) -> bool:
        """Whether a process of this installation wrote this row."""
        content = sealed_bytes(
            service, boot=row.boot, n=row.n, kind=row.kind, trail=row.trail, body=row.body
        )
        return hmac.compare_digest(self._mac(content), bytes(row.mac))

    def seal_head(self, service: str, position: int, hash_: bytes) -> bytes:
        """The MAC of a journal's head: without the key nobody chains a journal anew."""
        return self._mac(head_bytes(service, position, hash_))

    def closing(self, service: str, now: datetime) -> Stamped | None:
        """The last record of this process in a service; `None` where it wrote nothing."""
        if not self._counter(service).last:
            return None
        body = json_text({"type": "journal.closed", "subject": service, "time": rfc3339(now)})
        return self._stamp(service, [_Draft(CLOSED, "journal.closed", service, body)], now)

    def settle(self, stamped: Stamped, *, committed: bool) -> None:
        """The transaction of `stamped` ended; when in doubt whether it committed, it did not."""
        counter = self._counter(stamped.service)
        counter.under_way -= stamped.numbers
        if not committed:
            counter.skipped |= stamped.numbers | stamped.reported
            counter.follows = counter.follows or stamped.follows

    def _mac(self, sealed: bytes) -> bytes:
        seal = self._seal.copy()
        seal.update(sealed)
        return seal.digest()

    def _counter(self, service: str) -> _Counter:
        return self._counters.setdefault(service, _Counter())

    def _stamp(self, service: str, drafts: Sequence[_Draft], now: datetime) -> Stamped:
        counter = self._counter(service)
        first = counter.last + 1
        counter.last += len(drafts)
        reported, counter.skipped = frozenset(counter.skipped), set()
        follows, counter.follows = counter.follows, None
        trail = trail_text(skipped=reported, under_way=counter.under_way, follows=follows)
        numbers = frozenset(range(first, counter.last + 1))
        counter.under_way |= numbers
        rows = [
            self._row(service, n, draft, trail if n == counter.last else "", now)
            for n, draft in enumerate(drafts, first)
        ]
        return Stamped(service, rows, numbers, reported, follows)

    def _row(self, service: str, n: int, draft: _Draft, trail: str, now: datetime) -> RecordRow:
        sealed = sealed_bytes(
            service, boot=self.boot, n=n, kind=draft.kind, trail=trail, body=draft.body
        )
        return RecordRow(
            boot=self.boot,
            n=n,
            kind=draft.kind,
            type=draft.type,
            subject=draft.subject,
            time=now,
            trail=trail,
            body=draft.body,
            mac=self._mac(sealed),
        )


@dataclass(frozen=True, slots=True)
class _Draft:
    kind: str
    type: str
    subject: str
    body: str  # what cannot be written down must fail before a number is drawn


def sealed_bytes(service: str, *, boot: str, n: int, kind: str, trail: str, body: str) -> bytes:
    """What a record's MAC covers. Only `body`, the last, is of free length and form."""
    return f"{service}\n{boot}\n{n}\n{kind}\n{trail}\n{body}".encode()


def head_bytes(service: str, position: int, hash_: bytes) -> bytes:
    """What the MAC of a journal's head covers; its form is no record's."""
    return f"head\n{service}\n{position}\n{hash_.hex()}".encode()


def json_text(value: Json) -> str:
    """Compact JSON. What a record's MAC covers is this text, so that its form is free.

    pydantic's encoder takes a fifth of the time that the library's takes, of which there are ten
    records for each enrolment. What it has no words for the library's writes, or refuses: a
    lone surrogate, which stays escaped, and numbers that are none.
    """
    try:
        text = to_json(value, fallback=_plain).decode()
    except PydanticSerializationError:
        return _ENCODER.encode(value)
    return _ENCODER.encode(value) if "NaN" in text or "Infinity" in text else text


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain, allow_nan=False)


def rfc3339(time: datetime) -> str:
    return time_text(time)


def trail_text(
    *, skipped: frozenset[int], under_way: set[int], follows: tuple[int, bytes] | None
) -> str:
    """Compact JSON; empty where there is nothing to tell."""
    told: dict[str, Json] = {}
    if follows:
        told["follows"] = [follows[0], follows[1].hex()]
    if under_way:
        told["open"] = ranges_text(under_way)
    if skipped:
        told["skipped"] = ranges_text(skipped)
    return json_text(told) if told else ""


def ranges_text(numbers: frozenset[int] | set[int]) -> str:
    """`{1, 2, 3, 7}` as `1-3,7`."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def ranges_of(text: str) -> list[range]:
    """The inverse of `ranges_text`."""
    parts = (part.partition("-") for part in text.split(",") if part)
    return [range(int(a), int(b or a) + 1) for a, _, b in parts]


def _draft(service: str, record: Record, now: datetime) -> _Draft:
    if isinstance(record, Event):
        body = json_text(cloud_event(service, record, now))
        return _Draft(EVENT, record.type, record.subject, body)
    if isinstance(record, LogEntry):
        return _Draft(LOG, record.type, record.subject, log_text(record, now))
    return _Draft(AUDIT, record.action, record.subject, json_text(_audit_body(record, now)))


def log_text(entry: LogEntry, now: datetime) -> str:
    """Canonical JSON (RFC 8785), which for texts and whole numbers is what the library writes."""
    told = {
        **entry.content,
        "subject": entry.subject,
        "time": rfc3339(now),
        "type": entry.type,
    }
    return _CANONICAL.encode(told)


_CANONICAL = json.JSONEncoder(
    separators=(",", ":"), sort_keys=True, ensure_ascii=False, allow_nan=False
)


def cloud_event(service: str, event: Event, now: datetime) -> dict[str, Json]:
    """CloudEvents 1.0, structured JSON. An id of its own each; no claims, no certificates."""
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid4()),
        "source": f"source://lamassu.io/ctx/source/service/{_SOURCES.get(service, service)}",
        "type": event.type,
        "subject": event.subject,
        "time": rfc3339(now),
        "datacontenttype": "application/json",
        "subjectversion": event.version,
        **_identity(event.caller),
        "data": event.data,
    }


def _identity(caller: Caller) -> dict[str, Json]:
    told: dict[str, Json] = {}
    auth_type = _AUTH_TYPES.get(caller.principal.kind)
    if auth_type:
        told = {"authtype": auth_type, "authid": caller.principal.name}
    if caller.request_id:
        told["traceid"] = caller.request_id
    return told


def _audit_body(record: AuditRecord, now: datetime) -> dict[str, Json]:
    return {
        "id": str(uuid.uuid4()),
        "type": record.action,
        "subject": record.subject,
        "time": rfc3339(now),
        "principal": record.caller.principal.id,
        "address": record.caller.address,
        "request_id": record.caller.request_id,
        "outcome": record.outcome,
        "detail": record.detail,
    }
