"""Distances from pixels to the nearest and second nearest object, exact out to a reach."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]


def two_nearest(
    objects: NDArray[np.int32], reach_px: float, spacing: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Euclidean distance of every pixel to the nearest and second nearest *different* object.

    Distances go from pixel centre to the nearest pixel centre of the object, in units of `spacing`; those
    beyond `reach_px` are infinite.
    """
    nearest = np.full(objects.shape, np.inf, np.float32)
    second = np.full(objects.shape, np.inf, np.float32)
    margin = [int(reach_px / s) + 1 for s in spacing]
    for object_id, box in enumerate(ndimage.find_objects(objects), start=1):
        if box is None:
            continue
        around = tuple(slice(max(0, b.start - m), b.stop + m) for b, m in zip(box, margin, strict=True))
        distance = ndimage.distance_transform_edt(objects[around] != object_id, sampling=spacing)
        distance = np.where(distance <= reach_px, distance, np.inf).astype(np.float32)
        second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
        nearest[around] = np.minimum(nearest[around], distance)
    return nearest, second
