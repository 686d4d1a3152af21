"""Make a DMS."""

from __future__ import annotations

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.services.dms.model.dms import Dms, DmsDraft
from lamassu.services.dms.model.documents import dms_document
from lamassu.services.dms.ports import DmsStore
from lamassu.services.dms.usecases import journal
from lamassu.services.dms.usecases.judge_settings import SettingsJudge


async def create_dms(
    store: DmsStore, judge: SettingsJudge, clock: Clock, draft: DmsDraft, *, caller: Caller
) -> Dms:
    """Judge the draft and store it. Raises `RuleViolation`, `Conflict` (`DMS already exists`)."""
    settings = await judge.judge(draft)
    dms = Dms(
        id=draft.id,
        name=draft.name,
        created_at=clock.now(),
        settings=settings,
        metadata=draft.metadata or {},
    )
    async with store.unit() as unit:
        await unit.insert(dms)
        journal.tell(unit, journal.CREATE, dms, dms_document(dms), caller=caller)
    return dms
