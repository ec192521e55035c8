"""Finds the zoom of an image whose pixel size is unknown, by predicting a part of it at several zooms.

In the same way it finds whether a model would rather see the other contrast. `zoom_trials` says which it is.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from napari_unet_seg.core._axes import PlaneView
from napari_unet_seg.core._blank_planes import is_blank
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._memory import empty_cache
from napari_unet_seg.core._plane_grid import GridGeometry, PlaneGrid
from napari_unet_seg.core._tile_runner import TileOutput, TileRunner
from napari_unet_seg.core.architecture import grid_px
from napari_unet_seg.core.models import Model, ModelLike, as_model
from napari_unet_seg.core.normalisation import (
    ArrayLike,
    NoFinitePixelError,
    PlaneStatistics,
    plane_statistics,
)
from napari_unet_seg.core.predict_settings import PredictSettings, Request, resolve, zoom_choice
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.steps import STOP, Stop, run_to_end
from napari_unet_seg.core.tiling import SEAM_PX, Span
from napari_unet_seg.core.zoom_trials import ZOOMS, FoundZoom, ZoomTrial, best_zoom, is_surer, tried

__all__ = [
    "FoundZoom",
    "ZoomTrial",
    "find_zoom",
    "inversion_steps",
    "known_zoom_steps",
    "search_steps",
    "with_zoom",
    "zoom_steps",
]

WINDOW_PX = 320
"""Pixels of the model's grid along each side that are looked at, at most, at one zoom."""
SMALLEST_PX = 24
"""A plane that is smaller at some zoom, along its longer side, tells nothing there."""

Box: TypeAlias = tuple[slice, slice]
ZoomSteps: TypeAlias = Generator[ZoomTrial, Stop | None, FoundZoom | None]


def find_zoom(image: ArrayLike, model: ModelLike, settings: PredictSettings | None = None) -> FoundZoom:
    """Find the zoom at which a model sees an image at the size of what it learned from.

    It depends on the grey values and the model only, not on tile size, device or number of threads, but for
    the rounding of their sums.

    Parameters
    ----------
    image, model, settings
        As of `predict`; zoom, pixel size, tile size and test-time averaging do not matter. Of a stack, the
        plane in the middle is looked at.

    Raises
    ------
    InputError
        The image cannot be used, or does not fit the model.
    OutOfMemoryError
        Not even the smallest tile fits the memory.
    """
    loaded = as_model(model)
    found = run_to_end(search_steps(image, loaded, settings or PredictSettings()))
    if found is None:
        raise AssertionError("only who sends STOP gets nothing")
    return found


def search_steps(
    image: ArrayLike, model: Model, settings: PredictSettings, *, region: Box | None = None
) -> ZoomSteps:
    """Search step by step, a step per zoom; send `STOP` to give up, which returns None.

    Parameters
    ----------
    image, model, settings
        As of `find_zoom`.
    region
        Rows and columns of the plane that are of interest.

    Raises
    ------
    InputError, OutOfMemoryError
        As of `find_zoom`.
    """
    request = resolve(image, model, replace(settings, zoom="auto", pixel_size_nm=None))
    try:
        engine = InferenceNetwork(model.network, request.device.device)
        return (yield from zoom_steps(request, engine, region))
    finally:
        empty_cache(request.device.device)


def known_zoom_steps(
    image: ArrayLike, model: Model, settings: PredictSettings
) -> Generator[ZoomTrial, Stop | None, PredictSettings | None]:
    """The settings with a zoom, which is searched for where nothing tells it; None when that was stopped.

    Raises
    ------
    InputError, OutOfMemoryError
        As of `find_zoom`.
    """
    if zoom_choice(model.info, settings).unknown is None:
        return settings
    found = yield from search_steps(image, model, settings)
    return None if found is None else replace(settings, zoom=found.zoom)


def zoom_steps(request: Request, engine: InferenceNetwork, region: Box | None = None) -> ZoomSteps:
    """The same for an image and a model that are settled, and the model's network."""
    trials = yield from _trial_steps(request, engine, ZOOMS, region)
    return None if trials is None else best_zoom(trials, request.model.info)


