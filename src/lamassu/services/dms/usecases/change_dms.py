"""Change or remove a DMS: read under lock, judged, written with its event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch, apply_to_object
from lamassu.services.dms.model.dms import Dms, DmsDraft
from lamassu.services.dms.ports import DmsStore, DmsUnit
from lamassu.services.dms.usecases import journal
from lamassu.services.dms.usecases.dms_catalog import dms_not_found
from lamassu.services.dms.usecases.judge_settings import SettingsJudge


async def update_dms(
    store: DmsStore,
    judge: SettingsJudge,
    draft: DmsDraft,
    *,
    caller: Caller,
    expected_version: int | None = None,
) -> Dms:
    """Replace name, metadata and settings; absent metadata stay.

    Raises `NotFound`, `RuleViolation`, `Conflict` when it has another version than expected.
    """
    stored = await store.find(draft.id)
    if stored is None:
        raise dms_not_found()
    settings = await judge.judge(draft, stored=stored)
    async with store.unit() as unit:
        before = await _locked(unit, draft.id, expected_version)
        after = replace(
            before,
            name=draft.name,
            settings=settings,
            metadata=before.metadata if draft.metadata is None else draft.metadata,
            version=before.version + 1,
        )
        await unit.update(after)
        journal.tell_update(unit, journal.UPDATE, before, after, caller=caller)
    return after


async def patch_dms_metadata(
    store: DmsStore,
    dms_id: str,
    patches: Sequence[Patch],
    *,
    caller: Caller,
    expected_version: int | None = None,
) -> Dms:
    """Patch the metadata. Raises `NotFound`, `RuleViolation` (`patch_failed`), `Conflict`."""
    async with store.unit() as unit:
        before = await _locked(unit, dms_id, expected_version)
        if not patches:
            return before
        metadata = apply_to_object(before.metadata, patches)
        after = replace(before, metadata=metadata, version=before.version + 1)
        await unit.update(after)
        journal.tell_update(unit, journal.METADATA_UPDATE, before, after, caller=caller)
    return after


async def delete_dms(store: DmsStore, dms_id: str, *, caller: Caller) -> None:
    """Remove it; its devices stay and keep its name. Raises `NotFound`."""
    async with store.unit() as unit:
        before = await _locked(unit, dms_id, None)
        await unit.delete(dms_id)
        gone = replace(before, version=before.version + 1)
        journal.tell(unit, journal.DELETE, gone, {"ID": dms_id}, caller=caller)


async def _locked(unit: DmsUnit, dms_id: str, expected_version: int | None) -> Dms:
    dms = await unit.find_locked(dms_id)
    if dms is None:
        raise dms_not_found()
    if expected_version is not None and dms.version != expected_version:
        raise Conflict("the DMS was changed meanwhile; read it again", code="version_mismatch")
    return dms
