"""What a transaction leaves behind beside its rows: events, audit records, log entries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Protocol, TypeAlias

from lamassu.kernel.identity import Caller

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, as others are told of it (a CloudEvent in the making).

    `type` is the wire name (`ca.create`), `subject` is `ca/<id>` and the like, `version` the
    subject's version taken under its row's lock: consumers use it to tell old from new.
    No secret may be in `data`.
    """

    type: str
    subject: str
    version: int
    data: Json
    caller: Caller


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Who did what to which thing, with which outcome. No secret may be in `detail`."""

    action: str
    subject: str
    caller: Caller
    outcome: str = "success"
    detail: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What an append-only log shall hold for good, such as that a certificate was issued.

    Written down as canonical JSON (RFC 8785): `content` with the type, the subject and the time
    of the commit beside it. Its values are texts and whole numbers.
    """

    type: str
    subject: str
    content: Mapping[str, str | int]


Record: TypeAlias = Event | AuditRecord | LogEntry


class Recorder(Protocol):
    """Takes what a transaction is to leave behind."""

    def emit(self, event: Event) -> None:
        """Tell others, once the transaction has committed."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Keep who did what, if and only if it commits."""
        ...


class Records(list[Event | AuditRecord]):
    """A `Recorder` for a transaction that is yet to be made, and is made at once."""

    def emit(self, event: Event) -> None:
        self.append(event)

    def audit(self, record: AuditRecord) -> None:
        self.append(record)

    def hand_over(self, recorder: Recorder) -> None:
        """Leave them with a transaction that is under way."""
        for record in self:
            if isinstance(record, Event):
                recorder.emit(record)
            else:
                recorder.audit(record)


@dataclass(frozen=True)
class StoredEvent:
    """An event as the journal of a service has it; `position` orders that journal.

    `body` is the CloudEvent's JSON, decoded when it is first asked for: who only counts events,
    or passes them over by their type, has no use for it.
    """

    service: str
    position: int
    type: str
    subject: str
    body: str

    @cached_property
    def cloud_event(self) -> Mapping[str, Json]:
        """Raises `ValueError` for what is no JSON object; so do the properties below."""
        told = json.loads(self.body)
        if not isinstance(told, dict):
            raise ValueError("an event must be a JSON object")
        return told

    @property
    def id(self) -> str:
        """The CloudEvent's."""
        return str(self.cloud_event.get("id", ""))

    @property
    def version(self) -> int:
        """The subject's, when this happened."""
        version = self.cloud_event.get("subjectversion")
        if not isinstance(version, int):
            raise ValueError("an event must have its subject's version")
        return version

    @property
    def time(self) -> datetime:
        """When it was written down."""
        return datetime.fromisoformat(str(self.cloud_event.get("time")))

    @property
    def data(self) -> Json:
        """What it tells beside its type and subject."""
        return self.cloud_event.get("data")
