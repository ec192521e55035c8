"""From probabilities to objects: threshold, holes, specks, cuts at necks, ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.objects import (
    ObjectSettings,
    label_probabilities,
    objects_from_probabilities,
    objects_of_class,
)
from napari_unet_seg.core.weight_map import WeightSettings, weight_map

Mask = NDArray[np.float32]


def _disks(shape: tuple[int, int], *disks: tuple[float, float, float]) -> Mask:
    """Probability 1 inside disks given as (y, x, radius)."""
    y, x = np.indices(shape)
    inside = [np.hypot(y - cy, x - cx) <= radius for cy, cx, radius in disks]
    return np.asarray(np.any(inside, axis=0), np.float32)


def _n_objects(foreground: Mask, **settings: float) -> int:
    return int(objects_from_probabilities(foreground, ObjectSettings(**settings)).max())  # type: ignore[arg-type]


def test_only_pixels_above_the_threshold_are_objects() -> None:
    foreground = np.array([[0.2, 0.5, 0.6, 0.9]], np.float32)
    labels = objects_from_probabilities(foreground, ObjectSettings(threshold=0.5, min_size_px=0))
    np.testing.assert_array_equal(labels, [[0, 0, 1, 1]])


def test_two_touching_nuclei_become_two_objects() -> None:
    pair = _disks((40, 60), (20, 19, 11), (20, 39, 11))
    labels = objects_from_probabilities(pair)
    assert labels.max() == 2
    assert labels[20, 19] != labels[20, 39]


def test_split_strength_0_never_cuts() -> None:
    assert _n_objects(_disks((40, 60), (20, 20, 11), (20, 40, 11)), split_touching=0) == 1


def test_a_single_nucleus_is_never_cut_whatever_the_strength() -> None:
    assert _n_objects(_disks((40, 40), (20, 20, 12)), split_touching=0.9) == 1


def test_a_stronger_split_cuts_thicker_necks() -> None:
    overlapping = _disks((40, 60), (20, 20, 12), (20, 36, 12))
    assert _n_objects(overlapping, split_touching=0.3) == 1
    assert _n_objects(overlapping, split_touching=0.9) == 2


def test_a_neck_of_uncertain_pixels_is_cut_like_a_thinner_one() -> None:
    overlapping = _disks((40, 60), (20, 20, 12), (20, 36, 12))
    overlapping[:, 27:30] *= 0.6
    assert _n_objects(overlapping, split_touching=0.3) == 2


def test_a_long_neurite_of_even_width_stays_whole() -> None:
    y, x = np.indices((120, 200))
    neurite = (np.abs(y - 60 - 30 * np.sin(x / 25)) < 9).astype(np.float32)
    assert _n_objects(neurite) == 1


def test_cells_that_leak_through_a_hole_in_their_membrane_are_parted() -> None:
    cells = np.ones((60, 100), np.float32)
    cells[:, 49:51] = 0
    cells[28:32, 49:51] = 1
    labels = objects_from_probabilities(cells)
    assert labels.max() == 2
    assert labels[5, 5] != labels[5, 95]


def test_the_cut_follows_the_neck() -> None:
    labels = objects_from_probabilities(_disks((40, 60), (20, 19, 11), (20, 39, 11)))
    sizes = np.bincount(labels.ravel())[1:]
    assert abs(sizes[0] - sizes[1]) <= 22
    assert len(np.unique(labels[:, :29])) == 2


def test_a_hole_inside_an_object_is_filled() -> None:
    ring = _disks((40, 40), (20, 20, 14)) - _disks((40, 40), (20, 20, 4))
    labels = objects_from_probabilities(ring)
    np.testing.assert_array_equal(labels > 0, _disks((40, 40), (20, 20, 14)) > 0)


def test_a_hole_stays_where_filling_is_off() -> None:
    ring = _disks((40, 40), (20, 20, 14)) - _disks((40, 40), (20, 20, 4))
    labels = objects_from_probabilities(ring, ObjectSettings(fill_holes=False, split_touching=0))
    np.testing.assert_array_equal(labels > 0, ring > 0)


def test_the_membrane_around_a_cell_inside_another_is_no_hole() -> None:
    cells = _disks((60, 60), (30, 30, 28)) - _disks((60, 60), (30, 30, 12)) + _disks((60, 60), (30, 30, 9))
    labels = objects_from_probabilities(cells, ObjectSettings(split_touching=0))
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, cells > 0)


def test_the_space_between_objects_that_were_cut_apart_is_no_hole() -> None:
    trio = _disks((60, 60), (20, 19, 11.3), (20, 41, 11.3), (39, 30, 11.3))
    uncut = objects_from_probabilities(trio, ObjectSettings(split_touching=0))
    labels = objects_from_probabilities(trio)
    assert uncut.max() == uncut[26, 30] == 1
    assert labels.max() == 3
    np.testing.assert_array_equal(labels > 0, trio > 0)


def test_specks_are_dropped_and_ids_stay_without_gaps() -> None:
    foreground = np.zeros((20, 40), np.float32)
    foreground[2:4, 2:4] = foreground[5:15, 10:20] = foreground[5:15, 25:35] = 1
    labels = objects_from_probabilities(foreground, ObjectSettings(min_size_px=5))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert labels[2, 2] == 0


def test_a_speck_inside_a_hole_does_not_keep_the_hole_open() -> None:
    ring = _disks((40, 40), (20, 20, 14)) - _disks((40, 40), (20, 20, 4))
    ring[20, 20] = 1
    assert objects_from_probabilities(ring)[20, 17] == 1


def test_smallest_area_can_be_said_in_square_micrometres() -> None:
    foreground = np.zeros((20, 20), np.float32)
    foreground[5:9, 5:10] = 1
    settings = ObjectSettings(min_size_px=0, min_size_um2=0.001)
    assert objects_from_probabilities(foreground, settings, pixel_size_nm=7).max() == 0
    assert objects_from_probabilities(foreground, settings, pixel_size_nm=8).max() == 1
    assert objects_from_probabilities(foreground, settings, pixel_size_nm=(50, 5, 8)).max() == 0
    assert objects_from_probabilities(foreground, settings).max() == 1


def test_the_smallest_size_of_a_model_is_brought_from_its_grid_to_the_image() -> None:
    of_model = ObjectSettings(min_size_px=40)
    open_size = ObjectSettings(threshold=0.3)
    assert open_size.settled(of_model, (0.5, 0.5)).min_size_px == 160
    assert open_size.settled(of_model, (0.5, 0.5)).threshold == 0.3, "what the person says stays"
    assert open_size.settled(of_model, (2.0, 1.0)).min_size_px == 20
    assert open_size.settled(ObjectSettings(), (0.5, 0.5)).min_size_px == 80, "one that says nothing"
    said = ObjectSettings(min_size_px=7, border_w0=0)
    assert said.settled(of_model, (0.5, 0.5)) == said, "pixels of the image, as a person says them"


def _as_learned_with_a_border(truth: Mask, labels: NDArray[np.int32], w0: float) -> Mask:
    """What a network says of P(object) after background counted w times."""
    weight = weight_map(labels, WeightSettings.border_only(w0))
    return truth / (truth + weight * (1 - truth))


def _two_cells_and_the_doubtful_space_between(certainty: float) -> tuple[Mask, NDArray[np.int32], Mask]:
    """True P(object), the two cells, and P as learned with a border; `certainty` in a ring of 2 px."""
    cells = np.zeros((40, 60), np.int32)
    cells[10:30, 8:27], cells[10:30, 33:52] = 1, 2
    truth = np.where(cells > 0, 1.0, np.where(ndi.distance_transform_edt(cells == 0) <= 2, certainty, 0.0))
    return truth.astype(np.float32), cells, _as_learned_with_a_border(truth, cells, 10.0)


def test_pixels_that_only_the_border_weight_made_background_are_given_back() -> None:
    truth, _, learned = _two_cells_and_the_doubtful_space_between(0.8)
    in_gap = (slice(14, 26), slice(27, 33))
    assert not (learned[in_gap] > 0.5).any()
    assert (truth[in_gap] > 0.5).sum() == 12 * 4
    left = objects_from_probabilities(learned, ObjectSettings(border_w0=0))
    closed = objects_from_probabilities(learned, ObjectSettings(border_w0=10))
    np.testing.assert_array_equal(closed[in_gap] > 0, truth[in_gap] > 0.5)
    np.testing.assert_array_equal(closed[left > 0], left[left > 0])
    assert closed.max() == 2


def test_pixels_that_are_background_without_the_border_weight_too_stay_so() -> None:
    _, _, learned = _two_cells_and_the_doubtful_space_between(0.4)
    np.testing.assert_array_equal(
        objects_from_probabilities(learned, ObjectSettings(border_w0=10)),
        objects_from_probabilities(learned, ObjectSettings(border_w0=0)),
    )


def test_a_high_threshold_gives_back_less() -> None:
    _, _, learned = _two_cells_and_the_doubtful_space_between(0.8)
    of = {
        threshold: objects_from_probabilities(learned, ObjectSettings(threshold=threshold, border_w0=10))
        for threshold in (0.5, 0.95)
    }
    assert (of[0.5] > 0).sum() > (of[0.95] > 0).sum() == 2 * 20 * 19


def test_an_object_without_neighbours_does_not_grow() -> None:
    one = _disks((40, 40), (20, 20, 9)) * 0.5 + 0.3
    np.testing.assert_array_equal(
        objects_from_probabilities(one, ObjectSettings(border_w0=10)), objects_from_probabilities(one)
    )


def test_an_object_grows_by_two_pixels_at_most_at_the_usual_reach() -> None:
    columns = np.full((20, 60), 0.45, np.float32)
    columns[:, 10:20], columns[:, 30:40] = 1, 1
    labels = objects_from_probabilities(columns, ObjectSettings(border_w0=1e6))
    np.testing.assert_array_equal(np.flatnonzero(labels[10]), [*range(10, 22), *range(28, 40)])


@given(arrays(np.float32, (16, 18), elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.0])))
def test_closing_up_only_adds_to_objects_and_parts_none(foreground: NDArray[np.float32]) -> None:
    left = objects_from_probabilities(foreground, ObjectSettings(min_size_px=4, border_w0=0))
    closed = objects_from_probabilities(foreground, ObjectSettings(min_size_px=4, border_w0=10))
    np.testing.assert_array_equal(closed[left > 0], left[left > 0])
    for label in range(1, int(left.max()) + 1):
        assert ndi.label(closed == label)[1] == 1


def test_the_border_of_a_model_is_brought_from_its_grid_to_the_image() -> None:
    of_model = ObjectSettings(border_w0=8, border_sigma_px=5)
    settled = ObjectSettings().settled(of_model, (0.5, 0.5))
    assert (settled.border_w0, settled.border_sigma_px) == (8, 10)
    assert ObjectSettings().settled(ObjectSettings(), (1.0, 1.0)).border_w0 == 0
    own = ObjectSettings(border_w0=3, border_sigma_px=4)
    settled = own.settled(of_model, (0.5, 0.5))
    assert (settled.border_w0, settled.border_sigma_px) == (3, 4)


def test_ids_are_unique_over_a_stack_and_planes_are_independent() -> None:
    plane = _disks((40, 60), (20, 20, 8), (20, 42, 8))
    labels = objects_from_probabilities(np.stack([plane, np.zeros_like(plane), plane]))
    assert labels.dtype == np.int32
    assert set(np.unique(labels[0])) == {0, 1, 2}
    assert not labels[1].any()
    assert set(np.unique(labels[2])) == {0, 3, 4}


def test_diagonal_contact_is_no_contact() -> None:
    foreground = np.kron(np.eye(2), np.ones((6, 6))).astype(np.float32)
    assert _n_objects(foreground, split_touching=0) == 2


def test_nan_is_background() -> None:
    foreground = np.ones((10, 10), np.float32)
    foreground[:, 5] = np.nan
    labels = objects_from_probabilities(foreground)
    assert labels.max() == 2
    assert not labels[:, 5].any()


def test_the_probabilities_are_left_as_they_are() -> None:
    foreground = _disks((40, 60), (20, 19, 11), (20, 39, 11))
    before = foreground.copy()
    objects_from_probabilities(foreground)
    np.testing.assert_array_equal(foreground, before)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (0, 5), (2, 0, 5), (0, 4, 4)])
@pytest.mark.parametrize("value", [0, 1])
def test_tiny_and_empty_pictures_are_fine(shape: tuple[int, ...], value: int) -> None:
    labels = objects_from_probabilities(np.full(shape, value, np.float32), ObjectSettings(min_size_px=0))
    assert labels.shape == shape
    assert (labels > 0).all() == (value == 1 or labels.size == 0)


@given(
    arrays(np.float32, (12, 13), elements=st.sampled_from([0, 0.3, 0.6, 0.8, 1])),
    st.floats(0, 1),
    st.booleans(),
)
def test_objects_are_connected_big_enough_and_cover_the_foreground(
    foreground: Mask, strength: float, fill: bool
) -> None:
    settings = ObjectSettings(min_size_px=4, split_touching=strength, fill_holes=fill)
    labels = objects_from_probabilities(foreground, settings)
    assert set(np.unique(labels)) - {0} == set(range(1, labels.max() + 1))
    assert (np.bincount(labels.ravel())[1:] >= 4).all()
    for one in range(1, labels.max() + 1):
        assert ndi.label(labels == one)[1] == 1
    uncut = objects_from_probabilities(
        foreground, ObjectSettings(min_size_px=4, split_touching=0, fill_holes=False)
    )
    assert (labels[uncut > 0] > 0).all()


@pytest.mark.parametrize("smallest_px", [0, 5, 20, 60])
@pytest.mark.parametrize("strength", [0.3, 0.5, 1.0])
def test_objects_of_uneven_pictures_are_4_connected_big_enough_and_numbered_without_gaps(
    smallest_px: int, strength: float
) -> None:
    rng = np.random.default_rng(0)
    settings = ObjectSettings(min_size_px=smallest_px, split_touching=strength)
    for _ in range(12):
        noise = ndi.gaussian_filter(rng.normal(size=(96, 96)), rng.uniform(1, 3))
        foreground = (1 / (1 + np.exp(-4 * noise / noise.std()))).astype(np.float32)
        labels = objects_from_probabilities(foreground, settings)
        assert labels.max() > 1
        sizes = np.bincount(labels.ravel())[1:]
        assert sizes.min() >= max(smallest_px, 1)
        for one, box in enumerate(ndi.find_objects(labels), start=1):
            assert ndi.label(labels[box] == one)[1] == 1
        uncut = objects_from_probabilities(foreground, replace(settings, split_touching=0, fill_holes=False))
        assert (labels[uncut > 0] > 0).all()


def test_a_class_task_gives_the_likeliest_class() -> None:
    probabilities = np.array([[[0.5, 0.2, 0.1]], [[0.3, 0.7, 0.1]], [[0.2, 0.1, 0.8]]], np.float32)
    labels = label_probabilities(probabilities, "classes")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, [[0, 1, 2]])


def test_an_instance_task_takes_all_classes_but_0_as_foreground() -> None:
    one, two = np.full((6, 6), 0.4, np.float32), np.full((6, 6), 0.4, np.float32)
    assert label_probabilities(np.stack([1 - one - two, one, two]), "instances").all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.5),
        ("threshold", float("nan")),
        ("split_touching", -0.1),
        ("min_size_px", -1),
        ("border_w0", -1),
        ("border_sigma_px", 0),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        ObjectSettings(**{name: value})  # type: ignore[arg-type]


def test_probabilities_without_enough_axes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(Y, X\)"):
        objects_from_probabilities(np.zeros(5, np.float32))
    with pytest.raises(InputError, match="class axis"):
        label_probabilities(np.zeros((5, 5), np.float32), "classes")


def test_objects_of_a_class_are_its_pieces_of_some_size_with_their_holes_filled() -> None:
    classes = np.zeros((2, 20, 30), np.uint8)
    classes[:, 2:12, 2:12] = 1
    classes[:, 4:10, 4:10] = 2
    classes[:, 6, 6] = 1  # inside an axon
    classes[1, 15:19, 20:28] = 2
    classes[1, 0, 29] = 2
    found = objects_of_class(classes, 2, ObjectSettings(min_size_px=5, split_touching=1.0))
    assert [len(np.unique(plane)) - 1 for plane in found] == [1, 2]
    assert (found[0, 4:10, 4:10] == 1).all()
    assert not found[1, 0, 29]
    assert found.max() == 3
