"""Overlap-tile arithmetic: tiles as data (where to read, what is written), without a single pixel.

A network of `depth` poolings pools on a grid of 2**depth pixels. Tiles start on that grid, counted from pixel
(0, 0), and are read with a halo wide enough that nothing but true or mirrored image reaches their pixels; so
each pixel sees the same numbers in every tile, however the plane was cut (Ronneberger et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_unet_seg.core.architecture import context_px, grid_px

SEAM_PX = 2
"""Pixels that a tile yields around itself for free, so that resampling back needs no neighbour."""


@dataclass(frozen=True)
class Span:
    """A half-open interval [start, stop) of pixels along one axis."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of pixels."""
        return self.stop - self.start


@dataclass(frozen=True)
class Tile:
    """One piece of a plane, in pixels of the model's grid.

    Attributes
    ----------
    rows, columns
        The part of the plane that this tile is responsible for.
    padded_rows, padded_columns
        The same, at the far border rounded up to the pooling grid: what the network computes.
    """

    rows: Span
    columns: Span
    padded_rows: Span
    padded_columns: Span

    @property
    def padded_shape(self) -> tuple[int, int]:
        """Rows and columns that the network computes, multiples of the pooling grid."""
        return self.padded_rows.length, self.padded_columns.length


def halo_px(depth: int) -> int:
    """Pixels read around a tile on each side: 94 at depth 4.

    Unpadded convolutions eat `context_px`; the `SEAM_PX` more put the pooling windows of a tile that starts
    on the grid where they lie in the whole image: each pooling follows two convolutions, so the first window
    of level l starts 2·(2**l - 1) pixels after the first pixel read, and 2**l divides that, less the halo.
    """
    return context_px(depth) + SEAM_PX


def round_up(length: int, grid: int) -> int:
    """The next multiple of `grid`."""
    return -(-length // grid) * grid


def plan_tiles(rows: Span, columns: Span, side_px: int, depth: int) -> tuple[Tile, ...]:
    """Cut a plane or a part of it into tiles, row by row from the top left; each pixel is in exactly one.

    Parameters
    ----------
    rows, columns
        What is to be covered, on the model's grid; its start is rounded down to the pooling grid.
    side_px
        Side of a tile's output; rounded up to the pooling grid.
    depth
        Number of poolings of the network.
    """
    grid = grid_px(depth)
    on_grid = [Span(span.start - span.start % grid, span.stop) for span in (rows, columns)]
    return _cut(on_grid[0], on_grid[1], side_px, grid)


def subdivide(tile: Tile, side_px: int, depth: int) -> tuple[Tile, ...]:
    """The same pixels in tiles of a smaller side."""
    return _cut(tile.rows, tile.columns, side_px, grid_px(depth))


def _cut(rows: Span, columns: Span, side_px: int, grid: int) -> tuple[Tile, ...]:
    side = round_up(max(side_px, 1), grid)
    return tuple(
        Tile(row, column, _padded(row, grid), _padded(column, grid))
        for row in _steps(rows, side)
        for column in _steps(columns, side)
    )


def _steps(span: Span, side: int) -> list[Span]:
    return [Span(start, min(start + side, span.stop)) for start in range(span.start, span.stop, side)]


def _padded(span: Span, grid: int) -> Span:
    return Span(span.start, round_up(span.stop, grid))


def mirrored_indices(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Indices of [start, stop) reflected into [0, length) as often as needed, the edge pixel not repeated."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)
