"""What a person has said about an image: labels, and where they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._label_checks import by, check_labels, check_mask
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.rescaling import known_pixel_size

DEFAULT_AXES = {2: "YX", 3: "ZYX", 4: "TZYX"}


@dataclass(frozen=True)
class Annotation:
    """An image, its integer labels, and the mask inside which the labels count.

    Parameters
    ----------
    image
        Any number type; axes as `axes` says.
    labels
        Integers, the image's shape without its channel axis: 0 background, >= 1 objects (or class ids).
    annotated
        Boolean, the labels' shape: only where it is True do labels count. None: everywhere.
    axes
        Names of the image's axes, from T Z C Y X, such as "YX", "CZYX"; found from the shapes if empty.
    pixel_size_nm
        Size of a pixel along each axis of the labels, or one number for Y and X; None if unknown.

    Raises
    ------
    InputError
        Shapes that don't match, labels that are not integers or negative, nothing annotated, a pixel
        size that is not positive.
    """

    image: NDArray[Any]
    labels: NDArray[np.integer[Any]]
    annotated: NDArray[np.bool_] | None = None
    axes: str = ""
    pixel_size_nm: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        check_labels(self.labels)
        object.__setattr__(self, "axes", self.axes or _guessed_axes(self.image.shape, self.labels.shape))
        _check_axes(self.axes, self.image.shape, self.labels.shape)
        _check_annotated(self.annotated, self.labels.shape)
        object.__setattr__(self, "pixel_size_nm", known_pixel_size(self.pixel_size_nm))

    @classmethod
    def dense(
        cls,
        image: NDArray[Any],
        labels: NDArray[np.integer[Any]],
        *,
        axes: str = "",
        pixel_size_nm: float | tuple[float, ...] | None = None,
        may_be_empty: bool = False,
    ) -> Annotation:
        """Everything is annotated: 0 is background, >= 1 are objects.

        Labels without a single object are refused (most likely nothing was drawn) unless `may_be_empty`.
        """
        annotation = cls(image, labels, None, axes, pixel_size_nm)
        if not may_be_empty and not labels.any():
            raise InputError("The labels are 0 everywhere: draw at least one object, or choose other labels.")
        return annotation

    @classmethod
    def scribbles(
        cls,
        image: NDArray[Any],
        coded: NDArray[np.integer[Any]],
        *,
        axes: str = "",
        pixel_size_nm: float | tuple[float, ...] | None = None,
    ) -> Annotation:
        """Coding of the Fiji plugin: 0 not annotated, 1 background, >= 2 objects (`labels` holds id - 1)."""
        check_labels(coded)
        if not coded.any():
            raise InputError("Nothing is annotated: paint background with 1 and objects with 2 and up.")
        labels = np.where(coded > 0, coded - np.ones((), coded.dtype), np.zeros((), coded.dtype))
        return cls(image, labels, coded > 0, axes, pixel_size_nm)

    @classmethod
    def planes(
        cls,
        image: NDArray[Any],
        labels: NDArray[np.integer[Any]],
        planes: Sequence[int],
        *,
        axes: str = "",
        pixel_size_nm: float | tuple[float, ...] | None = None,
    ) -> Annotation:
        """The listed planes (first axis of the labels) are annotated as a whole, 0 is background."""
        check_labels(labels)
        if labels.ndim < 3:
            raise InputError(f"Labels of shape {labels.shape} have no planes: annotate the whole image.")
        outside = [plane for plane in planes if not 0 <= plane < len(labels)]
        if outside:
            raise InputError(f"Plane {outside[0]} does not exist: choose from 0 to {len(labels) - 1}.")
        annotated = np.zeros(labels.shape, bool)
        annotated[list(planes)] = True
        return cls(image, labels, annotated, axes, pixel_size_nm)

    @classmethod
    def regions(
        cls,
        image: NDArray[Any],
        labels: NDArray[np.integer[Any]],
        rectangles: Sequence[tuple[slice, ...]],
        *,
        axes: str = "",
        pixel_size_nm: float | tuple[float, ...] | None = None,
    ) -> Annotation:
        """Inside the rectangles (one slice per axis of the labels) all is annotated, 0 is background."""
        check_labels(labels)
        annotated = np.zeros(labels.shape, bool)
        for rectangle in rectangles:
            if len(rectangle) != labels.ndim:
                raise InputError(f"A region has {len(rectangle)} axes but the labels have {labels.ndim}.")
            annotated[rectangle] = True
        return cls(image, labels, annotated, axes, pixel_size_nm)

    @property
    def label_axes(self) -> str:
        """Names of the labels' axes: those of the image without the channel."""
        return self.axes.replace("C", "")

    @property
    def annotated_mask(self) -> NDArray[np.bool_]:
        """Where labels count, as an array of the labels' shape."""
        return np.ones(self.labels.shape, bool) if self.annotated is None else self.annotated


def _guessed_axes(image: tuple[int, ...], labels: tuple[int, ...]) -> str:
    """Axis names where the shapes leave no doubt; a channel is the extra first or last axis of the image."""
    names = DEFAULT_AXES.get(len(labels), "")
    if image == labels:
        return names
    if image[1:] == labels:
        return "C" + names
    if image[:-1] == labels:
        return names + "C"
    raise InputError(_shape_sentence(image, labels))


def _check_axes(axes: str, image: tuple[int, ...], labels: tuple[int, ...]) -> None:
    if len(set(axes)) != len(axes) or not set("YX") <= set(axes) <= set("TZCYX"):
        raise InputError(f"Axes '{axes}' are not understood: name each once, from T Z C Y X, with Y and X.")
    if len(axes) != len(image):
        raise InputError(f"Axes '{axes}' name {len(axes)} axes but the image has shape {by(image)}.")
    if tuple(n for n, axis in zip(image, axes, strict=True) if axis != "C") != labels:
        raise InputError(_shape_sentence(image, labels))


def _check_annotated(annotated: NDArray[np.bool_] | None, labels: tuple[int, ...]) -> None:
    if annotated is None:
        return
    check_mask(annotated, labels)
    if not annotated.any():
        raise InputError("Nothing is annotated: paint background and objects, or mark a region or plane.")


def _shape_sentence(image: tuple[int, ...], labels: tuple[int, ...]) -> str:
    return f"The labels are {by(labels)} but the image is {by(image)}: draw on all planes, or choose one."
