"""Where a model is least sure of itself: entropy averaged over a window, and the places to annotate next."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_unet_seg.core._axes import Layout, PlaneView
from napari_unet_seg.core._label_checks import by, check_mask
from napari_unet_seg.core.auto_zoom import ZoomTrial, known_zoom_steps
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import Model, ModelLike, as_model
from napari_unet_seg.core.normalisation import ArrayLike, NoFinitePixelError
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.predict_settings import PredictSettings, settle
from napari_unet_seg.core.prediction import (
    Box,
    PlaneIndex,
    PredictionStarted,
    PredictionStep,
    TileDone,
    prediction_steps,
)
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.steps import STOP, Note, Stop

Mask: TypeAlias = npt.NDArray[np.bool_]
Probabilities: TypeAlias = npt.NDArray[np.floating[Any]]

LONGEST_SIDE_PX = 2048
"""Of a plane that is longer or wider, a part is searched."""
EMPTY_PX = 5
"""Where a square of this side has a single grey value, nothing was imaged, or everything was too bright."""

_LEAST_LEFT = 0.5
"""Of a window, when annotated and empty pixels are left out."""
_QUICK_OBJECTS = ObjectSettings(min_size_px=0, split_touching=0, fill_holes=False)
_EQUAL = 1e-6
"""Means of windows that differ by less are equal: they are differences of large sums."""


@dataclass(frozen=True)
class Place:
    """A window in which a model is unsure.

    Attributes
    ----------
    plane
        Along T and Z, in the image's order.
    center
        Row and column.
    box
        Rows and columns of the window.
    uncertainty
        Mean over its pixels that count: 0 certain, 1 all classes equally likely.
    """

    plane: PlaneIndex
    center: tuple[int, int]
    box: Box
    uncertainty: float


@dataclass(frozen=True)
class Searched:
    """How far a search is, and what it has found on the planes that are done, the least certain first."""

    places: tuple[Place, ...]
    planes_done: int
    n_planes: int
    share_done: float


SearchStep: TypeAlias = Searched | ZoomTrial | Note


def entropy(probabilities: Probabilities) -> Floats:
    """Of class probabilities (C, Y, X), as a share of the most that is possible: 0 certain, 1 undecided.

    Of probabilities averaged over flips (test-time averaging) it is high also where the flips disagree. NaN
    where a probability is not finite.
    """
    summed = np.zeros(probabilities.shape[1:], np.float32)
    for one in probabilities:
        is_some = one > 0
        summed -= one * np.log(one, where=is_some, out=np.zeros(one.shape, np.float32))
    summed[~np.isfinite(summed)] = np.nan
    return np.asarray(np.clip(summed / math.log(max(2, len(probabilities))), 0, 1), np.float32)


def uncertainty_map(probabilities: Probabilities, window_px: int) -> Floats:
    """Entropy averaged over a square window around each pixel of a plane: (C, Y, X) to (Y, X) float32.

    Near the edge the window is moved inside, so that every value is the mean of equally many pixels, and the
    edge is neither preferred nor avoided. Pixels that are not finite are left out; NaN where none is left.
    """
    unsure = entropy(probabilities)
    sides = _sides(unsure, window_px)
    rows, columns = (
        np.clip(np.arange(length) - side // 2, 0, length - side)
        for length, side in zip(unsure.shape, sides, strict=True)
    )
    means: Floats = _window_means(unsure, sides, least_px=1)[np.ix_(rows, columns)]
    return means


def least_certain(probabilities: Probabilities, annotated: Mask, window_px: int) -> Place | None:
    """The window of a plane in which a model is least sure, of several the first from the top left.

    Parameters
    ----------
    probabilities
        (C, Y, X).
    annotated
        (Y, X): left out of the mean, and so is a window of which it covers more than half.
    window_px
        Side of the window; at most the plane's.

    Returns
    -------
    place
        With an empty `plane`; None when nothing is left, or the model is certain everywhere.
    """
    check_mask(annotated, probabilities.shape[1:])
    unsure = np.where(annotated, np.float32(np.nan), entropy(probabilities))
    return next(_places(unsure, window_px, (), (0, 0)), None)


def where_next_steps(
    image: ArrayLike,
    model: ModelLike,
    settings: PredictSettings,
    annotated_of: Callable[[PlaneIndex], Mask],
    window_px: int,
    *,
    plane_in_view: PlaneIndex | None = None,
    around: tuple[int, int] | None = None,
    most_planes: int = 8,
    most_places: int = 20,
) -> Generator[SearchStep, Stop | None, list[Place]]:
    """Find where annotating would help a model most, step by step; send `STOP` to end with what was found.

    Parameters
    ----------
    image, model, settings
        As of `predict`; with `settings.tta` the disagreement of the flips counts.
    annotated_of
        Where labels of a plane count already, (Y, X); asked when the plane has been predicted.
    window_px
        Side of the window, in pixels of the image.
    plane_in_view
        Is searched first, the others follow by their distance from it. None: the first.
    around
        Row and column around which a plane that is too large to be searched as a whole is searched. None: its
        middle.
    most_planes
        Of a larger stack so many are searched, evenly spread, the one in view among them.
    most_places
        So many are returned.

    Yields
    ------
    ZoomTrial while the zoom is being found, if it has to be; Searched whenever a tile is ready, and Note
    where something was decided.

    Returns
    -------
    places
        The least certain first; those on one plane do not overlap. Empty areas, in which the image has a
        single grey value, are left out as annotated ones are.

    Raises
    ------
    InputError, OutOfMemoryError
        As of `predict`, at the first step; or there is no such plane.
    """
    model = as_model(model)
    layout, _, _ = settle(image, model.info, settings)
    known = yield from known_zoom_steps(image, model, settings)
    if known is None:
        return []
    settings = known
    planes = _chosen_planes(layout, plane_in_view, most_planes)
    search = _Search(model, settings, _box_around(layout.plane_shape, around), len(planes))
    for sentence in _decisions(layout, len(planes), search.box):
        if (yield Note(sentence)) is STOP:
            return []
    for plane in planes:
        seen = _read(PlaneView(image, layout, plane), search.box)
        is_going_on = yield from search.predict(plane, seen)
        annotated = annotated_of(plane)
        check_mask(annotated, layout.plane_shape)
        unsure = np.where(annotated[search.box], np.float32(np.nan), search.unsure)
        search.keep(_places(unsure, window_px, plane, search.corner), most_places)
        if not is_going_on or (yield search.searched()) is STOP:
            break
    return search.places


class _Search:
    """One search under way; all that changes while it goes on is here."""

    def __init__(self, model: Model, settings: PredictSettings, box: Box, n_planes: int) -> None:
        self._model = model
        self._settings = replace(settings, axes="CYX", channel=None, objects=_QUICK_OBJECTS)
        self._n_planes, self._planes_done, self._share_of_plane = n_planes, 0, 0.0
        self._said: set[str] = set()
        self.box, self.corner = box, (box[0].start, box[1].start)
        self.unsure: Floats = np.zeros((0, 0), np.float32)
        self.places: list[Place] = []

    def predict(self, plane: PlaneIndex, seen: ArrayLike) -> Generator[SearchStep, Stop | None, bool]:
        """Fill `unsure` for the box of a plane, NaN where nothing is; returns False when it was stopped."""
        rows, columns = self.box
        self.unsure = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        steps = prediction_steps(seen, self._model, self._settings, keep_probabilities=False, region=self.box)
        with closing(steps):
            try:
                for step in steps:
                    if not (yield from self._take(step)):
                        return False
            except NoFinitePixelError:
                named = f"Plane {', '.join(map(str, plane))}" if plane else "The image"
                return (yield from self._say(f"{named} holds no finite pixel: it is left out."))
        self.unsure[_is_empty(seen[:, rows, columns])] = np.nan
        return True

    def keep(self, found: Iterator[Place], most_places: int) -> None:
        """Take the places of a plane in, by rank; of equal ones, those that were found first lead."""
        places = [*self.places, *islice(found, most_places)]
        self.places = sorted(places, key=lambda place: -place.uncertainty)[:most_places]
        self._planes_done, self._share_of_plane = self._planes_done + 1, 0.0

    def searched(self) -> Searched:
        """How far it is."""
        share = (self._planes_done + self._share_of_plane) / self._n_planes
        return Searched(tuple(self.places), self._planes_done, self._n_planes, share)

    def _take(self, step: PredictionStep) -> Generator[SearchStep, Stop | None, bool]:
        if isinstance(step, PredictionStarted):
            for sentence in step.notes:
                if not (yield from self._say(sentence)):
                    return False
        elif isinstance(step, Note):
            return (yield from self._say(step.message))
        elif isinstance(step, TileDone):
            self._write(step)
            self._share_of_plane = step.tiles_done / step.n_tiles
            return (yield self.searched()) is not STOP
        return True

    def _write(self, tile: TileDone) -> None:
        """The part of a tile that lies in the box."""
        of_tile, of_box = [], []
        for part, wanted in zip(tile.box, self.box, strict=True):
            start, stop = max(part.start, wanted.start), min(part.stop, wanted.stop)
            of_tile.append(slice(start - part.start, stop - part.start))
            of_box.append(slice(start - wanted.start, stop - wanted.start))
        self.unsure[tuple(of_box)] = entropy(tile.probabilities[(slice(None), *of_tile)])

    def _say(self, sentence: str) -> Generator[SearchStep, Stop | None, bool]:
        """Say a sentence once; returns False when it was stopped."""
        if sentence in self._said:
            return True
        self._said.add(sentence)
        return (yield Note(sentence)) is not STOP


# What is searched


def _chosen_planes(layout: Layout, in_view: PlaneIndex | None, most: int) -> list[PlaneIndex]:
    """All planes, or some that are evenly spread; the one in view first, then the nearest to it."""
    counts = layout.plane_counts
    in_view = in_view or (0,) * len(counts)
    if len(in_view) != len(counts) or not all(0 <= i < n for i, n in zip(in_view, counts, strict=True)):
        raise InputError(f"Plane {in_view} does not exist: the image has {by(counts)} planes.")
    first = int(np.ravel_multi_index(in_view, counts)) if counts else 0
    n_chosen = max(1, min(most, layout.n_planes))
    spread = {(first + i * layout.n_planes // n_chosen) % layout.n_planes for i in range(n_chosen)}
    by_distance = sorted(spread, key=lambda number: (abs(number - first), number))
    return [
        tuple(int(i) for i in np.unravel_index(number, counts)) if counts else () for number in by_distance
    ]


def _box_around(shape: tuple[int, int], center: tuple[int, int] | None) -> Box:
    """Rows and columns of a plane that are searched."""
    starts = [
        min(max(at - LONGEST_SIDE_PX // 2, 0), max(length - LONGEST_SIDE_PX, 0))
        for at, length in zip(center or (shape[0] // 2, shape[1] // 2), shape, strict=True)
    ]
    rows, columns = (
        slice(start, min(start + LONGEST_SIDE_PX, length))
        for start, length in zip(starts, shape, strict=True)
    )
    return rows, columns


def _decisions(layout: Layout, n_planes: int, box: Box) -> Iterator[str]:
    if n_planes < layout.n_planes:
        yield f"Of {layout.n_planes} planes {n_planes} are searched, evenly spread, the one in view first."
    sides = tuple(part.stop - part.start for part in box)
    if sides != layout.plane_shape:
        yield f"The planes are {by(layout.plane_shape)} px: {by(sides)} px of each are searched."


def _read(view: PlaneView, box: Box) -> ArrayLike:
    """A plane that is searched as a whole is read once."""
    is_whole = all(part == slice(0, length) for part, length in zip(box, view.shape[1:], strict=True))
    return view[:, :, :] if is_whole else view


def _is_empty(grey: npt.NDArray[Any]) -> Mask:
    """(C, Y, X) to (Y, X): pixels of squares that have a single grey value, or none, in every channel."""
    is_flat = np.ones(grey.shape[1:], np.uint8)
    for channel in np.nan_to_num(grey):
        lowest = ndimage.minimum_filter(channel, EMPTY_PX)
        is_flat &= lowest == ndimage.maximum_filter(channel, EMPTY_PX)
    return ndimage.maximum_filter(is_flat, EMPTY_PX).astype(bool)


# Windows


def _sides(unsure: Floats, window_px: int) -> tuple[int, int]:
    if window_px < 1:
        raise InputError(f"The window is {window_px} px: choose 1 or more.")
    return min(window_px, unsure.shape[0]), min(window_px, unsure.shape[1])


def _window_means(unsure: Floats, sides: tuple[int, int], least_px: float) -> Floats:
    """Mean of each window that lies inside, by its top left pixel; NaN where fewer pixels are finite."""
    is_finite = np.isfinite(unsure)
    counts = _window_sums(is_finite, sides)
    sums = _window_sums(np.where(is_finite, unsure, 0), sides)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts >= max(1, least_px))
    return np.asarray(np.round(means / _EQUAL) * _EQUAL, np.float32)


def _window_sums(values: npt.NDArray[Any], sides: tuple[int, int]) -> npt.NDArray[np.float64]:
    before = np.pad(values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    height, width = sides
    below = before[height:] - before[:-height]
    return np.asarray(below[:, width:] - below[:, :-width])


def _places(unsure: Floats, window_px: int, plane: PlaneIndex, corner: tuple[int, int]) -> Iterator[Place]:
    """Windows that do not overlap, the least certain first; `corner` is where `unsure` lies in its plane."""
    height, width = _sides(unsure, window_px)
    means = _window_means(unsure, (height, width), _LEAST_LEFT * height * width)
    means = np.nan_to_num(means, nan=0)
    best_of_rows = means.max(axis=1)
    while best_of_rows.max() > 0:
        row = int(best_of_rows.argmax())
        column = int(means[row].argmax())
        mean = float(means[row, column])
        overlapping = slice(max(0, row - height + 1), row + height)
        means[overlapping, max(0, column - width + 1) : column + width] = 0
        best_of_rows[overlapping] = means[overlapping].max(axis=1)
        top, left = row + corner[0], column + corner[1]
        yield Place(
            plane=plane,
            center=(top + height // 2, left + width // 2),
            box=(slice(top, top + height), slice(left, left + width)),
            uncertainty=mean,
        )
