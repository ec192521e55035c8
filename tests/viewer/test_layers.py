"""The bridge between layers and the core's values, without Qt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel

from napari_unet_seg._layers import (
    METADATA,
    Part,
    add_prediction,
    box_of,
    is_made_here,
    placement,
    plane_in_view,
    read_image,
    rectangle_of,
    region_of,
    take,
)
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.prediction import predict

NM = ("nm",) * 3


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def add(viewer: ViewerModel, shape: tuple[int, ...], **kwargs: Any) -> Any:
    return viewer.add_image(np.arange(np.prod(shape)).reshape(shape).astype(np.uint16), name="em", **kwargs)


@pytest.mark.parametrize(
    ("shape", "labels", "axes"),
    [
        ((4, 5), None, "YX"),
        ((3, 4, 5), None, "ZYX"),
        ((3, 4, 5), ("c", "y", "x"), "CYX"),
        ((2, 3, 4, 5), ("time", "Channel", "row", "col"), "TCYX"),
        ((2, 3, 4, 5), ("c", "what", "y", "x"), "CZYX"),
        ((4, 5, 3), ("y", "x", "c"), "YXC"),
    ],
)
def test_axes_come_from_the_labels_or_are_planes(
    viewer: ViewerModel, shape: tuple[int, ...], labels: Any, axes: str
) -> None:
    assert read_image(add(viewer, shape, axis_labels=labels)).axes == axes


def test_two_unknown_axes_are_asked_for_by_name(viewer: ViewerModel) -> None:
    with pytest.raises(InputError, match="such as TZYX"):
        read_image(add(viewer, (2, 3, 4, 5)))
    assert read_image(viewer.layers[0], "TZYX").axes == "TZYX"


def test_planes_that_come_after_y_and_x_are_refused(viewer: ViewerModel) -> None:
    with pytest.raises(InputError, match="have to come last"):
        read_image(add(viewer, (3, 4, 5), axis_labels=("y", "x", "z")))


def test_pixel_size_is_scale_times_unit_and_unknown_without_a_unit(viewer: ViewerModel) -> None:
    layer = add(viewer, (3, 4, 5), scale=(0.05, 0.004, 0.006), units=("um",) * 3)
    assert read_image(layer).voxel_size_nm == pytest.approx({"Z": 50, "Y": 4, "X": 6})
    assert read_image(layer).pixel_size_nm == pytest.approx((4, 6))
    assert read_image(add(viewer, (4, 5), scale=(3, 3))).pixel_size_nm is None


def test_colours_are_an_axis_of_their_own_and_a_pyramid_is_read_at_its_finest(viewer: ViewerModel) -> None:
    colour = viewer.add_image(np.zeros((6, 7, 3), np.uint8), rgb=True)
    assert (read_image(colour).axes, read_image(colour).label_shape) == ("YXS", (6, 7))
    pyramid = viewer.add_image([np.zeros((8, 8)), np.zeros((4, 4))], multiscale=True)
    assert read_image(pyramid).label_shape == (8, 8)


def test_a_labels_layer_is_no_image(viewer: ViewerModel) -> None:
    with pytest.raises(InputError, match="choose an image layer"):
        read_image(viewer.add_labels(np.zeros((4, 4), int)))


def test_the_plane_in_view_follows_the_slider(viewer: ViewerModel) -> None:
    layer = add(viewer, (3, 4, 5), scale=(40, 4, 4), translate=(7, 0, 0))
    viewer.dims.set_current_step(0, 2)
    assert plane_in_view(layer, read_image(layer), viewer.dims.point) == (2,)


def test_where_becomes_a_region(viewer: ViewerModel) -> None:
    image = read_image(add(viewer, (3, 4, 5)))
    everything = slice(None)
    assert region_of(image, "plane", (1,)) == (1, everything, everything)
    assert region_of(image, "stack", (1,)) == (everything,) * 3
    assert region_of(image, (slice(1, 3), slice(0, 2)), (1,)) == (1, slice(1, 3), slice(0, 2))
    assert box_of(image, (2, slice(1, 99), everything)) == (slice(1, 4), slice(0, 5))


@pytest.mark.parametrize(
    "where", ["corner", (slice(9, 12), slice(None)), (5, slice(None), slice(None)), (1,)]
)
def test_a_place_outside_the_image_is_refused(viewer: ViewerModel, where: Any) -> None:
    with pytest.raises(InputError):
        region_of(read_image(add(viewer, (3, 4, 5))), where, (1,))


@given(
    z=st.one_of(st.integers(0, 2), st.just(slice(None)), st.just(slice(1, 3))),
    rows=st.tuples(st.integers(0, 3), st.integers(4, 7)),
    inner=st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 2)),
)
def test_a_part_reads_like_a_cut_array(
    z: int | slice, rows: tuple[int, int], inner: tuple[int, int, int]
) -> None:
    data = np.arange(3 * 7 * 6).reshape(3, 7, 6)
    part = Part(data, "ZYX", {"Z": z, "Y": slice(*rows)})
    cut = data[z, slice(*rows)]
    assert part.shape == cut.shape
    key = (0, slice(*inner)) if cut.ndim == 3 else (slice(*inner),)
    np.testing.assert_array_equal(part[key], cut[key])
    np.testing.assert_array_equal(part[..., 1:3], cut[..., 1:3])


def test_small_arrays_are_copied_and_lazy_ones_are_read_when_needed(viewer: ViewerModel) -> None:
    layer = add(viewer, (3, 4, 5))
    taken, axes = take(read_image(layer), (1, slice(None), slice(None)))
    expected = layer.data[1].copy()
    layer.data[1] = 0
    np.testing.assert_array_equal(np.asarray(taken), expected)
    assert axes == "YX"


def turned(viewer: ViewerModel) -> Any:
    affine = np.eye(4)
    affine[:3, 3] = (1, 2, 3)
    return add(
        viewer,
        (3, 4, 5),
        scale=(40, 4, 6),
        translate=(5, 6, 7),
        rotate=[[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]],
        shear=(0, 0, 0.1),
        affine=affine,
        units=NM,
        axis_labels=("z", "y", "x"),
    )


def test_a_result_lies_where_its_image_lies(viewer: ViewerModel) -> None:
    layer = turned(viewer)
    result = viewer.add_labels(np.zeros((3, 4, 5), int), **placement(layer, "ZYX", "ZYX"))
    for corner in [(0, 0, 0), (2, 3, 4), (1, 0, 4)]:
        np.testing.assert_allclose(result.data_to_world(corner), layer.data_to_world(corner))
    assert (result.units, result.axis_labels) == (layer.units, layer.axis_labels)
    result.affine.translate = (9, 9, 9)
    assert not np.allclose(layer.affine.translate, 9), "the affine is not shared"


def test_a_part_lies_where_it_was_cut_out(viewer: ViewerModel) -> None:
    layer = turned(viewer)
    where = placement(layer, "ZYX", "ZYX", {"Z": 2, "Y": 1})
    result = viewer.add_labels(np.zeros((1, 2, 5), int), **where)
    np.testing.assert_allclose(result.data_to_world((0, 1, 3)), layer.data_to_world((2, 2, 3)))


def test_a_result_has_no_channel_axis(viewer: ViewerModel) -> None:
    layer = add(viewer, (2, 4, 5), axis_labels=("c", "y", "x"), scale=(1, 4, 6), units=("pixel", "nm", "nm"))
    result = viewer.add_labels(np.zeros((4, 5), int), **placement(layer, "CYX", "YX"))
    np.testing.assert_allclose(result.scale, (4, 6))
    assert result.axis_labels == ("y", "x")
    assert result.units == layer.units[1:]


def test_a_rectangle_holds_the_pixels_that_it_touches_cut_at_the_edge(viewer: ViewerModel) -> None:
    layer = add(viewer, (3, 20, 30), scale=(40, 4, 4), translate=(0, 8, 0), units=NM)
    corners = np.array([[1, 4.6, 10], [1, 4.6, 99], [1, 12, 99], [1, 12, 10]])
    shapes = viewer.add_shapes([corners], **placement(layer, "ZYX", "ZYX"))
    assert rectangle_of(shapes, layer, read_image(layer)) == (slice(5, 13), slice(10, 30))


def test_no_rectangle_is_none(viewer: ViewerModel) -> None:
    layer = add(viewer, (20, 30))
    empty = viewer.add_shapes(None)
    outside = viewer.add_shapes([np.array([[-9, -9], [-9, -3], [-3, -3], [-3, -9]])])
    assert rectangle_of(empty, layer, read_image(layer)) is None
    assert rectangle_of(outside, layer, read_image(layer)) is None


def test_add_prediction_names_and_places_its_layers(
    viewer: ViewerModel, bright_model: Any, squares: Any
) -> None:
    layer = viewer.add_image(squares, name="em", scale=(40, 10, 10), units=NM, axis_labels=("z", "y", "x"))
    prediction = predict(squares, bright_model, PredictSettings(pixel_size_nm=10))
    labels, probability = add_prediction(viewer, prediction, like=layer, probabilities=True)
    assert (labels.name, probability.name) == ("em › bright › labels", "em › bright › P(object)")
    assert labels.data.dtype == np.uint16
    np.testing.assert_array_equal(labels.data, prediction.labels)
    np.testing.assert_allclose(labels.scale, layer.scale)
    (again,) = add_prediction(viewer, prediction, like=layer)
    assert again.name == "em › bright › labels #2"


def test_a_prediction_of_another_image_is_refused(
    viewer: ViewerModel, bright_model: Any, squares: Any
) -> None:
    layer = viewer.add_image(squares[:2], name="em")
    prediction = predict(squares, bright_model, PredictSettings(pixel_size_nm=10))
    with pytest.raises(InputError, match="3×64×80 but image 'em' is 2×64×80"):
        add_prediction(viewer, prediction, like=layer)


def test_an_image_that_was_opened_is_told_from_one_that_was_made(viewer: ViewerModel) -> None:
    opened = add(viewer, (4, 5), metadata={METADATA: {"path": "em.tif", "opened": {}}})
    made = add(viewer, (4, 5), metadata={METADATA: {}})
    assert not is_made_here(opened)
    assert not is_made_here(add(viewer, (4, 5)))
    assert is_made_here(made)
