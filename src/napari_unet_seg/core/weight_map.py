"""The weight of every annotated pixel in the loss: class balance plus the border between close objects.

Two presets, never mixed: the U-Net paper of 2015 and the Fiji U-Net plugin of 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from math import isfinite, log, prod, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core._distances import Reach, two_nearest
from napari_unet_seg.core._gaps import IntArray, Task, connected_objects, is_gap
from napari_unet_seg.core._label_checks import by, check_labels, check_mask
from napari_unet_seg.core.boxes import grown, hull, relative
from napari_unet_seg.core.errors import InputError

HALO_LEVEL = 1e-3  # of w0: what is smaller does not count as a change
CUT_LEVEL = 2e-4  # of w0: what is smaller is written as 0, in a box and in a whole map alike
W_C_LEVEL = 5e-4  # of w0: by how much a class weight may be off before the map is rewritten
MAX_SIGMA_PX = 1000.0
PIXELS_AT_ONCE = 1 << 19  # a plane is worked on in strips of about so many pixels
_CACHED_PX = 1 << 16  # of which class, border and weight stay in a core's cache

Box = tuple[slice, ...]


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
            if not 0 < getattr(self, name) <= MAX_SIGMA_PX:
                raise InputError(f"{name} of the weight map is not above 0 and at most {MAX_SIGMA_PX:.0f}.")
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

    @classmethod
    def border_only(cls, w0: float = 10.0, sigma_px: float = 5.0) -> WeightSettings:
        """1 everywhere plus the paper's border: training's default, as balancing makes objects too large."""
        return cls.fiji(w0, sigma_px, balance=1.0)


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
    parts = weight_parts(
        labels,
        settings,
        annotated=annotated,
        spacing=spacing,
        volume=volume,
        task=task,
        n_classes=n_classes,
    )
    return parts.weights(settings, parts.counts)


@dataclass(frozen=True)
class ClassCounts:
    """How many annotated pixels each class has after carving the gaps, background first."""

    pixels: tuple[int, ...]

    def __add__(self, other: ClassCounts) -> ClassCounts:
        """Of both together; one may know fewer classes."""
        return ClassCounts(tuple(map(sum, zip_longest(self.pixels, other.pixels, fillvalue=0))))

    def updated(self, old_part: ClassCounts, new_part: ClassCounts) -> ClassCounts:
        """The counts after a part of what was counted has been replaced."""
        changes = zip(self.pixels, old_part.pixels, new_part.pixels, strict=True)
        return ClassCounts(tuple(count - old + new for count, old, new in changes))

    def weights(self, settings: WeightSettings) -> NDArray[np.float64]:
        """Weight of each class without the border: w_c (paper), or v_bal and 1 (fiji)."""
        if settings.preset == "fiji":
            return np.array([settings.balance, *(1.0 for _ in self.pixels[1:])])
        return class_weights(self.pixels)

    def moved_from(self, shown: ClassCounts, settings: WeightSettings) -> bool:
        """Whether a map with the weights of `shown` has to be rewritten: a weight is off by > 5e-4 w0."""
        moved = np.abs(self.weights(settings) - shown.weights(settings))
        return bool(moved.max() > W_C_LEVEL * settings.w0)


@dataclass(frozen=True)
class WeightParts:
    """What a weight map is made of, whole or in a box: two arrays that depend on their surroundings only.

    weight = (weight of the class, which depends on all counts) + border.

    Parameters
    ----------
    box
        Where in the labels, one slice per axis.
    classes
        Class of each pixel after carving, `n_classes` where nothing is annotated.
    border
        float32, everything that depends on distances; 0 on objects and where nothing is annotated.
    """

    box: Box
    classes: NDArray[np.unsignedinteger[Any]]
    border: NDArray[np.float32]
    n_classes: int

    @classmethod
    def empty(cls, box: Box, n_classes: int) -> WeightParts:
        """Arrays of the box's shape, to be filled."""
        shape = tuple(b.stop - b.start for b in box)
        classes = np.zeros(shape, np.min_scalar_type(n_classes))
        return cls(box, classes, np.zeros(shape, np.float32), n_classes)

    @property
    def counts(self) -> ClassCounts:
        """Annotated pixels of each class in the box."""
        return ClassCounts(tuple(int(np.count_nonzero(self.classes == i)) for i in range(self.n_classes)))

    def weights(
        self, settings: WeightSettings, counts: ClassCounts, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The weight map in the box, given the counts of the whole annotation; written to `out` if given."""
        of_class = np.array([*counts.weights(settings), 0], np.float32)
        weights = np.empty_like(self.border) if out is None else out
        for part in _row_blocks(weights.shape):
            values = of_class.take(self.classes[part], mode="clip")  # twice as fast as indexing
            np.add(values, self.border[part], out=weights[part])
        return weights


def _row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int | slice, ...]]:
    """Rows of planes, as many at once as stay in a core's cache: twice as fast as all of them."""
    n_rows = max(1, _CACHED_PX // max(1, shape[-1]))
    for outer in np.ndindex(*shape[:-2]):
        for start in range(0, shape[-2], n_rows):
            yield (*outer, slice(start, start + n_rows))


def weight_parts(
    labels: IntArray,
    settings: WeightSettings,
    *,
    changed: Box | None = None,
    wanted: Box | None = None,
    annotated: NDArray[np.bool_] | None = None,
    spacing: Sequence[float] | None = None,
    volume: bool = False,
    task: Task = "instances",
    n_classes: int | None = None,
) -> WeightParts:
    """The parts of the weight map, whole or only where a change in a box can be seen.

    After a change of `labels` or `annotated` inside `changed`, the parts outside the returned box are what
    they were, and inside it they are equal, bit by bit, to those of the whole. The box is `changed` and its
    halo (class task: that of the connected components that touch it, since a stroke can join or split them).
    Time depends on the size of the box, not of the image (class task: on both). With `wanted`, the parts of
    just that box.

    Other parameters and errors as in `weight_map`; values of labels are checked inside `changed` only.
    """
    labels = _as_integers(labels)
    box = changed if wanted is None else wanted
    changed = _whole(labels) if box is None else _inside(box, labels.shape)
    _check(labels, annotated, changed, volume=volume)
    terms = _Terms(settings, _unit_spacing(spacing, labels.ndim, volume=volume), task)
    n_outer = labels.ndim - len(terms.spacing)
    outer, inner = changed[:n_outer], changed[n_outer:]
    sources = {
        index: _Source.of(labels[index], None if annotated is None else annotated[index], task)
        for index in product(*(range(b.start, b.stop) for b in outer))
    }
    if wanted is None:
        inner = hull(*(source.seen_from(inner, terms.margin) for source in sources.values()))
    parts = WeightParts.empty((*outer, *inner), _n_classes(labels, task, n_classes))
    for index, source in sources.items():
        here = tuple(i - b.start for i, b in zip(index, outer, strict=True))
        for strip in _strips(inner, terms.margin):
            terms.write(source, strip, parts, (*here, *relative(strip, inner)))
    return parts


def carve_gaps(
    labels: IntArray,
    *,
    annotated: NDArray[np.bool_] | None = None,
    task: Task = "instances",
    volume: bool = False,
) -> IntArray:
    """Return a copy of `labels` in which touching objects are separated by a gap of zeros.

    The rule of the Fiji U-Net plugin, as coded: a pixel becomes background if one of its already scanned
    neighbours (4 in 2D, 13 in 3D) had, *before* carving, the label of a different object of the same class.
    Comparing original labels makes the rule local, so that carving a box equals carving the whole (comparing
    carved ones would let a change run along a border without end). No two objects touch afterwards, not even
    at corners.

    Parameters
    ----------
    labels
        Integers, (..., Y, X); leading axes are planes, with `volume` the last three are one volume.
    annotated
        Boolean, same shape: labels outside don't count and come back as 0.
    task
        "classes": objects are the connected components of each class id.
    """
    labels = _as_integers(labels)
    _check(labels, annotated, _whole(labels), volume=volume)
    carved = np.array(labels if annotated is None else np.where(annotated, labels, 0), labels.dtype)
    for index in np.ndindex(labels.shape[: labels.ndim - (3 if volume else 2)]):
        if task == "classes":
            carved[index][is_gap(connected_objects(carved[index]), carved[index])] = 0
        else:
            carved[index][is_gap(carved[index])] = 0
    return carved


def halo_px(settings: WeightSettings) -> int:
    """Distance from a changed pixel, to the nearest pixel, beyond which the map changes < 1e-3 w0."""
    return round(max(_reach_px(settings.sigma_px, 1.0, HALO_LEVEL), _balance_reach_px(settings, HALO_LEVEL)))


def class_weights(counts: Sequence[int] | NDArray[np.integer]) -> NDArray[np.float64]:
    """w_c of each class: annotated pixels / (classes x pixels of the class); 0 where it doesn't occur."""
    counts = np.asarray(counts, np.float64)
    share = np.zeros(counts.shape)
    np.divide(counts.sum(), len(counts) * counts, out=share, where=counts > 0)
    return share


def _reach_px(sigma_px: float, height: float, level: float) -> float:
    """Distance at which height * exp(-d^2 / (2 sigma^2)) has fallen to `level`."""
    return sigma_px * sqrt(2 * log(height / level)) if height > level else 0.0


def _balance_reach_px(settings: WeightSettings, level: float) -> float:
    """Distance at which (1 - v_bal) exp(-d1^2 / (2 sigma1^2)), preset fiji, has fallen to `level` of w0."""
    if settings.preset == "paper":
        return 0.0
    return _reach_px(settings.sigma1_px, 1 - settings.balance, level * max(settings.w0, 1e-3))


@dataclass(frozen=True)
class _Source:
    """The labels of one plane or volume that count."""

    labels: IntArray
    annotated: NDArray[np.bool_] | None
    components: NDArray[np.int32] | None  # task "classes" only

    @classmethod
    def of(cls, labels: IntArray, annotated: NDArray[np.bool_] | None, task: Task) -> _Source:
        source = cls(labels, annotated, None)
        if task == "instances":
            return source
        return cls(labels, annotated, connected_objects(source.classes(_whole(labels))))

    def classes(self, region: Box) -> IntArray:
        """Labels as they were given, 0 where nothing is annotated."""
        labels = self.labels[region]
        return (
            labels
            if self.annotated is None
            else np.where(self.annotated[region], labels, labels.dtype.type(0))
        )

    def objects(self, region: Box) -> IntArray:
        """Number of the object of each pixel."""
        return self.classes(region) if self.components is None else self.components[region]

    def seen_from(self, changed: Box, margin: tuple[int, ...]) -> Box:
        """Where a change in the box can be seen."""
        if self.components is not None and any(
            c != w for c, w in zip(changed, _whole(self.labels), strict=True)
        ):
            touching = np.unique(self.components[grown(changed, (1,) * len(changed), self.labels.shape)])
            boxes = ndimage.find_objects(np.isin(self.components, touching[touching > 0]).astype(np.int8))
            changed = hull(changed, *boxes)
        return grown(changed, margin, self.labels.shape)


@dataclass(frozen=True)
class _Terms:
    """The formula's local part: gaps, and what depends on distances."""

    settings: WeightSettings
    spacing: tuple[float, ...]
    task: Task

    @property
    def border_reach(self) -> Reach:
        return Reach(_reach_px(self.settings.sigma_px, 1.0, CUT_LEVEL), self.spacing)

    @property
    def balance_reach(self) -> Reach:
        return Reach(_balance_reach_px(self.settings, CUT_LEVEL), self.spacing)

    @property
    def margin(self) -> tuple[int, ...]:
        """How far along each axis a pixel can be seen."""
        farther = zip(self.border_reach.margin, self.balance_reach.margin, strict=True)
        return tuple(max(1, *both) for both in farther)

    def write(self, source: _Source, box: Box, parts: WeightParts, inside: tuple[int | slice, ...]) -> None:
        """Fill `parts` at `inside`, which is the box of the source."""
        region = grown(box, self.margin, source.labels.shape)
        objects, labels = source.objects(region), source.classes(region)
        inner = relative(box, region)
        near = grown(inner, (1,) * len(inner), objects.shape)
        gap = is_gap(objects[near], labels[near] if self.task == "classes" else None)[relative(inner, near)]
        classes = labels[inner] if self.task == "classes" else objects[inner] != 0
        carved = parts.classes[inside]
        carved[...] = classes
        carved[gap] = 0
        wanted = np.zeros(objects.shape, bool)
        wanted[inner] = carved == 0
        if source.annotated is not None:
            wanted[inner] &= source.annotated[box]
            carved[~source.annotated[box]] = parts.n_classes
        parts.border[inside] = self._distance_terms(objects, labels, wanted)[inner]

    def _distance_terms(
        self, objects: IntArray, classes: IntArray, wanted: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        terms = np.zeros(objects.shape, np.float32)
        if self.settings.preset == "paper":
            self._add_border(terms, objects, wanted)
            return terms
        of_each_class = (
            [objects]
            if self.task == "instances"
            else [np.where(classes == i, objects, 0) for i in np.unique(classes[classes > 0])]
        )
        for of_class in of_each_class:
            self._add_border(terms, of_class, wanted)
            self._add_balance(terms, of_class, wanted)
        return terms

    def _add_border(self, terms: NDArray[np.float32], objects: IntArray, wanted: NDArray[np.bool_]) -> None:
        """w0 exp(-(d1 + d2)^2 / (2 sigma^2)): Ronneberger et al. (2015), equation 2."""
        found = two_nearest(objects, wanted, self.border_reach)
        scaled = (found.nearest + found.second) / np.float32(self.settings.sigma_px)
        terms.ravel()[found.where] += np.float32(self.settings.w0) * np.exp(-(scaled**2) / 2)

    def _add_balance(self, terms: NDArray[np.float32], objects: IntArray, wanted: NDArray[np.bool_]) -> None:
        """(1 - v_bal) exp(-d1^2 / (2 sigma1^2)): Falk et al. (2019)."""
        if not objects.any():
            return
        distance = ndimage.distance_transform_edt(objects == 0, sampling=self.spacing)
        near = wanted & (distance <= self.balance_reach.px)
        scaled = distance[near] / self.settings.sigma1_px
        terms[near] += ((1 - self.settings.balance) * np.exp(-(scaled**2) / 2)).astype(np.float32)


def _as_integers(labels: NDArray[Any]) -> IntArray:
    """A boolean mask is one object."""
    labels = np.asarray(labels)
    return labels.view(np.uint8) if labels.dtype == np.bool_ else labels


def _n_classes(labels: IntArray, task: Task, n_classes: int | None) -> int:
    """Number of classes including background."""
    if task == "instances":
        return 2
    highest = int(labels.max())
    if n_classes is not None and highest >= n_classes:
        raise InputError(f"Labels hold class {highest} but the classes are 0 to {n_classes - 1}.")
    return n_classes if n_classes is not None else max(2, highest + 1)


def _check(labels: IntArray, annotated: NDArray[np.bool_] | None, where: Box, *, volume: bool) -> None:
    check_labels(labels[where])
    if labels.ndim < (3 if volume else 2):
        raise InputError(f"Labels of shape {by(labels.shape)} have too few axes for a weight map.")
    if annotated is not None:
        check_mask(annotated, labels.shape)


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


def _whole(array: NDArray[Any]) -> Box:
    return tuple(slice(0, n) for n in array.shape)


def _inside(box: Box, shape: tuple[int, ...]) -> Box:
    """The box with its starts and stops in numbers."""
    return tuple(slice(*b.indices(n)[:2]) for b, n in zip(box, shape, strict=True))


def _strips(box: Box, margin: Sequence[int]) -> Iterator[Box]:
    """Cut along the first axis into pieces that are not much larger than what is worked on at once."""
    per_line = prod(b.stop - b.start for b in box[1:])
    length = max(4 * margin[0], PIXELS_AT_ONCE // max(1, per_line), 1)
    for start in range(box[0].start, box[0].stop, length):
        yield (slice(start, min(start + length, box[0].stop)), *box[1:])