def inversion_steps(
    request: Request, engine: InferenceNetwork
) -> Generator[ZoomTrial, Stop | None, bool | None]:
    """Whether the model would be clearly surer of the image in the other contrast, at the zoom that is known.

    A zoom that was found may have been found in the wrong contrast, so that others are tried as well. Send
    `STOP` to give up, which returns None.
    """
    other = replace(request, settings=replace(request.settings, invert=not request.settings.invert))
    height, width = request.zoom
    zooms = (math.sqrt(height * width), *(ZOOMS[::2] if request.found_zoom else ()))
    trials = yield from _trial_steps(request, engine, zooms)
    other_trials = None if trials is None else (yield from _trial_steps(other, engine, zooms))
    if trials is None or other_trials is None:
        return None
    return is_surer(other_trials, trials, request.model.info)


def _trial_steps(
    request: Request, engine: InferenceNetwork, zooms: Sequence[float], region: Box | None = None
) -> Generator[ZoomTrial, Stop | None, list[ZoomTrial] | None]:
    """What is found at each zoom, none where no plane shows anything; None when it was stopped."""
    looked_at = _plane_to_look_at(request)
    if looked_at is None:
        return []
    glance = _Glance(*looked_at, engine, region or (slice(None), slice(None)))
    trials: list[ZoomTrial] = []
    for zoom in zooms:
        if glance.can_show(zoom):
            trials.append(tried(zoom, glance.probabilities(zoom), request.model.info))
            if (yield trials[-1]) is STOP:
                return None
    return trials


def with_zoom(request: Request, found: FoundZoom) -> Request:
    """The request with the zoom that was found, which is said."""
    why = request.zoom_unknown
    if found.is_sure:  # without the number, so that a batch says it once
        note = f"Zoom found automatically, because {why}; set one to choose it."
    else:
        note = f"Zoom {found.zoom:.2g}: {why}, and nothing in the image tells which fits; set one."
    return replace(
        request,
        zoom=(found.zoom, found.zoom),
        zoom_unknown=None,
        found_zoom=found,
        notes=(*request.notes, note),
    )


def _plane_to_look_at(request: Request) -> tuple[ArrayLike, PlaneStatistics] | None:
    """The plane in the middle, or the next one that shows something, and how its grey values are mapped."""
    planes = list(request.layout.planes())
    middle = len(planes) // 2
    for index in (*planes[middle:], *planes[:middle]):
        plane = PlaneView(request.image, request.layout, index)
        try:
            statistics = plane_statistics(plane, request.model.normalisation, invert=request.settings.invert)
        except NoFinitePixelError:
            continue
        if not is_blank(plane):
            return plane, statistics
    return None


class _Glance:
    """A window of a plane, of at most so many pixels of the model's grid at any zoom."""

    def __init__(
        self,
        plane: ArrayLike,
        statistics: PlaneStatistics,
        engine: InferenceNetwork,
        region: Box,
    ) -> None:
        self._plane, self._statistics = plane, statistics
        self._shape: tuple[int, int] = plane.shape[1], plane.shape[2]
        bounds = [part.indices(length) for part, length in zip(region, self._shape, strict=True)]
        self._bounds = [Span(start, stop) for start, stop, _ in bounds]
        self._runner = TileRunner(engine, WINDOW_PX + grid_px(engine.architecture.depth))

    def can_show(self, zoom: float) -> bool:
        """Whether anything is left to be seen."""
        return max(span.length for span in self._bounds) * zoom >= SMALLEST_PX

    def probabilities(self, zoom: float) -> Floats:
        """(classes, y, x) of the window, on the model's grid."""
        rows, columns = (_middle(span, WINDOW_PX / zoom) for span in self._bounds)
        geometry = GridGeometry(self._shape, (zoom, zoom), (rows, columns))
        grid = PlaneGrid(self._plane, self._statistics, geometry)
        tiles = [done for done in self._runner.run(grid) if isinstance(done, TileOutput)]
        top, left = (min(span.start for span in spans) for spans in _spans(tiles))
        bottom, right = (max(span.stop for span in spans) for spans in _spans(tiles))
        out: Floats = np.empty((len(tiles[0].probabilities), bottom - top, right - left), np.float32)
        for done in tiles:
            rows, columns = done.tile.rows, done.tile.columns
            inner = (slice(SEAM_PX, SEAM_PX + span.length) for span in (rows, columns))
            box = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
            out[(slice(None), *box)] = done.probabilities[(slice(None), *inner)]
        return out


def _spans(tiles: Sequence[TileOutput]) -> tuple[list[Span], list[Span]]:
    return [done.tile.rows for done in tiles], [done.tile.columns for done in tiles]


def _middle(span: Span, wanted: float) -> Span:
    """At most so many pixels in the middle of a span."""
    length = min(span.length, max(1, round(wanted)))
    start = span.start + (span.length - length) // 2
    return Span(start, start + length)
