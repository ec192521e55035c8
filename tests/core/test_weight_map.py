"""The weight map against a brute-force evaluation of its formula, whole and in boxes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from napari_unet_seg.core import weight_map as module
from napari_unet_seg.core._gaps import connected_objects
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.weight_map import (
    ClassCounts,
    WeightSettings,
    carve_gaps,
    class_weights,
    halo_px,
    weight_map,
    weight_parts,
)

PAPER, FIJI = WeightSettings.paper(), WeightSettings.fiji()
PRESETS = pytest.mark.parametrize("settings", [PAPER, FIJI], ids=["paper", "fiji"])


# --- the formula of method.md, pixel by pixel ---------------------------------------------------------------


def brute_force_map(
    labels: NDArray[Any],
    settings: WeightSettings,
    *,
    annotated: NDArray[np.bool_] | None = None,
    spacing: tuple[float, ...] = (1, 1),
    task: str = "instances",
) -> NDArray[np.float64]:
    """One plane or volume, every distance to every pixel of every object."""
    labels = labels if annotated is None else np.where(annotated, labels, 0)
    objects = connected_objects(labels) if task == "classes" else labels
    classes = labels if task == "classes" else (labels > 0).astype(int)
    carved = np.where(brute_force_gap(objects, classes), 0, classes)
    everywhere = np.ones(labels.shape, bool) if annotated is None else annotated
    n_classes = max(2, int(classes.max()) + 1)
    if settings.preset == "paper":
        counts = np.bincount(carved[everywhere], minlength=n_classes)
        with np.errstate(divide="ignore"):
            w_c = everywhere.sum() / (n_classes * counts)
        extra, _ = brute_force_border(objects, settings, spacing)
        weights = np.where(carved == 0, w_c[0] + extra, w_c[carved])
    else:
        extra = np.full(labels.shape, settings.balance)
        for i in range(1, n_classes):
            border, nearest = brute_force_border(np.where(classes == i, objects, 0), settings, spacing)
            extra += border + (1 - settings.balance) * np.exp(-(nearest**2) / (2 * settings.sigma1_px**2))
        weights = np.where(carved == 0, extra, 1)
    return np.where(everywhere, weights, 0)


def brute_force_border(
    objects: NDArray[Any], settings: WeightSettings, spacing: tuple[float, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pixels = np.moveaxis(np.indices(objects.shape), 0, -1) * np.asarray(spacing, float)
    each = pixels.reshape(-1, objects.ndim)
    distances = [
        cdist(each, pixels[objects == i]).min(axis=1).reshape(objects.shape)
        for i in np.unique(objects[objects > 0])
    ]
    none = np.full(objects.shape, np.inf)
    d1, d2, *_ = np.sort([*distances, none, none], axis=0)
    return settings.w0 * np.exp(-((d1 + d2) ** 2) / (2 * settings.sigma_px**2)), d1


def brute_force_gap(objects: NDArray[Any], classes: NDArray[Any]) -> NDArray[np.bool_]:
    """The Fiji plugin's raster scan, pixel by pixel; neighbours are compared by their original labels."""
    gap = np.zeros(objects.shape, bool)
    steps = list(product((-1, 0, 1), repeat=objects.ndim))
    for here in zip(*np.nonzero(objects), strict=True):
        for step in steps[: len(steps) // 2]:
            there = tuple(h + s for h, s in zip(here, step, strict=True))
            inside = all(0 <= t < n for t, n in zip(there, objects.shape, strict=True))
            if inside and objects[there] not in (0, objects[here]):
                gap[here] |= bool(classes[there] == classes[here])
    return gap


def close(found: NDArray[Any], expected: NDArray[Any], settings: WeightSettings) -> bool:
    return bool(np.abs(found - expected).max() <= 1e-3 * settings.w0)


def two_squares(distance_px: int, side: int = 8) -> NDArray[np.int32]:
    labels = np.zeros((30, 2 * side + distance_px + 10), np.int32)
    labels[10 : 10 + side, 5 : 5 + side] = 1
    labels[10 : 10 + side, 5 + side + distance_px :][:, :side] = 2
    return labels


@st.composite
def planes(draw: st.DrawFn, shape: tuple[int, ...] = (16, 31)) -> NDArray[np.int32]:
    """Rectangles and specks, touching or apart, ids in any order."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = np.zeros(shape, np.int32)
    for _ in range(draw(st.integers(0, 9))):
        corner = [int(rng.integers(0, n)) for n in shape]
        size = [int(rng.integers(1, 2 + n // 2)) for n in shape]
        labels[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = rng.integers(0, 7)
    return labels


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.repeat(np.repeat(np.random.default_rng(seed).random((4, 8)) < 0.7, 4, 0), 4, 1)[:, :31]
)


# --- equal to the formula -----------------------------------------------------------------------------------


@PRESETS
@examples(max_examples=40)
@given(labels=planes())
def test_the_map_equals_brute_force(labels: NDArray[np.int32], settings: WeightSettings) -> None:
    assert close(weight_map(labels, settings), brute_force_map(labels, settings), settings)


@PRESETS
@examples(max_examples=40)
@given(labels=planes(), annotated=masks)
def test_the_map_equals_brute_force_where_annotated_and_is_zero_elsewhere(
    labels: NDArray[np.int32], annotated: NDArray[np.bool_], settings: WeightSettings
) -> None:
    found = weight_map(labels, settings, annotated=annotated)
    assert close(found, brute_force_map(labels, settings, annotated=annotated), settings)
    assert not found[~annotated].any()


@PRESETS
@pytest.mark.parametrize("spacing", [(1.0, 2.0), (1.37, 1.0), (3.0, 1.0)])
@examples(max_examples=40)
@given(labels=planes())
def test_the_map_equals_brute_force_with_oblong_pixels(
    labels: NDArray[np.int32], spacing: tuple[float, float], settings: WeightSettings
) -> None:
    found = weight_map(labels, settings, spacing=spacing)
    assert close(found, brute_force_map(labels, settings, spacing=spacing), settings)


@PRESETS
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (12.5, 1.0, 1.0), (2.2, 1.0, 1.3)])
@examples(max_examples=40)
@given(labels=planes(shape=(4, 9, 11)))
def test_a_volume_equals_brute_force(
    labels: NDArray[np.int32], spacing: tuple[float, float, float], settings: WeightSettings
) -> None:
    found = weight_map(labels, settings, spacing=spacing, volume=True)
    assert close(found, brute_force_map(labels, settings, spacing=spacing), settings)


@PRESETS
@examples(max_examples=40)
@given(labels=planes())
def test_classes_equal_brute_force_over_their_connected_components(
    labels: NDArray[np.int32], settings: WeightSettings
) -> None:
    labels = labels % 3
    found = weight_map(labels, settings, task="classes", n_classes=max(2, int(labels.max()) + 1))
    assert close(found, brute_force_map(labels, settings, task="classes"), settings)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
def test_any_integer_type_and_any_ids_give_the_same_map(dtype: type[np.integer[Any]]) -> None:
    labels = two_squares(3)
    expected = weight_map(labels)
    renamed = np.where(labels == 2, np.iinfo(dtype).max, labels.astype(dtype))
    np.testing.assert_array_equal(weight_map(renamed), expected)


def test_more_objects_than_narrow_keys_can_tell_apart_are_still_told_apart() -> None:
    labels = np.zeros((45, 45), np.int32)
    labels[::3, ::3] = np.arange(1, 226).reshape(15, 15)
    assert close(weight_map(labels), brute_force_map(labels, PAPER), PAPER)


def test_a_large_sigma_reaches_across_the_whole_image() -> None:
    labels = two_squares(20)
    settings = WeightSettings.paper(sigma_px=300.0)
    assert close(weight_map(labels, settings), brute_force_map(labels, settings), settings)


# --- what it is for -----------------------------------------------------------------------------------------


def test_a_narrow_gap_weighs_more_than_a_wide_one() -> None:
    narrow, wide = (weight_map(two_squares(px))[14, 5 + 8 + px // 2] for px in (2, 12))
    assert narrow > 5 * wide


@PRESETS
def test_touching_objects_get_a_bright_one_pixel_border(settings: WeightSettings) -> None:
    labels = two_squares(0).T
    weights = weight_map(labels, settings)
    bright = np.flatnonzero(weights[:, 14] > 0.9 * settings.w0)
    assert bright.tolist() == [13], "only the first line of the object that the scan meets later"


def test_w_c_averages_to_one_over_the_annotation_when_every_class_occurs() -> None:
    labels = two_squares(20) % 2
    assert weight_map(labels, WeightSettings.paper(w0=0.0)).mean() == pytest.approx(1)


def test_a_class_that_does_not_occur_has_no_term() -> None:
    assert class_weights([30, 0, 10]).tolist() == pytest.approx([40 / 90, 0, 40 / 30])


def test_one_object_alone_has_no_border_term() -> None:
    labels = np.where(two_squares(5) == 1, 1, 0)
    assert len(np.unique(weight_map(labels))) == 2


def test_labels_outside_the_annotation_do_not_count() -> None:
    labels = two_squares(3)
    annotated = labels != 2
    expected = weight_map(np.where(labels == 2, 0, labels), annotated=annotated)
    np.testing.assert_array_equal(weight_map(labels, annotated=annotated), expected)


def test_a_stack_is_mapped_plane_by_plane_with_counts_over_the_whole_stack() -> None:
    stack = np.stack([two_squares(3), two_squares(3) * 0])
    border = [weight_map(plane, WeightSettings.fiji()) for plane in stack]
    np.testing.assert_array_equal(weight_map(stack, WeightSettings.fiji()), border)
    counts = np.bincount((stack > 0).ravel())
    assert weight_map(stack)[1, 0, 0] == pytest.approx(stack.size / (2 * counts[0]))


@PRESETS
def test_only_the_ratio_of_voxel_sizes_counts(settings: WeightSettings) -> None:
    stack = np.stack([two_squares(3), np.roll(two_squares(3), 1, axis=0)])
    nm = weight_map(stack, settings, spacing=(50, 4, 4), volume=True)
    np.testing.assert_array_equal(nm, weight_map(stack, settings, spacing=(12.5, 1, 1), volume=True))


def test_the_halo_is_as_far_as_a_thousandth_of_w0_reaches() -> None:
    assert (halo_px(PAPER), halo_px(FIJI)) == (19, 24)


@PRESETS
@examples(max_examples=40)
@given(labels=planes(shape=(12, 80)), column=st.integers(0, 79))
def test_a_change_is_not_seen_beyond_the_halo(
    labels: NDArray[np.int32], column: int, settings: WeightSettings
) -> None:
    changed = labels.copy()
    changed[:, column] = 9
    before, after = (weight_parts(each, settings).border for each in (labels, changed))
    far = np.abs(np.arange(80) - column) > halo_px(settings)
    assert np.abs(before - after)[:, far].max(initial=0) <= 2e-3 * settings.w0


# --- gaps ---------------------------------------------------------------------------------------------------


def test_of_objects_one_above_the_other_the_later_gives_up_one_line() -> None:
    labels = np.repeat([[1], [1], [2], [2]], 5, axis=1)
    assert carve_gaps(labels)[:, 2].tolist() == [1, 1, 0, 2]


def test_of_objects_side_by_side_the_earlier_gives_up_what_has_the_other_at_its_upper_right() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 3)
    assert carve_gaps(labels).tolist() == [[1, 1, 1, 0, 2, 2], [1, 1, 0, 0, 2, 2], [1, 1, 0, 0, 2, 2]]


def test_three_objects_in_a_row_keep_a_middle_that_is_wider_than_the_gap() -> None:
    assert carve_gaps(np.array([[1, 2, 2, 3, 3]])).tolist() == [[1, 0, 2, 0, 3]]


def test_separate_objects_are_not_carved() -> None:
    np.testing.assert_array_equal(carve_gaps(two_squares(1)), two_squares(1))


@examples(max_examples=40)
@given(labels=planes())
def test_no_two_objects_touch_after_carving(labels: NDArray[np.int32]) -> None:
    carved = carve_gaps(labels)
    for step in [(0, 1), (1, 0), (1, 1), (1, -1)]:
        there = np.roll(np.pad(carved, 1), step, (0, 1))[1:-1, 1:-1]
        assert not ((carved != there) & (carved != 0) & (there != 0)).any()


def test_classes_that_touch_each_other_are_not_carved() -> None:
    labels = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    np.testing.assert_array_equal(carve_gaps(labels, task="classes"), labels)


def test_components_of_one_class_that_touch_at_a_corner_are_carved() -> None:
    labels = np.array([[1, 0], [0, 1]])
    assert carve_gaps(labels, task="classes").tolist() == [[1, 0], [0, 0]]


def test_a_volume_is_carved_between_planes_and_a_stack_is_not() -> None:
    labels = np.array([[[1, 1]], [[2, 2]]])
    assert carve_gaps(labels, volume=True).tolist() == [[[1, 1]], [[0, 0]]]
    np.testing.assert_array_equal(carve_gaps(labels), labels)


def test_carving_leaves_the_given_labels_alone() -> None:
    labels = two_squares(0)
    carve_gaps(labels)
    np.testing.assert_array_equal(labels, two_squares(0))


# --- in a box -----------------------------------------------------------------------------------------------


@PRESETS
@pytest.mark.parametrize("task", ["instances", "classes"])
@examples(max_examples=40)
@given(data=st.data())
def test_after_a_change_the_box_makes_the_map_equal_to_the_whole(
    task: Any, settings: WeightSettings, data: st.DataObject
) -> None:
    before = data.draw(planes(shape=(40, 120))) % (3 if task == "classes" else 100)
    annotated = np.ones(before.shape, bool)
    top, left = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 110))
    changed = (slice(top, top + 10), slice(left, left + 10))
    after, annotated_after = before.copy(), annotated.copy()
    after[changed] = data.draw(st.integers(0, 2))
    annotated_after[top, left : left + 3] = False
    how: dict[str, Any] = {"task": task, "n_classes": 3}
    shown = weight_parts(before, settings, annotated=annotated, **how)
    part = weight_parts(after, settings, annotated=annotated_after, changed=changed, **how)
    counts = shown.counts.updated(
        ClassCounts(tuple(int((shown.classes[part.box] == i).sum()) for i in range(shown.n_classes))),
        part.counts,
    )
    shown.classes[part.box], shown.border[part.box] = part.classes, part.border
    whole = weight_parts(after, settings, annotated=annotated_after, **how)
    np.testing.assert_array_equal(shown.classes, whole.classes)
    np.testing.assert_array_equal(shown.border, whole.border)
    assert counts == whole.counts
    expected = weight_map(after, settings, annotated=annotated_after, **how)
    np.testing.assert_array_equal(shown.weights(settings, counts), expected)


@examples(max_examples=40)
@given(labels=planes(shape=(3, 30, 70)), plane=st.integers(0, 2))
def test_a_box_of_one_plane_of_a_stack_leaves_the_other_planes_out(
    labels: NDArray[np.int32], plane: int
) -> None:
    part = weight_parts(labels, PAPER, changed=(slice(plane, plane + 1), slice(10, 12), slice(30, 35)))
    assert part.box[0] == slice(plane, plane + 1)
    np.testing.assert_array_equal(part.border, weight_parts(labels, PAPER).border[part.box])


@examples(max_examples=40)
@given(labels=planes(shape=(6, 20, 40)))
def test_a_box_of_a_volume_equals_the_whole(labels: NDArray[np.int32]) -> None:
    how: dict[str, Any] = {"volume": True, "spacing": (5.0, 1.0, 1.0)}
    part = weight_parts(labels, PAPER, changed=(slice(2, 3), slice(9, 11), slice(4, 6)), **how)
    np.testing.assert_array_equal(part.border, weight_parts(labels, PAPER, **how).border[part.box])


def test_a_plane_worked_on_in_strips_equals_the_plane_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.repeat(rng.integers(0, 3, (40, 12)), 8, 0), 8, 1) * rng.integers(1, 9, (320, 96))
    at_once = weight_parts(labels, PAPER)
    monkeypatch.setattr(module, "PIXELS_AT_ONCE", 96 * 90)
    np.testing.assert_array_equal(weight_parts(labels, PAPER).border, at_once.border)


def test_a_map_is_rewritten_only_when_a_class_weight_moved_by_more_than_the_level() -> None:
    shown = ClassCounts((100_000, 50_000))
    assert not ClassCounts((100_010, 49_990)).moved_from(shown, PAPER)
    assert ClassCounts((101_000, 49_000)).moved_from(shown, PAPER)
    assert not ClassCounts((10, 140_000)).moved_from(shown, FIJI), "fiji's weights don't depend on counts"


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"labels": np.zeros((4, 4))}, "not integers"),
        ({"labels": np.array([[0, -1]])}, "negative id -1"),
        ({"labels": np.zeros((0, 4), int)}, "no pixels"),
        ({"labels": np.zeros(4, int)}, "too few axes"),
        ({"labels": np.zeros((4, 4), int), "volume": True}, "too few axes"),
        ({"labels": np.zeros((4, 4), int), "annotated": np.ones((4, 5), bool)}, "4×5 but the labels are 4×4"),
        ({"labels": np.zeros((4, 4), int), "annotated": np.ones((4, 4))}, "mask is float64"),
        ({"labels": np.zeros((4, 4), int), "spacing": (1, 0)}, "one size above 0 per axis"),
        ({"labels": np.full((4, 4), 3), "task": "classes", "n_classes": 3}, "class 3"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        weight_map(**arguments)


@pytest.mark.parametrize("wrong", [{"sigma_px": 0.0}, {"w0": -1.0}, {"w0": float("nan")}, {"balance": 2.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        WeightSettings(**wrong)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(InputError, match="'paper' or 'fiji'"):
        WeightSettings("2015")  # type: ignore[arg-type]


def test_a_single_pixel_works() -> None:
    assert weight_map(np.zeros((1, 1), int)).tolist() == [[0.5]]


def test_a_boolean_mask_is_one_object() -> None:
    labels = two_squares(3) > 0
    np.testing.assert_array_equal(weight_map(labels), weight_map(labels.astype(np.uint8)))
