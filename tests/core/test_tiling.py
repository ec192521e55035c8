"""Tiles as arithmetic: what a plan promises, without pixels of any image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet_seg.core.architecture import Architecture, grid_px, margin_px, output_size
from napari_unet_seg.core.tiling import SEAM_PX, Span, Tile, halo_px, mirrored_indices, plan_tiles, subdivide

sizes = st.integers(1, 200)
depths = st.integers(1, 5)


def coverage(shape: tuple[int, int], tiles: tuple[Tile, ...]) -> np.ndarray:
    counts = np.zeros(shape, int)
    for tile in tiles:
        counts[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] += 1
    return counts


@given(sizes, sizes, st.integers(1, 150), depths)
def test_tiles_cover_every_pixel_exactly_once(height: int, width: int, side: int, depth: int) -> None:
    assert (coverage((height, width), plan_tiles(Span(0, height), Span(0, width), side, depth)) == 1).all()


@given(sizes, sizes, st.integers(1, 150), st.integers(1, 100), depths)
def test_smaller_tiles_cover_the_same_pixels(
    height: int, width: int, side: int, smaller: int, depth: int
) -> None:
    tiles = plan_tiles(Span(0, height), Span(0, width), side, depth)
    pieces = tuple(piece for tile in tiles for piece in subdivide(tile, smaller, depth))
    assert (coverage((height, width), pieces) == 1).all()


@given(sizes, sizes, st.integers(1, 150), depths)
def test_every_tile_lies_on_the_pooling_grid(height: int, width: int, side: int, depth: int) -> None:
    grid = grid_px(depth)
    for tile in plan_tiles(Span(0, height), Span(0, width), side, depth):
        for span, padded in ((tile.rows, tile.padded_rows), (tile.columns, tile.padded_columns)):
            assert padded.start == span.start
            assert padded.start % grid == padded.stop % grid == 0
            assert 0 <= padded.stop - span.stop < grid


@given(depths, st.integers(1, 20))
def test_a_tile_with_its_halo_is_a_size_the_unpadded_network_takes(depth: int, steps: int) -> None:
    side = steps * grid_px(depth)
    architecture = Architecture(depth=depth, padding="valid")
    assert output_size(side + 2 * halo_px(depth), architecture) == side + 2 * SEAM_PX


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_halo_lies_within_the_margin_of_the_whole_image_pass(depth: int) -> None:
    assert halo_px(depth) <= margin_px(depth)


def test_a_tile_is_clipped_to_the_image() -> None:
    (tile,) = plan_tiles(Span(0, 20), Span(0, 5), side_px=512, depth=4)
    assert tile.padded_shape == (32, 16)


def test_tiles_of_a_part_start_on_the_grid_of_the_plane() -> None:
    (tile,) = plan_tiles(Span(37, 60), Span(16, 20), side_px=64, depth=4)
    assert (tile.rows, tile.columns) == (Span(32, 60), Span(16, 20))


@pytest.mark.parametrize("length", [2, 3, 7, 50])
def test_mirroring_is_numpys_reflection(length: int) -> None:
    expected = np.pad(np.arange(length), 96, mode="reflect")
    np.testing.assert_array_equal(mirrored_indices(-96, length + 96, length), expected)


def test_a_single_pixel_is_mirrored_into_itself() -> None:
    assert mirrored_indices(-5, 5, 1).tolist() == [0] * 10
