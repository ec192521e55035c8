"""Problems of single objects: in pieces, crossing another, nothing around them, slips of the brush."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from napari_unet_seg.core._painted_plane import Ints, Mask, PaintedPlane, Problem
from napari_unet_seg.core._pieces import Point

SPECK_PX = 20
"""The largest area that a slip of the brush leaves."""
SMALLEST_PX = 3
"""What is not larger is a speck whatever else there is; among scribbles nothing else is."""
NEAR_PX = 64
"""Background so near to a scribble shows where its object ends; of a longer scribble, its length."""

_SPECKS_PER_OBJECT = 25
_FAR_PX = 50
_BLOCK_PX = 16
_MOST_PIECES = 8
_MOST_EXAMINED = 1000  # more objects in pieces than anybody would look at


def crossings(painted: PaintedPlane) -> list[Problem]:
    """Scribbles of different objects that touch."""
    if not painted.is_scribbled:
        return []
    labels = painted.labels
    sides = ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:]))
    found: dict[tuple[int, int], Point] = {}
    for here, there in sides:
        rows, columns = np.nonzero((here != there) & (here != 0) & (there != 0))
        pairs = np.sort(np.stack([here[rows, columns], there[rows, columns]], axis=1), axis=1)
        different, first = np.unique(pairs, axis=0, return_index=True)
        for (one, other), i in zip(different.tolist(), first, strict=True):
            found.setdefault((one, other), (int(rows[i]), int(columns[i])))
    return [painted.problem("crossing", _crossing(painted, pair), at, pair) for pair, at in found.items()]


def _crossing(painted: PaintedPlane, pair: tuple[int, int]) -> str:
    one, other = (painted.shown(each) for each in pair)
    return (
        f"Scribbles of objects {one} and {other} touch: paint background between them, or erase what runs "
        "into the other one."
    )


def scattered(painted: PaintedPlane, except_ids: Ints) -> Iterator[Problem]:
    """Objects in pieces, those furthest apart first; of scribbles only where something parts them."""
    pieces = painted.pieces
    is_piece = (_reached_px(painted) > 0) & ~_is_speck(painted) & ~np.isin(pieces.ids, except_ids)
    candidates = np.flatnonzero(is_piece)
    order = np.lexsort((-pieces.areas_px[candidates], pieces.ids[candidates]))
    ids, first, counts = np.unique(pieces.ids[candidates[order]], return_index=True, return_counts=True)
    found = []
    for each in np.flatnonzero(counts > 1)[:_MOST_EXAMINED]:
        own = candidates[order][first[each] : first[each] + counts[each]]
        strays = _strays(painted, own[:_MOST_PIECES])
        if strays:
            gap_px, stray = max(strays)
            found.append((gap_px, int(ids[each]), stray, len(strays) + 1))
    for gap_px, one, stray, n_groups in sorted(found, reverse=True):
        count = "two" if n_groups == 2 else "several"
        said = _scattered(painted, painted.shown(one), count, gap_px)
        yield painted.problem("pieces", said, pieces.middle(stray), [one])


def _scattered(painted: PaintedPlane, shown: int, count: str, gap_px: float) -> str:
    if painted.is_scribbled:
        return (
            f"Object {shown} is painted in {count} places, {gap_px:.0f} px apart: if they are different "
            "objects, give each an id of its own."
        )
    return (
        f"Object {shown} is in {count} pieces, {gap_px:.0f} px apart: if they are different objects, give "
        "each an id of its own, so that the border between them is learned."
    )


def _reached_px(painted: PaintedPlane) -> Ints:
    """How much counts of each piece; of corrections also what borders on it, such as what a cut parts."""
    if painted.coding != "corrections":
        return painted.counting_px
    return painted.pieces.count(_grown(painted.annotated))


def _grown(mask: Mask) -> Mask:
    """By one pixel to all sides and corners."""
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    grown = wide.copy()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def _strays(painted: PaintedPlane, pieces: Ints) -> list[tuple[float, int]]:
    """The groups that pieces of one id form, but for the largest: the gap around each, its largest piece."""
    gaps_px = np.full((len(pieces), len(pieces)), np.inf)
    is_joined = np.zeros(gaps_px.shape, bool)
    for i, j in combinations(range(len(pieces)), 2):
        gap_px, here, there = painted.pieces.nearest(int(pieces[i]), int(pieces[j]))
        gaps_px[i, j] = gaps_px[j, i] = gap_px
        is_joined[i, j] = painted.is_scribbled and _belong_together(
            painted, pieces[[i, j]], gap_px, here, there
        )
    n_groups, groups = connected_components(is_joined, directed=False)
    own = [np.flatnonzero(groups == group) for group in range(n_groups) if group != groups[0]]
    return [
        (float(np.delete(gaps_px[members], members, axis=1).min()), int(pieces[members[0]]))
        for members in own
    ]


def _belong_together(painted: PaintedPlane, pair: Ints, gap_px: float, here: Point, there: Point) -> bool:
    """Two scribbles of one id: not too far from each other, and nothing else is painted between them."""
    boxes = painted.pieces.boxes[pair]
    if gap_px > max(_FAR_PX, 2 * int((boxes[:, 1::2] - boxes[:, ::2]).max())):
        return False
    rows, columns = (
        np.linspace(start, stop, int(gap_px) + 2).round().astype(int)
        for start, stop in zip(here, there, strict=True)
    )
    is_other = painted.annotated[rows, columns] & (painted.labels[rows, columns] != painted.labels[here])
    return not is_other.any()


def without_background_near(painted: PaintedPlane) -> Iterator[Problem]:
    """Scribbled objects whose outline nothing shows, the largest first."""
    if not painted.is_scribbled or painted.task == "classes":
        return
    background = painted.annotated & (painted.labels == 0)
    pieces = painted.pieces
    ids, own = np.unique(pieces.ids, return_inverse=True)
    n_near = np.bincount(own, _is_any_near(background, pieces.boxes), minlength=len(ids))
    areas_px = np.bincount(own, pieces.areas_px, minlength=len(ids))
    for i in np.lexsort((-areas_px, n_near > 0))[: np.count_nonzero(n_near == 0)]:
        said = (
            f"No background is painted near object {painted.shown(ids[i])}: paint some around it, to show "
            "where it ends."
        )
        yield painted.problem("no background near", said, painted.middle_of(ids[i]), [ids[i]])


def _is_any_near(mask: Mask, boxes: Ints) -> Mask:
    """Whether a mask is True anywhere around each box, to within the side of a block of pixels."""
    margin_px = np.maximum(NEAR_PX, (boxes[:, 1::2] - boxes[:, ::2]).max(axis=1, initial=0))
    n_before = _blocks_before(mask)
    starts = np.maximum(boxes[:, ::2] - margin_px[:, np.newaxis], 0) // _BLOCK_PX
    stops = -(-(boxes[:, 1::2] + margin_px[:, np.newaxis]) // _BLOCK_PX)
    (top, left), (bottom, right) = starts.T, np.minimum(stops, np.array(n_before.shape) - 1).T
    n_inside = n_before[bottom, right] - n_before[top, right] - n_before[bottom, left] + n_before[top, left]
    return np.asarray(n_inside > 0)


def _blocks_before(mask: Mask) -> Ints:
    """How many blocks that hold a True pixel lie above and left of each corner of a block."""
    tops, lefts = (np.arange(0, length, _BLOCK_PX) for length in mask.shape)
    holds_any = np.logical_or.reduceat(np.logical_or.reduceat(mask, tops, axis=0), lefts, axis=1)
    return np.pad(holds_any.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def specks(painted: PaintedPlane) -> Iterator[Problem]:
    """Objects with specks, the smallest first: they are the likeliest slips."""
    pieces = painted.pieces
    found = np.flatnonzero(_is_speck(painted) & (painted.counting_px > 0))
    found = found[np.argsort(pieces.areas_px[found], kind="stable")]
    ids, first, counts = np.unique(pieces.ids[found], return_index=True, return_counts=True)
    all_ids, all_counts = np.unique(pieces.ids, return_counts=True)
    is_whole = (counts == 1) & (all_counts[np.searchsorted(all_ids, ids)] == 1)
    for each in np.argsort(first, kind="stable"):
        speck = int(found[first[each]])
        area_px = int(pieces.areas_px[speck])
        what = f"is only {area_px} px large" if is_whole[each] else _specks_of(counts[each], area_px)
        said = f"{painted.noun} {painted.shown(ids[each])} {what}: erase this if the brush slipped."
        yield painted.problem("speck", said, pieces.middle(speck), [ids[each]])


def _specks_of(count: Any, smallest_px: int) -> str:
    if count == 1:
        return f"has a speck of {smallest_px} px"
    return f"has {count} specks, the smallest of {smallest_px} px"


def _is_speck(painted: PaintedPlane) -> Mask:
    """Pieces that are tiny beside the typical one: half of the painted pixels are in pieces of its size."""
    areas_px = painted.pieces.areas_px
    if painted.is_scribbled or not len(areas_px):
        return np.asarray(areas_px <= SMALLEST_PX)
    descending = np.sort(areas_px)[::-1]
    typical_px = descending[np.searchsorted(np.cumsum(descending), descending.sum() / 2)]
    return np.asarray(areas_px <= max(SMALLEST_PX, min(SPECK_PX, typical_px / _SPECKS_PER_OBJECT)))
