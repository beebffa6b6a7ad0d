"""Tiles: names and numbers as in the examples of C2SP tlog-tiles, contents against the RFC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.merkle_reference import ReferenceTree
from tests.tile_reader import tile_name

from vram_residency.audit.format import tiles

REFERENCE = ReferenceTree(70_000)


def test_a_tile_s_name_is_that_of_the_specification() -> None:
    assert tiles.Tile(0, 1234067, 256).path == "tile/0/x001/x234/067"
    assert tiles.Tile(3, 1234067, 7).path == "tile/3/x001/x234/067.p/7"
    assert tiles.Tile("entries", 0, 255).path == "tile/entries/000.p/255"
    assert tiles.Tile("entries", 999, 256).path == "tile/entries/999"
    assert tiles.Tile(0, 1000, 256).path == "tile/0/x001/000"


@given(st.integers(0, 2**55), st.integers(1, 256), st.sampled_from([0, 1, 7, "entries"]))
def test_a_tile_s_name_is_what_an_independent_reader_asks_for(number: int, width: int, level: int) -> None:
    tile = tiles.Tile(level, number, width)
    assert tile.path == tile_name(level, number, width)
    assert tile.is_full == (width == 256)


def test_a_tree_of_70000_has_the_partial_tiles_that_the_specification_counts() -> None:
    partial = [tiles.Tile(0, 273, 112), tiles.Tile(1, 1, 17), tiles.Tile(2, 0, 1)]
    assert tiles.partial_tiles(70_000) == partial
    assert tiles.partial_tiles(256) == [tiles.Tile(1, 0, 1)]
    assert tiles.partial_tiles(0) == []


def test_every_tile_of_a_growing_tree_holds_the_reference_s_hashes() -> None:
    edge = tiles.TileEdge()
    filled = []
    for leaf_hash in REFERENCE.leaf_hashes:
        filled += edge.append(leaf_hash)
    assert len(filled) == 273 + 1
    for tile, data in [*filled, *edge.partial()]:
        span = 256 ** int(tile.level)
        first = tile.number * 256
        expected = [REFERENCE.mth((first + i) * span, (first + i + 1) * span) for i in range(tile.width)]
        assert tiles.split_hashes(data, tile.width) == expected
    assert edge.root() == REFERENCE.root(70_000)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 66_000])
def test_an_edge_goes_on_from_its_partial_tiles(size: int) -> None:
    levels: list[list[bytes]] = [[] for _ in tiles.widths(size)]
    for tile in tiles.partial_tiles(size):
        span = 256 ** int(tile.level)
        first = tile.number * 256
        levels[int(tile.level)] = [
            REFERENCE.mth((first + i) * span, (first + i + 1) * span) for i in range(tile.width)
        ]
    edge = tiles.TileEdge(size, levels)
    assert edge.root() == REFERENCE.root(size)
    before = edge.copy()
    for leaf_hash in REFERENCE.leaf_hashes[size : size + 600]:
        edge.append(leaf_hash)
    assert edge.root() == REFERENCE.root(size + 600)
    assert (before.size, before.root()) == (size, REFERENCE.root(size))


def test_an_edge_of_the_wrong_width_is_refused() -> None:
    for size, levels in [(1, []), (0, [[bytes(32)]]), (256, [[], []]), (2, [[bytes(32)]])]:
        with pytest.raises(tiles.TileFormatError, match="partial tiles"):
            tiles.TileEdge(size, levels)


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_entries_come_out_of_a_bundle_as_they_went_in(lines: list[bytes]) -> None:
    assert tiles.split_entries(tiles.join_entries(lines), len(lines)) == lines


def test_a_bundle_or_tile_of_another_length_is_refused() -> None:
    data = tiles.join_entries([b"a", b"", b"x" * 65_535])
    for bad, width in [(data[:-1], 3), (data, 2), (data, 4), (data + b"\0", 3), (b"\0", 0), (b"\0\5abcd", 1)]:
        with pytest.raises(tiles.TileFormatError):
            tiles.split_entries(bad, width)
    for size in (0, 31, 33, 64):
        with pytest.raises(tiles.TileFormatError, match="32 bytes"):
            tiles.split_hashes(bytes(size), 1)
