"""Set keys aside that an engine holds and no row knows."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory

ORPHAN_AGE = timedelta(hours=1)


async def sweep_orphans(
    *, engines: EngineDirectory, storage: KeyStorage, now: datetime
) -> list[str]:
    """Run at start; returns the ids set aside.

    Orphans come from a crash between an engine's write and the row's commit, or between a
    row's removal and the engine's. Young ones are left: another process may be about to commit.
    None is destroyed: beside a restored or mistaken database, every key would look like one.
    """
    orphans: list[str] = []
    for engine in engines:
        if not engine.lists_keys:
            continue
        try:
            held = await engine.key_ids(made_before=now - ORPHAN_AGE)
        except Unavailable:
            continue  # out of reach now: its orphans wait for another start
        known = await storage.known_among(held)
        for key_id in held:
            if key_id not in known:
                with suppress(Unavailable):  # one that may not be touched stays where it is
                    await engine.set_aside(key_id)
                    orphans.append(key_id)
    return orphans
