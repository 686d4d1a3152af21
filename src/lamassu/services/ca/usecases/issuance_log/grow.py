"""The log grows: what the journal holds for it becomes leaves, and the new head is signed.

Entries, tiles, head and the place in the journal are one transaction, so that a crash leaves
either the old tree or the new one. The head's row is the lock: one process appends at a time. A
head is signed only after it was committed, and its checkpoint is stored before anybody sees it,
for a larger size than every one before: two different heads of one size cannot come about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from lamassu.kernel.merkle import Edge, edge_tiles, leaf_hash
from lamassu.kernel.records import AuditRecord
from lamassu.kernel.signed_note import (
    Checkpoint,
    Signature,
    check_name,
    checkpoint_text,
    signed,
    verifier_key,
)
from lamassu.services.ca.ports import IssuanceLogStore, IssuanceLogUnit
from lamassu.services.ca.rules.issuance_log import LogHead, adoption_closed, opening
from lamassu.services.ca.usecases.issuance_log.log_keys import CALLER, make_log_key
from lamassu.services.kms.contract import KeyPurpose, Keys

BATCH = 1000
"""Entries appended in one transaction."""
PAGE = 500
"""Older rows taken into the log in one transaction."""
STRIDE = 1000
"""Positions of the journal without entries after which the log's place is saved anyway."""

log = structlog.get_logger(__name__)


class Growing:
    """What the relay calls whenever the CA's journal grew."""

    def __init__(
        self, *, store: IssuanceLogStore, keys: Keys, origin: Callable[[str], str]
    ) -> None:
        """`origin` makes the log's name of its key's id, once."""
        self._store = store
        self._keys = keys
        self._origin = origin
        self._looked = 0  # how far the journal holds nothing more for the log

    async def advance(self) -> int:
        """Adopt, append and sign some; how much was done, 0 when nothing is left to do."""
        head = await self._store.head()
        if not head.key_id:
            await self._open()
            return 1
        done = await self._adopt() if head.adopt_after is not None else 0
        done += await self._grow(head)
        if not done and head.unsigned:
            await self._sign(head)
        return done

    async def _open(self) -> None:
        key = await make_log_key(self._keys)
        origin = self._origin(key.key_id)
        check_name(origin)
        async with self._store.unit() as unit:
            head = await unit.lock_head()
            if head.key_id:
                return
            await unit.save_head(replace(head, key_id=key.key_id, origin=origin))
            unit.log(opening(origin, adopts=head.adopt_after is not None))
            unit.audit(
                AuditRecord(
                    "ca.log.open", "log", CALLER, detail={"key_id": key.key_id, "origin": origin}
                )
            )

    async def _adopt(self) -> int:
        """Take in certificates that were stored before the log was, a page at a time."""
        async with self._store.unit() as unit:
            head = await unit.lock_head()
            if head.adopt_after is None or head.adopt_before is None:
                return 0
            page = await unit.adopt_page(head.adopt_after, before=head.adopt_before, limit=PAGE)
            adopted = head.adopted + len(page)
            if page:
                await unit.save_head(replace(head, adopt_after=page[-1], adopted=adopted))
            else:
                await unit.save_head(replace(head, adopt_after=None))
                unit.log(adoption_closed(adopted))
        return len(page) or 1

    async def _grow(self, seen: LogHead) -> int:
        # the end first: what it counts is there when the entries are read
        last = await self._store.last_sequenced()
        if last <= max(seen.position, self._looked):
            return 0
        async with self._store.unit() as unit:
            head = await unit.lock_head()
            rows = await unit.sequenced(head.position, limit=BATCH)
            position = rows[-1].position if len(rows) == BATCH else max(last, head.position)
            if rows:
                position = max(position, rows[-1].position)
            elif position - head.position < STRIDE:
                self._looked = last
                return 0
            for row in rows:
                if not row.genuine:
                    log.error("log_entry_forged", position=row.position, subject=row.subject)
            entries = [row for row in rows if row.genuine]
            head = replace(head, position=position)
            await unit.append(head.size, entries)
            await unit.save_head(await _grown(unit, head, [row.body for row in entries]))
        return len(rows)

    async def _sign(self, head: LogHead) -> None:
        text = checkpoint_text(head.origin, head.head)
        key = await self._keys.get(head.key_id, purpose=KeyPurpose.PLATFORM)
        value = await self._keys.use(
            head.key_id, lambda key: signed(text, key), purpose=KeyPurpose.PLATFORM
        )
        mark = Signature(head.origin, verifier_key(head.origin, key.public_key).key_id, value)
        note = str(Checkpoint(head.origin, head.head, text, (mark,)))
        async with self._store.unit() as unit:
            locked = await unit.lock_head()
            if locked.note and locked.signed_size >= head.size:
                return  # another process was first: its checkpoint stands
            await unit.save_head(replace(locked, note=note, signed_size=head.size))


async def _grown(unit: IssuanceLogUnit, head: LogHead, entries: list[bytes]) -> LogHead:
    """The tiles with these leaves, and the head above them."""
    if not entries:
        return head
    partial = {tile for tile, width in edge_tiles(head.size) if width}
    edge = Edge(head.size, await unit.tiles(partial))
    await unit.save_tiles(edge.append(leaf_hash(entry) for entry in entries))
    return replace(head, size=edge.size, root=edge.root())
