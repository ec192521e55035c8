"""What a person says by painting, read out of layers without Qt."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np
import pytest
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_unet_seg import annotation_from_layers
from napari_unet_seg._annotate.correcting import correct
from napari_unet_seg._annotate.layer import adopt, coding_of, image_layer_of, regions_layer_of
from napari_unet_seg._annotate.new_layers import correction_layer, new_annotation_layer, new_regions_layer
from napari_unet_seg._annotate.what_counts import RIM_PX, annotated_planes, read_plane
from napari_unet_seg._layers import METADATA
from napari_unet_seg.core.errors import InputError

NM = ("nm",) * 3


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


def add_em(viewer: ViewerModel, shape: tuple[int, ...] = (3, 20, 30), **changes: Any) -> Any:
    where = {"scale": (40, 4, 4), "translate": (7, 8, 9), "units": NM, "axis_labels": ("z", "y", "x")}
    data = np.arange(np.prod(shape)).reshape(shape).astype(np.uint16)
    return viewer.add_image(data, name="em", **(where | changes))


def rectangle(plane: int, top: int, left: int, bottom: int, right: int) -> NDArray[np.float64]:
    corners = [(top, left), (top, right), (bottom, right), (bottom, left)]
    return np.array([(plane, *corner) for corner in corners], float)


def test_a_new_annotation_lies_on_its_image_and_starts_with_an_object(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image)
    assert (layer.name, coding_of(layer), layer.selected_label) == ("em › annotation", "scribbles", 2)
    assert (layer.data.dtype, layer.data.shape) == (np.uint16, (3, 20, 30))
    np.testing.assert_allclose(layer.data_to_world((1, 2, 3)), image.data_to_world((1, 2, 3)))
    assert image_layer_of(viewer.layers, layer) is image
    assert new_annotation_layer(viewer, image, coding="regions").name == "em › annotation #2"


def test_an_annotation_has_no_channel_axis(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((2, 4, 5), np.uint8), axis_labels=("c", "y", "x"), name="em")
    assert new_annotation_layer(viewer, image).data.shape == (4, 5)


def test_an_annotation_of_a_stack_larger_than_memory_takes_only_what_is_painted(viewer: ViewerModel) -> None:
    class OnDisk:
        """400 GB of which planes are made when they are read."""

        shape, dtype, ndim = (200_000, 1000, 2000), np.dtype(np.uint8), 3
        reads = 0

        def __getitem__(self, key: Any) -> NDArray[np.uint8]:
            plane, rows, columns = key
            assert isinstance(plane, int | np.integer), "a plane at a time"
            self.reads += 1
            return np.full((len(range(1000)[rows]), len(range(2000)[columns])), plane % 251, np.uint8)

    data = OnDisk()
    image = viewer.add_image(dask.array.zeros(data.shape, np.uint8, chunks=(1000, 1000, 2000)), name="em")
    layer = new_annotation_layer(viewer, image, coding="planes")
    layer.data[7, :10, :10] = 3
    layer.metadata[METADATA]["planes"] = [7, 4000]
    image.__dict__["_data"] = data
    annotation = annotation_from_layers(image, layer)
    assert (annotation.image.shape, data.reads) == ((2, 1000, 2000), 2)
    assert annotation.image[:, 0, 0].tolist() == [7, 4000 % 251]
    assert int(annotation.labels.sum()) == 300


def test_a_veil_or_another_image_is_never_taken_for_the_one_that_was_annotated(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image)
    viewer.add_image(np.zeros(image.data.shape), name="em", metadata={METADATA: {"veil_of": "it"}})
    viewer.layers.remove(image)
    other = add_em(viewer)
    other.name = "other"
    assert image_layer_of(viewer.layers, layer) is None
    again = add_em(viewer)
    assert image_layer_of(viewer.layers, layer) is again, "opened again, by its name"


def test_a_copy_of_a_layer_has_marks_of_its_own(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    predicted = viewer.add_labels(np.ones(image.data.shape, np.uint16))
    layer = correction_layer(viewer, predicted, image)
    copied = viewer.add_labels(layer.data.copy(), metadata=dict(layer.metadata))
    adopt(copied, "corrections")
    copied.metadata[METADATA]["checked"].add(1)
    assert layer.metadata[METADATA]["checked"] == set()


def test_ids_beyond_32_bits_stay_as_they_are(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    labels = np.zeros(image.data.shape, np.uint64)
    labels[0, :2], labels[0, 5:7] = 2**32 - 1, 2**32 + 5
    layer = correction_layer(viewer, viewer.add_labels(labels), image)
    np.testing.assert_array_equal(layer.data, labels.astype(np.int64))
    labels[1, 0, 0] = 2**63 + 1
    with pytest.raises(InputError, match="too large"):
        correction_layer(viewer, viewer.add_labels(labels), image)


def test_scribbles_count_where_something_is_painted(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image)
    layer.data[1, 2:5, 3:6], layer.data[1, 10, 4:9] = 2, 1
    assert annotated_planes(layer) == [(1,)]
    said = read_plane(layer, (1,))
    assert said.annotated.sum() == 14
    np.testing.assert_array_equal(said.labels == 1, layer.data[1] == 2)
    assert said.labels.max() == 1
    said.labels[:] = 9
    assert layer.data.max() == 2, "what is read is a copy"


def test_rectangles_count_on_the_plane_that_they_were_drawn_on(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image, coding="regions")
    assert annotated_planes(layer) == []
    regions = new_regions_layer(viewer, layer)
    regions.add_rectangles(
        [rectangle(2, 1, 2, 4, 7), rectangle(0, -5, 25, 3, 99), rectangle(0, -9, 0, -5, 9)]
    )
    regions.name = "renamed"
    found = regions_layer_of(viewer.layers, layer)
    assert found is regions
    assert annotated_planes(layer, found) == [(0,), (2,)]
    assert read_plane(layer, (2,), regions=found).annotated[1:5, 2:8].all()
    assert read_plane(layer, (2,), regions=found).annotated.sum() == 24
    assert read_plane(layer, (0,), regions=found).annotated.sum() == 20
    part = read_plane(layer, (2,), (slice(3, 9), slice(5, 9)), regions=found)
    assert part.annotated.tolist() == [[True] * 3 + [False]] * 2 + [[False] * 4] * 4


def test_a_listed_plane_counts_even_when_it_is_empty(viewer: ViewerModel) -> None:
    layer = new_annotation_layer(viewer, add_em(viewer), coding="planes")
    layer.data[0] = 1
    layer.metadata[METADATA]["planes"] = [1]
    assert annotated_planes(layer) == [(1,)]
    assert read_plane(layer, (1,)).annotated.all()
    assert not read_plane(layer, (0,)).annotated.any()


def test_a_single_image_is_its_own_plane_0(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((4, 5), np.uint8), name="em")
    layer = new_annotation_layer(viewer, image, coding="planes")
    assert annotated_planes(layer) == []
    layer.metadata[METADATA]["planes"] = [0]
    assert annotated_planes(layer) == [()]
    layer.data[1, 1] = 1
    assert annotation_from_layers(image, layer).annotated_mask.all()


def corrected(viewer: ViewerModel) -> tuple[Any, Any]:
    image = add_em(viewer)
    predicted = np.zeros((3, 20, 30), np.int32)
    predicted[1, 4:8, 4:8], predicted[1, 4:8, 20:24], predicted[2, 5, 5] = 1, 2, 1
    return image, correction_layer(viewer, viewer.add_labels(predicted, name="predicted"), image)


def test_a_correction_is_compared_with_the_prediction_as_it_was(viewer: ViewerModel) -> None:
    """The Segment dock writes other objects into the prediction's layer when its settings change."""
    _, layer = corrected(viewer)
    viewer.layers["predicted"].data[...] = 7
    assert annotated_planes(layer) == []
    assert set(np.unique(layer.data)) == {0, 1, 2}


