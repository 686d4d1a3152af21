"""The Merkle tree of RFC 6962 §2.1 (RFC 9162 §2.1): hashes, tiles and proofs, without I/O.

A tree of `size` leaves is kept as tiles (C2SP tlog-tiles): the tile at (level L, number N) holds up
to 256 hashes, each of a whole subtree of 256^L leaves. A `Node` is a whole subtree of 2^level
leaves; every proof is made of nodes, and every node of the hashes of one tile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lamassu.kernel.errors import Malformed, RuleViolation

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes in a full tile."""
HASH_LENGTH = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
LARGEST_SIZE = (1 << 63) - 1
LONGEST_PROOF = 63


class Node(NamedTuple):
    """The whole subtree of leaves `number * 2^level` to `(number + 1) * 2^level`."""

    level: int
    number: int


class Tile(NamedTuple):
    """A place for up to 256 hashes."""

    level: int
    number: int


def leaf_hash(entry: bytes) -> bytes:
    """RFC 6962 §2.1: a leaf's hash begins with 0, so that no leaf can pass for a node."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1: a node's hash begins with 1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def whole_root(hashes: Sequence[bytes]) -> bytes:
    """The root of a whole subtree: of 2^n hashes side by side."""
    level = list(hashes)
    while len(level) > 1:
        level = [node_hash(*pair) for pair in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def folded(roots: Sequence[bytes]) -> bytes:
    """The root above whole subtrees of falling size, the largest first."""
    if not roots:
        return EMPTY_ROOT
    root = roots[-1]
    for left in reversed(roots[:-1]):
        root = node_hash(left, root)
    return root


class Edge:
    """The right edge of a tree, which is all of it that growing needs: one tile a level, each
    with less than 256 hashes."""

    def __init__(self, size: int = 0, tiles: Mapping[Tile, Sequence[bytes]] | None = None) -> None:
        """`tiles` are those of `edge_tiles(size)`. Raises `RuleViolation` (`log_damaged`)."""
        self.size = size
        self._levels: list[list[bytes]] = []
        for tile, width in edge_tiles(size):
            hashes = (tiles or {}).get(tile, ())
            if len(hashes) < width:
                raise RuleViolation(
                    f"tile {tile_path(tile)} of the log has lost hashes", code="log_damaged"
                )
            self._levels.append(list(hashes[:width]))

    def append(self, leaves: Iterable[bytes]) -> dict[Tile, list[bytes]]:
        """Add leaf hashes; the tiles that changed, with all their hashes."""
        changed: dict[Tile, list[bytes]] = {}
        for leaf in leaves:
            self._put(0, leaf, self.size, changed)
            self.size += 1
        return changed

    def root(self) -> bytes:
        """The tree's."""
        roots: list[bytes] = []
        for hashes in reversed(self._levels):
            roots += _whole_roots(hashes)
        return folded(roots)

    def _put(
        self, level: int, value: bytes, position: int, changed: dict[Tile, list[bytes]]
    ) -> None:
        if level == len(self._levels):
            self._levels.append([])
        hashes = self._levels[level]
        hashes.append(value)
        changed[Tile(level, position // WIDTH)] = hashes
        if len(hashes) == WIDTH:
            self._levels[level] = []
            self._put(level + 1, whole_root(hashes), position // WIDTH, changed)


def _whole_roots(hashes: Sequence[bytes]) -> list[bytes]:
    """The roots of the largest whole subtrees that these make up, from the left."""
    roots, begin = [], 0
    for bit in range(HEIGHT, -1, -1):
        if len(hashes) & 1 << bit:
            roots.append(whole_root(hashes[begin : begin + (1 << bit)]))
            begin += 1 << bit
    return roots


def edge_tiles(size: int) -> list[tuple[Tile, int]]:
    """The partial tile of each level, from the lowest, and its width, which may be 0."""
    found, level = [], 0
    while size:
        found.append((Tile(level, size // WIDTH), size % WIDTH))
        size //= WIDTH
        level += 1
    return found


def all_tiles(size: int, *, since: int = 0) -> Iterable[tuple[Tile, int]]:
    """Every tile of a tree and its width, but those that were full at size `since`."""
    level = 0
    while size:
        for index in range(since // WIDTH, (size + WIDTH - 1) // WIDTH):
            yield Tile(level, index), min(WIDTH, size - index * WIDTH)
        size, since = size // WIDTH, since // WIDTH
        level += 1


# --- proofs -------------------------------------------------------------------------------------

Span = tuple[int, int]
"""Leaves from the first up to, and without, the second."""


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose roots prove leaf `index` in a tree of `size`, from the leaf upwards
    (RFC 9162 §2.1.3.1)."""
    if not 0 <= index < size:
        raise RuleViolation(
            f"the tree of size {size} has no leaf {index}", code="no_such_leaf", field="index"
        )
    return _path(index, 0, size)


def _path(index: int, begin: int, end: int) -> list[Span]:
    spans: list[Span] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin = middle
    return spans[::-1]


def consistency_spans(first: int, second: int) -> list[Span]:
    """The subtrees whose roots prove that the tree of size `second` begins with that of size
    `first` (RFC 9162 §2.1.4.1)."""
    if not 0 <= first <= second:
        raise RuleViolation(
            "a later tree cannot be smaller: first is larger than second",
            code="sizes_reversed",
            field="first",
        )
    if first in (0, second):
        return []
    begin, end, whole = 0, second, True
    spans: list[Span] = []
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin, whole = middle, False
    if not whole:
        spans.append((begin, end))
    return spans[::-1]


def _split(size: int) -> int:
    """The largest power of two that is smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def nodes_of(span: Span) -> list[Node]:
    """The whole subtrees that make up a span, from the left; the span begins at a multiple of a
    power of two that it does not exceed, as those of proofs do."""
    begin, end = span
    nodes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return nodes


def tile_of(node: Node) -> Tile:
    """The tile whose hashes give this node's."""
    return Tile(node.level // HEIGHT, node.number >> (HEIGHT - node.level % HEIGHT))


def tiles_for(spans: Iterable[Span]) -> set[Tile]:
    """What must be read to make the proof."""
    return {tile_of(node) for span in spans for node in nodes_of(span)}


def proof_from(spans: Sequence[Span], tiles: Mapping[Tile, Sequence[bytes]]) -> list[bytes]:
    """The hashes of a proof. Raises `RuleViolation` (`log_damaged`) where a tile lacks some."""
    return [folded([_hash_of(node, tiles) for node in nodes_of(span)]) for span in spans]


def root_from(size: int, tiles: Mapping[Tile, Sequence[bytes]]) -> bytes:
    """The root of the tree of `size`, from the tiles that `tiles_for([(0, size)])` names."""
    return folded([_hash_of(node, tiles) for node in nodes_of((0, size))])


def _hash_of(node: Node, tiles: Mapping[Tile, Sequence[bytes]]) -> bytes:
    tile = tile_of(node)
    inside = node.level % HEIGHT
    begin = (node.number << inside) % WIDTH
    hashes = tiles.get(tile, ())[begin : begin + (1 << inside)]
    if len(hashes) != 1 << inside:
        raise RuleViolation(
            f"tile {tile_path(tile)} of the log has lost hashes", code="log_damaged"
        )
    return whole_root(hashes)


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """RFC 9162 §2.1.3.2. Raises `RuleViolation` (`not_included`)."""
    spans = inclusion_spans(index, size)
    if len(proof) == len(spans):
        value = leaf
        for (begin, _), sibling in zip(spans, proof, strict=True):
            value = node_hash(value, sibling) if begin > index else node_hash(sibling, value)
        if value == root:
            return
    raise RuleViolation(
        f"the proof does not lead from leaf {index} to the root of size {size}",
        code="not_included",
    )


def verify_consistency(
    first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """RFC 9162 §2.1.4.2. Raises `RuleViolation` (`not_consistent`)."""
    spans = consistency_spans(first, second)
    given = list(proof)
    if len(given) == len(spans):
        if first == 0 and first_root == EMPTY_ROOT:
            return
        if first == second and first_root == second_root:
            return
        if spans:
            if _power_of_two(first):
                # the first tree is itself a subtree of the second, whose root need not be sent
                given, spans = [first_root, *given], [(0, first), *spans]
            if _rebuilt(first, spans, given) == (first_root, second_root):
                return
    raise RuleViolation(
        f"the tree of size {second} does not continue the one of size {first}",
        code="not_consistent",
    )


def _power_of_two(number: int) -> bool:
    return number & (number - 1) == 0


def _rebuilt(first: int, spans: Sequence[Span], proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots, from the subtree at the end of the first tree upwards."""
    small = large = proof[0]
    for (begin, _), sibling in zip(spans[1:], proof[1:], strict=True):
        if begin < first:
            small, large = node_hash(sibling, small), node_hash(sibling, large)
        else:
            large = node_hash(large, sibling)
    return small, large


# --- tiles as files -----------------------------------------------------------------------------


def tile_path(tile: Tile, width: int = WIDTH) -> str:
    """Where C2SP tlog-tiles has it: `tile/0/x001/234`, with `.p/12` for a partial one."""
    return f"tile/{tile.level}/{_index_path(tile.number, width)}"


def entries_path(index: int, width: int = WIDTH) -> str:
    """The same for the entries whose hashes the level-0 tile `index` holds."""
    return f"tile/entries/{_index_path(index, width)}"


def _index_path(index: int, width: int) -> str:
    digits = f"{index:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    return path if width == WIDTH else f"{path}.p/{width}"


def parse_index_path(path: str) -> tuple[int, int]:
    """A tile's index and width from the end of its path. Raises `Malformed`."""
    whole, dot, partial = path.partition(".p/")
    parts = whole.split("/")
    numbers = [part.removeprefix("x") for part in parts]
    width = WIDTH
    if dot:
        width = int(partial) if partial.isascii() and partial.isdecimal() else 0
    plain = all(len(part) == 3 and part.isascii() and part.isdecimal() for part in numbers)
    if plain and len(parts) <= 7 and 0 < width <= WIDTH:
        index = int("".join(numbers))
        if _index_path(index, width) == path:
            return index, width
    raise Malformed(
        "a tile is named like x001/234 or x001/234.p/12 (C2SP tlog-tiles)", field="path"
    )


def packed(hashes: Sequence[bytes]) -> bytes:
    """A tile's content."""
    return b"".join(hashes)


def unpacked(content: bytes) -> list[bytes]:
    """A tile's hashes; bytes beyond the last whole one are left out."""
    whole = len(content) - len(content) % HASH_LENGTH
    return [content[at : at + HASH_LENGTH] for at in range(0, whole, HASH_LENGTH)]


def bundled(entries: Iterable[bytes]) -> bytes:
    """Entries as a bundle: each after its length, two bytes, big-endian."""
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def unbundled(content: bytes) -> list[bytes]:
    """A bundle's entries. Raises `Malformed` for one that is cut off."""
    entries, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 2], "big")
        entry = content[at + 2 : at + 2 + length]
        if at + 2 > len(content) or len(entry) != length:
            raise Malformed("a bundle of entries is cut off", code="bundle_malformed")
        entries.append(entry)
        at += 2 + length
    return entries


@dataclass(frozen=True, slots=True)
class Head:
    """A tree's size and root."""

    size: int
    root: bytes
