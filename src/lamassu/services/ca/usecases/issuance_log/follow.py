"""Whether a log that was seen before goes on as it was: for monitors and witnesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamassu.kernel.errors import Malformed, NotFound, RuleViolation
from lamassu.kernel.merkle import (
    WIDTH,
    Head,
    Span,
    Tile,
    consistency_spans,
    proof_from,
    root_from,
    tile_path,
    tiles_for,
    unpacked,
    verify_consistency,
)
from lamassu.kernel.signed_note import Checkpoint, VerifierKey, parse_checkpoint, verify_note
from lamassu.services.ca.usecases.issuance_log.audit import TileSource

ALARMS = frozenset(
    (
        "checkpoint_unsigned",
        "checkpoint_forged",
        "log_renamed",
        "log_rolled_back",
        "log_forked",
        "log_damaged",
        "not_consistent",
    )
)
"""Codes that say that the log is not what it was, rather than out of reach."""


async def read_checkpoint(source: TileSource) -> Checkpoint:
    """The checkpoint, not judged. Raises `NotFound` (`no_checkpoint`), `Malformed`."""
    note = await source.read("checkpoint")
    if note is None:
        raise NotFound("there is no checkpoint here", code="no_checkpoint")
    try:
        return parse_checkpoint(note.decode())
    except UnicodeDecodeError:
        raise Malformed("not a checkpoint: it is no UTF-8", code="checkpoint_malformed") from None


async def follow(source: TileSource, *, key: VerifierKey, seen: Head | None) -> Checkpoint:
    """The newest checkpoint, if it is signed, its tiles make its root and it continues the head
    that was seen before. Raises `RuleViolation` with one of `ALARMS`."""
    checkpoint = await read_checkpoint(source)
    verify_note(checkpoint, key)
    new = checkpoint.head
    if checkpoint.origin != key.name:
        raise RuleViolation(f"the log calls itself {checkpoint.origin}", code="log_renamed")
    if seen is not None and new.size < seen.size:
        raise RuleViolation(
            f"the log was set back: it had {seen.size} entries and has {new.size}",
            code="log_rolled_back",
        )
    if seen is not None and new.size == seen.size and new.root != seen.root:
        raise RuleViolation(
            f"the log was forked: there are two signed heads of size {new.size}",
            code="log_forked",
        )
    tiles = await _tiles(source, tiles_for([(0, new.size)]), new.size)
    if root_from(new.size, tiles) != new.root:
        raise RuleViolation("the log's tiles do not make its signed root", code="log_damaged")
    if seen is not None and seen.size < new.size:
        proof = await consistency(source, seen.size, new.size)
        verify_consistency(seen.size, seen.root, new.size, new.root, proof)
    return checkpoint


async def consistency(source: TileSource, first: int, second: int) -> list[bytes]:
    """The proof between two sizes, from tiles. Raises `RuleViolation` (`log_damaged`)."""
    spans: list[Span] = consistency_spans(first, second)
    return proof_from(spans, await _tiles(source, tiles_for(spans), second))


async def _tiles(
    source: TileSource, wanted: set[Tile], size: int
) -> Mapping[Tile, Sequence[bytes]]:
    found: dict[Tile, Sequence[bytes]] = {}
    for tile in sorted(wanted):
        width = min(WIDTH, (size >> (8 * tile.level)) - tile.number * WIDTH)
        content = await source.read(tile_path(tile, width))
        if content is None and width < WIDTH:
            content = await source.read(tile_path(tile))
        found[tile] = unpacked(content or b"")
    return found
