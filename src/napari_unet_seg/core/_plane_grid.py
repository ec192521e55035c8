"""One plane of an image, seen from the model's grid: read for a tile, written to by a tile."""

from __future__ import annotations

import numpy as np

from napari_unet_seg.core.normalisation import ArrayLike, PlaneStatistics, apply
from napari_unet_seg.core.rescaling import (
    Floats,
    unzoom_into,
    unzoomed_owner,
    unzoomed_source,
    zoomed_length,
    zoomed_region,
)
from napari_unet_seg.core.tiling import SEAM_PX, Span, Tile, mirrored_indices

UNZOOMED = (1.0, 1.0)


class GridGeometry:
    """How the pixels of an image plane and of the model's grid lie to each other.

    Parameters
    ----------
    image_shape
        (Y, X) of the plane.
    zoom
        Model-grid pixels per image pixel along Y and X.
    region
        Rows and columns of the image that are wanted; None: all.
    """

    def __init__(
        self, image_shape: tuple[int, int], zoom: tuple[float, float], region: tuple[Span, Span] | None = None
    ) -> None:
        self.image_shape, self.zoom = image_shape, zoom
        self._region = region or (Span(0, image_shape[0]), Span(0, image_shape[1]))
        self.shape = zoomed_length(image_shape[0], zoom[0]), zoomed_length(image_shape[1], zoom[1])

    def image_box(self, tile: Tile) -> tuple[Span, Span]:
        """The image pixels that a tile answers for; possibly none when the zoom shrinks."""
        if self.zoom == UNZOOMED:
            return tile.rows, tile.columns
        return (
            unzoomed_owner(tile.rows, self.image_shape[0], self.shape[0], self.zoom[0]),
            unzoomed_owner(tile.columns, self.image_shape[1], self.shape[1], self.zoom[1]),
        )

    @property
    def wanted(self) -> tuple[Span, Span]:
        """Rows and columns of the model's grid that the region is made from."""
        if self.zoom == UNZOOMED:
            return self._region
        spans = zip(self._region, self.shape, self.zoom, strict=True)
        rows, columns = (unzoomed_source(span, length, zoom) for span, length, zoom in spans)
        return rows, columns

    @property
    def wanted_shape(self) -> tuple[int, int]:
        """(Y, X) of `wanted`."""
        rows, columns = self.wanted
        return rows.length, columns.length

    def is_wanted(self, tile: Tile) -> bool:
        """Whether a tile answers for at least one image pixel that is wanted."""
        boxes = zip(self.image_box(tile), self._region, strict=True)
        return all(max(box.start, part.start) < min(box.stop, part.stop) for box, part in boxes)


class PlaneGrid:
    """A normalised, zoomed, mirrored view of a plane that never exists as a whole.

    Parameters
    ----------
    plane
        (C, Y, X), lazy or not.
    statistics
        How its grey values are mapped.
    geometry
        How its pixels lie to the model's grid.
    """

    def __init__(self, plane: ArrayLike, statistics: PlaneStatistics, geometry: GridGeometry) -> None:
        self._plane, self._statistics, self.geometry = plane, statistics, geometry
        self.met_not_finite = statistics.n_not_finite > 0

    def read(self, rows: Span, columns: Span, halo_px: int) -> Floats:
        """(C, rows + 2·halo, columns + 2·halo) of the model's grid, mirrored outside the plane."""
        row_indices = mirrored_indices(rows.start - halo_px, rows.stop + halo_px, self.geometry.shape[0])
        column_indices = mirrored_indices(
            columns.start - halo_px, columns.stop + halo_px, self.geometry.shape[1]
        )
        needed_rows = Span(int(row_indices.min()), int(row_indices.max()) + 1)
        needed_columns = Span(int(column_indices.min()), int(column_indices.max()) + 1)
        geometry = self.geometry
        region = zoomed_region(
            self._normalised, geometry.image_shape, needed_rows, needed_columns, geometry.zoom
        )
        if region.shape[1:] == (row_indices.size, column_indices.size):
            return region
        region = region.take(row_indices - needed_rows.start, axis=1)
        return region.take(column_indices - needed_columns.start, axis=2)

    def write(self, out: Floats, probabilities: Floats, tile: Tile) -> None:
        """Fill `out`, (classes, rows, columns) of `image_box` from a tile's probabilities and seam."""
        geometry = self.geometry
        if geometry.zoom == UNZOOMED:
            inner = (slice(SEAM_PX, SEAM_PX + length) for length in (tile.rows.length, tile.columns.length))
            out[...] = probabilities[(slice(None), *inner)]
            return
        origin = (tile.rows.start - SEAM_PX, tile.columns.start - SEAM_PX)
        unzoom_into(out, probabilities, origin, geometry.image_box(tile), geometry.shape, geometry.zoom)

    def _normalised(self, rows: Span, columns: Span) -> Floats:
        part = np.asarray(self._plane[:, rows.start : rows.stop, columns.start : columns.stop])
        if part.dtype.kind == "f" and not self.met_not_finite:
            self.met_not_finite = not bool(np.isfinite(part).all())
        return apply(part, self._statistics)