def test_correct_hides_the_prediction_and_paints_in_a_copy_of_it(viewer: ViewerModel) -> None:
    corrected(viewer)
    other = add_em(viewer)
    layer = correct(viewer, viewer.layers["predicted"], other)
    assert not viewer.layers["predicted"].visible
    assert coding_of(layer) == "corrections"
    assert image_layer_of(viewer.layers, layer) is other, "of two images that fit, the one that was named"
    flat = viewer.add_labels(np.zeros((6, 6), int), name="flat")
    with pytest.raises(InputError, match="no image that 'flat' belongs to"):
        correct(viewer, flat)
    assert flat.visible


def test_a_prediction_without_objects_can_be_corrected(viewer: ViewerModel) -> None:
    layer = correction_layer(viewer, viewer.add_labels(np.zeros((3, 20, 30), int)), add_em(viewer))
    assert (layer.selected_label, layer.data.max()) == (1, 0)


def test_of_a_corrected_prediction_only_what_was_touched_or_checked_counts(viewer: ViewerModel) -> None:
    image, layer = corrected(viewer)
    assert (coding_of(layer), layer.data.dtype, layer.selected_label) == ("corrections", np.uint16, 3)
    assert annotated_planes(layer) == []
    with pytest.raises(InputError, match="mark objects as checked"):
        annotation_from_layers(image, layer)
    touched = np.zeros((20, 30), bool)
    touched[0, :3] = True
    layer.metadata[METADATA]["touched"][(0,)] = touched
    layer.metadata[METADATA]["checked"].add(1)
    assert annotated_planes(layer) == [(0,), (1,), (2,)]
    np.testing.assert_array_equal(read_plane(layer, (0,)).annotated, touched)
    around = read_plane(layer, (1,)).annotated
    assert around[4:8, 4:8].all()
    assert around[4 - RIM_PX, 5]
    assert not around[4 - RIM_PX - 1, 5]
    assert not around[4:8, 20:24].any()
    assert (annotation_from_layers(image, layer).annotated_mask.sum(axis=(1, 2)) > 0).all()


