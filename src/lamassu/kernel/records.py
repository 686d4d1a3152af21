"""What a transaction leaves behind beside its rows: events and audit records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

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
class StoredEvent:
    """An event as the journal of a service has it; `position` orders that journal."""

    service: str
    position: int
    id: str
    type: str
    subject: str
    version: int
    time: datetime
    cloud_event: Mapping[str, Json]

    @property
    def data(self) -> Json:
        return self.cloud_event.get("data")
