"""Go on with another installation's counts of events."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Json
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.alerts.ports import AlertsStore


async def adopt_events(
    store: AlertsStore, found: Sequence[LatestEvent], *, source: str, caller: Caller, dry_run: bool
) -> Sequence[Verdict]:
    """Add what was counted there, all at once and once for each source: counts would grow with
    each repetition otherwise."""
    if dry_run or not found:
        return [Verdict(one.event_type, Outcome.ADOPTED) for one in found]
    mark = f"adoption/{source}"
    async with store.unit() as unit:
        if await unit.lock_position(mark):
            return [Verdict(one.event_type, Outcome.PRESENT) for one in found]
        for one in sorted(found, key=lambda seen: seen.event_type):  # one order for all writers
            await unit.count_earlier(one)
        await unit.set_position(mark, 1)
        detail: dict[str, Json] = {"source": source, "types": len(found)}
        unit.audit(AuditRecord("alerts.adopt", mark, caller, detail=detail))
    return [Verdict(one.event_type, Outcome.ADOPTED) for one in found]