def test_undoing_a_correction_takes_back_that_it_counts(viewer: ViewerModel) -> None:
    _, layer = corrected(viewer)
    layer.brush_size = 1
    layer.selected_label = 0
    layer.paint((1, 5, 5), 0)
    assert annotated_planes(layer) == [(1,)]
    said = read_plane(layer, (1,))
    assert said.annotated.sum() == 1
    assert said.labels[5, 5] == 0
    assert said.annotated[5, 5]
    layer.undo()
    assert annotated_planes(layer) == []


def test_a_box_reads_like_a_cut_plane(viewer: ViewerModel) -> None:
    _, layer = corrected(viewer)
    layer.metadata[METADATA]["checked"].update((1, 2))
    regions = new_regions_layer(viewer, layer)
    regions.add_rectangles(rectangle(1, 12, 10, 17, 19))
    whole = read_plane(layer, (1,), regions=regions)
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, bottom = sorted(rng.integers(0, 21, 2))
        left, right = sorted(rng.integers(0, 31, 2))
        box = slice(top, bottom), slice(left, right)
        part = read_plane(layer, (1,), box, regions=regions)
        np.testing.assert_array_equal(part.annotated, whole.annotated[box])
        np.testing.assert_array_equal(part.labels, whole.labels[box])


def test_only_annotated_planes_are_read_and_all_codings_agree_with_the_planes(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image)
    layer.data[2, 4:9, 4:9], layer.data[2, 15], layer.data[0, 1, 1] = 2, 1, 3
    regions = new_regions_layer(viewer, layer)
    regions.add_rectangles(rectangle(1, 1, 2, 4, 7))
    layer.metadata[METADATA]["planes"] = [2]
    layer.metadata[METADATA]["checked"].add(3)
    for coding in ("scribbles", "regions", "planes", "corrections", "dense"):
        adopt(layer, coding)
        annotation = annotation_from_layers(image, layer, regions=regions if coding == "regions" else None)
        planes = annotated_planes(layer, regions if coding == "regions" else None)
        assert len(annotation.labels) == len(planes)
        for n, plane in enumerate(planes):
            said = read_plane(layer, plane, regions=regions if coding == "regions" else None)
            np.testing.assert_array_equal(annotation.image[n], image.data[plane])
            np.testing.assert_array_equal(annotation.annotated_mask[n], said.annotated)
            np.testing.assert_array_equal(annotation.labels[n], said.labels)


@pytest.mark.parametrize(
    ("names", "shape", "axes", "read"),
    [
        ("czyx", (2, 4, 5, 6), "CZYX", (2, 1, 5, 6)),
        ("zcyx", (4, 2, 5, 6), "ZCYX", (1, 2, 5, 6)),
        ("tzyx", (2, 4, 5, 6), "ZYX", (2, 5, 6)),
        ("tyx", (4, 5, 6), "TYX", (1, 5, 6)),
    ],
)
def test_channels_stay_and_planes_of_all_times_follow_one_another(
    viewer: ViewerModel, names: str, shape: tuple[int, ...], axes: str, read: tuple[int, ...]
) -> None:
    image = add_em(
        viewer, shape, axis_labels=names, scale=[1] * len(shape), translate=[0] * len(shape), units=None
    )
    layer = new_annotation_layer(viewer, image)
    layer.data[..., 1, 1] = 0
    plane = (1,) * (layer.ndim - 2)
    layer.data[plane][2, 2] = 2
    if names == "tzyx":
        layer.data[0, 3, 2, 2] = 2
    annotation = annotation_from_layers(image, layer)
    assert (annotation.axes, annotation.image.shape) == (axes, read)


