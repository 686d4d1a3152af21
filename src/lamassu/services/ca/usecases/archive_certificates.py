"""Archive certificates that ended long ago, a batch at a time."""

from __future__ import annotations

from datetime import timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.ca.ports import CaStore

BATCH = 1000
SHORTEST = timedelta(days=1)
"""A clock that jumped ahead by less archives nothing that still lives."""


class Archiving:
    """Each batch is one transaction: stopped anywhere, the next one goes on."""

    def __init__(self, *, store: CaStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run(self, older_than: timedelta, *, caller: Caller) -> int:
        """Archive at most a batch of what ended longer ago: how many; 0 when none is left.

        CAs' own certificates stay, and so does what nobody has bound or refused yet. Raises
        `RuleViolation` (`retention_too_short`).
        """
        if older_than < SHORTEST:
            raise RuleViolation(
                "certificates stay for a day at least after they ended; archive later",
                code="retention_too_short",
                field="older_than",
            )
        now = self._clock.now()
        async with self._store.unit() as transaction:
            moved = await transaction.archive_ended(now - older_than, limit=BATCH, now=now)
            if moved:
                transaction.audit(
                    AuditRecord(
                        "ca.archive.certificates",
                        f"{moved[0]}…{moved[-1]}",
                        caller,
                        detail={"count": len(moved), "serial_numbers": list(moved)},
                    )
                )
        return len(moved)
