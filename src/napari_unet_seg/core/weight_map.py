"""The weight of every annotated pixel in the loss: class balance plus the border between close objects.

Two presets, never mixed: the U-Net paper of 2015 and the Fiji U-Net plugin of 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core._distances import two_nearest
from napari_unet_seg.core._gaps import IntArray, Task, connected_objects, is_gap
from napari_unet_seg.core._label_checks import by, check_labels, check_mask
from napari_unet_seg.core.errors import InputError

HALO_LEVEL = 1e-3  # of w0: what is smaller does not count as a change
CUT_LEVEL = 2e-4  # of w0: what is smaller is written as 0, in a box and in a whole map alike


@dataclass(frozen=True)
class WeightSettings:
    """Which formula, and its constants; lengths in pixels of the grid that the labels are on."""

    preset: Literal["paper", "fiji"] = "paper"
    w0: float = 10.0
    sigma_px: float = 5.0
    balance: float = 0.1
    sigma1_px: float = 10.0

    def __post_init__(self) -> None:
        if self.preset not in ("paper", "fiji"):
            raise InputError(f"Weight preset '{self.preset}' is unknown: choose 'paper' or 'fiji'.")
        for name in ("sigma_px", "sigma1_px"):
            if not (isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} of the weight map is {getattr(self, name)}: give a number above 0.")
        if not (isfinite(self.w0) and self.w0 >= 0):
            raise InputError(f"w0 of the weight map is {self.w0}: give a number that is 0 or more.")
        if not 0 <= self.balance <= 1:
            raise InputError(f"Background weight of the weight map is {self.balance}: give one from 0 to 1.")

    @classmethod
    def paper(cls, w0: float = 10.0, sigma_px: float = 5.0) -> WeightSettings:
        """Constants of Ronneberger, Fischer, Brox (2015), arXiv 1505.04597."""
        return cls("paper", w0, sigma_px)

    @classmethod
    def fiji(
        cls, w0: float = 50.0, sigma_px: float = 6.0, balance: float = 0.1, sigma1_px: float = 10.0
    ) -> WeightSettings:
        """Constants of the Fiji U-Net plugin, Falk et al. (2019), Nat. Methods 16:67."""
        return cls("fiji", w0, sigma_px, balance, sigma1_px)


def weight_map(
    labels: IntArray,
    settings: WeightSettings | None = None,
    *,
    annotated: NDArray[np.bool_] | None = None,
    spacing: Sequence[float] | None = None,
    volume: bool = False,
    task: Task = "instances",
    n_classes: int | None = None,
) -> NDArray[np.float32]:
    """Weight of every pixel in the loss, high between objects that are close to each other.

    *paper*: w = w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)), the second term on background only; w_c = annotated
    pixels / (number of classes x pixels of the class), counted over the whole array after carving the gaps.
    *fiji*: 1 on objects; on background v_bal + the sum over classes of
    w0 exp(-(d1 + d2)^2 / (2 sigma^2)) + (1 - v_bal) exp(-d1^2 / (2 sigma1^2)).
    d1, d2: distance to the nearest and second nearest object *before* the 1-px gap between touching objects
    is carved, from pixel centre to nearest pixel centre; a term whose object is missing is left out. Gap
    pixels (see `carve_gaps`) are background. Border terms below 2e-4 w0 are 0.

    Parameters
    ----------
    labels
        Integers, (..., Y, X): 0 background, >= 1 objects, or class ids with task "classes", where the objects
        are the connected components of each class. Leading axes are planes (2D distances).
    settings
        Preset and constants; `WeightSettings.paper()` if None.
    annotated
        Boolean, same shape. Labels count only where it is True; elsewhere the weight is 0.
    spacing
        Voxel size per axis, any unit (only the ratio to the finer in-plane axis counts, so that sigma stays
        in pixels); all axes of `labels`, or its last two (with `volume`: three).
    volume
        Measure distances and touching in 3D over the last three axes.
    n_classes
        Number of classes including background, task "classes" only; the highest id + 1 if None.

    Returns
    -------
    float32, same shape as `labels`.

    Raises
    ------
    InputError
        Labels that are not integers or negative, or shapes that don't match.
    """
    settings = settings or WeightSettings.paper()
    labels = _checked_labels(labels, annotated, volume=volume)
    step = _unit_spacing(spacing, labels.ndim, volume=volume)
    carved = np.zeros(labels.shape, np.intp)
    border = np.zeros(labels.shape, np.float32)
    for index in _parts(labels, volume=volume):
        objects, classes = _objects_and_classes(labels[index], task)
        gap = is_gap(objects, classes if task == "classes" else None)
        carved[index] = np.where(gap, 0, classes)
        border[index] = _distance_terms(objects, classes, carved[index] == 0, settings, step)
    if settings.preset == "fiji":
        weights = np.where(carved == 0, border + np.float32(settings.balance), np.float32(1))
    else:
        counts = _counts(carved, annotated, n_classes_of(labels, task, n_classes))
        weights = class_weights(counts).astype(np.float32)[carved] + border
    if annotated is not None:
        weights[~annotated] = 0
    return weights


def carve_gaps(
    labels: IntArray,
    *,
    annotated: NDArray[np.bool_] | None = None,
    task: Task = "instances",
    volume: bool = False,
) -> IntArray:
    """Return a copy of `labels` in which touching objects are separated by a one-sided 1-px gap of zeros.

    The rule of the Fiji U-Net plugin: a pixel becomes background if one of its already scanned neighbours
    (4 in 2D, 13 in 3D) had, *before* carving, the label of a different object of the same class. Comparing
    with the original labels is what the plugin does, and it makes the rule local. Where two objects meet
    diagonally down-left, single pixels of both sides can be taken; along straight borders only the later.

    Parameters
    ----------
    labels
        Integers, (..., Y, X); leading axes are planes, with `volume` the last three are one volume.
    annotated
        Boolean, same shape: labels outside don't count and come back as 0.
    task
        "classes": objects are the connected components of each class id.
    """
    labels = _checked_labels(labels, annotated, volume=volume).copy()
    for index in _parts(labels, volume=volume):
        objects, classes = _objects_and_classes(labels[index], task)
        labels[index][is_gap(objects, classes if task == "classes" else None)] = 0
    return labels


def halo_px(settings: WeightSettings) -> int:
    """Distance from a changed pixel, to the nearest pixel, beyond which the map changes < 1e-3 w0."""
    return round(max(_reach_px(settings.sigma_px, 1.0), _balance_reach_px(settings, HALO_LEVEL)))


def class_weights(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """w_c of each class: annotated pixels / (classes x pixels of the class); 0 where it doesn't occur."""
    counts = np.asarray(counts, np.float64)
    share = np.zeros(counts.shape)
    np.divide(counts.sum(), len(counts) * counts, out=share, where=counts > 0)
    return share


