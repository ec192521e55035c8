"""Arithmetic of boxes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_unet_seg.core.boxes import as_few, common, extent, grown, hull, n_pixels, relative

spans = st.tuples(st.integers(0, 30), st.integers(1, 9)).map(lambda span: slice(span[0], span[0] + span[1]))
boxes = st.tuples(spans, spans)
PLANE = (40, 40)


def painted(*some: tuple[slice, slice]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    mask = np.zeros(PLANE, bool)
    for box in some:
        mask[box] = True
    return mask


@given(some=st.lists(boxes, min_size=1, max_size=100))
def test_few_boxes_hold_what_many_did(some: list[tuple[slice, slice]]) -> None:
    few = as_few(some)
    assert not (painted(*some) & ~painted(*few)).any()
    assert len(few) <= len(some)


def test_boxes_far_apart_stay_apart() -> None:
    near, far = (slice(0, 3), slice(0, 3)), (slice(30, 33), slice(30, 33))
    assert as_few([near, far, near]) == [far, near]


def test_many_boxes_are_one_for_each_plane() -> None:
    some = [(slice(z, z + 1), slice(9 * i, 9 * i + 1), slice(0, 1)) for z in range(2) for i in range(40)]
    assert as_few(some) == [(slice(z, z + 1), slice(0, 352), slice(0, 1)) for z in range(2)]


@given(a=boxes, b=boxes)
def test_a_hull_is_the_extent_of_both(a: tuple[slice, slice], b: tuple[slice, slice]) -> None:
    assert hull(a, b) == extent(painted(a, b))


@given(a=boxes)
def test_a_part_is_found_again_in_a_cut_out(a: tuple[slice, slice]) -> None:
    around = grown(a, 3, PLANE)
    assert common(around, a) == a
    np.testing.assert_array_equal(painted(a)[around][relative(a, around)], painted(a)[a])
    assert n_pixels(grown(a, (0, 50), PLANE)) == 40 * (a[0].stop - a[0].start)
