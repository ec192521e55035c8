"""Patches cut from a plane after a geometry: as they are where they can be, else interpolated."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet_seg.core._grey_values import blur
from napari_unet_seg.core._patch_geometry import Geometry
from napari_unet_seg.core.patches import Floats, Patch, Sample, Shape

Indices: TypeAlias = NDArray[np.intp]


def mirrored(index: NDArray[np.signedinteger[Any]], length: int) -> Indices:
    """Fold indices beyond 0..length − 1 back inside; the edge pixel is not repeated."""
    if length == 1:
        return np.zeros_like(index, dtype=np.intp)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    inside: Indices = np.minimum(folded, period - folded).astype(np.intp)
    return inside


def cut_exactly(source: Sample, centre: Shape, geometry: Geometry, margin: Shape) -> Patch:
    """Pixels as they are: a crop, flipped or turned."""
    matrix = geometry.matrix.astype(np.intp)
    offsets = [np.arange(n) - p for n, p in zip(geometry.image_shape, geometry.pivot, strict=True)]
    is_turned = matrix[0, 0] == 0
    if is_turned:
        along_y, along_x = matrix[0, 1] * offsets[1], matrix[1, 0] * offsets[0]
    else:
        along_y, along_x = matrix[0, 0] * offsets[0], matrix[1, 1] * offsets[1]
    rows = mirrored(centre[0] + along_y, source.shape[0])
    columns = mirrored(centre[1] + along_x, source.shape[1])

    def cut(array: NDArray[Any], trim: Shape) -> NDArray[Any]:
        crop = array[..., rows, :][..., columns]
        crop = np.swapaxes(crop, -1, -2) if is_turned else crop
        return np.ascontiguousarray(_trimmed(crop, trim))

    return _patch(
        cut(source.image, (0, 0)),
        cut(source.labels, margin),
        cut(source.annotated, margin),
        None if source.weights is None else cut(source.weights, margin),
    )


def cut_interpolated(
    source: Sample, centre: Shape, geometry: Geometry, margin: Shape, *, cubic: bool
) -> Patch:
    """Image and weights interpolated, labels and mask from the nearest pixel, all at the same positions."""
    positions = geometry.positions()
    reach = 2 if cubic else 1
    low = np.floor(positions.min(axis=(1, 2))).astype(int) - (reach - 1)
    high = np.floor(positions.max(axis=(1, 2))).astype(int) + reach
    rows, columns = (
        mirrored(np.arange(centre[axis] + low[axis], centre[axis] + high[axis] + 1), source.shape[axis])
        for axis in (0, 1)
    )
    positions -= low[:, None, None].astype(np.float32)
    inner = _trimmed(positions, margin)
    nearest = _nearest(inner, len(columns))

    def at_nearest(array: NDArray[Any]) -> NDArray[Any]:
        return np.take(_crop(array, rows, columns).reshape(-1), nearest)

    weights = None
    if source.weights is not None:
        weights = _interpolate(_crop(source.weights[None], rows, columns), inner, cubic=False)[0]
    crop = blur(_crop(source.image, rows, columns), geometry.smoothing_px)
    image = _interpolate(crop, positions, cubic=cubic)
    return _patch(image, at_nearest(source.labels), at_nearest(source.annotated), weights)


def _patch(
    image: NDArray[Any], labels: NDArray[Any], annotated: NDArray[Any], weights: NDArray[Any] | None
) -> Patch:
    if weights is not None:
        weights = weights.astype(np.float32, copy=False) * annotated
    return Patch(
        image.astype(np.float32, copy=False), labels.astype(np.int32, copy=False), annotated, weights
    )


def _trimmed(array: NDArray[Any], margin: Shape) -> NDArray[Any]:
    """Without the context around it; margins are along the last two axes."""
    y, x = margin
    return array[..., y : array.shape[-2] - y, x : array.shape[-1] - x]


def _crop(array: NDArray[Any], rows: Indices, columns: Indices) -> NDArray[Any]:
    """A contiguous copy of some rows and columns; a plain slice where nothing is mirrored."""
    if _is_run(rows) and _is_run(columns):
        return np.array(array[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], order="C")
    return np.ascontiguousarray(array[..., rows, :][..., columns])


def _is_run(indices: Indices) -> bool:
    return bool((np.diff(indices) == 1).all())


def _nearest(positions: Floats, row_length: int) -> Indices:
    """(Y, X) index of the nearest pixel in the flattened crop."""
    rounded = np.rint(positions).astype(np.intp)
    flat: Indices = rounded[0] * row_length + rounded[1]
    return flat


def _interpolate(crop: NDArray[Any], positions: Floats, *, cubic: bool) -> Floats:
    """(C, Y, X) values of a (C, h, w) crop at (2, Y, X) positions."""
    size = np.array([crop.shape[1], crop.shape[2]], dtype=np.float32)[:, None, None]
    scaled = positions * (2 / (size - 1)) - 1
    grid = torch.from_numpy(np.stack([scaled[1], scaled[0]], axis=-1))[None]
    source = torch.from_numpy(crop.astype(np.float32, copy=False))[None]
    mode = "bicubic" if cubic else "bilinear"
    values = torch.nn.functional.grid_sample(
        source, grid, mode=mode, padding_mode="border", align_corners=True
    )
    out: Floats = values[0].numpy()
    return out
