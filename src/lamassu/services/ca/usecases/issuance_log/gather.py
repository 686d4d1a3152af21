"""Have witnesses sign the newest head, each with a proof from the head that it saw last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.signed_note import (
    Checkpoint,
    Signature,
    cosigned_at,
    parse_checkpoint,
    parse_signatures,
    verify_note,
)
from lamassu.services.ca.ports import IssuanceLogStore, Witness
from lamassu.services.ca.rules.issuance_log import Cosigned
from lamassu.services.ca.usecases.issuance_log.prove import Proofs

log = structlog.get_logger(__name__)


class Gathering:
    """This log's witnesses."""

    def __init__(
        self, *, store: IssuanceLogStore, proofs: Proofs, witnesses: Sequence[Witness]
    ) -> None:
        self._store = store
        self._proofs = proofs
        self._witnesses = tuple(witnesses)

    async def gather(self) -> int:
        """Ask each witness that has not signed the newest head; how many signed it now."""
        if not self._witnesses:
            return 0
        head = await self._store.head()
        if not head.note:
            return 0
        have = {one.witness: one for one in await self._store.cosignatures()}
        due = [
            each
            for each in self._witnesses
            if each.key.name not in have or have[each.key.name].size < head.signed_size
        ]
        asked = [self._ask(each, head.note, have.get(each.key.name)) for each in due]
        signed = [one for one in await asyncio.gather(*asked) if one is not None]
        if signed:
            async with self._store.unit() as unit:
                for one in signed:
                    await unit.save_cosignature(one)
            await self._publish(head.note)
        return len(signed)

    async def _ask(self, witness: Witness, note: str, before: Cosigned | None) -> Cosigned | None:
        try:
            return await self._signed_by(witness, note, before.size if before else 0)
        except LamassuError as error:
            log.warning("witness_refuses", witness=witness.key.name, reason=error.text)
            return None

    async def _signed_by(self, witness: Witness, note: str, old: int) -> Cosigned:
        checkpoint = parse_checkpoint(note)
        for _ in range(2):  # once more from where the witness says that it is
            _, proof = await self._proofs.consistency(old, checkpoint.head.size)
            answer = await witness.add_checkpoint(old, proof, note)
            if not isinstance(answer, int):
                mark = _verified(witness, checkpoint, answer)
                name = witness.key.name
                return Cosigned(name, checkpoint.head.size, str(mark), cosigned_at(mark))
            old = answer
            if old > checkpoint.head.size:
                raise RuleViolation(
                    f"the witness saw a head of size {old}, larger than this log's:"
                    " the log was set back",
                    code="log_rolled_back",
                )
        raise RuleViolation("the witness changes its mind", code="witness_unsteady")

    async def _publish(self, note: str) -> None:
        """The checkpoint with every witness's signature, once all have signed it."""
        checkpoint = parse_checkpoint(note)
        names = {each.key.name for each in self._witnesses}
        lines = [
            one.line
            for one in await self._store.cosignatures()
            if one.witness in names and one.size == checkpoint.head.size
        ]
        if len(lines) < len(names):
            return
        async with self._store.unit() as unit:
            head = await unit.lock_head()
            await unit.save_head(replace(head, witnessed=note + "".join(lines)))


def _verified(witness: Witness, checkpoint: Checkpoint, answer: str) -> Signature:
    key = witness.key
    marks = [
        one for one in parse_signatures(answer) if one.name == key.name and one.key_id == key.key_id
    ]
    verify_note(replace(checkpoint, signatures=tuple(marks)), key)
    return marks[0]
