"""Finding kept answers again, and letting go of old ones."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import TooMany
from lamassu.kernel.repeats import KeptAnswer
from lamassu.platform.database.database import Database
from lamassu.platform.database.kept_answers import KEEPING, answers_table

RETENTION = timedelta(hours=24)
MOST_FOR_ONE = 100_000
"""Answers kept for one principal in one service: one a second all day, and more."""
_PURGED_AT_ONCE = 1000


class AnswerKeeper:
    """One per process. `most` bounds what is kept for one principal in one service."""

    def __init__(self, database: Database, clock: Clock, *, most: int = MOST_FOR_ONE) -> None:
        self._database = database
        self._clock = clock
        self._most = most
        # counted once, then kept in step until the next purge: other processes' come in then
        self._numbers: dict[tuple[str, str], int] = {}

    async def find(self, service: str, answer_id: str) -> KeptAnswer | None:
        """The answer, unless it is too old to be given again."""
        table = answers_table(service)
        query = select(table).where(table.c.id == answer_id)
        async with self._database.reading(service) as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        if row.created_at <= self._clock.now() - RETENTION:
            async with self._database.unit(service) as unit:
                await unit.connection.execute(delete(table).where(table.c.id == answer_id))
            return None
        return KeptAnswer(row.digest, row.status, row.body, row.headers)

    async def take_room(self, service: str, principal: str) -> None:
        """Count one more. Raises `TooMany` (`idempotency_keys_exhausted`)."""
        slot = (service, principal)
        number = self._numbers.get(slot)
        if number is None:
            table = answers_table(service)
            query = select(func.count()).where(table.c.principal == principal)
            async with self._database.reading(service) as connection:
                number = int((await connection.execute(query)).scalar_one())
        if number >= self._most:
            self._numbers[slot] = number
            raise TooMany(
                f"{self._most} answers are kept for you already, each for {RETENTION.days * 24}"
                " hours; send this without Idempotency-Key, or wait",
                code="idempotency_keys_exhausted",
                field="Idempotency-Key",
                retry_after=3600,
            )
        self._numbers[slot] = number + 1

    async def purge(self) -> int:
        """Let go of what is too old, and say how much that was."""
        before = self._clock.now() - RETENTION
        purged = 0
        for service in KEEPING:
            if service not in self._database.services:
                continue
            table = answers_table(service)
            old = (
                select(table.c.id).where(table.c.created_at <= before).limit(_PURGED_AT_ONCE)
            ).scalar_subquery()
            while True:
                async with self._database.unit(service) as unit:
                    result = await unit.connection.execute(delete(table).where(table.c.id.in_(old)))
                purged += result.rowcount
                if result.rowcount < _PURGED_AT_ONCE:
                    break
        self._numbers.clear()
        return purged
