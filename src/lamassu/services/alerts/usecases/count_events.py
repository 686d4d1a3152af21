"""Count events as they are heard: each once, however often it is told (at least once)."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.clock import Clock
from lamassu.kernel.records import StoredEvent
from lamassu.services.alerts.ports import AlertsStore
from lamassu.services.alerts.rules import latest_by_type, uncounted


async def count_events(store: AlertsStore, clock: Clock, events: Sequence[StoredEvent]) -> None:
    """`events` are of any services. Those of a service that were counted before change nothing."""
    for source in sorted({event.service for event in events}):
        await _count(store, clock, source, [e for e in events if e.service == source])


async def _count(
    store: AlertsStore, clock: Clock, source: str, events: Sequence[StoredEvent]
) -> None:
    async with store.unit() as unit:
        fresh = uncounted(events, await unit.lock_position(source))
        if not fresh:
            return
        for seen in latest_by_type(fresh, clock.now()):
            await unit.count(seen)
        await unit.set_position(source, fresh[-1].position)
