"""What counts as annotated in each coding, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError

PLANE = np.zeros((4, 6), np.uint8)
STACK = np.zeros((3, 4, 6), np.uint8)
ONE_OBJECT = np.eye(4, 6, dtype=np.int32)


def test_dense_labels_count_everywhere() -> None:
    annotation = Annotation.dense(PLANE, ONE_OBJECT)
    assert annotation.annotated is None
    assert annotation.annotated_mask.all()
    assert (annotation.axes, annotation.label_axes) == ("YX", "YX")


def test_scribbles_tell_not_annotated_background_and_objects_apart() -> None:
    coded = np.array([[0, 1, 2, 5, 0, 0]] * 4, np.uint8)
    annotation = Annotation.scribbles(PLANE, coded)
    assert annotation.labels[0].tolist() == [0, 0, 1, 4, 0, 0]
    assert annotation.annotated_mask[0].tolist() == [False, True, True, True, False, False]


def test_listed_planes_are_annotated_as_a_whole_even_an_empty_one() -> None:
    labels = np.stack([ONE_OBJECT, ONE_OBJECT * 0, ONE_OBJECT])
    annotation = Annotation.planes(STACK, labels, [0, 1])
    assert annotation.annotated_mask.all(axis=(1, 2)).tolist() == [True, True, False]
    assert not annotation.annotated_mask[2].any()


def test_everything_inside_regions_is_annotated_and_nothing_else() -> None:
    regions = [(slice(0, 2), slice(0, 3)), (slice(3, 4), slice(5, 6))]
    annotated = Annotation.regions(PLANE, ONE_OBJECT, regions).annotated_mask
    assert annotated[:2, :3].all()
    assert annotated[3, 5]
    assert annotated.sum() == 7


@pytest.mark.parametrize(
    ("image_shape", "label_shape", "axes"),
    [
        ((3, 4, 6), (3, 4, 6), "ZYX"),
        ((2, 4, 6), (4, 6), "CYX"),
        ((4, 6, 3), (4, 6), "YXC"),
        ((2, 3, 4, 6), (3, 4, 6), "CZYX"),
        ((5, 3, 4, 6), (5, 3, 4, 6), "TZYX"),
    ],
)
def test_axes_are_found_from_the_shapes(
    image_shape: tuple[int, ...], label_shape: tuple[int, ...], axes: str
) -> None:
    annotation = Annotation.dense(np.zeros(image_shape), np.ones(label_shape, int))
    assert (annotation.axes, annotation.label_axes) == (axes, axes.replace("C", ""))


def test_axes_can_be_told() -> None:
    labels = np.ones((3, 4, 6), int)
    assert Annotation.dense(np.zeros((3, 2, 4, 6)), labels, axes="ZCYX").label_axes == "ZYX"


def test_an_image_without_objects_is_accepted_when_it_may_be_empty() -> None:
    assert not Annotation.dense(PLANE, ONE_OBJECT * 0, may_be_empty=True).labels.any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Annotation.dense(PLANE, ONE_OBJECT.astype(float)), "float64, not integers"),
        (lambda: Annotation.dense(PLANE, -ONE_OBJECT), "negative id -1"),
        (lambda: Annotation.dense(PLANE, ONE_OBJECT * 0), "0 everywhere"),
        (lambda: Annotation.dense(PLANE[:0], ONE_OBJECT[:0]), "no pixels"),
        (lambda: Annotation.dense(STACK, ONE_OBJECT[:3]), "labels are 3×6 but the image is 3×4×6"),
        (lambda: Annotation.dense(PLANE, ONE_OBJECT, axes="ZYX"), "name 3 axes"),
        (lambda: Annotation.dense(PLANE, ONE_OBJECT, axes="YY"), "not understood"),
        (lambda: Annotation.dense(STACK, ONE_OBJECT, axes="YCX"), "labels are 4×6"),
        (lambda: Annotation.scribbles(PLANE, ONE_OBJECT * 0), "Nothing is annotated"),
        (lambda: Annotation.planes(PLANE, ONE_OBJECT, [0]), "no planes"),
        (lambda: Annotation.planes(STACK, STACK.astype(int), [3]), "choose from 0 to 2"),
        (lambda: Annotation.planes(STACK, STACK.astype(int), []), "Nothing is annotated"),
        (lambda: Annotation.regions(PLANE, ONE_OBJECT, []), "Nothing is annotated"),
        (lambda: Annotation.regions(PLANE, ONE_OBJECT, [(slice(0, 1),)]), "1 axes but the labels have 2"),
        (lambda: Annotation(PLANE, ONE_OBJECT, np.ones((4, 5), bool)), "mask is bool 4×5"),
        (lambda: Annotation(PLANE, ONE_OBJECT, ONE_OBJECT), "mask is int32"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(
    make: Callable[[], Annotation], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        make()
