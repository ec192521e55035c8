"""Rescaling: where pixels go, and that a resampled tile is a crop of the resampled whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet_seg.core import rescaling
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.rescaling import (
    choose_zoom,
    linear_weights,
    unzoom_into,
    unzoomed_owner,
    zoomed_length,
    zoomed_region,
    zoomed_weights,
)
from napari_unet_seg.core.tiling import Span

zooms = st.floats(0.05, 8)


def zoomed(
    plane: np.ndarray, zoom: tuple[float, float], region: tuple[Span, Span] | None = None
) -> np.ndarray:
    def read(rows: Span, columns: Span) -> np.ndarray:
        return plane[:, rows.start : rows.stop, columns.start : columns.stop]

    shape = zoomed_length(plane.shape[1], zoom[0]), zoomed_length(plane.shape[2], zoom[1])
    rows, columns = region or (Span(0, shape[0]), Span(0, shape[1]))
    return zoomed_region(read, plane.shape[1:], rows, columns, zoom)


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, np.float32)


@given(st.integers(1, 60), zooms)
def test_weights_of_every_output_pixel_sum_to_one_inside_the_image(length: int, zoom: float) -> None:
    weights = zoomed_weights(0, zoomed_length(length, zoom), length, zoom)
    np.testing.assert_allclose(weights.weights.sum(axis=1), 1, rtol=1e-5)
    assert (weights.weights >= 0).all()
    assert weights.indices.min() >= 0
    assert weights.indices.max() < length


@given(zooms)
def test_an_inner_output_pixel_sits_where_the_contract_says(zoom: float) -> None:
    weights = zoomed_weights(0, zoomed_length(100, zoom), 100, zoom)
    centres = (weights.weights * weights.indices).sum(axis=1)
    expected = (np.arange(centres.size) + 0.5) / zoom - 0.5
    inner = (expected > 1 / zoom + 1) & (expected < 98 - 1 / zoom)
    np.testing.assert_allclose(centres[inner], expected[inner], atol=0.51 if zoom < 1 else 1e-3)


def test_enlarging_is_linear() -> None:
    row = np.array([[[0.0, 4.0]]], np.float32)
    np.testing.assert_allclose(zoomed(row, (1, 4))[0, 0], [0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])


def test_shrinking_averages_the_area_that_a_pixel_covers() -> None:
    row = np.array([[[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]], np.float32)
    np.testing.assert_allclose(zoomed(row, (1, 0.5))[0, 0], [1.5, 3.5, 5.5])
    np.testing.assert_allclose(
        zoomed(row, (1, 2 / 3))[0, 0],
        [(1 + 2 / 2) / 1.5, (2 / 2 + 3) / 1.5, (4 + 5 / 2) / 1.5, (5 / 2 + 6) / 1.5],
    )


@given(st.integers(1, 40), st.integers(1, 40), zooms, zooms, st.data())
def test_a_resampled_tile_is_a_crop_of_the_resampled_whole(
    height: int, width: int, zoom_y: float, zoom_x: float, data: st.DataObject
) -> None:
    plane = picture(2, height, width)
    whole = zoomed(plane, (zoom_y, zoom_x))
    spans = []
    for length in whole.shape[1:]:
        start = data.draw(st.integers(0, length - 1))
        spans.append(Span(start, data.draw(st.integers(start + 1, length))))
    tile = zoomed(plane, (zoom_y, zoom_x), (spans[0], spans[1]))
    np.testing.assert_array_equal(
        tile, whole[:, spans[0].start : spans[0].stop, spans[1].start : spans[1].stop]
    )


def test_shrinking_in_bands_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = picture(1, 90, 50)
    at_once = zoomed(plane, (0.3, 0.4))
    monkeypatch.setattr(rescaling, "BAND_PX", 200)
    np.testing.assert_array_equal(zoomed(plane, (0.3, 0.4)), at_once)


def test_only_the_pixels_that_are_needed_are_read() -> None:
    reads = []

    def read(rows: Span, columns: Span) -> np.ndarray:
        reads.append((rows, columns))
        return np.zeros((1, rows.length, columns.length), np.float32)

    zoomed_region(read, (1000, 1000), Span(100, 110), Span(0, 10), (0.5, 2.0))
    assert reads == [(Span(200, 221), Span(0, 6))]


def test_a_constant_plane_stays_constant() -> None:
    np.testing.assert_allclose(zoomed(np.full((1, 7, 9), 3, np.float32), (0.37, 2.3)), 3, rtol=1e-6)


@given(st.integers(1, 100), zooms, st.integers(1, 30))
def test_every_image_pixel_goes_back_from_exactly_one_tile(length: int, zoom: float, side: int) -> None:
    n_zoomed = zoomed_length(length, zoom)
    spans = [
        unzoomed_owner(Span(start, min(start + side, n_zoomed)), length, n_zoomed, zoom)
        for start in range(0, n_zoomed, side)
    ]
    assert [pixel for span in spans for pixel in range(span.start, span.stop)] == list(range(length))


@given(st.integers(1, 100), zooms, st.integers(1, 30))
def test_going_back_needs_one_pixel_beyond_the_tile_at_most(length: int, zoom: float, side: int) -> None:
    n_zoomed = zoomed_length(length, zoom)
    for start in range(0, n_zoomed, side):
        tile = Span(start, min(start + side, n_zoomed))
        span = unzoomed_owner(tile, length, n_zoomed, zoom)
        if span.length == 0:
            continue
        indices = linear_weights(span.start, span.stop, n_zoomed, 1 / zoom).indices
        assert tile.start <= indices.min()
        assert indices.max() <= tile.stop


def test_there_and_back_keeps_a_smooth_picture_in_place() -> None:
    y, x = np.mgrid[:40, :50].astype(np.float32)
    plane = (y + 2 * x)[np.newaxis]
    for zoom in ((2.0, 3.0), (0.5, 0.8)):
        there = zoomed(plane, zoom)
        back = np.empty_like(plane)
        unzoom_into(back, there, (0, 0), (Span(0, 40), Span(0, 50)), there.shape[1:], zoom)
        np.testing.assert_allclose(back[0, 3:-3, 3:-3], plane[0, 3:-3, 3:-3], atol=0.35)


def test_an_explicit_zoom_beats_the_pixel_size() -> None:
    assert choose_zoom(2.0, (8.0, 8.0), 4.0, None).zoom == (2, 2)


def test_larger_pixels_than_the_models_are_enlarged_on_each_axis() -> None:
    assert choose_zoom(None, (8.0, 2.0), 4.0, None).zoom == (2, 0.5)


def test_a_model_that_knows_only_a_diameter_ignores_the_pixel_size_and_says_so() -> None:
    choice = choose_zoom(None, (8.0, 8.0), None, 30.0)
    assert choice.zoom == (1, 1)
    assert choice.note is not None
    assert "ignored" in choice.note
    assert "30 px" in choice.note
    assert choice.unknown is not None
    assert "ignored" in choice.unknown


def test_an_unknown_pixel_size_is_zoom_one_and_is_said() -> None:
    choice = choose_zoom(None, None, 4.0, None)
    assert choice.zoom == (1, 1)
    assert choice.note is not None
    assert "unknown" in choice.note
    assert choice.unknown is not None


def test_a_model_that_knows_no_size_at_all_is_used_at_zoom_one() -> None:
    for size in (None, (8.0, 8.0)):
        choice = choose_zoom(None, size, None, None)
        assert (choice.zoom, choice.unknown) == ((1, 1), None)
        assert choice.note is not None


def test_a_learned_zoom_holds_where_sizes_say_nothing() -> None:
    assert choose_zoom(None, None, 4.0, None, 0.5).zoom == (0.5, 0.5)
    assert choose_zoom(None, (8.0, 8.0), None, 30.0, 1.0).unknown is None
    assert choose_zoom(None, (8.0, 8.0), 4.0, None, 0.5).zoom == (2, 2), "they say something"


@pytest.mark.parametrize("arguments", [(1000.0, None, None), (None, (4e6, 4e6), 4.0)])
def test_an_absurd_zoom_is_refused(
    arguments: tuple[float | None, tuple[float, float] | None, float | None],
) -> None:
    with pytest.raises(InputError, match="zoom"):
        choose_zoom(*arguments, None)
