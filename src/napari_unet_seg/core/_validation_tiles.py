"""Tiles that a network is scored on: cut as prediction cuts them, or varied copies of what it learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._training_planes import TrainingPlane
from napari_unet_seg.core.architecture import grid_px
from napari_unet_seg.core.augmentation import AugmentSettings, mirrored
from napari_unet_seg.core.patches import Patch, Sample, Shape
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.sampling import PatchSampler
from napari_unet_seg.core.tiling import halo_px, round_up

LARGEST_TILE_PX: Final = 256
FEWEST_TILES: Final = 4
"""So many are scored even when they take long."""
N_VARIED_TILES: Final = 8
_VARIED_TILE_PX: Final = 96


def cut_tiles(
    plane: TrainingPlane, counted: NDArray[np.bool_], weights: Floats, depth: int
) -> Iterator[Patch]:
    """Cut what counts of a plane into tiles; each counted pixel is annotated in exactly one.

    Tiles start on the pooling grid of the whole plane and carry the context that prediction reads, so that
    the score is that of a prediction. Their labels are 0 where nothing counts.
    """
    rows, columns = (np.flatnonzero(counted.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return
    for top in range(int(rows[0]), int(rows[-1]) + 1, LARGEST_TILE_PX):
        for left in range(int(columns[0]), int(columns[-1]) + 1, LARGEST_TILE_PX):
            part = counted[top : top + LARGEST_TILE_PX, left : left + LARGEST_TILE_PX]
            if part.any():
                yield _tile(plane, part, (top, left), weights, depth)


def varied_tiles(
    samples: Sequence[Sample], augmentation: AugmentSettings, depth: int, seed: int
) -> list[Patch]:
    """Some patches of what is learned from, varied, always the same for the same samples and seed."""
    side_px = round_up(_VARIED_TILE_PX, grid_px(depth))
    sampler = PatchSampler(
        samples,
        (side_px, side_px),
        image_shape=(side_px + 2 * halo_px(depth),) * 2,
        augmentation=augmentation,
    )
    rng = np.random.default_rng([seed, 2])
    return [sampler.draw(rng) for _ in range(N_VARIED_TILES)]


def few_tiles(tiles: Sequence[Patch], most_px: float, seed: int) -> tuple[Patch, ...]:
    """A fixed random choice of tiles whose images have at most so many pixels together, in their order."""
    chosen: list[int] = []
    n_px = 0
    for index in np.random.default_rng([seed, 1]).permutation(len(tiles)).tolist():
        n_px += tiles[index].image[0].size
        if len(chosen) >= FEWEST_TILES and n_px > most_px:
            break
        chosen.append(index)
    return tuple(tiles[index] for index in sorted(chosen))


def halves(tile: Patch, depth: int) -> tuple[Patch, Patch] | None:
    """The tile in two, cut across its longer side on the pooling grid; None when it is as small as can be."""
    axis = int(np.argmax(tile.labels.shape))
    length = tile.labels.shape[axis]
    middle = round_up(length // 2, grid_px(depth))
    if middle >= length:
        return None
    first, second = (
        _part(tile, slice(start, stop), axis, 2 * halo_px(depth))
        for start, stop in ((0, middle), (middle, length))
    )
    return first, second


def _part(tile: Patch, span: slice, axis: int, context_px: int) -> Patch:
    def cut(array: NDArray[Any], extra_px: int = 0) -> NDArray[Any]:
        here = [slice(None)] * array.ndim
        here[array.ndim - 2 + axis] = slice(span.start, span.stop + extra_px)
        return array[tuple(here)]

    return replace(
        tile,
        image=cut(tile.image, context_px),
        labels=cut(tile.labels),
        annotated=cut(tile.annotated),
        weights=None if tile.weights is None else cut(tile.weights),
    )


def _tile(
    plane: TrainingPlane, counted: NDArray[np.bool_], corner: Shape, weights: Floats, depth: int
) -> Patch:
    """The smallest tile on the grid around what counts of the part of a plane at a corner."""
    grid, halo = grid_px(depth), halo_px(depth)
    starts, sides = [], []
    for axis, (first, box) in enumerate(zip(corner, plane.box, strict=True)):
        line = np.flatnonzero(counted.any(axis=1 - axis)) + first + box.start
        start = int(line[0]) // grid * grid
        sides.append(round_up(int(line[-1]) + 1 - start, grid))
        starts.append(start - box.start)
    rows, columns = (
        mirrored(np.arange(start - halo, start + side + halo), length)
        for start, side, length in zip(starts, sides, plane.annotated.shape, strict=True)
    )
    in_part = [start - first for start, first in zip(starts, corner, strict=True)]
    is_counted = _window(counted, in_part, sides)
    return Patch(
        image=np.ascontiguousarray(plane.image[:, rows][:, :, columns]),
        labels=np.where(is_counted, _window(plane.labels, starts, sides), 0).astype(np.int32),
        annotated=is_counted,
        weights=np.where(is_counted, _window(weights, starts, sides), 0).astype(np.float32),
    )


def _window(array: NDArray[Any], places: Sequence[int], sides: Sequence[int]) -> NDArray[Any]:
    """(Y, X) of these sides from these places on; 0 beyond the array."""
    window = np.zeros(tuple(sides), array.dtype)
    there = [
        slice(max(0, place), min(length, place + side))
        for place, side, length in zip(places, sides, array.shape, strict=True)
    ]
    here = [slice(part.start - place, part.stop - place) for part, place in zip(there, places, strict=True)]
    window[tuple(here)] = array[tuple(there)]
    return window
