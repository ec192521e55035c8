"""How large the objects of an image typically are: what a model knows, and what a zoom is judged by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPECKS_SHARE = 0.1
"""Of the area of all objects: what the smallest of them cover together is left out. At a wrong zoom a large
object comes apart into a few pieces and many specks, which would be the median of all."""


def typical_diameter_px(areas: NDArray[np.integer[Any]]) -> float:
    """Median of the diameters of discs of these areas, without the smallest that cover a tenth; 0 of none."""
    if not areas.size:
        return 0.0
    sizes = np.sort(areas)
    sizes = sizes[np.cumsum(sizes) > _SPECKS_SHARE * sizes.sum()]
    return float(np.median(np.sqrt(4 * sizes / math.pi)))
