"""Which events count, and what they leave behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.kernel.records import StoredEvent
from lamassu.services.alerts.model import LatestEvent


def uncounted(events: Sequence[StoredEvent], position: int) -> Sequence[StoredEvent]:
    """Those after `position`, in the order of their journal; each once."""
    fresh = {event.position: event for event in events if event.position > position}
    return [fresh[number] for number in sorted(fresh)]


def latest_by_type(events: Sequence[StoredEvent], now: datetime) -> Sequence[LatestEvent]:
    """The last event of each type, with the number of them. `events` are in order."""
    counts: dict[str, int] = {}
    last: dict[str, StoredEvent] = {}
    for event in events:
        counts[event.type] = counts.get(event.type, 0) + 1
        last[event.type] = event
    return [
        LatestEvent(kind, last[kind].cloud_event, seen_at=now, counter=counts[kind])
        for kind in sorted(counts)  # one order of locks for all writers
    ]
