"""What training patches are cut from, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.errors import InputError

Floats: TypeAlias = NDArray[np.float32]
Shape: TypeAlias = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated plane, ready to cut patches from.

    Attributes
    ----------
    image
        (C, Y, X) float32, normalised to about 0..1, finite.
    labels
        (Y, X) integers, 0 = background; they count only where `annotated`.
    annotated
        (Y, X) bool.
    weights
        (Y, X) float32 weight map, or None for 1 everywhere.
    """

    image: Floats
    labels: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    weights: Floats | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or 0 in self.image.shape:
            raise InputError(
                f"A training image has shape {self.image.shape}: give (channel, y, x), not empty."
            )
        for name in ("labels", "annotated", "weights"):
            array = getattr(self, name)
            if array is not None and array.shape != self.shape:
                raise InputError(
                    f"The {name} are {array.shape} but their image is {self.shape}: make them match."
                )
        if not (np.isfinite(self.image.min()) and np.isfinite(self.image.max())):
            raise InputError("A training image holds NaN or infinite values: normalise it first.")

    @property
    def shape(self) -> Shape:
        """(Y, X)."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, eq=False)
class Patch:
    """What one training example is made of; the image may be larger than the labels (unpadded networks).

    Attributes
    ----------
    image
        (C, Y', X') float32.
    labels, annotated
        (Y, X) int32 and bool, the middle of the image.
    weights
        (Y, X) float32, 0 where not annotated; None if the sample has none.
    """

    image: Floats
    labels: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    weights: Floats | None = None