def n_classes_of(labels: IntArray, task: Task, n_classes: int | None) -> int:
    """Number of classes including background."""
    if task == "instances":
        return 2
    highest = int(labels.max(initial=0))
    if n_classes is not None and highest >= n_classes:
        raise InputError(f"Labels hold class {highest} but the classes are 0 to {n_classes - 1}: add classes.")
    return n_classes if n_classes is not None else max(2, highest + 1)


def _reach_px(sigma_px: float, height: float, level: float = HALO_LEVEL) -> float:
    """Distance at which height * exp(-d^2 / (2 sigma^2)) has fallen to `level`."""
    return sigma_px * sqrt(2 * log(height / level)) if height > level else 0.0


def _balance_reach_px(settings: WeightSettings, level: float) -> float:
    if settings.preset == "paper" or settings.w0 == 0:
        return 0.0
    return _reach_px(settings.sigma1_px, 1 - settings.balance, level * settings.w0)


def _distance_terms(
    objects: NDArray[np.int32],
    classes: IntArray,
    is_background: NDArray[np.bool_],
    settings: WeightSettings,
    spacing: tuple[float, ...],
) -> NDArray[np.float32]:
    """Everything that depends on distances, on the background of one plane or volume."""
    terms = np.zeros(objects.shape, np.float32)
    if settings.preset == "paper":
        terms += _border(*two_nearest(objects, _cut_px(settings), spacing), settings)
    else:
        for class_id in np.unique(classes[classes > 0]):
            of_class = np.where(classes == class_id, objects, 0)
            terms += _border(*two_nearest(of_class, _cut_px(settings), spacing), settings)
            distance = ndimage.distance_transform_edt(of_class == 0, sampling=spacing)
            terms += (1 - settings.balance) * np.exp(-(distance**2) / (2 * settings.sigma1_px**2))
    return np.where(is_background, terms, np.float32(0))


