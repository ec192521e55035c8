"""Between the image's grid and the model's grid: the zoom, and resampling that a tile and the whole share.

Output index i sits at (i + 0.5) / zoom - 0.5 of the input. The weights of an output pixel follow from that
absolute position alone, so a resampled tile is, bit for bit, a crop of the resampled whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.tiling import Span

Floats = npt.NDArray[np.float32]

BAND_PX = 4_000_000
"""Most input pixels per channel that are held at once while shrinking a large region."""
LARGEST_ZOOM = 64.0
"""Zooms beyond this, or below its inverse, are mistakes of units."""


@dataclass(frozen=True)
class AxisWeights:
    """How each output pixel of one axis is mixed from input pixels.

    Attributes
    ----------
    indices
        (n_output, n_taps) input indices.
    weights
        (n_output, n_taps); each row sums to 1, and is 0 where a tap is not needed.
    """

    indices: npt.NDArray[np.intp]
    weights: Floats


def zoomed_length(length: int, zoom: float) -> int:
    """Pixels of an axis after zooming: the nearest integer, at least 1."""
    return max(1, int(np.floor(length * zoom + 0.5)))


def zoomed_weights(start: int, stop: int, length: int, zoom: float) -> AxisWeights:
    """Weights for output pixels [start, stop) of an axis of `length` input pixels zoomed by `zoom`.

    Enlarging is linear interpolation; shrinking averages the area that an output pixel covers. Positions
    outside the image take its edge pixel.
    """
    return (
        linear_weights(start, stop, length, zoom) if zoom >= 1 else _area_weights(start, stop, length, zoom)
    )


def linear_weights(start: int, stop: int, length: int, zoom: float) -> AxisWeights:
    """Linear interpolation for output pixels [start, stop), whatever the zoom."""
    position = np.clip((np.arange(start, stop) + 0.5) / zoom - 0.5, 0, length - 1)
    first = np.minimum(position.astype(np.intp), max(length - 2, 0))
    fraction = position - first
    indices = np.stack([first, np.minimum(first + 1, length - 1)], axis=1)
    return AxisWeights(indices, np.stack([1 - fraction, fraction], axis=1).astype(np.float32))


def _area_weights(start: int, stop: int, length: int, zoom: float) -> AxisWeights:
    """Output pixel i covers the input from i / zoom to (i + 1) / zoom, measured in pixel edges."""
    edges = np.clip(np.arange(start, stop + 1) / zoom, 0, length)
    low, high = edges[:-1, np.newaxis], edges[1:, np.newaxis]
    n_taps = int(np.ceil(1 / zoom)) + 1
    indices = np.floor(low).astype(np.intp) + np.arange(n_taps)
    overlap = np.clip(np.minimum(indices + 1, high) - np.maximum(indices, low), 0, None)
    weights = overlap / overlap.sum(axis=1, keepdims=True)
    return AxisWeights(np.minimum(indices, length - 1), weights.astype(np.float32))


def mix(array: Floats, weights: AxisWeights, axis: int) -> Floats:
    """Resample one axis of (C, Y, X); each tap is one gather, so memory stays that of the pixels."""
    shape = [1] * array.ndim
    shape[axis] = -1
    mixed: Floats = np.take(array, weights.indices[:, 0], axis=axis)
    mixed *= weights.weights[:, 0].reshape(shape)
    for tap in range(1, weights.indices.shape[1]):
        mixed += np.take(array, weights.indices[:, tap], axis=axis) * weights.weights[:, tap].reshape(shape)
    return mixed


def zoomed_region(
    read: Callable[[Span, Span], Floats],
    shape: tuple[int, int],
    rows: Span,
    columns: Span,
    zoom: tuple[float, float],
) -> Floats:
    """A region of the zoomed plane, reading only the input pixels that it is mixed from.

    Parameters
    ----------
    read
        Gives (C, rows, columns) of the unzoomed plane.
    shape
        (Y, X) of the unzoomed plane.
    rows, columns
        Region in pixels of the zoomed plane, inside it.
    zoom
        Factors along Y and X.

    Returns
    -------
    (C, rows, columns) float32, equal to the same crop of the whole zoomed plane.
    """
    if zoom == (1.0, 1.0):
        return read(rows, columns)
    across = zoomed_weights(columns.start, columns.stop, shape[1], zoom[1])
    needed_columns, across = _crop(across)
    rows_at_once = max(1, int(BAND_PX * zoom[0] / needed_columns.length))
    bands = []
    for start in range(rows.start, rows.stop, rows_at_once):
        down = zoomed_weights(start, min(start + rows_at_once, rows.stop), shape[0], zoom[0])
        needed_rows, down = _crop(down)
        bands.append(mix(mix(read(needed_rows, needed_columns), down, axis=1), across, axis=2))
    return bands[0] if len(bands) == 1 else np.concatenate(bands, axis=1)


def _crop(weights: AxisWeights) -> tuple[Span, AxisWeights]:
    """The span of input pixels that are needed, and the weights counted from its start."""
    span = Span(int(weights.indices.min()), int(weights.indices.max()) + 1)
    return span, AxisWeights(weights.indices - span.start, weights.weights)


def unzoomed_owner(tile: Span, length: int, zoomed: int, zoom: float) -> Span:
    """The image pixels of one axis that a tile of the zoomed axis resamples back.

    Each belongs to the tile that holds the left one of the two zoomed pixels that it lies between; the right
    one is at most one pixel beyond the tile.
    """
    first = linear_weights(0, length, zoomed, 1 / zoom).indices[:, 0]
    start, stop = np.searchsorted(first, [tile.start, tile.stop])
    return Span(int(start), int(stop))


def unzoomed_source(span: Span, zoomed: int, zoom: float) -> Span:
    """The zoomed pixels that the left ones of a span of image pixels are: their tiles answer for the span."""
    first = linear_weights(span.start, span.stop, zoomed, 1 / zoom).indices[:, 0]
    return Span(int(first.min()), int(first.max()) + 1)


def unzoom_into(
    out: Floats,
    probabilities: Floats,
    origin: tuple[int, int],
    box: tuple[Span, Span],
    zoomed_shape: tuple[int, int],
    zoom: tuple[float, float],
) -> None:
    """Write probabilities of the zoomed grid back on the image's grid, linearly.

    Parameters
    ----------
    out
        (C, rows, columns) of `box`, filled here.
    probabilities
        (C, y, x) on the zoomed grid, reaching one pixel beyond what the box lies between.
    origin
        Zoomed (row, column) of ``probabilities[:, 0, 0]``.
    box
        Rows and columns of the image.
    zoomed_shape, zoom
        Of the whole plane.
    """
    across = linear_weights(box[1].start, box[1].stop, zoomed_shape[1], 1 / zoom[1])
    across = AxisWeights(across.indices - origin[1], across.weights)
    rows_at_once = max(1, BAND_PX // max(1, box[1].length))
    for start in range(box[0].start, box[0].stop, rows_at_once):
        stop = min(start + rows_at_once, box[0].stop)
        down = linear_weights(start, stop, zoomed_shape[0], 1 / zoom[0])
        down = AxisWeights(down.indices - origin[0], down.weights)
        out[:, start - box[0].start : stop - box[0].start] = mix(
            mix(probabilities, down, axis=1), across, axis=2
        )


@dataclass(frozen=True)
class ZoomChoice:
    """Model-grid pixels per image pixel along (Y, X).

    Attributes
    ----------
    zoom
        1 where nothing tells it.
    note
        A sentence when it had to be assumed.
    unknown
        Why nothing tells it, though the model knows a size, in words; None otherwise.
    """

    zoom: tuple[float, float]
    note: str | None = None
    unknown: str | None = None


def choose_zoom(
    zoom: float | None,
    pixel_size_nm: tuple[float, float] | None,
    model_pixel_size_nm: float | None,
    model_object_diameter_px: float | None,
    learned_zoom: float | None = None,
) -> ZoomChoice:
    """The zoom for an image: as asked for, else from the two pixel sizes, else as learned, which is said.

    Parameters
    ----------
    zoom
        As asked for; 2 enlarges.
    pixel_size_nm
        (Y, X) of the image, or None when unknown.
    model_pixel_size_nm, model_object_diameter_px
        What the model was trained at, as far as known.
    learned_zoom
        At which the model last learned from images whose pixel size says nothing.

    Raises
    ------
    InputError
        A number is not positive, or the zoom is so extreme that a unit must be wrong.
    """
    if zoom is not None:
        return ZoomChoice(checked_zoom(zoom, zoom))
    if pixel_size_nm is not None and model_pixel_size_nm is not None:
        return ZoomChoice(
            checked_zoom(pixel_size_nm[0] / model_pixel_size_nm, pixel_size_nm[1] / model_pixel_size_nm)
        )
    if learned_zoom is not None:
        learned = "the one at which the model learned from images without a usable pixel size"
        return ZoomChoice(checked_zoom(learned_zoom, learned_zoom), f"Zoom {learned_zoom:g}: {learned}.")
    if model_pixel_size_nm is not None:
        why, knows = "the image's pixel size is unknown", f"the model knows {model_pixel_size_nm:g} nm"
        return ZoomChoice((1.0, 1.0), f"Zoom 1: {why}; {knows}.", why)
    why = "the pixel size is ignored, because the model knows none" if pixel_size_nm else "no zoom was given"
    if model_object_diameter_px is None:  # nothing to compare with
        return ZoomChoice((1.0, 1.0), f"Zoom 1: {why}.")
    objects = f"its objects are about {model_object_diameter_px:.3g} px across: zoom so that yours are"
    return ZoomChoice((1.0, 1.0), f"Zoom 1: {why}; {objects}.", why)


def known_pixel_size(pixel_size_nm: Any) -> float | tuple[float, ...] | None:
    """A pixel size that somebody gave: None, one number for Y and X, or one per axis.

    Raises
    ------
    InputError
        Not a number, or not a positive one.
    """
    try:
        sizes = None if pixel_size_nm is None else np.asarray(pixel_size_nm, np.float64)
    except (TypeError, ValueError):
        sizes = np.array(np.nan)
    if sizes is None:
        return None
    if sizes.ndim > 1 or not sizes.size or not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InputError(
            f"The pixel size is {pixel_size_nm} nm: give a positive number, or (Y, X), or (Z, Y, X), "
            "or leave it out."
        )
    return tuple(sizes.tolist()) if sizes.ndim else float(sizes)


def checked_zoom(y: float, x: float) -> tuple[float, float]:
    """The zoom along (Y, X).

    Raises
    ------
    InputError
        It is so extreme that a unit must be wrong.
    """
    if not all(1 / LARGEST_ZOOM <= factor <= LARGEST_ZOOM for factor in (y, x)):
        raise InputError(
            f"The zoom would be {y:g} × {x:g} (Y × X): check the pixel size and its unit (nm), "
            f"or give a zoom between {1 / LARGEST_ZOOM:g} and {LARGEST_ZOOM:g}."
        )
    return float(y), float(x)