def test_colours_are_channels(viewer: ViewerModel) -> None:
    image = viewer.add_image(np.zeros((6, 7, 3), np.uint8), rgb=True, name="slide")
    layer = new_annotation_layer(viewer, image)
    layer.data[1, 1] = 2
    annotation = annotation_from_layers(image, layer)
    assert (annotation.axes, annotation.image.shape) == ("YXC", (6, 7, 3))


def test_what_the_call_says_beats_what_the_layer_says(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    layer = new_annotation_layer(viewer, image)
    layer.data[0, 1, 1] = 1
    assert annotation_from_layers(image, layer, planes=[1]).annotated_mask.sum() == 600
    assert annotation_from_layers(image, layer, coding="dense").annotated_mask.sum() == 1800
    assert annotation_from_layers(image, layer).pixel_size_nm == (40, 4, 4)


def test_what_does_not_say_what_counts_is_asked(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    labels = viewer.add_labels(np.zeros((3, 20, 30), int), name="cells")
    with pytest.raises(InputError, match="does not say what counts"):
        annotation_from_layers(image, labels)
    with pytest.raises(InputError, match="does not say what counts"):
        read_plane(labels, (0,))


def test_labels_of_another_shape_are_refused_with_both_shapes(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    flat = viewer.add_labels(np.zeros((6, 6), int), name="flat")
    with pytest.raises(InputError, match="Labels 'flat' is 6×6 but image 'em' is 3×20×30"):
        annotation_from_layers(image, flat, coding="dense")
    with pytest.raises(InputError, match="6×6 but image 'em'"):
        correction_layer(viewer, flat, image)


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"coding": "scribbles"}, "paint background with 1"),
        ({"planes": []}, "name the planes"),
        ({"planes": [3]}, "Plane 3 does not exist: choose from 0 to 2"),
        ({"coding": "regions"}, "There is no rectangle"),
        ({"coding": "dense"}, "draw at least one object"),
        ({"coding": "doodles"}, "choose one of"),
    ],
)
def test_what_holds_nothing_is_refused_with_a_way_out(
    viewer: ViewerModel, wish: dict[str, Any], sentence: str
) -> None:
    image = add_em(viewer)
    with pytest.raises(InputError, match=sentence):
        annotation_from_layers(image, new_annotation_layer(viewer, image), **wish)


def test_rectangles_without_a_plane_are_refused_for_a_stack(viewer: ViewerModel) -> None:
    image = add_em(viewer)
    flat = viewer.add_shapes([rectangle(0, 1, 1, 5, 5)[:, 1:]], name="boxes")
    with pytest.raises(InputError, match="rectangles of 'boxes' lie on no plane"):
        annotation_from_layers(image, new_annotation_layer(viewer, image), regions=flat)


class Floating:
    """A labels layer as an old plugin may leave it: numbers that are no integers."""

    _type_string, name, multiscale, selected_label = "labels", "odd", False, 1
    metadata: dict[str, Any] = {}  # noqa: RUF012
    data = np.zeros((4, 4))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (dask.array.zeros((4, 4), dtype=int), "is a dask array"),
        ([np.zeros((4, 4), int), np.zeros((2, 2), int)], "is a pyramid"),
        (np.broadcast_to(np.zeros(4, int), (4, 4)), "is read-only"),
        (np.full((4, 4), -2), "negative id -2"),
    ],
)
def test_what_cannot_be_painted_in_is_refused(viewer: ViewerModel, data: Any, sentence: str) -> None:
    layer = viewer.add_labels(data, name="odd")
    with pytest.raises(InputError, match=sentence):
        adopt(layer, "scribbles")
    assert coding_of(layer) is None


def test_what_is_no_integer_and_no_labels_layer_is_refused(viewer: ViewerModel) -> None:
    with pytest.raises(InputError, match="is float64"):
        adopt(Floating(), "scribbles")
    with pytest.raises(InputError, match="is not a labels layer"):
        adopt(add_em(viewer), "scribbles")


def test_another_coding_keeps_what_was_marked(viewer: ViewerModel) -> None:
    _, layer = corrected(viewer)
    layer.metadata["other plugin"] = 1
    layer.metadata[METADATA]["checked"].add(2)
    image = layer.metadata[METADATA]["image"]
    adopt(layer, "planes")
    assert layer.metadata[METADATA]["checked"] == {2}
    assert layer.metadata[METADATA]["image"] == image
    assert layer.metadata["other plugin"] == 1
