"""Whether a plane shows anything at all, or only one grey value or the noise of a camera.

Normalisation stretches whatever there is, so a network would be shown the noise of an empty field as if it
were an image. What tells them apart is that a pixel of noise knows nothing of its neighbours, while whatever
a microscope has focused is larger than a pixel: an analysis of variance between and within blocks of 8x8 px
(Fisher's F), after what the illumination does has been taken out, and the autocorrelation within the blocks,
for patterns so fine and regular that blocks do not differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.normalisation import ArrayLike

BLOCK_PX = 8
BAND_PX = 1_000_000
"""Pixels that are looked at at once."""
FEWEST_BLOCKS = 64
"""Fewer are too few to tell noise from anything else."""
LARGEST_F = 3.0
"""Of noise: 1 where pixels are independent, below 2 in 64x64 of them, also where blurred by 0.4 px. Training
images of five microscopes have 37 or more; shrunk to a quarter, 4.8; none of 562 is taken for noise, not even
with noise added that is three times as strong as their contrast."""
LARGEST_DEVIATION = 6.0
"""Of the mean of a block of noise from the others, in their standard deviations; of millions of blocks the
extreme is about 5. A small object in a large field, which F does not see, has more."""

LARGEST_CORRELATION = 0.5
"""Of noise, with its neighbours up to `FARTHEST_PX` along an axis: 0 where pixels are independent, 0.25 where
blurred by 0.5 px; of stripes it is near 1 or -1 at one of these distances."""
FARTHEST_PX = 4

_Floats = NDArray[np.float64]


def is_blank(plane: ArrayLike) -> bool:
    """Whether each channel of a plane (C, Y, X) is constant, or shows nothing but noise; not if it is tiny.

    It depends on the pixels only, of which NaN and infinity do not count, nor what is left of whole blocks at
    the bottom and right. They are read in bands of rows from the top as far as the first that shows
    something: of most images that is one.
    """
    return all(_is_blank_channel(plane, index) for index in range(plane.shape[0]))


def _is_blank_channel(plane: ArrayLike, index: int) -> bool:
    bands: list[_Blocks] = []
    for pixels, top in _bands(plane, index):
        band = _Blocks.of(pixels, top)
        if band.show_something() or _is_pattern(_whole_blocks(pixels)[2]):
            return False
        bands.append(band)
    n_blocks = sum(band.means.size for band in bands)
    return n_blocks >= FEWEST_BLOCKS and not _Blocks.joined(bands).show_something()


def _bands(plane: ArrayLike, index: int) -> Iterator[tuple[NDArray[np.generic], int]]:
    """Pixels (Y, X) of some rows, and the first of these."""
    _, height, width = plane.shape
    n_rows = max(BLOCK_PX, BAND_PX // width // BLOCK_PX * BLOCK_PX)
    for top in range(0, height - BLOCK_PX + 1, n_rows):
        yield np.asarray(plane[index : index + 1, top : top + n_rows, :])[0], top


def _whole_blocks(band: NDArray[np.generic]) -> tuple[NDArray[np.intp], NDArray[np.intp], _Floats]:
    """Row and column of the whole and finite blocks in a band (Y, X), and their pixels (n, 8, 8)."""
    n_rows, n_columns = (length // BLOCK_PX for length in band.shape)
    whole = band[: n_rows * BLOCK_PX, : n_columns * BLOCK_PX].astype(np.float64)
    blocks = whole.reshape(n_rows, BLOCK_PX, n_columns, BLOCK_PX).swapaxes(1, 2)
    rows, columns = np.nonzero(np.isfinite(blocks).all(axis=(-1, -2)))
    return rows, columns, blocks[rows, columns]


def _is_pattern(blocks: _Floats) -> bool:
    """Whether pixels follow from others a few pixels away, in blocks (n, 8, 8)."""
    around_mean = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    variance = float(np.square(around_mean).mean()) if len(blocks) else 0.0
    if variance <= 1e-12 * float(np.square(blocks).max(initial=0.0)):
        return False
    for turned in (around_mean, around_mean.swapaxes(1, 2)):
        for distance in range(1, FARTHEST_PX + 1):
            covariance = float((turned[:, distance:] * turned[:, :-distance]).mean())
            if abs(covariance) > LARGEST_CORRELATION * variance:
                return True
    return False


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of 8x8 pixels: their row and column, mean, and variance within."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    means: _Floats
    variances: _Floats

    @classmethod
    def of(cls, band: NDArray[np.generic], top: int) -> _Blocks:
        """The whole and finite ones in a band (Y, X) of a plane that begins in some row."""
        rows, columns, squares = _whole_blocks(band)
        blocks = squares.reshape(-1, BLOCK_PX**2)
        if not rows.size:
            return cls(rows, columns, np.empty(0), np.empty(0))
        # without the brightest and the darkest pixel, so that a hot one in an empty field is no object
        inner = blocks.sum(axis=-1) - blocks.max(axis=-1) - blocks.min(axis=-1)
        return cls(rows + top // BLOCK_PX, columns, inner / (BLOCK_PX**2 - 2), blocks.var(axis=-1, ddof=1))

    @classmethod
    def joined(cls, bands: list[_Blocks]) -> _Blocks:
        """All of them."""
        parts = ((band.rows, band.columns, band.means, band.variances) for band in bands)
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def show_something(self) -> bool:
        """Whether they differ more than noise does; not where they are too few to tell."""
        if self.means.size < FEWEST_BLOCKS:
            return False
        unexplained, n_free = self._without_illumination()
        between = BLOCK_PX**2 * float(np.square(unexplained).sum()) / n_free
        within = float(self.variances.mean())
        rounding = 1e-12 * float(np.square(self.means).max())
        if between > LARGEST_F * within + rounding:
            return True
        deviations = np.abs(unexplained - np.median(unexplained))
        sigma = float(np.median(deviations)) / 0.6745  # of a normal distribution
        return bool(deviations.max() > LARGEST_DEVIATION * sigma + rounding**0.5)

    def _without_illumination(self) -> tuple[_Floats, int]:
        """What is left of the means beside the best polynomial of degree 2, and its degrees of freedom."""
        y, x = (part / max(1, part.max()) for part in (self.rows, self.columns))
        terms = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=-1)
        coefficients, _, rank, _ = np.linalg.lstsq(terms, self.means, rcond=None)
        return self.means - terms @ coefficients, self.means.size - int(rank)
