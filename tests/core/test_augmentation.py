"""Augmented patches: image, labels, mask and weights stay one picture, and the same seed repeats it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet_seg.core.augmentation import (
    AugmentSettings,
    Patch,
    Sample,
    draw_displacement,
    mirrored,
    sample_patch,
)
from napari_unet_seg.core.errors import InputError

PRESETS = [AugmentSettings.none(), AugmentSettings.paper(), AugmentSettings.default()]
SAME_GREY = {
    "brightness": (0.0, 0.0),
    "contrast": (1.0, 1.0),
    "gamma": (1.0, 1.0),
    "noise_sigma": 0.0,
    "blur_sigma_px": 0.0,
}
GEOMETRY_ONLY = replace(
    AugmentSettings.default(), **SAME_GREY, warp_probability=1.0, rotation_degrees=180.0, shift_px=12.0
)


def noise(shape: tuple[int, int], seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((channels, *shape), dtype=np.float32)


def plain_sample(image: np.ndarray) -> Sample:
    """Labels are the image in thousandths; everything is annotated; weights are the first channel."""
    labels = np.rint(image[0] * 1000).astype(np.int32)
    return Sample(image, labels, np.ones(labels.shape, bool), image[0].copy())


def blocks(shape: tuple[int, int] = (200, 220), block_px: int = 20) -> Sample:
    """Flat squares, each with its own label, grey value label / 200 and weight label."""
    y, x = np.indices(shape) // block_px
    labels = (y * 11 + x + 1).astype(np.int32)
    values = labels.astype(np.float32)
    return Sample(values[None] / 200, labels, np.ones(shape, bool), values)


def inside_blocks(labels: np.ndarray) -> np.ndarray:
    """True away from the edges of blocks and of the patch, where nothing is mixed by interpolation."""
    lowest = ndimage.minimum_filter(labels, 5, mode="constant", cval=-1)
    return lowest == ndimage.maximum_filter(labels, 5)


def assert_same(a: Patch, b: Patch) -> None:
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.annotated, b.annotated)
    if a.weights is not None:
        np.testing.assert_array_equal(a.weights, b.weights)


@pytest.mark.parametrize("shape", [(32, 48), (33, 47)])
def test_without_augmentation_a_patch_is_the_plain_crop(shape: tuple[int, int]) -> None:
    sample = plain_sample(noise((90, 100), channels=2))
    patch = sample_patch(sample, (50, 40), shape, AugmentSettings.none(), np.random.default_rng(0))
    top, left = 50 - shape[0] // 2, 40 - shape[1] // 2
    box = np.s_[top : top + shape[0], left : left + shape[1]]
    np.testing.assert_array_equal(patch.image, sample.image[:, box[0], box[1]])
    np.testing.assert_array_equal(patch.labels, sample.labels[box])
    np.testing.assert_array_equal(patch.annotated, sample.annotated[box])
    np.testing.assert_array_equal(patch.weights, sample.weights[box])


def test_drawing_a_patch_leaves_the_source_untouched() -> None:
    sample = plain_sample(noise((64, 64)))
    before = Sample(sample.image.copy(), sample.labels.copy(), sample.annotated.copy(), sample.weights.copy())
    for settings in PRESETS:
        patch = sample_patch(sample, (32, 32), (64, 64), settings, np.random.default_rng(1))
        patch.image[:] = -1
        patch.labels[:] = -1
    assert_same(Patch(**vars(sample)), Patch(**vars(before)))


@pytest.mark.parametrize("seed", range(8))
def test_image_labels_and_weights_move_together(seed: int) -> None:
    patch = sample_patch(blocks(), (100, 110), (120, 100), GEOMETRY_ONLY, np.random.default_rng(seed))
    inside = inside_blocks(patch.labels)
    assert inside.mean() > 0.3, "too little is left to compare"
    np.testing.assert_allclose(patch.image[0][inside] * 200, patch.labels[inside], atol=0.02)
    np.testing.assert_allclose(patch.weights[inside], patch.labels[inside], atol=0.02)


@pytest.mark.parametrize("seed", range(8))
def test_flips_and_quarter_turns_keep_every_value_exact(seed: int) -> None:
    settings = replace(AugmentSettings.none(), flips=True, rotate90=True)
    sample = plain_sample(noise((90, 100)))
    patch = sample_patch(sample, (45, 50), (31, 31), settings, np.random.default_rng(seed))
    crop = sample.image[0, 30:61, 35:66]
    turned = [np.rot90(flipped, k) for flipped in (crop, crop[:, ::-1]) for k in range(4)]
    assert any(np.array_equal(patch.image[0], t) for t in turned)
    np.testing.assert_array_equal(patch.labels, np.rint(patch.image[0] * 1000))


def test_all_eight_flips_and_turns_occur() -> None:
    settings = replace(AugmentSettings.none(), flips=True, rotate90=True)
    sample = plain_sample(noise((9, 9)))
    rng = np.random.default_rng(0)
    seen = {sample_patch(sample, (4, 4), (9, 9), settings, rng).image.tobytes() for _ in range(100)}
    assert len(seen) == 8


def test_a_turned_patch_that_is_not_square_keeps_its_shape() -> None:
    settings = replace(AugmentSettings.none(), flips=True, rotate90=True)
    rng = np.random.default_rng(0)
    for _ in range(8):
        patch = sample_patch(plain_sample(noise((50, 60))), (20, 20), (7, 12), settings, rng)
        assert patch.image.shape == (1, 7, 12)
        np.testing.assert_array_equal(patch.labels, np.rint(patch.image[0] * 1000))


@pytest.mark.parametrize("settings", PRESETS)
def test_the_same_seed_gives_bitwise_the_same_patch(settings: AugmentSettings) -> None:
    sample = plain_sample(noise((150, 140)))
    first, second = (
        sample_patch(sample, (70, 60), (64, 64), settings, np.random.default_rng(3)) for _ in range(2)
    )
    assert_same(first, second)


def test_different_seeds_give_different_patches() -> None:
    sample = plain_sample(noise((150, 140)))
    first, second = (
        sample_patch(sample, (70, 60), (64, 64), AugmentSettings.paper(), np.random.default_rng(seed))
        for seed in (1, 2)
    )
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.labels, second.labels)


def test_image_labels_mask_and_weights_are_mirrored_beyond_the_border() -> None:
    sample = plain_sample(noise((5, 6)))
    patch = sample_patch(sample, (0, 0), (9, 9), AugmentSettings.none(), np.random.default_rng(0))
    expected = np.pad(sample.image[0], ((4, 4), (4, 4)), mode="reflect")[:9, :9]
    np.testing.assert_array_equal(patch.image[0], expected)
    np.testing.assert_array_equal(patch.labels, np.rint(expected * 1000))
    np.testing.assert_array_equal(patch.weights, expected)
    assert patch.annotated.all()


@given(st.integers(1, 7), st.integers(0, 20))
def test_mirrored_indices_are_those_of_numpys_reflect(length: int, beyond: int) -> None:
    expected = np.pad(np.arange(length), beyond, mode="reflect")
    np.testing.assert_array_equal(mirrored(np.arange(-beyond, length + beyond), length), expected)


@pytest.mark.parametrize("settings", PRESETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (20, 30)])
def test_images_smaller_than_the_patch_work(settings: AugmentSettings, shape: tuple[int, int]) -> None:
    sample = plain_sample(noise(shape))
    patch = sample_patch(sample, (0, 0), (64, 48), settings, np.random.default_rng(0))
    assert patch.image.shape == (1, 64, 48)
    assert np.isfinite(patch.image).all()
    assert patch.annotated.all()
    assert set(np.unique(patch.labels)) <= set(np.unique(sample.labels))


@pytest.mark.parametrize("settings", PRESETS)
def test_a_patch_of_one_pixel_works(settings: AugmentSettings) -> None:
    patch = sample_patch(plain_sample(noise((9, 9))), (4, 4), (1, 1), settings, np.random.default_rng(0))
    assert patch.image.shape == (1, 1, 1)
    assert np.isfinite(patch.image).all()


@given(st.integers(0, 2**32 - 1), st.integers(0, 59), st.integers(0, 49), st.sampled_from(PRESETS[1:]))
def test_the_drawn_pixel_is_always_inside_the_patch(
    seed: int, y: int, x: int, settings: AugmentSettings
) -> None:
    image = noise((60, 50))
    annotated = np.zeros((60, 50), bool)
    annotated[y, x] = True
    sample = Sample(image, np.zeros((60, 50), np.int32), annotated)
    patch = sample_patch(
        sample, (y, x), (24, 20), settings, np.random.default_rng(seed), image_shape=(64, 60)
    )
    assert patch.annotated.any()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_counts_as_annotated_that_is_not_in_the_source(seed: int) -> None:
    labels = np.zeros((100, 100), np.int32)
    annotated = np.zeros((100, 100), bool)
    annotated[40:60, 40:60] = True
    labels[annotated] = 7
    sample = Sample(noise((100, 100)), labels, annotated, np.full((100, 100), 2, np.float32))
    patch = sample_patch(sample, (50, 50), (80, 80), GEOMETRY_ONLY, np.random.default_rng(seed))
    np.testing.assert_array_equal(patch.labels == 7, patch.annotated)
    assert not patch.weights[~patch.annotated].any()
    assert patch.weights[patch.annotated] == pytest.approx(2)


@pytest.mark.parametrize("seed", range(4))
def test_the_image_patch_surrounds_the_label_patch_evenly(seed: int) -> None:
    sample = blocks()
    small = sample_patch(
        sample, (100, 110), (60, 50), GEOMETRY_ONLY, np.random.default_rng(seed), image_shape=(100, 90)
    )
    assert small.image.shape == (1, 100, 90)
    assert small.labels.shape == small.annotated.shape == small.weights.shape == (60, 50)
    inside = inside_blocks(small.labels)
    middle = small.image[0, 20:80, 20:70]
    np.testing.assert_allclose(middle[inside] * 200, small.labels[inside], atol=0.02)


def test_an_image_patch_that_cannot_surround_the_labels_is_refused() -> None:
    sample = plain_sample(noise((20, 20)))
    for image_shape in ((15, 14), (8, 14)):
        with pytest.raises(InputError, match="evenly"):
            sample_patch(
                sample,
                (9, 9),
                (10, 10),
                AugmentSettings.none(),
                np.random.default_rng(0),
                image_shape=image_shape,
            )


def test_image_values_match_scipys_linear_interpolation() -> None:
    sample = plain_sample(noise((300, 300)))
    settings = replace(
        AugmentSettings.none(), warp_probability=1.0, rotation_degrees=30.0, elastic_sigma_px=8.0
    )
    patch = sample_patch(sample, (150, 150), (90, 90), settings, np.random.default_rng(5))
    y, x = np.indices((300, 300)).astype(np.float32)
    scaled = Sample(np.stack([y, x]) / 300, sample.labels, sample.annotated)
    positions = sample_patch(scaled, (150, 150), (90, 90), settings, np.random.default_rng(5)).image * 300
    expected = ndimage.map_coordinates(sample.image[0], positions, order=1, mode="mirror")
    np.testing.assert_allclose(patch.image[0], expected, atol=1e-3)
    nearest = ndimage.map_coordinates(sample.labels, positions, order=0, mode="mirror")
    assert np.mean(patch.labels == nearest) > 0.999


def test_cubic_interpolation_is_closer_to_a_smooth_image_than_linear() -> None:
    y, x = np.indices((200, 200))
    wave = (0.5 + 0.5 * np.sin(y / 2) * np.sin(x / 2)).astype(np.float32)
    sample = Sample(wave[None], np.zeros((200, 200), np.int32), np.ones((200, 200), bool))
    settings = replace(AugmentSettings.none(), warp_probability=1.0, rotation_degrees=30.0)
    contrast = [
        float(sample_patch(sample, (100, 100), (80, 80), s, np.random.default_rng(2)).image.std())
        for s in (settings, replace(settings, cubic=True))
    ]
    true = float(wave.std())
    assert abs(contrast[1] - true) < abs(contrast[0] - true)


def test_scale_two_shows_objects_twice_as_large() -> None:
    labels = np.zeros((101, 101), np.int32)
    labels[40:61, 40:61] = 1
    sample = Sample(labels[None].astype(np.float32), labels, np.ones(labels.shape, bool))
    settings = replace(AugmentSettings.none(), warp_probability=1.0, scale_range=(2.0, 2.0))
    patch = sample_patch(sample, (50, 50), (101, 101), settings, np.random.default_rng(0))
    assert np.sqrt(patch.labels.sum()) == pytest.approx(2 * 21, abs=1)


def test_shrinking_averages_noise_as_rescaling_does() -> None:
    sample = plain_sample(noise((400, 400)))
    settings = replace(
        AugmentSettings.none(), warp_probability=1.0, scale_range=(0.5, 0.5), rotation_degrees=40.0
    )
    patch = sample_patch(sample, (200, 200), (100, 100), settings, np.random.default_rng(0))
    averaged = sample.image[0].reshape(200, 2, 200, 2).mean(axis=(1, 3))
    assert patch.image.std() == pytest.approx(averaged.std(), rel=0.1)


def test_elastic_displacement_has_the_papers_statistics_at_its_control_points() -> None:
    rng = np.random.default_rng(0)
    settings = replace(AugmentSettings.none(), elastic_sigma_px=10.0)
    drawn = [draw_displacement((257, 301), settings, rng) for _ in range(400)]
    points = np.stack([d[:, ::128, ::150] for d in drawn if d is not None])
    assert points.shape == (400, 2, 3, 3)
    assert points.std() == pytest.approx(10, rel=0.05)
    assert points.mean() == pytest.approx(0, abs=0.5)


def test_elastic_displacement_is_the_bicubic_spline_through_its_control_points() -> None:
    settings = AugmentSettings.paper()
    fine = draw_displacement((201, 301), settings, np.random.default_rng(1))
    assert fine is not None
    control = fine[:, ::100, ::150].astype(np.float64)
    where = np.meshgrid(np.linspace(0, 2, 201), np.linspace(0, 2, 301), indexing="ij")
    for component in (0, 1):
        expected = ndimage.map_coordinates(control[component], where, order=3, mode="mirror")
        np.testing.assert_allclose(fine[component], expected, atol=1e-4)


def test_elastic_spacing_sets_the_number_of_control_points() -> None:
    settings = replace(AugmentSettings.paper(), elastic_spacing_px=150.0)
    fine = draw_displacement((451, 451), settings, np.random.default_rng(1))
    assert fine is not None
    control = fine[:, ::150, ::150].astype(np.float64)
    where = np.meshgrid(np.linspace(0, 3, 451), np.linspace(0, 3, 451), indexing="ij")
    expected = ndimage.map_coordinates(control[0], where, order=3, mode="mirror")
    np.testing.assert_allclose(fine[0], expected, atol=1e-4)


def test_a_small_patch_never_folds_onto_itself() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        d = draw_displacement((48, 48), AugmentSettings.paper(), rng)
        assert d is not None
        dy, dx = np.gradient(d[0]), np.gradient(d[1])
        determinant = (1 + dy[0]) * (1 + dx[1]) - dy[1] * dx[0]
        assert determinant.min() > 0


def test_grey_values_vary_within_their_limits() -> None:
    flat = Sample(
        np.full((1, 40, 40), 0.5, np.float32), np.zeros((40, 40), np.int32), np.ones((40, 40), bool)
    )
    settings = replace(AugmentSettings.none(), brightness=(-0.1, 0.2))
    rng = np.random.default_rng(0)
    values = [float(sample_patch(flat, (20, 20), (8, 8), settings, rng).image.mean()) for _ in range(300)]
    assert 0.4 <= min(values) < 0.42
    assert 0.68 < max(values) <= 0.7


def test_contrast_keeps_the_patch_mean() -> None:
    sample = plain_sample(noise((40, 40)))
    settings = replace(AugmentSettings.none(), contrast=(2.0, 2.0))
    patch = sample_patch(sample, (20, 20), (40, 40), settings, np.random.default_rng(0))
    assert patch.image.mean() == pytest.approx(sample.image.mean(), abs=1e-5)
    assert patch.image.std() == pytest.approx(2 * sample.image.std(), rel=1e-5)


def test_gamma_bends_between_0_and_1_and_keeps_what_lies_outside() -> None:
    values = np.array([[-2.0, 0.0, 0.25, 1.0, 5.0]], np.float32)
    sample = Sample(values[None], np.zeros((1, 5), np.int32), np.ones((1, 5), bool))
    settings = replace(AugmentSettings.none(), gamma=(2.0, 2.0))
    patch = sample_patch(sample, (0, 2), (1, 5), settings, np.random.default_rng(0))
    np.testing.assert_allclose(patch.image[0, 0], [-2, 0, 0.0625, 1, 5], atol=1e-6)


def test_inverted_contrast_is_one_minus_the_grey_value() -> None:
    sample = plain_sample(noise((20, 20)))
    settings = replace(AugmentSettings.none(), invert_probability=1.0)
    patch = sample_patch(sample, (10, 10), (20, 20), settings, np.random.default_rng(0))
    np.testing.assert_array_equal(patch.image, 1 - sample.image)


def test_a_patch_can_get_the_contrast_of_an_image_of_its_own() -> None:
    dim = plain_sample(noise((40, 40), channels=2) * np.float32(0.01) + np.float32(0.2))
    dim.image[1] = 0.5
    settings = replace(AugmentSettings.none(), crop_contrast_probability=1.0)
    patch = sample_patch(dim, (20, 20), (40, 40), settings, np.random.default_rng(0))
    np.testing.assert_allclose(np.percentile(patch.image[0], [1, 99.8]), [0, 1], atol=1e-5)
    np.testing.assert_array_equal(patch.image[1], dim.image[1], "one grey value stays as it is")
    assert patch.image.dtype == np.float32


def test_grey_values_never_touch_labels_or_weights() -> None:
    sample = plain_sample(noise((40, 40)))
    settings = replace(AugmentSettings.default(), flips=False, rotate90=False, warp_probability=0.0)
    patch = sample_patch(sample, (20, 20), (40, 40), settings, np.random.default_rng(0))
    assert not np.array_equal(patch.image, sample.image)
    np.testing.assert_array_equal(patch.labels, sample.labels)
    np.testing.assert_array_equal(patch.weights, sample.weights)


@given(st.integers(0, 2**32 - 1), st.sampled_from([-50.0, 0.0, 1.0, 3e4]))
def test_patches_are_always_finite(seed: int, offset: float) -> None:
    image = noise((40, 40), channels=2) + np.float32(offset)
    sample = Sample(image, np.zeros((40, 40), np.int32), np.ones((40, 40), bool))
    patch = sample_patch(sample, (20, 20), (32, 32), AugmentSettings.default(), np.random.default_rng(seed))
    assert np.isfinite(patch.image).all()
    assert patch.image.dtype == np.float32


def test_read_only_and_memory_mapped_sources_work(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("mapped") / "image.npy"
    np.save(path, noise((60, 60)))
    mapped = np.load(path, mmap_mode="r")
    labels = np.zeros((60, 60), np.int32)
    labels.setflags(write=False)
    sample = Sample(mapped, labels, np.ones((60, 60), bool))
    patch = sample_patch(sample, (30, 30), (32, 32), AugmentSettings.paper(), np.random.default_rng(0))
    assert np.isfinite(patch.image).all()


@pytest.mark.parametrize(
    "change",
    [
        {"scale_range": (0.0, 1.0)},
        {"contrast": (2.0, 1.0)},
        {"gamma": (-1.0, 1.0)},
        {"noise_sigma": -1.0},
        {"shear": float("nan")},
        {"warp_probability": 1.5},
        {"elastic_grid": 1},
        {"elastic_spacing_px": 0.0},
    ],
)
def test_impossible_settings_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        replace(AugmentSettings.default(), **change)


def test_a_sample_whose_parts_do_not_match_is_refused() -> None:
    image, labels = noise((5, 6)), np.zeros((5, 6), np.int32)
    annotated = np.ones((5, 6), bool)
    with pytest.raises(InputError, match="labels"):
        Sample(image, labels[:4], annotated)
    with pytest.raises(InputError, match="channel"):
        Sample(image[0], labels, annotated)
    with pytest.raises(InputError, match="NaN"):
        Sample(image * np.float32(np.nan), labels, annotated)
