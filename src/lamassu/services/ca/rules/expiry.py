"""When somebody is to be told that a certificate nears its end: the original's deltas.

Users write them into metadata: `[{delta, name, triggered}]`, a delta being a duration before the
certificate's end. What does not read so is passed over, as in the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import parse_duration

EXPIRATION_DELTAS = "lamassu.io/ca/expiration-deltas"


@dataclass(frozen=True, slots=True)
class Delta:
    """So long before the end; `entry` is what the user wrote."""

    before_end: timedelta
    triggered: bool
    entry: Mapping[str, Json]

    @property
    def name(self) -> str:
        name = self.entry.get("name")
        return name if isinstance(name, str) else ""


def deltas_in(metadata: Mapping[str, Json]) -> Sequence[Delta]:
    """The deltas that metadata holds, in the user's order; none where one does not read so."""
    written = metadata.get(EXPIRATION_DELTAS)
    if not isinstance(written, Sequence) or isinstance(written, str):
        return ()
    found = []
    for entry in written:
        if not isinstance(entry, Mapping):
            return ()
        length, triggered = entry.get("delta"), entry.get("triggered", False)
        if not isinstance(length, str) or not isinstance(triggered, bool):
            return ()
        try:
            found.append(Delta(parse_duration(length), triggered, entry))
        except ValueError:
            return ()
    return found


def next_alert(metadata: Mapping[str, Json], not_after: datetime) -> datetime | None:
    """When the next delta is due; `None` where none is left."""
    if EXPIRATION_DELTAS not in metadata:
        return None
    waiting = [_due(delta, not_after) for delta in deltas_in(metadata) if not delta.triggered]
    return min(waiting, default=None)


def with_triggered(
    metadata: Mapping[str, Json], not_after: datetime, now: datetime
) -> tuple[dict[str, Json], Sequence[Delta]]:
    """The metadata with the deltas that are due marked and all sorted, the shortest first, and
    those that were marked now."""
    deltas = sorted(deltas_in(metadata), key=lambda delta: delta.before_end)
    due = [one for one in deltas if not one.triggered and _due(one, not_after) <= now]
    entries: list[Json] = [
        {**delta.entry, "triggered": delta.triggered or delta in due} for delta in deltas
    ]
    return {**metadata, EXPIRATION_DELTAS: entries}, due


def _due(delta: Delta, not_after: datetime) -> datetime:
    try:
        return not_after - delta.before_end
    except OverflowError:
        return not_after.min.replace(tzinfo=not_after.tzinfo)
