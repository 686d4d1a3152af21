"""Move a key into another engine: copied, proven there, switched, and only then removed.

Each step is durable before the next begins and can be repeated, so a move that a crash cut
off goes on when it is asked for again; what was switched is finished at the next start.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyMove, MoveStep
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.key_document import key_document
from lamassu.services.kms.usecases.prove_copy import prove_copy


class KeyMoving:
    """Moves between the configured engines."""

    def __init__(self, engines: EngineDirectory, storage: KeyStorage) -> None:
        self._engines = engines
        self._storage = storage

    async def plan(self, key: Key, engine_id: str, *, production: bool) -> KeyMove:
        """What a move would do, judged; nothing is changed, and both engines are asked.

        Raises `RuleViolation` (`unknown_engine`, `key_not_exportable`, `key_not_importable`,
        `unsupported_key`, `engine_not_for_ca_keys`), `Conflict` (`key_already_there`,
        `move_in_progress`), `Unavailable`.
        """
        target_id, target = self._engines.choose(engine_id)
        begun = await self._storage.find_move(key.key_id)
        if begun is not None:
            if begun.target != target_id:
                raise Conflict(
                    f"a move of this key from {begun.source} to {begun.target} has begun;"
                    " ask for that one again, so that it ends",
                    code="move_in_progress",
                    field="engine_id",
                )
            if production and begun.step is not MoveStep.SWITCHED:
                self._check_may_hold(key, target_id)  # it may have begun in development
            return begun
        if key.engine_id == target_id:
            raise Conflict(
                f"the key is in {target_id} already", code="key_already_there", field="engine_id"
            )
        source = self._engines.holding(key.engine_id)
        if not source.gives_out_keys:
            raise RuleViolation(
                f"engine {key.engine_id} gives no keys out; make a new key in {target_id}"
                " (for a CA: lamassu ca rekey)",
                code="key_not_exportable",
                field="engine_id",
            )
        if not target.takes_in_keys:
            raise RuleViolation(
                f"engine {target_id} takes no keys made elsewhere; make a new key in it"
                " (for a CA: lamassu ca rekey)",
                code="key_not_importable",
                field="engine_id",
            )
        rules.check_spec(key.spec, self._engines.facts_of(target_id))
        if production:
            self._check_may_hold(key, target_id)
        await source.check()
        await target.check()
        return KeyMove(key.key_id, key.engine_id, target_id, MoveStep.PLANNED)

    def _check_may_hold(self, key: Key, engine_id: str) -> None:
        facts = self._engines.facts_of(engine_id)
        rules.check_may_hold(key.purpose, facts, self._engines.facts())

    async def move(
        self, key: Key, engine_id: str, *, production: bool, caller: Caller, now: datetime
    ) -> Key:
        """Move the key, or go on with a move that was cut off. Raises as `plan`.

        Whatever fails before the switch leaves the key where it was and in use. One move of a
        key at a time: one that was judged before another ended would remove the key from where
        it is by now.
        """
        async with self._storage.alone(f"move/{key.key_id}"):
            current = await self._storage.find(key.key_id)
            if current is None:
                raise rules.key_not_found()
            return await self._move(
                current, engine_id, production=production, caller=caller, now=now
            )

    async def _move(
        self, key: Key, engine_id: str, *, production: bool, caller: Caller, now: datetime
    ) -> Key:
        plan = await self.plan(key, engine_id, production=production)
        if plan.step is not MoveStep.SWITCHED:
            plan = await self._begin(plan, caller, now)
            await self._copy(key, plan)
            try:
                plan = await self._switch(plan, caller)
            except NotFound:  # deleted meanwhile: no copy outlives it
                await self._engines.holding(plan.target).delete(plan.key_id)
                raise
        await self._finish(plan, caller)
        moved = await self._storage.find(key.key_id)
        if moved is None:
            raise rules.key_not_found()
        return moved

    async def finish_switched(self, caller: Caller) -> None:
        """At start: remove what moves that a crash cut off left behind in their old engines."""
        for move in await self._storage.moves():
            if move.step is MoveStep.SWITCHED:
                try:
                    await self._finish(move, caller)
                except Unavailable:
                    continue  # out of reach now: at another start

    async def _begin(self, plan: KeyMove, caller: Caller, now: datetime) -> KeyMove:
        begun = dataclasses.replace(plan, step=MoveStep.COPYING, begun_at=plan.begun_at or now)
        async with self._storage.unit() as unit:
            if await unit.lock(plan.key_id) is None:
                raise rules.key_not_found()
            if (await unit.rehearsals_of(plan.key_id, plan.target)).under_way:
                raise Conflict(
                    f"a rehearsal uses engine {plan.target} and will remove its copy of this key;"
                    " run the rehearsal to its end, then move the key",
                    code="rehearsal_in_progress",
                    field="engine_id",
                )
            await unit.save_move(begun)
            unit.audit(
                AuditRecord("kms.move.begin", f"kms/{plan.key_id}", caller, detail=_detail(plan))
            )
        return begun

    async def _copy(self, key: Key, move: KeyMove) -> None:
        source, target = self._engines.holding(move.source), self._engines.holding(move.target)
        private_key = await source.take_out(key.key_id, purpose=key.purpose)
        made = await target.take_in(private_key, purpose=key.purpose)
        if (made.key_id, made.public_key) != (key.key_id, key.public_key):
            raise Unavailable(
                f"engine {move.target} keeps another key than it was given; nothing was switched",
                code="key_damaged",
            )
        await prove_copy(key, target)

    async def _switch(self, move: KeyMove, caller: Caller) -> KeyMove:
        switched = dataclasses.replace(move, step=MoveStep.SWITCHED)
        subject = f"kms/{move.key_id}"
        async with self._storage.unit() as unit:
            key = await unit.lock(move.key_id)
            if key is None:
                raise rules.key_not_found()
            moved = dataclasses.replace(key, engine_id=move.target, version=key.version + 1)
            await unit.rehome(key, moved)
            await unit.save_move(switched)
            if key.purpose in rules.API_PURPOSES:
                data: dict[str, Json] = {
                    "updated": key_document(moved),
                    "previous": key_document(key),
                }
                unit.emit(Event("kms.move", subject, moved.version, data, caller))
            unit.audit(AuditRecord("kms.move", subject, caller, detail=_detail(move)))
        return switched

    async def _finish(self, move: KeyMove, caller: Caller) -> None:
        await self._engines.holding(move.source).delete(move.key_id)
        async with self._storage.unit() as unit:
            await unit.end_move(move.key_id)
            unit.audit(
                AuditRecord("kms.move.end", f"kms/{move.key_id}", caller, detail=_detail(move))
            )


def _detail(move: KeyMove) -> dict[str, Json]:
    return {"from": move.source, "to": move.target}
