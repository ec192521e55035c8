"""Problems of an annotation: what is reported, what is not, where it leads to, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from skimage.measure import label as reference_pieces

from napari_unet_seg.core._pieces import find_pieces
from napari_unet_seg.core.annotation_problems import (
    KINDS,
    MOST_OF_A_KIND,
    Problem,
    find_problems,
    summarise,
)
from napari_unet_seg.core.errors import InputError

Labels = NDArray[np.uint16]
LABELS = arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3))


def blank(height: int = 100, width: int = 120) -> Labels:
    return np.zeros((height, width), np.uint16)


def dense(labels: Labels, **how: Any) -> list[Problem]:
    """Everything counts."""
    return find_problems(labels, np.ones(labels.shape, bool), (), **{"coding": "dense", **how})


def scribbled(coded: Labels, **how: Any) -> list[Problem]:
    """As painted: 0 not annotated, 1 background, 2 and up objects."""
    return find_problems(np.maximum(coded, 1) - 1, coded > 0, (), coding="scribbles", **how)


def kinds(problems: list[Problem]) -> list[str]:
    return [problem.kind for problem in problems]


def two_objects() -> Labels:
    labels = blank()
    labels[10:30, 10:30] = 1
    labels[10:30, 40:60] = 2
    return labels


def two_scribbles() -> Labels:
    coded = blank()
    coded[20, 10:30] = 2
    coded[20, 50:70] = 3
    coded[10:30, 40] = 1
    return coded


def test_a_good_annotation_has_no_problem() -> None:
    assert dense(two_objects()) == []
    assert scribbled(two_scribbles()) == []


def test_an_object_in_two_pieces_is_reported_and_leads_to_the_smaller_one() -> None:
    labels = two_objects()
    labels[60:70, 90:100] = 1
    (problem,) = dense(labels)
    assert problem.kind == "pieces"
    assert problem.ids == (1,)
    assert labels[problem.center] == 1
    assert problem.center[0] >= 60
    assert problem.message.startswith("Object 1 is in two pieces, 68 px apart: ")


def test_an_object_cut_by_a_line_is_reported_because_no_border_would_be_learned() -> None:
    labels = two_objects()
    labels[10:30, 20] = 0
    (problem,) = dense(labels)
    assert (problem.kind, problem.ids) == ("pieces", (1,))


def test_pieces_that_touch_by_a_corner_are_one() -> None:
    labels = two_objects()
    labels[30:40, 30:40] = 1
    assert dense(labels) == []


def test_the_object_that_is_furthest_apart_comes_first() -> None:
    labels = two_objects()
    labels[60:70, 90:100] = 1
    labels[40:50, 45:55] = 2
    assert [problem.ids for problem in dense(labels)] == [(1,), (2,)]


def test_in_a_class_task_pieces_are_no_problem() -> None:
    labels = two_objects()
    labels[60:70, 90:100] = 1
    assert dense(labels, task="classes") == []


def test_two_strokes_in_one_object_are_no_problem() -> None:
    coded = two_scribbles()
    coded[35, 10:30] = 2
    assert scribbled(coded) == []


def test_two_strokes_of_one_id_with_background_between_are_reported() -> None:
    coded = two_scribbles()
    coded[20, 50:70] = 2
    assert kinds(scribbled(coded)) == ["pieces", "one object"]
    assert scribbled(coded)[0].ids == (2,)


def test_strokes_of_one_id_far_apart_are_reported_even_with_nothing_between() -> None:
    coded = two_scribbles()
    coded[90, 20:30] = 2
    assert kinds(scribbled(coded)) == ["pieces"]


def test_thin_scribbles_are_no_specks_but_a_dot_is() -> None:
    coded = two_scribbles()
    coded[25, 12] = 2
    (problem,) = scribbled(coded)
    assert (problem.kind, problem.center, problem.ids) == ("speck", (25, 12), (2,))
    assert problem.message == "Object 2 has a speck of 1 px: erase this if the brush slipped."


def test_a_speck_beside_large_objects_is_reported() -> None:
    labels = two_objects()
    labels[80:83, 80:84] = 7
    (problem,) = dense(labels)
    assert (problem.kind, problem.ids) == ("speck", (7,))
    assert problem.message.startswith("Object 7 is only 12 px large")


def test_small_objects_among_small_objects_are_no_specks() -> None:
    labels = blank()
    for n in range(20):
        labels[4 * n : 4 * n + 3, 10:14] = n + 1
    assert dense(labels) == []


def test_specks_of_an_object_are_said_once() -> None:
    labels = two_objects()
    labels[80, 80] = labels[90, 90:92] = labels[90, 20] = 1
    (problem,) = dense(labels)
    assert problem.message.startswith("Object 1 has 3 specks, the smallest of 1 px")


def test_touching_scribbles_of_two_objects_are_reported_once_even_where_one_cuts_the_other() -> None:
    coded = two_scribbles()
    coded[10:30, 60] = 4
    problems = scribbled(coded)
    assert kinds(problems) == ["crossing"]
    assert set(problems[0].ids) == {3, 4}
    assert coded[problems[0].center] in (3, 4)


def test_touching_objects_that_are_painted_as_a_whole_are_no_problem() -> None:
    labels = two_objects()
    labels[10:30, 30:40] = 2
    assert dense(labels) == []


def test_a_scribbled_object_without_background_near_it_is_reported() -> None:
    coded = np.zeros((400, 400), np.uint16)
    coded[:100, :120] = two_scribbles()
    coded[300, 300:330] = 31
    (problem,) = scribbled(coded)
    assert (problem.kind, problem.ids) == ("no background near", (31,))
    assert problem.message.startswith("No background is painted near object 31: ")
    assert coded[problem.center] == 31


def test_only_objects_or_only_background_is_said_first_and_not_once_more_for_each_object() -> None:
    coded = two_scribbles()
    assert kinds(scribbled(np.where(coded == 1, 0, coded).astype(np.uint16))) == ["no background"]
    assert kinds(scribbled(np.where(coded > 1, 0, coded).astype(np.uint16))) == ["no object"]


def test_a_single_object_is_said() -> None:
    labels = two_objects()
    labels[labels == 2] = 0
    assert kinds(dense(labels)) == ["one object"]


def test_a_class_task_with_one_class_is_said() -> None:
    assert kinds(dense(np.full((9, 9), 2, np.uint16), task="classes")) == ["one class"]
    assert kinds(dense(blank(), task="classes")) == ["one class"]


def in_region(labels: Labels, *regions: tuple[slice, slice], **how: Any) -> list[Problem]:
    annotated = np.zeros(labels.shape, bool)
    for region in regions:
        annotated[region] = True
    return find_problems(labels, annotated, (4,), **{"coding": "regions", "regions": regions, **how})


def test_an_object_cut_by_the_edge_of_a_region_is_fine() -> None:
    labels = two_objects()
    assert in_region(labels, np.s_[5:35, 5:55]) == []
    labels[:, 55:] = 0
    assert in_region(labels, np.s_[5:35, 5:55]) == [], "also when it is not painted beyond"


def test_an_object_that_ends_just_before_the_edge_of_a_region_is_reported() -> None:
    (problem,) = in_region(two_objects(), np.s_[5:35, 5:62])
    assert (problem.kind, problem.ids, problem.plane) == ("short of edge", (2,), (4,))
    assert problem.center == (20, 61)
    assert "along 20 px" in problem.message


@pytest.mark.parametrize("turns", range(4))
def test_all_edges_of_a_region_are_looked_at(turns: int) -> None:
    labels = np.rot90(two_objects()[:, :100], turns).copy()
    mask = np.zeros((100, 100), bool)
    mask[5:35, 5:62] = True
    rows, columns = (np.flatnonzero(np.rot90(mask, turns).any(axis=axis)) for axis in (1, 0))
    region = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    assert kinds(in_region(labels, region)) == ["short of edge"]


def test_the_edge_of_the_plane_is_no_edge_at_which_an_object_goes_on() -> None:
    labels = two_objects()
    labels[10:30, 100:119] = 3
    assert in_region(labels, np.s_[0:100, 0:120]) == []


def test_an_object_outside_all_regions_does_not_count_and_that_is_said() -> None:
    labels = two_objects()
    labels[80:90, 80:90] = 3
    labels[40:90, 48:58] = 4
    problems = in_region(labels, np.s_[5:45, 5:70])
    assert [(problem.kind, problem.ids) for problem in problems] == [
        ("does not count", (3,)),
        ("does not count", (4,)),
    ]
    assert problems[0].message.startswith("Object 3 lies outside the rectangles")
    assert problems[1].message.startswith("Object 4 lies mostly outside the rectangles")
    labels[70:75, 10:20] = 5
    assert in_region(labels, np.s_[5:45, 5:70])[0].message.startswith("2 objects lie outside the rectangles")


def test_a_region_without_background_and_one_without_an_object_are_reported() -> None:
    labels = two_objects()
    problems = in_region(labels, np.s_[12:28, 12:28], np.s_[5:35, 35:65], np.s_[50:70, 50:70])
    assert [(problem.kind, problem.center) for problem in problems] == [
        ("region without background", (20, 20)),
        ("region without object", (60, 60)),
    ]


def test_between_touching_objects_training_makes_background() -> None:
    labels = blank()
    labels[:, :60], labels[:, 60:] = 1, 2
    assert dense(labels) == in_region(labels, np.s_[0:100, 0:120]) == []
    assert kinds(dense(np.ones_like(labels))) == ["no background"]


def test_a_plane_on_which_nothing_counts_is_reported_when_something_is_painted_there() -> None:
    labels = two_objects()
    nowhere = np.zeros(labels.shape, bool)
    assert kinds(find_problems(labels, nowhere, (1,), coding="planes")) == ["does not count"]
    assert kinds(find_problems(labels, nowhere, (1,), coding="regions")) == ["does not count"]
    assert find_problems(blank(), nowhere, (1,), coding="planes") == []
    assert find_problems(labels, nowhere, (1,), coding="corrections") == []


def test_of_corrections_only_what_a_person_touched_is_looked_at() -> None:
    predicted = two_objects()
    predicted[70:80, 10:30] = 1
    predicted[90, 90] = 9
    touched = np.zeros(predicted.shape, bool)
    touched[15:20, 25:45] = True
    assert find_problems(predicted, touched, (), coding="corrections") == []


def test_a_cut_through_a_predicted_object_without_a_new_id_is_reported() -> None:
    corrected = two_objects()
    corrected[10:30, 18:20] = 0
    touched = np.zeros(corrected.shape, bool)
    touched[10:30, 18:20] = True
    touched[12:14, 42:44] = True
    problems = find_problems(corrected, touched, (), coding="corrections")
    assert ("pieces", (1,)) in [(problem.kind, problem.ids) for problem in problems]


def test_more_than_a_few_problems_of_a_kind_are_counted() -> None:
    labels = blank()
    for n in range(17):
        labels[2:90, 7 * n : 7 * n + 5] = n + 1
        labels[95, 7 * n] = n + 1
    problems = dense(labels)
    assert len(problems) == 17
    listed = summarise([problems])
    assert listed[:MOST_OF_A_KIND] == problems[:MOST_OF_A_KIND]
    assert listed[-1].message == "And 12 more objects with specks."
    assert listed[-1].center == problems[MOST_OF_A_KIND].center
    assert len(listed[-1].ids) == 12


def test_what_one_plane_lacks_another_may_have() -> None:
    empty, good = dense(blank()), dense(two_objects())
    assert kinds(summarise([empty])) == ["no object"]
    assert summarise([empty, good]) == []
    assert kinds(summarise([empty, empty])) == ["no object"], "said once"
    assert summarise([]) == []


def test_the_worst_of_all_planes_comes_first() -> None:
    speck, parted = two_objects(), two_objects()
    speck[90, 90] = 1
    parted[60:70, 90:100] = 1
    assert kinds(summarise([dense(speck), dense(parted)])) == ["pieces", "speck"]


@pytest.mark.parametrize(
    ("labels", "annotated", "said"),
    [
        (np.zeros((4, 4), np.float32), np.ones((4, 4), bool), "integers"),
        (np.full((4, 4), -1), np.ones((4, 4), bool), "negative"),
        (np.zeros((4, 4), int), np.ones((4, 5), bool), "4×5"),
        (np.zeros((0, 4), int), np.ones((0, 4), bool), "no pixels"),
    ],
)
def test_what_is_no_annotation_is_refused(labels: Any, annotated: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_problems(labels, annotated, (), coding="dense")


@given(LABELS, st.sampled_from(["dense", "scribbles", "regions", "planes", "corrections"]), st.data())
def test_every_problem_leads_to_a_place_on_the_plane(labels: Labels, coding: Any, data: Any) -> None:
    annotated = data.draw(arrays(np.bool_, labels.shape))
    regions = [np.s_[0 : labels.shape[0], 1 : labels.shape[1]]] if coding == "regions" else []
    before = labels.copy(), annotated.copy()
    problems = find_problems(labels, annotated, (2,), coding=coding, regions=regions)
    assert [KINDS.index(problem.kind) for problem in problems] == sorted(
        KINDS.index(problem.kind) for problem in problems
    )
    for problem in problems:
        assert all(0 <= at < length for at, length in zip(problem.center, labels.shape, strict=True))
        assert problem.message.endswith(".")
        if problem.kind in ("pieces", "speck"):
            assert labels[problem.center] + (coding == "scribbles") in problem.ids
    np.testing.assert_array_equal(labels, before[0])
    np.testing.assert_array_equal(annotated, before[1])


@given(LABELS)
def test_pieces_are_the_connected_components_of_each_id(labels: Labels) -> None:
    found = find_pieces(labels)
    expected = reference_pieces(labels, background=0, connectivity=2)
    runs = found.runs
    drawn = np.full(labels.shape, -1)
    for row, start, stop, piece in zip(runs.rows, runs.starts, runs.stops, runs.pieces, strict=True):
        drawn[row, start:stop] = piece
    pairs = {(a, b) for a, b in zip(drawn.ravel(), expected.ravel(), strict=True) if b}
    assert len(pairs) == len(found) == expected.max()
    np.testing.assert_array_equal(drawn < 0, labels == 0)
    for piece in range(len(found)):
        assert found.areas_px[piece] == (drawn == piece).sum()
        assert drawn[found.middle(piece)] == piece


@given(LABELS, st.data())
def test_the_distance_of_two_pieces_is_that_of_their_nearest_pixels(labels: Labels, data: Any) -> None:
    found = find_pieces(labels)
    if len(found) < 2:
        return
    one, other = data.draw(st.permutations(range(len(found))))[:2]
    a, b = (np.argwhere(_drawn(labels, found) == piece) for piece in (one, other))
    expected = np.sqrt(((a[:, np.newaxis] - b) ** 2).sum(axis=-1).min())
    gap_px, here, there = found.nearest(one, other)
    assert gap_px == pytest.approx(expected)
    assert _drawn(labels, found)[here] == one
    assert _drawn(labels, found)[there] == other
    assert np.hypot(*np.subtract(here, there)) == pytest.approx(expected)


def _drawn(labels: Labels, found: Any) -> NDArray[np.int64]:
    drawn = np.full(labels.shape, -1)
    runs = found.runs
    for row, start, stop, piece in zip(runs.rows, runs.starts, runs.stops, runs.pieces, strict=True):
        drawn[row, start:stop] = piece
    return drawn
