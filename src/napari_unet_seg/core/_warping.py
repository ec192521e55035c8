"""Warping error: pixels that still disagree after the truth was bent as far as its topology allows."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi

from napari_unet_seg.core._gaps import is_gap

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The eight neighbours clockwise from the top left; bit i of a neighbourhood's code is neighbour i.
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def warping_error(prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> float:
    """Share of the pixels of one plane on which prediction and warped truth disagree.

    Both label pictures become foreground / background, touching objects parted by the 1-px gap of the
    weight map. Starting from the truth, pixels that differ from the prediction are flipped as long as one of
    them is *simple*: flipping it neither joins nor splits nor makes nor removes a region of foreground
    (4-connected) or background (8-connected). What is left are splits, mergers, lost and invented objects,
    and holes. Pixels may move any distance (the restriction mask of the original is not used); beyond the
    plane is background.

    Source: Jain et al., CVPR 2010, "Boundary learning by optimization with topological constraints", sec. 3.
    """
    warped, target = _foreground(truth), _foreground(prediction)
    _warp(warped, target)
    return float((warped != target).sum() / truth.size)


def _foreground(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    return np.pad(((labels > 0) & ~is_gap(labels)).astype(np.uint8), 1)


def _warp(picture: NDArray[np.uint8], target: NDArray[np.uint8]) -> None:
    """Flip simple pixels of `picture` toward `target`, in place, until none can be flipped any more.

    Pixels of one of the four classes (row parity, column parity) never see each other, so that flipping all
    simple ones of a class at once is the same as flipping them one by one.
    """
    n_columns = picture.shape[1]
    flat, goal = picture.reshape(-1), target.reshape(-1)
    ring = [dy * n_columns + dx for dy, dx in _RING]
    is_near_flip = np.ones(flat.shape, bool)
    while is_near_flip.any():
        to_visit = np.flatnonzero(is_near_flip & (flat != goal))
        is_near_flip[:] = False
        parity = 2 * (to_visit // n_columns % 2) + to_visit % n_columns % 2
        for one_class in range(4):
            pixels = to_visit[parity == one_class]
            flipped = pixels[_is_simple(flat, pixels, ring)]
            flat[flipped] ^= 1
            for step in ring:
                is_near_flip[flipped + step] = True


def _is_simple(flat: NDArray[np.uint8], pixels: NDArray[np.intp], ring: list[int]) -> NDArray[np.bool_]:
    code = np.zeros(len(pixels), np.uint8)
    for bit, step in enumerate(ring):
        code |= flat[pixels + step] << np.uint8(bit)
    return simple_point_table()[code]


@cache
def simple_point_table() -> NDArray[np.bool_]:
    """For each of the 256 neighbourhoods: may the pixel in the middle flip without changing the topology?

    True where exactly one 4-connected piece of the ring's foreground touches the middle by a side, and
    exactly one 8-connected piece of its background touches the middle (both topological numbers are 1).
    """
    return np.array([_has_simple_middle(code) for code in range(256)])


def _has_simple_middle(code: int) -> bool:
    foreground = np.zeros((3, 3), bool)
    for bit, (dy, dx) in enumerate(_RING):
        foreground[1 + dy, 1 + dx] = bool(code >> bit & 1)
    background = ~foreground
    background[1, 1] = False
    pieces, _ = ndi.label(foreground)
    beside = np.unique(pieces[[0, 1, 1, 2], [1, 0, 2, 1]])
    _, n_background = ndi.label(background, structure=np.ones((3, 3)))
    return int((beside > 0).sum()) == 1 and int(n_background) == 1
