"""What alerts keep of the events that they hear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.records import Json


@dataclass(frozen=True, slots=True)
class LatestEvent:
    """The newest event of a type, as a CloudEvent, and how many of it there have been."""

    event_type: str
    cloud_event: Mapping[str, Json]
    seen_at: datetime
    counter: int
