"""What the log shows: checkpoint, tiles, entries and proofs, up to the newest signed head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.kernel.merkle import (
    WIDTH,
    Span,
    Tile,
    bundled,
    consistency_spans,
    inclusion_spans,
    packed,
    proof_from,
    tiles_for,
)
from lamassu.services.ca.ports import IssuanceLogStore
from lamassu.services.ca.rules.issuance_log import LogHead

MOST_ENTRIES = 100
"""Entries of one certificate that are proved at once: the newest."""


@dataclass(frozen=True, slots=True)
class ProvedEntry:
    """An entry, where it stands, and why that is in the tree."""

    position: int
    body: bytes
    proof: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A certificate's entries, proved in the tree of `note`."""

    note: str
    size: int
    entries: Sequence[ProvedEntry]


class Proofs:
    """Reads; nothing here changes the log."""

    def __init__(self, store: IssuanceLogStore) -> None:
        self._store = store

    async def signed_head(self) -> LogHead:
        """The log with its newest checkpoint. Raises `NotFound` (`log_not_signed`)."""
        head = await self._store.head()
        if not head.note:
            raise NotFound(
                "the log has no signed head yet; it gets one within a second of the start",
                code="log_not_signed",
            )
        return head

    async def tile(self, level: int, number: int, width: int) -> bytes:
        """A tile's hashes. Raises `NotFound` (`no_such_tile`) beyond the signed tree."""
        head = await self.signed_head()
        stands = head.signed_size >> (8 * level) if level < 8 else 0
        if number * WIDTH + width > stands:
            raise _no_such_tile()
        tiles = await self._store.tiles({Tile(level, number)})
        hashes = tiles.get(Tile(level, number), ())[:width]
        if len(hashes) < width:
            raise RuleViolation("a tile of the log has lost hashes", code="log_damaged")
        return packed(hashes)

    async def bundle(self, number: int, width: int) -> bytes:
        """The entries beneath a tile of level 0. Raises as `tile`."""
        head = await self.signed_head()
        begin = number * WIDTH
        if begin + width > head.signed_size:
            raise _no_such_tile()
        return bundled(await self._store.entries(begin, begin + width))

    async def inclusion(self, serial_number: str) -> Inclusion:
        """Raises `NotFound` (`certificate_not_logged`)."""
        head = await self.signed_head()
        found = [
            (position, body)
            for position, body in await self._store.entries_of(serial_number, limit=MOST_ENTRIES)
            if position < head.signed_size
        ]
        if not found:
            raise NotFound(
                "the log holds nothing of this certificate; what was just issued is there"
                " within a second",
                code="certificate_not_logged",
                field="serial",
            )
        spans = [inclusion_spans(position, head.signed_size) for position, _ in found]
        proofs = await self._proofs(spans)
        entries = [
            ProvedEntry(position, body, proof)
            for (position, body), proof in zip(found, proofs, strict=True)
        ]
        return Inclusion(head.note, head.signed_size, entries)

    async def consistency(self, first: int, second: int | None) -> tuple[int, Sequence[bytes]]:
        """The later size (the newest signed one by default) and the proof. Raises
        `RuleViolation` (`size_beyond_head`, `sizes_reversed`)."""
        head = await self.signed_head()
        size = head.signed_size if second is None else second
        if size > head.signed_size:
            raise RuleViolation(
                f"the signed tree has {head.signed_size} entries; ask for at most so many",
                code="size_beyond_head",
                field="second",
            )
        return size, (await self._proofs([consistency_spans(first, size)]))[0]

    async def _proofs(self, spans: Sequence[list[Span]]) -> Sequence[Sequence[bytes]]:
        tiles = await self._store.tiles(tiles_for(span for each in spans for span in each))
        return [proof_from(each, tiles) for each in spans]


def _no_such_tile() -> NotFound:
    return NotFound("the signed tree has no such tile", code="no_such_tile", field="path")
