"""Normalisation: what the affine map of a plane promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.normalisation import Normalisation, PlaneStatistics, apply, plane_statistics

RNG = np.random.default_rng(0)
PLANE = RNG.integers(10, 200, (2, 40, 50)).astype(np.uint8)


def normalised(plane: np.ndarray, kind: Any, **options: Any) -> np.ndarray:
    return apply(plane, plane_statistics(plane, Normalisation(kind), **options))


class LazyPlane:
    """A duck array that remembers how many pixels were asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype, self.most_read = values, values.shape, values.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part: np.ndarray = self.values[key]
        self.most_read = max(self.most_read, part.size)
        return part


def test_percentiles_become_zero_and_one() -> None:
    mapped = normalised(PLANE, "percentile")
    np.testing.assert_allclose(np.percentile(mapped, 1, axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.percentile(mapped, 99.8, axis=(1, 2)), 1, atol=1e-6)


def test_min_max_fills_the_unit_interval_in_each_channel() -> None:
    mapped = normalised(PLANE, "min-max")
    assert mapped.min(axis=(1, 2)).tolist() == [0, 0]
    assert mapped.max(axis=(1, 2)).tolist() == [1, 1]


def test_zero_mean_has_mean_zero_and_deviation_one() -> None:
    mapped = normalised(PLANE, "zero-mean")
    np.testing.assert_allclose(mapped.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(mapped.std(axis=(1, 2)), 1, atol=1e-5)


def test_max_norm_makes_the_longest_channel_vector_one() -> None:
    mapped = normalised(PLANE, "max-norm")
    assert np.sqrt((mapped**2).sum(axis=0)).max() == pytest.approx(1)


def test_none_keeps_the_values() -> None:
    np.testing.assert_array_equal(normalised(PLANE, "none"), PLANE)


@pytest.mark.parametrize("kind", ["percentile", "min-max", "zero-mean", "max-norm", "none"])
def test_a_constant_plane_stays_finite(kind: str) -> None:
    for value in (0, 7):
        assert np.isfinite(normalised(np.full((1, 3, 3), value, np.uint8), kind)).all()


def test_a_nearly_empty_plane_is_stretched_to_its_few_bright_pixels() -> None:
    plane = np.zeros((1, 100, 100), np.uint16)
    plane[0, 5, 5] = 900
    assert normalised(plane, "percentile").max() == 1


@pytest.mark.parametrize("kind", ["percentile", "min-max", "zero-mean", "none"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_inverting_equals_normalising_the_inverted_plane(kind: str, dtype: type) -> None:
    plane = PLANE.astype(dtype)
    turned = (
        255 - plane
        if dtype is np.uint8
        else plane.min(axis=(1, 2), keepdims=True) + plane.max(axis=(1, 2), keepdims=True) - plane
    )
    np.testing.assert_allclose(normalised(plane, kind, invert=True), normalised(turned, kind), atol=1e-4)


def test_nan_and_infinity_become_the_median_and_are_counted() -> None:
    plane = PLANE.astype(np.float32)
    plane[0, 0, 0], plane[0, 1, 1] = np.nan, np.inf
    statistics = plane_statistics(plane)
    assert statistics.n_not_finite == 2
    mapped = apply(plane, statistics)
    finite = plane[0][np.isfinite(plane[0])]
    expected = (np.median(finite) - statistics.offset[0]) / statistics.scale[0]
    assert mapped[0, 0, 0] == mapped[0, 1, 1] == pytest.approx(expected)
    assert np.isfinite(mapped).all()


def test_nan_that_the_sample_of_a_large_plane_misses_becomes_the_median_too() -> None:
    plane = np.full((1, 4100, 4100), 1500, np.float32)
    plane[0, :, ::2] = 1400
    plane[0, 1, 1] = np.nan
    statistics = plane_statistics(plane)
    assert statistics.n_not_finite == 0
    assert statistics.fill[0] in (1400, 1450, 1500)
    assert 0 <= apply(plane[:, :2, :2], statistics)[0, 1, 1] <= 1


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_wide_integers_keep_their_grey_values_when_inverted(dtype: type) -> None:
    plane = np.arange(200, dtype=dtype).reshape(1, 10, 20)
    inverted = apply(plane, plane_statistics(plane, invert=True))
    np.testing.assert_allclose(inverted, apply(199 - plane, plane_statistics(199 - plane)), atol=1e-6)


def test_a_channel_without_a_finite_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="no finite pixel"):
        plane_statistics(np.full((1, 4, 4), np.nan, np.float32))


def test_an_empty_plane_is_refused() -> None:
    with pytest.raises(InputError, match="no pixels"):
        plane_statistics(np.zeros((1, 0, 4), np.uint8))


def test_a_lazy_plane_is_measured_from_at_most_a_megapixel() -> None:
    lazy = LazyPlane(np.broadcast_to(np.arange(1500, dtype=np.uint16), (1, 1500, 1500)))
    assert plane_statistics(lazy) == plane_statistics(lazy)
    assert lazy.most_read <= 1_000_000


def test_small_differences_of_wide_numbers_survive() -> None:
    plane: np.ndarray[Any, Any] = 1e8 + np.arange(16, dtype=np.float64).reshape(1, 4, 4)
    np.testing.assert_allclose(normalised(plane, "min-max").ravel(), np.arange(16) / 15, atol=1e-6)


def test_apply_leaves_its_input_alone() -> None:
    plane = PLANE.astype(np.float32)
    before = plane.copy()
    apply(plane, PlaneStatistics((1.0, 2.0), (3.0, 4.0), (0.0, 0.0)))
    np.testing.assert_array_equal(plane, before)


def test_settings_survive_json() -> None:
    settings = Normalisation("percentile", 0.5, 99)
    assert Normalisation.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "values", [{}, {"kind": "nope"}, {"kind": "percentile", "low": "x"}, {"kind": ["a"]}]
)
def test_unreadable_settings_are_refused_with_a_sentence(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="ormalisation"):
        Normalisation.from_json(values)
