"""Where patches come from: annotated pixels of every plane, and each of them once in validation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet_seg.core.augmentation import AugmentSettings, Sample
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.sampling import PatchSampler, SamplingSettings, validation_tiles


def sample(
    shape: tuple[int, int],
    *,
    labels: np.ndarray | None = None,
    annotated: np.ndarray | None = None,
    grey: float = 0.5,
    channels: int = 1,
    weighted: bool = False,
) -> Sample:
    return Sample(
        np.full((channels, *shape), grey, np.float32),
        np.zeros(shape, np.int32) if labels is None else labels,
        np.ones(shape, bool) if annotated is None else annotated,
        np.ones(shape, np.float32) if weighted else None,
    )


def test_foreground_is_drawn_ten_times_as_densely_as_background() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[:, :20] = 3
    sampler = PatchSampler([sample((20, 40), labels=labels)], (8, 8))
    rng = np.random.default_rng(0)
    centres = [sampler.draw_centre(0, rng) for _ in range(4000)]
    is_foreground = np.array([labels[c] > 0 for c in centres])
    assert is_foreground.mean() == pytest.approx(10 / 11, abs=0.02)
    rows = np.array([y for y, _ in centres])
    assert rows.min() == 0
    assert rows.max() == 19
    assert rows.mean() == pytest.approx(9.5, abs=0.5)


def test_densities_are_configurable() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[:, :20] = 3
    sampler = PatchSampler(
        [sample((20, 40), labels=labels)], (8, 8), settings=SamplingSettings(background=1.0)
    )
    rng = np.random.default_rng(0)
    is_foreground = [labels[sampler.draw_centre(0, rng)] > 0 for _ in range(4000)]
    assert np.mean(is_foreground) == pytest.approx(0.5, abs=0.03)


@given(st.integers(0, 2**32 - 1), st.sets(st.tuples(st.integers(0, 12), st.integers(0, 16)), min_size=1))
def test_only_annotated_pixels_become_centres(seed: int, places: set[tuple[int, int]]) -> None:
    annotated = np.zeros((13, 17), bool)
    for place in places:
        annotated[place] = True
    labels = np.random.default_rng(seed).integers(0, 2, (13, 17)).astype(np.int32)
    sampler = PatchSampler([sample((13, 17), labels=labels, annotated=annotated)], (4, 4))
    rng = np.random.default_rng(seed)
    for _ in range(20):
        assert sampler.draw_centre(0, rng) in places


def test_every_patch_holds_an_annotated_pixel_even_of_a_single_one() -> None:
    annotated = np.zeros((100, 80), bool)
    annotated[99, 0] = True
    sampler = PatchSampler([sample((100, 80), annotated=annotated)], (16, 16), image_shape=(48, 48))
    rng = np.random.default_rng(0)
    for _ in range(50):
        patch = sampler.draw(rng)
        assert patch.image.shape == (1, 48, 48)
        assert patch.annotated.any()


def test_planes_are_picked_by_the_square_root_of_what_is_annotated() -> None:
    large, small = sample((60, 60), grey=0.0), sample((20, 20), grey=1.0)
    empty = sample((60, 60), annotated=np.zeros((60, 60), bool), grey=0.5)
    sampler = PatchSampler([large, empty, small], (4, 4), augmentation=AugmentSettings.none())
    rng = np.random.default_rng(0)
    grey = np.array([sampler.draw(rng).image.mean() for _ in range(2000)])
    assert set(np.unique(grey)) == {0.0, 1.0}
    assert grey.mean() == pytest.approx(20 / 80, abs=0.03)


def test_images_of_different_sizes_make_one_batch() -> None:
    samples = [
        sample((10, 90), weighted=True),
        sample((1, 1), weighted=True),
        sample((70, 65), weighted=True),
    ]
    batch = PatchSampler(samples, (32, 32), image_shape=(40, 40)).draw_batch(6, np.random.default_rng(0))
    assert batch.image.shape == (6, 1, 40, 40)
    assert batch.labels.shape == batch.annotated.shape == (6, 32, 32)
    assert batch.weights is not None
    assert batch.weights.shape == (6, 32, 32)
    assert np.isfinite(batch.image).all()


def test_the_same_seed_gives_bitwise_the_same_batch_and_another_seed_does_not() -> None:
    picture = np.random.default_rng(9).random((1, 120, 120), dtype=np.float32)
    source = Sample(picture, (picture[0] > 0.5).astype(np.int32), np.ones((120, 120), bool), picture[0])
    first, second, other = (
        PatchSampler([source], (64, 64)).draw_batch(4, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for name in ("image", "labels", "annotated", "weights"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.image, other.image)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12), st.integers(1, 12))
def test_validation_tiles_cover_every_annotated_pixel_once(
    height: int, width: int, tile_y: int, tile_x: int
) -> None:
    numbers = np.arange(1, height * width + 1, dtype=np.int32).reshape(height, width)
    annotated = numbers % 3 > 0
    tiles = validation_tiles(sample((height, width), labels=numbers, annotated=annotated), (tile_y, tile_x))
    seen = [label for tile in tiles for label in tile.labels[tile.annotated]]
    assert sorted(seen) == sorted(numbers[annotated])


def test_validation_tiles_are_plain_crops_with_context() -> None:
    picture = np.random.default_rng(0).random((1, 40, 40), dtype=np.float32)
    source = Sample(picture, np.zeros((40, 40), np.int32), np.ones((40, 40), bool), picture[0])
    tiles = list(validation_tiles(source, (20, 20), image_shape=(28, 28)))
    padded = np.pad(picture[0], 4, mode="reflect")
    assert len(tiles) == 4
    np.testing.assert_array_equal(tiles[3].image[0], padded[20:48, 20:48])
    np.testing.assert_array_equal(tiles[3].weights, picture[0, 20:, 20:])


def test_nothing_annotated_is_said_in_a_sentence() -> None:
    with pytest.raises(InputError, match="Nothing is annotated"):
        PatchSampler([sample((9, 9), annotated=np.zeros((9, 9), bool))], (4, 4))


def test_images_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(InputError, match="channels"):
        PatchSampler([sample((9, 9)), sample((9, 9), channels=3)], (4, 4))
    with pytest.raises(InputError, match="weight map"):
        PatchSampler([sample((9, 9)), sample((9, 9), weighted=True)], (4, 4))


def test_densities_of_zero_are_refused() -> None:
    with pytest.raises(InputError, match="above 0"):
        SamplingSettings(background=0.0)
