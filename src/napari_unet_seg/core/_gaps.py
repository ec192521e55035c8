"""Which objects a labels array holds, and the 1-px gap that separates those that touch."""

from __future__ import annotations

from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Task = Literal["instances", "classes"]
IntArray = NDArray[np.integer[Any]]


def connected_objects(classes: IntArray) -> NDArray[np.int32]:
    """Number the connected components of every class 1, 2, ... in one plane or volume.

    Pixels are connected through their faces (4 neighbours in 2D, 6 in 3D), as in the Fiji U-Net plugin.
    """
    objects = np.zeros(classes.shape, np.int32)
    n_objects = 0
    for class_id in np.unique(classes[classes > 0]):
        pieces, n_pieces = ndimage.label(classes == class_id)
        np.add(pieces, n_objects, out=objects, where=pieces > 0)
        n_objects += n_pieces
    return objects


def is_gap(objects: IntArray, classes: IntArray | None = None) -> NDArray[np.bool_]:
    """True where an object pixel of one plane or volume must become background to separate touching objects.

    The rule of the Fiji U-Net plugin (Falk et al. 2019), as coded: a pixel is a gap if one of the neighbours
    that a raster scan has already visited (4 of 8 in 2D, 13 of 26 in 3D) belongs to a different object of the
    same class. Neighbours are compared by their *original* label, also where they are gaps themselves, so a
    pixel's answer depends on its 3x3 (3x3x3) neighbourhood alone: a cut-out with a margin of one pixel has
    the same gaps. Along a horizontal border the object below gives up one line; along a vertical border also
    the left object does, below the first line, because its upper right neighbour has been visited.

    Parameters
    ----------
    objects
        (Y, X) or (Z, Y, X), 0 = no object.
    classes
        Class of every pixel; None where all objects are of one class.
    """
    gap = np.zeros(objects.shape, bool)
    for step in scanned_neighbours(objects.ndim):
        here, there = _shifted(objects.shape, step)
        touches = (objects[there] != objects[here]) & (objects[there] != 0)
        if classes is not None:
            touches &= classes[there] == classes[here]
        gap[here] |= touches
    gap &= objects != 0
    return gap


def scanned_neighbours(n_axes: int) -> list[tuple[int, ...]]:
    """Offsets of the neighbours that a raster scan visits before a pixel."""
    steps = list(product((-1, 0, 1), repeat=n_axes))
    return steps[: len(steps) // 2]


def _shifted(shape: tuple[int, ...], step: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Slices of the pixels that have a neighbour at `step`, and of these neighbours."""
    here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
    there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, shape, strict=True))
    return here, there
