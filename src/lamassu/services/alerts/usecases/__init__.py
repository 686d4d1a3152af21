"""What alerts do: hear, count, and say what was heard last."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.adoption import Verdict
from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import StoredEvent
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.alerts.ports import AlertsStore
from lamassu.services.alerts.usecases.adopt_events import adopt_events
from lamassu.services.alerts.usecases.count_events import count_events

__all__ = ["AlertsService"]


class AlertsService:
    """The alerts service."""

    def __init__(self, *, store: AlertsStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def count(self, events: Sequence[StoredEvent]) -> None:
        """Count events that were heard. Idempotent by service and journal position."""
        await count_events(self._store, self._clock, events)

    async def adopt(
        self, found: Sequence[LatestEvent], *, source: str, caller: Caller, dry_run: bool
    ) -> Sequence[Verdict]:
        """See `adopt_events.adopt_events`."""
        return await adopt_events(self._store, found, source=source, caller=caller, dry_run=dry_run)

    async def latest(self) -> Sequence[LatestEvent]:
        """The newest event of each type, by type."""
        return await self._store.latest()
