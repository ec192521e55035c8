"""What every function that takes labels refuses, and the sentence it says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.errors import InputError


def check_labels(labels: NDArray[Any]) -> None:
    """Refuse labels that are not integers, have no pixels, or hold a negative id."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"Labels are {labels.dtype}, not integers: give 0 for background, an id per object.")
    if labels.size == 0:
        raise InputError(f"Labels of shape {by(labels.shape)} have no pixels: choose labels with some.")
    if np.issubdtype(labels.dtype, np.signedinteger) and labels.min() < 0:
        raise InputError(f"Labels hold the negative id {labels.min()}: ids are 0 (background) and up.")


def check_mask(annotated: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse a mask that is not boolean or not of the labels' shape."""
    if annotated.shape != shape or annotated.dtype != np.bool_:
        raise InputError(
            f"The annotated mask is {annotated.dtype} {by(annotated.shape)} but the labels are {by(shape)}: "
            "give a boolean mask of their shape."
        )


def by(shape: tuple[int, ...]) -> str:
    """20×512×512."""
    return "×".join(map(str, shape))
