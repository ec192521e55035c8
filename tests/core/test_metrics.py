"""Scores against the truth: each against a case worked out by hand, and against another way to compute it."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.measure import label
from skimage.metrics import adapted_rand_error, variation_of_information

from napari_unet_seg.core._rand import pieces, segment_agreement, thinned
from napari_unet_seg.core._warping import _warp, simple_point_table, warping_error
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.metrics import Evaluation, Task, evaluate, evaluate_many

Labels = NDArray[np.int32]

small_labels = arrays(np.int32, (5, 6), elements=st.integers(0, 3))


def _row(*ids: int) -> Labels:
    return np.array([ids], np.int32)


def _squares(*sides: int) -> Labels:
    """Squares of these sides, one object each, in a row with background between them."""
    labels = np.zeros((max(sides) + 2, sum(sides) + len(sides) + 1), np.int32)
    left = 1
    for i, side in enumerate(sides, 1):
        labels[1 : side + 1, left : left + side] = i
        left += side + 1
    return labels


# Pixels


def test_pixel_scores_of_a_case_by_hand() -> None:
    # TP 2, FP 1, FN 3, TN 4
    scores = evaluate(_row(1, 1, 1, 0, 0, 0, 0, 0, 0, 0), _row(1, 1, 0, 2, 2, 2, 0, 0, 0, 0))
    assert scores.pixel_accuracy == pytest.approx(6 / 10)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 5)
    assert scores.f1 == pytest.approx(4 / 8)
    assert scores.iou == pytest.approx(2 / 6)
    assert scores.pixel_error == pytest.approx(4 / 8)


def test_f1_is_pooled_and_the_rest_are_means_over_planes() -> None:
    truth = np.stack([_row(1, 1, 1, 1), _row(1, 0, 0, 0)])
    prediction = np.stack([_row(1, 1, 0, 0), _row(1, 0, 0, 1)])
    scores = evaluate(prediction, truth)
    # plane 0: TP 2 FN 2, plane 1: TP 1 FP 1
    assert scores.f1 == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert scores.precision == pytest.approx((1 + 0.5) / 2)
    assert scores.recall == pytest.approx((0.5 + 1) / 2)
    assert scores.pixel_error == pytest.approx(1 - (2 / 3 + 2 / 3) / 2)
    assert [(p.image, p.plane, p.precision) for p in scores.per_plane] == [(0, 0, 1), (0, 1, 0.5)]


# Objects


def test_object_scores_of_a_case_by_hand() -> None:
    truth = _squares(10, 10, 4)
    prediction = truth.copy()
    prediction[1:4, 12:22] = 0  # the second square keeps 70 of 100 pixels: IoU 0.7
    prediction[prediction == 3] = 0
    prediction[-1, :2] = 9  # invented
    scores = evaluate(prediction, truth)
    assert scores.f1_at is not None
    assert scores.ap is not None
    assert list(scores.f1_at) == list(scores.ap) == ["0.5", "0.6", "0.7", "0.75", "0.8", "0.9"]
    for iou in ("0.5", "0.6", "0.7"):  # TP 2, FP 1, FN 1
        assert scores.f1_at[iou] == pytest.approx(4 / 6)
        assert scores.ap[iou] == pytest.approx(2 / 4)
    for iou in ("0.75", "0.8", "0.9"):  # TP 1, FP 2, FN 2
        assert scores.f1_at[iou] == pytest.approx(2 / 6)
        assert scores.ap[iou] == pytest.approx(1 / 5)


def test_one_true_object_is_matched_by_one_half_only() -> None:
    scores = evaluate(_row(1, 1, 2, 2), _row(1, 1, 1, 1))
    assert scores.f1_at is not None
    assert scores.f1_at["0.5"] == pytest.approx(2 / 3)  # TP 1, FP 1, FN 0


def test_object_f1_is_pooled_over_images_of_any_shape() -> None:
    truth, empty = _squares(5, 5, 5), np.zeros((4, 4), np.int32)
    false_positive = empty.copy()
    false_positive[1, 1] = 1
    scores = evaluate_many([(truth, truth), (false_positive, empty)])
    assert scores.f1_at is not None
    assert scores.ap is not None
    assert scores.f1_at["0.5"] == pytest.approx(2 * 3 / (2 * 3 + 1))
    assert scores.ap["0.5"] == pytest.approx((1 + 0) / 2)
    assert [p.image for p in scores.per_plane] == [0, 1]
    assert [p.plane for p in scores.per_plane] == [None, None]


# Rand and information


def test_rand_scores_of_a_case_by_hand() -> None:
    # Truth: segments of 4 and 2 pixels; prediction: 3 and 3. Pairs: 6 + 1, 3 + 3, in both 3 + 1.
    agreement = segment_agreement(_row(1, 1, 1, 2, 2, 2), _row(1, 1, 1, 1, 2, 2))
    assert agreement.rand == pytest.approx(2 * 4 / (7 + 6))


def test_information_score_of_a_case_by_hand() -> None:
    # Truth: halves (1 bit). Prediction: quarters (2 bits), each inside one half: they share 1 bit.
    agreement = segment_agreement(_row(1, 1, 2, 2, 3, 3, 4, 4), _row(1, 1, 1, 1, 2, 2, 2, 2))
    assert agreement.information == pytest.approx(2 * 1 / (1 + 2))


def test_predicted_background_inside_the_truth_is_a_segment_per_pixel() -> None:
    # Pairs: truth 6; prediction 1; both 1 (as one segment, the zeros would be a second pair).
    agreement = segment_agreement(_row(1, 1, 0, 0), _row(1, 1, 1, 1))
    assert agreement.rand == pytest.approx(2 * 1 / (6 + 1))


def test_only_the_foreground_of_the_truth_counts_for_the_rand_score() -> None:
    assert segment_agreement(_row(1, 1, 1, 3), _row(1, 1, 0, 0)).rand == 1


def _rand_by_counting_pairs(prediction: Labels, truth: Labels) -> float:
    pixels = [(p, t) for p, t in zip(prediction.flat, truth.flat, strict=True) if t > 0]
    both, predicted, true = 0, 0, 0
    for (p, t), (q, u) in combinations(pixels, 2):
        together = bool(p == q and p > 0)
        predicted += together
        true += bool(t == u)
        both += together and bool(t == u)
    return 2 * both / (predicted + true) if predicted + true else 1.0


@given(small_labels, small_labels)
def test_rand_score_equals_counting_every_pair_of_pixels(prediction: Labels, truth: Labels) -> None:
    if truth.any():
        assert segment_agreement(prediction, truth).rand == pytest.approx(
            _rand_by_counting_pairs(prediction, truth)
        )


@given(small_labels, small_labels)
def test_scores_equal_those_of_scikit_image_on_single_pixel_segments(
    prediction: Labels, truth: Labels
) -> None:
    prediction, truth = prediction.copy(), np.maximum(truth, 1)
    zeros = prediction == 0
    agreement = segment_agreement(prediction, truth)
    prediction[zeros] = np.arange(zeros.sum()) + 100
    with np.errstate(invalid="ignore"):
        error = adapted_rand_error(truth, prediction, ignore_labels=())[0]
    if np.isfinite(error):
        assert agreement.rand == pytest.approx(1 - error)
    lost, added = variation_of_information(truth, prediction)
    bits = sum(_entropy(labels) for labels in (prediction, truth))
    if bits:
        assert agreement.information == pytest.approx(1 - (lost + added) / bits)


def _entropy(labels: Labels) -> float:
    share = np.unique(labels, return_counts=True)[1] / labels.size
    return float(-(share * np.log2(share)).sum())


def test_thinned_regions_grow_until_they_meet() -> None:
    np.testing.assert_array_equal(thinned(_row(1, 0, 0, 0, 0, 2)), _row(1, 1, 1, 2, 2, 2))
    assert not thinned(_row(0, 0)).any()


def test_a_thick_border_costs_rand_error_but_no_v_rand() -> None:
    truth = np.ones((10, 21), np.int32)
    truth[:, 10] = 0
    truth[:, 11:] = 2
    prediction = truth.copy()
    prediction[:, 8:13] = 0
    scores = evaluate(prediction, truth)
    assert scores.v_rand == scores.v_info == 1
    assert scores.rand_error is not None
    assert scores.rand_error > 0.1


def test_two_pieces_of_one_id_are_two_segments_of_a_plane_but_one_of_a_volume() -> None:
    truth = np.zeros((2, 3, 7), np.int32)
    truth[:, :, :3] = truth[:, :, 4:] = 5
    prediction = truth.copy()
    prediction[:, :, 4:] = 6
    assert evaluate(prediction, truth).rand_error == 0
    # Pairs of 36 pixels: truth 36·35, prediction and both 2 · 18·17.
    volume = evaluate(prediction, truth, volume=True)
    assert volume.rand_error == pytest.approx(1 - 2 * 612 / (1260 + 612))
    assert [(p.image, p.plane) for p in volume.per_plane] == [(0, None)]


def test_pieces_that_touch_by_a_corner_are_two() -> None:
    np.testing.assert_array_equal(pieces(np.eye(2, dtype=np.int32)), [[1, 0], [0, 2]])


# Warping


def test_a_moved_border_costs_no_warping_error() -> None:
    truth, prediction = np.zeros((2, 20, 20), np.int32)
    truth[5:15, 5:15] = 1
    prediction[3:11, 6:18] = 1
    assert warping_error(prediction, truth) == 0


@pytest.mark.parametrize(
    ("change", "n_wrong"),
    [
        (
            (slice(5, 15), slice(9, 10)),
            1,
        ),  # a split: the truth can be cut from both sides until one pixel holds it together
        ((slice(7, 10), slice(7, 10)), 9),  # a hole: the truth cannot get any
    ],
)
def test_splits_and_holes_cost_what_no_warp_can_remove(change: tuple[slice, slice], n_wrong: int) -> None:
    truth = np.zeros((20, 20), np.int32)
    truth[5:15, 5:15] = 1
    prediction = truth.copy()
    prediction[change] = 0
    assert warping_error(prediction, truth) == pytest.approx(n_wrong / 400)


def test_a_lost_object_and_an_invented_one_cost_a_pixel_and_all_their_pixels() -> None:
    # The truth is warped toward the prediction: a lost object shrinks to a pixel, none can be invented.
    nothing, square = np.zeros((20, 20), np.int32), np.zeros((20, 20), np.int32)
    square[5:15, 5:15] = 1
    assert warping_error(nothing, square) == pytest.approx(1 / 400)
    assert warping_error(square, nothing) == pytest.approx(100 / 400)


def test_touching_objects_are_parted_before_warping() -> None:
    truth = np.ones((6, 10), np.int32)
    truth[:, 5:] = 2
    moved = np.ones((6, 10), np.int32)
    moved[:, 4:] = 2
    assert warping_error(moved, truth) == 0
    assert warping_error(np.ones_like(truth), truth) == pytest.approx(6 / 60)


def test_simple_points_of_four_neighbourhoods_by_hand() -> None:
    simple = simple_point_table()
    # Bits clockwise from the top left: 0 ↖, 1 ↑, 2 ↗, 3 →, 4 ↘, 5 ↓, 6 ↙, 7 ←
    assert not simple[0]  # a lone pixel: flipping it makes or removes an object
    assert not simple[255]  # flipping it makes or fills a hole
    assert simple[1 << 1]  # the end of a line
    assert not simple[1 << 1 | 1 << 5]  # a bridge
    assert simple[1 << 1 | 1 << 2 | 1 << 3]  # the corner of a region
    assert not simple[1 << 1 | 1 << 3]  # 4-connected only through the middle
    assert not simple[1 << 0]  # foreground at a corner is not connected to the middle


def _n_regions(foreground: NDArray[np.bool_]) -> tuple[int, int]:
    padded = np.pad(foreground, 1)
    return ndi.label(padded)[1], ndi.label(~padded, structure=np.ones((3, 3)))[1]


@given(arrays(bool, (6, 7)), arrays(bool, (6, 7)))
def test_warping_keeps_the_number_of_regions(target: NDArray[np.bool_], picture: NDArray[np.bool_]) -> None:
    warped = np.pad(picture, 1).astype(np.uint8)
    _warp(warped, np.pad(target, 1).astype(np.uint8))
    assert _n_regions(warped[1:-1, 1:-1] > 0) == _n_regions(picture)
    changed = warped[1:-1, 1:-1] != picture
    assert (target != picture)[changed].all()


# Class maps


def test_class_scores_of_a_case_by_hand() -> None:
    truth, prediction = _row(0, 0, 1, 1, 2, 2, 2, 2), _row(0, 1, 1, 1, 2, 2, 0, 0)
    scores = evaluate(prediction, truth, task="classes")
    assert scores.pixel_accuracy == pytest.approx(5 / 8)
    assert [c.class_id for c in scores.per_class] == [0, 1, 2]
    by_class = [(c.precision, c.recall, c.f1, c.iou) for c in scores.per_class]
    np.testing.assert_allclose(
        by_class, [(1 / 3, 1 / 2, 2 / 5, 1 / 4), (2 / 3, 1, 4 / 5, 2 / 3), (1, 1 / 2, 2 / 3, 1 / 2)]
    )
    assert scores.f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert (scores.rand_error, scores.v_rand, scores.v_info, scores.warping_error) == (None,) * 4
    assert (scores.f1_at, scores.ap) == (None, None)


def test_class_probabilities_count_by_the_likeliest_class() -> None:
    truth = _row(0, 1, 2)
    probabilities = np.eye(3, dtype=np.float32)[:, None]
    assert evaluate(probabilities, truth, task="classes").pixel_accuracy == 1


# Probability maps


def _map(foreground: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def test_of_ten_thresholds_each_score_keeps_its_best() -> None:
    truth = np.ones((6, 13), np.int32)
    truth[:, 6] = 0
    truth[:, 7:] = 2
    foreground = np.full((6, 13), 0.95)
    foreground[:, 6] = 0.55  # a weak membrane, parted from 0.6 up
    scores = evaluate(_map(foreground), truth)
    assert scores.rand_error == scores.pixel_error == scores.warping_error == 0
    assert scores.v_rand == scores.f1 == 1
    assert len(scores.per_plane) == 1
    assert scores.per_plane[0].v_rand == 1
    assert scores.thresholds["v_rand"] == 0.6


def test_precision_and_recall_of_a_map_are_those_at_the_best_f1() -> None:
    foreground = np.array([[0.95, 0.45, 0.45, 0.25, 0.25]])
    scores = evaluate(_map(foreground), _row(1, 1, 0, 0, 0))
    assert scores.thresholds["f1"] == scores.thresholds["recall"]
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == 1


def test_a_map_of_a_stack_is_cut_into_segments_plane_by_plane() -> None:
    truth = np.zeros((2, 4, 9), np.int32)
    truth[:, :, :4] = 1
    truth[:, :, 5:] = 2
    scores = evaluate(_map((truth > 0) * 0.9), truth)
    assert scores.rand_error == 0
    assert scores.f1_at == dict.fromkeys(scores.f1_at or {}, 1)
    assert len(scores.per_plane) == 2


def test_the_best_threshold_is_one_for_all_images() -> None:
    truth = _row(1, 0, 0)
    pairs = [(_map(np.array([[0.95, low, low]])), truth) for low in (0.25, 0.75)]
    scores = evaluate_many(pairs)
    assert scores.f1 == 1
    assert scores.thresholds["f1"] == 0.8


# Any input


def _all_scores(scores: Evaluation) -> list[float]:
    return [
        *(getattr(scores, name) for name in ("pixel_accuracy", "precision", "recall", "f1", "iou")),
        *(1 - getattr(scores, name) for name in ("pixel_error", "rand_error", "warping_error")),
        *(getattr(scores, name) for name in ("v_rand", "v_info")),
        *(scores.f1_at or {}).values(),
        *(scores.ap or {}).values(),
    ]


@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (2, 5, 4), (2, 3, 5, 4)])
def test_nothing_against_nothing_is_perfect(shape: tuple[int, ...]) -> None:
    nothing = np.zeros(shape, np.uint8)
    assert _all_scores(evaluate(nothing, nothing)) == [1] * 22


def test_something_against_nothing_is_worth_nothing() -> None:
    one, nothing = np.ones((3, 3), np.int32), np.zeros((3, 3), np.int32)
    for scores in (evaluate(one, nothing), evaluate(nothing, one)):
        assert scores.precision == scores.recall == scores.f1 == scores.iou == 0
        assert scores.v_rand == scores.v_info == 0
        assert scores.rand_error == 1
        assert scores.f1_at is not None
        assert scores.f1_at["0.5"] == 0


@settings(max_examples=20)
@given(arrays(np.int32, (2, 5, 6), elements=st.integers(0, 3)))
def test_the_truth_itself_is_perfect(truth: Labels) -> None:
    assert _all_scores(evaluate(truth, truth)) == pytest.approx([1] * 22)
    assert _all_scores(evaluate(truth, truth, volume=True)) == pytest.approx([1] * 22)


@settings(max_examples=20)
@given(small_labels, small_labels)
def test_every_score_lies_between_0_and_1(prediction: Labels, truth: Labels) -> None:
    values = np.array(_all_scores(evaluate(prediction, truth)))
    assert (values >= -1e-9).all()
    assert (values <= 1 + 1e-9).all()


@settings(max_examples=20)
@given(small_labels, small_labels)
def test_names_of_objects_do_not_matter(prediction: Labels, truth: Labels) -> None:
    renamed = np.array([0, 70, 5, 2**40])
    other = evaluate(renamed[prediction], renamed[truth])
    assert _all_scores(other) == pytest.approx(_all_scores(evaluate(prediction, truth)))


def test_json_has_the_names_of_the_command_line() -> None:
    truth = _squares(4, 4)
    as_json = json.loads(json.dumps(evaluate(truth, truth).to_json()))
    scalars = {"pixel_accuracy", "precision", "recall", "f1", "iou", "pixel_error", "rand_error", "v_rand"}
    scalars |= {"v_info", "warping_error"}
    assert scalars | {"f1_at", "ap", "per_plane", "per_class"} <= set(as_json)
    assert scalars | {"f1_at", "ap", "image", "plane"} == set(as_json["per_plane"][0])
    classes = json.loads(json.dumps(evaluate(truth, truth, task="classes").to_json()))
    assert set(classes["per_class"][0]) == {"class_id", "precision", "recall", "f1", "iou"}


@pytest.mark.parametrize(
    ("prediction", "truth", "says"),
    [
        (np.zeros((4, 5), int), np.zeros((4, 6), int), "4×5.*4×6"),
        (np.zeros((4, 5), int), np.zeros((1, 4, 5), int), "4×5.*1×4×5"),
        (np.zeros((2, 4, 5)), np.zeros((4, 6), int), "2×4×5.*C×4×6"),
        (np.zeros((4, 5)), np.zeros((4, 5), int), "C×4×5"),
        (np.full((4, 5), -1), np.zeros((4, 5), int), "negative"),
        (np.zeros((4, 5), int), np.full((4, 5), -1), "negative"),
        (np.zeros((4, 5), int), np.zeros((4, 5)), "integers"),
        (np.full((2, 4, 5), np.nan), np.zeros((4, 5), int), "probability map"),
        (np.full((2, 4, 5), 7.0), np.zeros((4, 5), int), "probability map"),
        (np.zeros((0, 5), int), np.zeros((0, 5), int), "no pixels"),
        (np.zeros(5, int), np.zeros(5, int), r"\(Y, X\)"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_sentence(
    prediction: NDArray[np.generic], truth: Labels, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        evaluate(prediction, truth)


@pytest.mark.parametrize("task", ["instances", "classes"])
def test_a_mask_is_one_object_or_class(task: Task) -> None:
    prediction, truth = _squares(4, 3) > 0, _squares(3, 4) > 0
    as_labels = evaluate(prediction.astype(int), truth.astype(int), task=task)
    assert evaluate(prediction, truth, task=task) == as_labels


def test_of_several_pairs_the_wrong_one_is_named() -> None:
    good, wrong = np.zeros((4, 5), int), np.zeros((4, 6), int)
    with pytest.raises(InputError, match="2 of 2"):
        evaluate_many([(good, good), (wrong, good)])
    with pytest.raises(InputError, match="apart"):
        evaluate_many([(good, good), (np.zeros((2, 4, 5)), good)])
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate_many([])


def test_a_single_plane_is_no_volume() -> None:
    plane = np.zeros((4, 5), int)
    with pytest.raises(InputError, match=r"\(Z, Y, X\)"):
        evaluate(plane, plane, volume=True)


def test_instance_ids_are_no_classes() -> None:
    many = np.arange(400).reshape(20, 20)
    with pytest.raises(InputError, match="instances"):
        evaluate(many, many, task="classes")


@pytest.mark.needs_data
def test_segments_of_a_thresholded_real_map_are_its_components(data_dir: Path) -> None:
    truth = tifffile.imread(data_dir / "em-isbi2012" / "train" / "labels.tif")[0]
    components = label(truth > 0, connectivity=1)
    as_map, as_labels = evaluate(_map((truth > 0) * 0.95), components), evaluate(components, components)
    assert _all_scores(as_map) == pytest.approx(_all_scores(as_labels))
