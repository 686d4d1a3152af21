"""Keep the installation's mode, and let nobody lower it in passing."""

from __future__ import annotations

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.access import rules
from lamassu.services.access.contract import Mode
from lamassu.services.access.ports import AccessUnit, CredentialStore
from lamassu.services.access.usecases.settle_grounds import Settled


async def settle_mode(configured: Mode, *, caller: Caller, storage: CredentialStore) -> Mode:
    """See `InstallationMode.settle_mode`."""
    async with storage.unit() as unit:
        stored = await unit.lock_mode()
        mode = rules.settled_mode(configured, stored)
        if mode is not stored:
            await _put(mode, stored, caller=caller, unit=unit)
    return mode


async def lower_mode(*, caller: Caller, storage: CredentialStore, grounds: Settled) -> None:
    """See `InstallationMode.lower_mode`; `grounds` are those on which approvers allow it."""
    async with storage.unit() as unit:
        stored = await unit.lock_mode()
        if stored is not Mode.DEVELOPMENT:
            await grounds.note(unit, "access/mode", caller)
            await _put(Mode.DEVELOPMENT, stored, caller=caller, unit=unit, grounds=grounds.text)


async def _put(
    mode: Mode, before: Mode | None, *, caller: Caller, unit: AccessUnit, grounds: str = ""
) -> None:
    await unit.put_mode(mode)
    detail = {"from": before.value if before else "", "to": mode.value}
    if grounds:
        detail["grounds"] = grounds
    unit.audit(AuditRecord("access.mode", "access/mode", caller, detail=detail))
