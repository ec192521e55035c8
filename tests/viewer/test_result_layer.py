"""Where a result goes: into its own layer, never over what a person has changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet_seg._layers import read_image
from napari_unet_seg._segment.result_layer import ResultLayer, is_touched, result_layer
from napari_unet_seg.core.errors import InputError

ALL = slice(None)


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.zeros((3, 8, 8), np.uint8), name="em")
    return viewer


def result(viewer: ViewerModel, region: Any) -> ResultLayer:
    layer = viewer.layers["em"]
    found = result_layer(viewer, layer, read_image(layer), "model", region)
    found.show()
    found.begin()
    return found


def test_another_plane_goes_into_the_same_layer(viewer: ViewerModel) -> None:
    first, second = result(viewer, (0, ALL, ALL)), result(viewer, (2, ALL, ALL))
    assert first.layer is second.layer
    assert first.layer.name == "em › model › labels"
    assert first.layer.data.dtype == np.uint16


def test_running_again_at_the_same_place_adds_a_numbered_layer_and_hides_the_old_one(
    viewer: ViewerModel,
) -> None:
    first = result(viewer, (0, ALL, ALL))
    second, third = result(viewer, (ALL, ALL, ALL)), result(viewer, (0, slice(0, 4), ALL))
    assert second.layer.name == "em › model › labels #2"
    assert third.layer.name == "em › model › labels #3"
    assert [one.layer.visible for one in (first, second, third)] == [False, False, True]


def test_its_brush_is_drawn_from_the_moment_it_is_shown(viewer: ViewerModel) -> None:
    layer = viewer.layers["em"]
    made = result_layer(viewer, layer, read_image(layer), "model", (0, ALL, ALL))
    tools = [made.layer._overlays[name] for name in ("polygon", "brush_stroke")]
    assert not any(tool.visible for tool in tools)
    made.show()
    assert all(tool.visible for tool in tools)


def test_rectangles_beside_each_other_share_a_layer(viewer: ViewerModel) -> None:
    first = result(viewer, (0, slice(0, 4), slice(0, 4)))
    assert result(viewer, (0, slice(4, 8), slice(0, 4))).layer is first.layer
    assert result(viewer, (0, slice(3, 5), slice(3, 5))).layer is not first.layer


@pytest.mark.parametrize("change", ["paint", "fill", "data"])
def test_what_a_person_has_changed_is_never_written_to(viewer: ViewerModel, change: str) -> None:
    layer = result(viewer, (0, ALL, ALL)).layer
    assert not is_touched(layer)
    if change == "paint":
        layer.paint((0, 2, 2), 3)
    elif change == "fill":
        layer.fill((0, 2, 2), 3)
    else:
        layer.data = np.ones((3, 8, 8), np.uint16)
    assert is_touched(layer)
    assert result(viewer, (1, ALL, ALL)).layer is not layer


def test_our_own_writing_is_no_change_by_a_person(viewer: ViewerModel) -> None:
    written = result(viewer, (0, ALL, ALL))
    written.write((0, ALL, ALL), np.full((8, 8), 70_000, np.int32), 70_000)
    written.refresh()
    assert written.layer.data.dtype == np.int32
    assert not written.is_touched


def test_a_copy_of_a_result_can_be_made_and_is_its_own(viewer: ViewerModel) -> None:
    from copy import deepcopy

    layer = result(viewer, (0, ALL, ALL)).layer
    metadata = deepcopy(layer.metadata)
    layer.paint((0, 2, 2), 3)
    assert not metadata["napari-unet-seg"]["result"].is_touched


def test_a_plane_gets_the_lowest_ids_that_nothing_else_uses(viewer: ViewerModel) -> None:
    written = result(viewer, (0, ALL, ALL))
    result(viewer, (1, ALL, ALL))
    result(viewer, (2, ALL, ALL))
    written.note_ids((0, ALL, ALL), 1, 5)
    written.note_ids((1, ALL, ALL), 9, 12)
    assert written.free_ids_before((2, ALL, ALL), 3) == 5
    assert written.free_ids_before((2, ALL, ALL), 4) == 12
    assert written.last_id_outside((1, ALL, ALL)) == 5


def test_a_layer_of_the_same_name_that_is_not_ours_is_left_alone(viewer: ViewerModel) -> None:
    foreign = viewer.add_labels(np.ones((3, 8, 8), int), name="em › model › labels")
    assert result(viewer, (0, ALL, ALL)).layer.name == "em › model › labels #2"
    assert foreign.data.all()


def test_a_failed_run_takes_its_empty_layer_out_and_shows_the_one_before(viewer: ViewerModel) -> None:
    first = result(viewer, (0, ALL, ALL))
    second = result(viewer, (0, ALL, ALL))
    second.withdraw(viewer)
    assert second.layer not in viewer.layers
    assert first.layer.visible


def test_a_failed_run_does_not_show_what_a_person_had_hidden(viewer: ViewerModel) -> None:
    first = result(viewer, (0, ALL, ALL))
    first.layer.visible = False
    result(viewer, (0, ALL, ALL)).withdraw(viewer)
    assert not first.layer.visible


def test_a_failed_run_leaves_the_layer_to_another_run_that_is_to_fill_it(viewer: ViewerModel) -> None:
    failed, other = result(viewer, (0, ALL, ALL)), result(viewer, (1, ALL, ALL))
    failed.withdraw(viewer)
    assert other.layer in viewer.layers
    assert result(viewer, (0, ALL, ALL)).layer is other.layer


def test_memory_that_the_system_does_not_give_is_a_sentence(viewer: ViewerModel) -> None:
    first, layer = result(viewer, (0, ALL, ALL)), viewer.layers["em"]
    huge = replace(read_image(layer), data=np.broadcast_to(np.uint8(0), (2**20, 2**20, 2**20)))
    with pytest.raises(InputError, match="no memory"):
        result_layer(viewer, layer, huge, "model", (0, ALL, ALL))
    assert first.layer.visible


def test_what_was_written_is_never_withdrawn(viewer: ViewerModel) -> None:
    written = result(viewer, (0, ALL, ALL))
    written.write((0, ALL, ALL), np.ones((8, 8), np.uint8), 1)
    result(viewer, (1, ALL, ALL)).withdraw(viewer)
    assert written.layer in viewer.layers


def test_what_a_person_paints_while_it_is_filled_stays(viewer: ViewerModel) -> None:
    filled = result(viewer, (0, ALL, ALL))
    filled.write((0, slice(0, 4), ALL), np.full((4, 8), 3, np.uint16), 3)
    filled.layer.brush_size = 1
    filled.layer.paint((0, 2, 2), 7, refresh=False)
    filled.layer.fill((0, 6, 6), 9, refresh=False)
    filled.write((0, ALL, ALL), np.full((8, 8), 5, np.uint16), 5)
    assert filled.layer.data[0, 2, 2] == 7
    assert (filled.layer.data[0, 4:] == 9).all()
    assert set(np.unique(filled.layer.data[0, :4])) == {5, 7}


def test_single_pixels_that_a_script_sets_while_it_is_filled_stay(viewer: ViewerModel) -> None:
    filled = result(viewer, (0, ALL, ALL))
    filled.layer.data_setitem((np.array([0, 0]), np.array([1, 1]), np.array([1, 2])), np.array([4, 6]))
    filled.write((0, ALL, ALL), np.full((8, 8), 5, np.uint16), 5)
    assert filled.layer.data[0, 1].tolist() == [5, 4, 6, 5, 5, 5, 5, 5]


def test_what_a_person_paints_and_undoes_is_filled(viewer: ViewerModel) -> None:
    filled = result(viewer, (0, ALL, ALL))
    filled.layer.paint((0, 2, 2), 7, refresh=False)
    filled.layer.undo()
    filled.write((0, ALL, ALL), np.full((8, 8), 5, np.uint16), 5)
    assert (filled.layer.data[0] == 5).all()


def test_strokes_after_the_end_are_not_remembered(viewer: ViewerModel) -> None:
    filled = result(viewer, (0, ALL, ALL))
    record = filled.layer.metadata["napari-unet-seg"]["result"]
    filled.layer.paint((0, 2, 2), 7, refresh=False)
    assert record.painted
    filled.end()
    filled.layer.paint((0, 5, 5), 7, refresh=False)
    assert not record.painted
