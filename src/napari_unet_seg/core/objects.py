"""From probabilities to objects: threshold, fill holes, drop specks, cut where objects touch, close up.

Everything here is a pure function of the probabilities, so changing a setting never needs the network again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import label

from napari_unet_seg.core._plain_values import PlainValues
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.weight_map import MAX_SIGMA_PX, WeightSettings, weight_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Task = Literal["instances", "classes"]

_EIGHT = np.ones((3, 3), bool)
# One of each pair of opposite directions: every pair of 8-neighbours is met once.
_HALF_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
_NEIGHBOURS = _HALF_NEIGHBOURS + tuple((-dy, -dx) for dy, dx in _HALF_NEIGHBOURS)
# Uncertain pixels make a neck thinner than its width alone says: the height is distance × P³.
_PROBABILITY_POWER = 3
_SMOOTHING_PX = 1.0
_NM2_PER_UM2 = 1e6
_USUAL_SMALLEST_PX = 20
# How far an object may grow into the gap beside it, as a part of the border's σ: 2 px at σ 5 px.
_GROWTH_PER_SIGMA = 0.4


@dataclass(frozen=True)
class ObjectSettings(PlainValues):
    """How probabilities become objects; sizes and distances are on the image's own pixel grid.

    Parameters
    ----------
    threshold
        A pixel is foreground where P(foreground) is above this (0 to 1).
    min_size_px
        Objects with fewer pixels in their plane are dropped. None: as the model says, whose size is in pixels
        of its own grid (see `settled`); without a model 20.
    min_size_um2
        The same in square micrometres; used instead of `min_size_px` when the pixel size is known.
    fill_holes
        Fill background that lies inside one object.
    split_touching
        0 never cuts; otherwise an object is cut where its neck is thinner than this fraction of the thinner
        of the two bodies that it joins (0.5: half as thick). 1 cuts at every waist.
    border_w0
        Weight w0 of the separation border that the network learned with. Background between close objects
        counted up to 1 + w0 times in the loss, so the network sees that much too much of it, and objects come
        out too thin where others are near. Once they are apart, each is given back the pixels beside it that
        are object when the weight is taken out again. 0: nothing is given back. None: as the model says, 0
        without a model.
    border_sigma_px
        Reach σ of that border; like the smallest size, a model's is in pixels of its own grid.
    """

    KIND: ClassVar[str] = "object settings"

    threshold: float = 0.5
    min_size_px: int | None = None
    min_size_um2: float | None = None
    fill_holes: bool = True
    split_touching: float = 0.5
    border_w0: float | None = None
    border_sigma_px: float = 5.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing.

        Raises
        ------
        InputError
            When a fraction is outside 0 to 1, or a size is negative.
        """
        for name in ("threshold", "split_touching"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: choose a number from 0 to 1.")
        for name in ("min_size_px", "min_size_um2"):
            size = getattr(self, name)
            if size is not None and not 0 <= size < math.inf:
                raise InputError(f"{name} is {size}: choose 0 (keep everything) or more.")
        if self.border_w0 is not None and not 0 <= self.border_w0 < math.inf:
            raise InputError(f"border_w0 is {self.border_w0}: choose 0 (give nothing back) or more.")
        if not 0 < self.border_sigma_px < math.inf:
            raise InputError(f"border_sigma_px is {self.border_sigma_px}: choose a number above 0.")

    def smallest_px(self, pixel_size_nm: float | tuple[float, ...] | None = None) -> float:
        """Smallest area that is kept, in pixels, for pixels of this size (nm, or (…, Y, X) nm)."""
        if self.min_size_um2 is None or pixel_size_nm is None:
            return _USUAL_SMALLEST_PX if self.min_size_px is None else self.min_size_px
        y_nm, x_nm = np.broadcast_to(np.atleast_1d(pixel_size_nm)[-2:], 2)
        return float(self.min_size_um2 * _NM2_PER_UM2 / (y_nm * x_nm))

    @property
    def without_grid(self) -> ObjectSettings:
        """A model's settings, what is in pixels of its own grid left open for `settled` to bring over."""
        return replace(self, min_size_px=None, border_w0=None)

    def settled(self, of_model: ObjectSettings, zoom: tuple[float, float]) -> ObjectSettings:
        """The same for pixels of the image, with what so far the model was to say.

        Parameters
        ----------
        of_model
            What the model says, its lengths and sizes in pixels of its own grid.
        zoom
            Model-grid pixels per image pixel along (Y, X).
        """
        area = zoom[0] * zoom[1]
        settled = self
        if self.min_size_px is None:
            settled = replace(settled, min_size_px=round(of_model.smallest_px() / area))
        if self.border_w0 is None:
            sigma_px = of_model.border_sigma_px / math.sqrt(area)
            settled = replace(settled, border_w0=of_model.border_w0 or 0.0, border_sigma_px=sigma_px)
        return settled


def objects_from_probabilities(
    foreground: NDArray[np.floating[Any]],
    settings: ObjectSettings = ObjectSettings(),
    *,
    pixel_size_nm: float | tuple[float, ...] | None = None,
) -> NDArray[np.int32]:
    """Instance labels of a foreground probability map, plane by plane, ids unique over the stack.

    Parameters
    ----------
    foreground
        P(foreground) = 1 − P(class 0), shape (..., Y, X). NaN counts as background.
    settings
        Threshold, sizes, splitting.
    pixel_size_nm
        Only needed for `min_size_um2`.

    Returns
    -------
    labels
        int32, shape of `foreground`; ids 1, 2, 3… without gaps; objects are 4-connected in their plane.

    Raises
    ------
    InputError
        When `foreground` has fewer than two axes.
    """
    foreground = np.asarray(foreground)
    if foreground.ndim < 2:
        raise InputError(f"Probabilities of shape {foreground.shape} are no image: give (Y, X) or (Z, Y, X).")
    labels = np.zeros(foreground.shape, np.int32)
    if not foreground.size:
        return labels
    smallest_px = settings.smallest_px(pixel_size_nm)
    n_objects = 0
    for plane in np.ndindex(foreground.shape[:-2]):
        found = _objects_of_plane(foreground[plane], settings, smallest_px)
        labels[plane] = np.where(found > 0, found + n_objects, 0)
        n_objects += int(found.max())
    return labels


def label_probabilities(
    probabilities: NDArray[np.floating[Any]],
    task: Task,
    settings: ObjectSettings = ObjectSettings(),
    *,
    pixel_size_nm: float | tuple[float, ...] | None = None,
) -> NDArray[np.int32]:
    """Labels of a probability map (C, ..., Y, X): instances, or in a class task the likeliest class.

    Raises
    ------
    InputError
        When there is no class axis before (Y, X).
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim < 3:
        raise InputError(
            f"Probabilities of shape {probabilities.shape} have no class axis: give (C, ..., Y, X)."
        )
    if task == "classes":
        return np.asarray(probabilities.argmax(axis=0), np.int32)
    return objects_from_probabilities(1 - probabilities[0], settings, pixel_size_nm=pixel_size_nm)


def objects_of_class(
    classes: NDArray[np.integer[Any]],
    class_id: int,
    settings: ObjectSettings = ObjectSettings(),
    *,
    pixel_size_nm: float | tuple[float, ...] | None = None,
) -> NDArray[np.int32]:
    """Instance labels of one class of a class map (..., Y, X): its connected pieces, plane by plane.

    Of the settings, sizes and holes count; pieces are never cut, and never grow.

    Raises
    ------
    InputError
        When `classes` has fewer than two axes.
    """
    whole = replace(settings, threshold=0.5, split_touching=0.0, border_w0=0.0)
    is_class = np.asarray(classes == class_id, np.float32)
    return objects_from_probabilities(is_class, whole, pixel_size_nm=pixel_size_nm)


def _objects_of_plane(
    foreground: NDArray[np.floating[Any]], settings: ObjectSettings, smallest_px: float
) -> NDArray[np.int32]:
    foreground = np.nan_to_num(foreground, nan=0.0)
    solid = labels = _without_specks(_components(foreground > settings.threshold), smallest_px)
    if settings.fill_holes:
        gaps = _components(solid == 0, _EIGHT)
        labels = _components((solid > 0) | _is_hole(gaps, solid))
    if settings.split_touching:
        labels = _cut_at_necks(labels, foreground, settings.split_touching, smallest_px)
        if settings.fill_holes:
            # What looked like a hole may be the space between objects that were one before the cut.
            labels[(gaps > 0) & ~_is_hole(gaps, labels)] = 0
        labels = _in_one_piece_each(labels, smallest_px)
    if settings.border_w0:
        labels = _closed_up(labels, foreground, settings, settings.border_w0)
    return labels


def _is_hole(gaps: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """True on each numbered gap that touches one object only and not the edge of the plane.

    A gap that touches several, such as the membrane around a cell inside another, is no hole.
    """
    is_inside = np.ones(int(gaps.max(initial=0)) + 1, bool)
    is_inside[0] = False
    for edge in (gaps[0], gaps[-1], gaps[:, 0], gaps[:, -1]):
        is_inside[edge] = False
    pixels = np.flatnonzero(is_inside[gaps])
    first = np.full(len(is_inside), np.iinfo(np.int32).max, np.int32)
    last = np.zeros(len(is_inside), np.int32)
    for step in (-gaps.shape[1], -1, 1, gaps.shape[1]):
        is_wall = gaps.ravel()[pixels + step] == 0
        gap, beside = gaps.ravel()[pixels[is_wall]], labels.ravel()[pixels[is_wall] + step]
        np.minimum.at(first, gap, beside)
        np.maximum.at(last, gap, beside)
    return np.asarray((is_inside & (first == last))[gaps])


def _components(mask: NDArray[np.bool_], structure: NDArray[np.bool_] | None = None) -> NDArray[np.int32]:
    labels = np.empty(mask.shape, np.int32)
    ndi.label(mask, structure=structure, output=labels)
    return labels


def _without_specks(labels: NDArray[np.int32], smallest_px: float) -> NDArray[np.int32]:
    sizes = np.bincount(labels.ravel(), minlength=1)
    is_kept = sizes >= max(smallest_px, 1)
    is_kept[0] = False
    return _new_ids(is_kept)[labels]


def _new_ids(is_kept: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Look-up table old id → new id: what is kept is numbered 1, 2, 3…, the rest is 0."""
    return np.where(is_kept, np.cumsum(is_kept, dtype=np.int32), np.int32(0))


def _cut_at_necks(
    components: NDArray[np.int32], foreground: NDArray[np.floating[Any]], strength: float, smallest_px: float
) -> NDArray[np.int32]:
    """Watershed of (distance to the background × P³), basins joined again unless a thin neck parts them."""
    if not components.any():
        return components
    components = np.pad(components, 1)
    height = _height(components > 0, np.pad(foreground, 1))
    summits = _summit_of_each_pixel(components, height)
    is_peak = (summits == np.arange(summits.size)) & (components.ravel() > 0)
    peaks = np.flatnonzero(is_peak)
    basin = _new_ids(is_peak)[summits].reshape(components.shape)
    sizes = np.bincount(basin.ravel())
    peak_heights = np.concatenate([[0], height.ravel()[peaks]])
    roots = _joined_basins(_passes(components, basin, height), peak_heights, sizes, strength, smallest_px)
    is_root = roots == np.arange(len(roots))
    is_root[0] = False
    return _new_ids(is_root)[roots][basin[1:-1, 1:-1]]


def _height(mask: NDArray[np.bool_], foreground: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    # The pad around the plane is no background: a cell cut by the image's edge is no thinner for it.
    distance = np.pad(ndi.distance_transform_edt(mask[1:-1, 1:-1]), 1)
    height = ndi.gaussian_filter(
        (distance * foreground**_PROBABILITY_POWER).astype(np.float32), _SMOOTHING_PX, truncate=2
    )
    return np.where(mask, height, np.float32(-np.inf))


def _summit_of_each_pixel(components: NDArray[np.int32], height: NDArray[np.float32]) -> NDArray[np.intp]:
    """Flat index of the local maximum that the steepest way up from each pixel ends in."""
    n_columns = height.shape[1]
    inner = (slice(1, -1), slice(1, -1))
    uphill = np.arange(height.size, dtype=np.intp).reshape(height.shape)
    here, best = uphill[inner].copy(), height[inner].copy()
    for dy, dx in _NEIGHBOURS:
        there = (slice(1 + dy, height.shape[0] - 1 + dy), slice(1 + dx, n_columns - 1 + dx))
        is_higher = (height[there] > best) & (components[there] == components[inner])
        np.copyto(best, height[there], where=is_higher)
        np.copyto(uphill[inner], here + dy * n_columns + dx, where=is_higher)
    way = uphill.ravel()
    while True:
        further = way[way]
        if np.array_equal(further, way):
            return way
        way = further


def _passes(
    components: NDArray[np.int32], basin: NDArray[np.int32], height: NDArray[np.float32]
) -> Iterator[tuple[int, int, float]]:
    """Pairs of touching basins of one component with the height of the pass between them, highest first."""
    n_basins = int(basin.max()) + 1
    pairs, heights = [], []
    for dy, dx in _HALF_NEIGHBOURS:
        here, there = _beside(dy, dx)
        meet = (basin[here] != basin[there]) & (components[here] == components[there])
        a, b = basin[here][meet].astype(np.int64), basin[there][meet]
        pairs.append(np.minimum(a, b) * n_basins + np.maximum(a, b))
        heights.append(np.minimum(height[here][meet], height[there][meet]))
    pair, top = np.concatenate(pairs), np.concatenate(heights)
    highest_first = np.argsort(-top, kind="stable")
    _, first = np.unique(pair[highest_first], return_index=True)
    best = highest_first[np.sort(first)]
    a, b = np.divmod(pair[best], n_basins)
    return zip(a.tolist(), b.tolist(), top[best].tolist(), strict=True)


def _beside(dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Slices of all pixels that have a neighbour at (dy ≥ 0, dx), and of these neighbours."""
    here = (slice(0, -dy or None), slice(max(-dx, 0), -dx if dx > 0 else None))
    return here, (slice(dy, None), slice(max(dx, 0), dx if dx < 0 else None))


def _in_one_piece_each(labels: NDArray[np.int32], smallest_px: float) -> NDArray[np.int32]:
    """Objects that are 4-connected and large enough, numbered 1, 2, 3…

    Ways up to a summit lead over corners too, and a gap that is open again may part what the cut did not.
    What lies apart is an object of its own if large enough, else part of the object that it touches most.
    """
    pieces = np.asarray(label(labels, background=0, connectivity=1), np.int32)
    sizes = np.bincount(pieces.ravel())
    is_settled = sizes >= max(smallest_px, 1)
    is_settled[0] = False
    if is_settled[1:].all():
        return pieces
    crumb, beside = _contacts(pieces, ~is_settled)
    object_of = np.where(is_settled, np.arange(len(sizes)), 0)
    while (is_next := is_settled[beside] & ~is_settled[crumb]).any():
        first = np.unique(crumb[is_next], return_index=True)[1]
        settling, host = crumb[is_next][first], beside[is_next][first]
        object_of[settling] = object_of[host]
        is_settled[settling] = True
    objects = object_of[pieces].astype(np.int32)
    left = _without_specks(_components((pieces > 0) & (objects == 0)), smallest_px)
    return _without_specks(np.where(left > 0, left + np.int32(len(sizes)), objects), 1)


def _contacts(
    pieces: NDArray[np.int32], is_of: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs of some pieces and what lies beside each, those with the most contact first."""
    padded = np.pad(pieces, 1)
    y, x = np.nonzero(is_of[pieces] & (pieces > 0))
    around = np.stack([padded[y, x + 1], padded[y + 2, x + 1], padded[y + 1, x], padded[y + 1, x + 2]])
    here = np.broadcast_to(pieces[y, x], around.shape)
    is_contact = (around > 0) & (around != here)
    pairs, counts = np.unique(np.stack([here[is_contact], around[is_contact]]), axis=1, return_counts=True)
    most_first = np.argsort(-counts, kind="stable")
    return pairs[0][most_first], pairs[1][most_first]


def _closed_up(
    labels: NDArray[np.int32], foreground: NDArray[np.floating[Any]], settings: ObjectSettings, w0: float
) -> NDArray[np.int32]:
    """Grow objects into the gaps between them, as far as P is object without the border's weight.

    A network that learned with background counted w times says the odds of foreground w times too small; the
    weight follows from the objects that were found (Ronneberger et al. 2015, eq. 2).
    """
    could_be = (labels == 0) & (foreground * (2 + w0) > 1)
    if not could_be.any() or labels.max() < 2:
        return labels
    sigma_px = min(settings.border_sigma_px, MAX_SIGMA_PX)
    weight = weight_map(labels, WeightSettings.border_only(w0, sigma_px))
    odds = weight * foreground
    is_wanted = could_be & (odds > max(settings.threshold, 0.5) * (odds + 1 - foreground))
    for _ in range(max(1, round(_GROWTH_PER_SIGMA * sigma_px))):
        grown = _grown_by_one(labels, foreground, is_wanted)
        if grown is labels:
            break
        labels = grown
    return labels


def _grown_by_one(
    labels: NDArray[np.int32], foreground: NDArray[np.floating[Any]], is_wanted: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Give each wanted pixel to the object beside it; of several, to that of the likeliest neighbour."""
    padded = np.pad(labels, 1)
    y, x = np.nonzero(is_wanted & (labels == 0))
    around = [(y, x + 1), (y + 2, x + 1), (y + 1, x), (y + 1, x + 2)]
    ids = np.stack([padded[place] for place in around])
    around_foreground = np.pad(foreground, 1)
    likely = np.stack([around_foreground[place] for place in around])
    likeliest = np.where(ids > 0, likely, -1).argmax(axis=0)
    chosen = np.take_along_axis(ids, likeliest[None], axis=0)[0]
    if not chosen.any():
        return labels
    grown = labels.copy()
    grown[y, x] = chosen
    return grown


def _joined_basins(
    passes: Iterator[tuple[int, int, float]],
    peak_heights: NDArray[np.float32],
    sizes: NDArray[np.intp],
    strength: float,
    smallest_px: float,
) -> NDArray[np.intp]:
    """Root of each basin, after joining what no thin neck parts and what is too small to stand alone."""
    root = list(range(len(sizes)))
    peak, size = peak_heights.tolist(), sizes.tolist()

    def root_of(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for a, b, top in passes:
        a, b = root_of(a), root_of(b)
        if a == b:
            continue
        low, high = (a, b) if peak[a] < peak[b] else (b, a)
        if top > strength * peak[low] or min(size[a], size[b]) < smallest_px:
            root[low] = high
            size[high] += size[low]
    return np.array([root_of(i) for i in range(len(root))])
