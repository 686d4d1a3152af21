"""The Merkle tree against RFC 6962's known answers and against its definition, written out."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.merkle import (
    EMPTY_ROOT,
    WIDTH,
    Edge,
    Tile,
    all_tiles,
    bundled,
    consistency_spans,
    edge_tiles,
    entries_path,
    inclusion_spans,
    leaf_hash,
    packed,
    parse_index_path,
    proof_from,
    root_from,
    tile_path,
    tiles_for,
    unbundled,
    unpacked,
    verify_consistency,
    verify_inclusion,
)

# The tree of RFC 6962's reference implementation: its leaves and the roots of sizes 1 to 8.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = [  # leaf, size, proof
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]
CONSISTENCY = [  # first, second, proof
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def defined_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1 word by word, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    both = defined_root(leaves[:k]) + defined_root(leaves[k:])
    return hashlib.sha256(b"\x01" + both).digest()


class Tree:
    """A tree in memory, kept as tiles."""

    def __init__(self, leaves: list[bytes], *, step: int = 1 << 20) -> None:
        self.leaves = leaves
        self.tiles: dict[Tile, list[bytes]] = {}
        edge = Edge()
        for at in range(0, len(leaves), step):
            edge = Edge(edge.size, self.tiles)  # as after a restart
            for tile, hashes in edge.append(leaves[at : at + step]).items():
                self.tiles[tile] = list(hashes)
        self.root = edge.root()

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return self._proof(inclusion_spans(index, size))

    def consistency(self, first: int, second: int) -> list[bytes]:
        return self._proof(consistency_spans(first, second))

    def _proof(self, spans: list[tuple[int, int]]) -> list[bytes]:
        needed = tiles_for(spans)
        return proof_from(spans, {tile: self.tiles[tile] for tile in needed})


def numbered(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


BIG = Tree(numbered(70_000), step=997)


def test_roots_are_those_of_rfc_6962s_reference() -> None:
    assert Edge().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()
    hashes = [leaf_hash(entry) for entry in LEAVES]

    assert [Tree(hashes[:size]).root.hex() for size in range(1, 9)] == ROOTS


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference(
    index: int, size: int, proof: list[str]
) -> None:
    hashes = [leaf_hash(entry) for entry in LEAVES]

    made = Tree(hashes).inclusion(index, size)

    assert [each.hex() for each in made] == proof
    verify_inclusion(hashes[index], index, size, made, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference(
    first: int, second: int, proof: list[str]
) -> None:
    made = Tree([leaf_hash(entry) for entry in LEAVES]).consistency(first, second)

    assert [each.hex() for each in made] == proof
    roots = [bytes.fromhex(root) for root in ROOTS]
    verify_consistency(first, roots[first - 1], second, roots[second - 1], made)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1200), st.integers(1, 400))
def test_a_tree_grown_in_any_steps_has_the_root_that_is_defined(size: int, step: int) -> None:
    leaves = numbered(size)
    tree = Tree(leaves, step=step)

    assert tree.root == defined_root(leaves)
    assert root_from(size, tree.tiles) == tree.root


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_leaf_is_proved_in_every_later_tree_and_nothing_else_is(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, len(BIG.leaves)))
    index = data.draw(st.integers(0, size - 1))
    root = root_from(size, BIG.tiles)
    proof = BIG.inclusion(index, size)

    verify_inclusion(BIG.leaves[index], index, size, proof, root)

    with pytest.raises(RuleViolation):
        verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
    with pytest.raises(RuleViolation):
        verify_inclusion(BIG.leaves[index], index, size, [*proof, bytes(32)], root)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        altered = [*proof[:at], bytes(32), *proof[at + 1 :]]
        with pytest.raises(RuleViolation):
            verify_inclusion(BIG.leaves[index], index, size, altered, root)
        with pytest.raises(RuleViolation):
            verify_inclusion(BIG.leaves[index], index ^ 1 if size > 1 else 0, size, proof, root)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_earlier_tree_is_proved_a_beginning_and_no_other_is(data: st.DataObject) -> None:
    second = data.draw(st.integers(1, len(BIG.leaves)))
    first = data.draw(st.integers(0, second))
    roots = root_from(first, BIG.tiles), root_from(second, BIG.tiles)
    proof = BIG.consistency(first, second)

    verify_consistency(first, roots[0], second, roots[1], proof)

    with pytest.raises(RuleViolation):
        verify_consistency(first, bytes(32), second, roots[1], proof)
    if first:
        with pytest.raises(RuleViolation):
            verify_consistency(first, roots[0], second, bytes(32), proof)
    with pytest.raises(RuleViolation):
        verify_consistency(first, roots[0], second, roots[1], [*proof, bytes(32)])
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        altered = [*proof[:at], bytes(32), *proof[at + 1 :]]
        with pytest.raises(RuleViolation):
            verify_consistency(first, roots[0], second, roots[1], altered)


def test_the_edge_of_ten_million_leaves_is_a_few_hashes() -> None:
    held = sum(width for _, width in edge_tiles(10_000_000))

    assert held < 3 * WIDTH
    assert len(tiles_for(inclusion_spans(4_711, 10_000_000))) < 12


def test_the_example_of_tlog_tiles_has_the_tiles_that_it_names() -> None:
    widths = [(tile.level, width) for tile, width in all_tiles(70_000)]

    assert widths.count((0, 256)) == 273
    assert [each for each in widths if each[1] < WIDTH] == [(0, 112), (1, 17), (2, 1)]
    assert widths.count((1, 256)) == 1
    assert set(BIG.tiles) == {tile for tile, _ in all_tiles(70_000)}


def test_tiles_that_were_full_before_are_not_named_again() -> None:
    later = list(all_tiles(70_000, since=69_000))

    assert later[0] == (Tile(0, 269), 256)
    assert {tile for tile, _ in later} <= {tile for tile, _ in all_tiles(70_000)}
    assert len(later) < 10


@pytest.mark.parametrize(
    ("index", "width", "path"),
    [
        (0, 256, "000"),
        (67, 12, "067.p/12"),
        (1_234_067, 256, "x001/x234/067"),
        (999_999, 1, "x999/999.p/1"),
    ],
)
def test_paths_of_tiles_go_there_and_back(index: int, width: int, path: str) -> None:
    assert tile_path(Tile(3, index), width) == f"tile/3/{path}"
    assert entries_path(index, width) == f"tile/entries/{path}"
    assert parse_index_path(path) == (index, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "1",
        "0001",
        "x000/001",
        "001/002",
        "000.p/0",
        "000.p/256",
        "000.p/01",
        "000.p/",
        "../000",
        "x001/x001/x001/x001/x001/x001/x001/001",
        "٠٠٠",
        "000.p/٣",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(Malformed):
        parse_index_path(path)


@given(st.lists(st.binary(max_size=300), max_size=40))
def test_bundles_and_tiles_go_there_and_back(entries: list[bytes]) -> None:
    hashes = [leaf_hash(entry) for entry in entries]

    assert unbundled(bundled(entries)) == entries
    assert unpacked(packed(hashes)) == hashes
    if entries:
        with pytest.raises(Malformed):
            unbundled(bundled(entries)[:-1] if entries[-1] else b"\x00\x05a")


def test_an_edge_that_lost_hashes_is_refused() -> None:
    with pytest.raises(RuleViolation, match="lost hashes"):
        Edge(70_000, {tile: hashes[:-1] for tile, hashes in BIG.tiles.items()})