def _cut_px(settings: WeightSettings) -> float:
    return _reach_px(settings.sigma_px, 1.0, CUT_LEVEL)


def _border(
    nearest: NDArray[np.float32], second: NDArray[np.float32], settings: WeightSettings
) -> NDArray[np.float32]:
    """w0 exp(-(d1 + d2)^2 / (2 sigma^2)), Ronneberger et al. (2015), equation 2."""
    both = nearest + second
    value = settings.w0 * np.exp(-(both**2) / np.float32(2 * settings.sigma_px**2))
    return np.where(both <= _cut_px(settings), value, 0).astype(np.float32)


def _objects_and_classes(labels: IntArray, task: Task) -> tuple[NDArray[np.int32], IntArray]:
    """Objects numbered from 1, and the class of every pixel, of one plane or volume."""
    if task == "classes":
        return connected_objects(labels), labels
    ids, numbered = np.unique(labels, return_inverse=True)
    objects = (numbered.reshape(labels.shape) + (ids[0] != 0)).astype(np.int32)
    return objects, (labels > 0).astype(np.intp)


def _counts(carved: IntArray, annotated: NDArray[np.bool_] | None, n_classes: int) -> NDArray[np.intp]:
    counted = carved.ravel() if annotated is None else carved[annotated]
    return np.bincount(counted, minlength=n_classes)


def _parts(labels: IntArray, *, volume: bool) -> Iterator[tuple[int, ...]]:
    """Index of each plane (each volume) of the array."""
    yield from np.ndindex(labels.shape[: labels.ndim - (3 if volume else 2)])


def _checked_labels(labels: IntArray, annotated: NDArray[np.bool_] | None, *, volume: bool) -> IntArray:
    """Labels that count, or an InputError."""
    labels = np.asarray(labels)
    if labels.dtype == np.bool_:
        labels = labels.astype(np.uint8)
    check_labels(labels)
    if labels.ndim < (3 if volume else 2):
        raise InputError(f"Labels of shape {by(labels.shape)} have too few axes for a weight map: give Y and X.")
    if annotated is None:
        return labels
    check_mask(annotated, labels.shape)
    return np.where(annotated, labels, np.zeros((), labels.dtype))


def _unit_spacing(spacing: Sequence[float] | None, n_axes: int, *, volume: bool) -> tuple[float, ...]:
    """Voxel size of the axes along which distances are measured, the finer in-plane axis = 1."""
    n_measured = 3 if volume else 2
    if spacing is None:
        return (1.0,) * n_measured
    sizes = tuple(float(s) for s in spacing)
    if len(sizes) not in (n_measured, n_axes) or not all(isfinite(s) and s > 0 for s in sizes):
        raise InputError(f"Spacing {sizes} doesn't fit {n_axes} axes: give one size above 0 per axis.")
    in_plane_pixel = min(sizes[-2:])
    return tuple(s / in_plane_pixel for s in sizes[-n_measured:])
