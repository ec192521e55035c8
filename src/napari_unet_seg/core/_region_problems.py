"""Problems of rectangles: what lies outside them, what they lack, and what stops just before their edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from napari_unet_seg.core._painted_plane import Box, Ints, PaintedPlane, Problem
from napari_unet_seg.core._pieces import Point

SHORT_PX = 2
"""What is left unpainted before the edge of a rectangle when a person means to paint up to it."""

_SHORTEST_LINE_PX = 8
_MOST = 0.5


def nothing_counts(painted: PaintedPlane) -> Iterator[Problem]:
    """What is painted on a plane of which nothing counts."""
    if painted.coding not in ("regions", "planes") or not len(painted.pieces):
        return
    said = (
        "No rectangle lies on this plane, so nothing that is painted on it counts: draw one around what is "
        "complete."
        if painted.coding == "regions"
        else "What is painted on this plane does not count: mark the plane as complete when it is."
    )
    largest = int(painted.pieces.areas_px.argmax())
    ids = np.unique(painted.pieces.ids)
    yield painted.problem("does not count", said, painted.pieces.middle(largest), ids)


def outside(painted: PaintedPlane) -> Iterator[Problem]:
    """Objects that lie outside the rectangles, and those of which most does."""
    if painted.coding != "regions":
        return
    ids, own = np.unique(painted.pieces.ids, return_inverse=True)
    painted_px = np.bincount(own, painted.pieces.areas_px, minlength=len(ids))
    lost_px = painted_px - np.bincount(own, painted.counting_px, minlength=len(ids))
    is_lost = lost_px == painted_px
    is_cut = ~is_lost & (lost_px > _MOST * painted_px)
    for is_meant, (one, more) in ((is_lost, _LOST), (is_cut, _CUT)):
        meant = ids[is_meant][np.argsort(-lost_px[is_meant], kind="stable")]
        if len(meant):
            named = one.format(painted.noun, painted.shown(meant[0]))
            said = named if len(meant) == 1 else more.format(len(meant))
            yield painted.problem("does not count", said, painted.middle_of(meant[0]), meant)


_LOST = (
    "{} {} lies outside the rectangles and does not count: draw one around it.",
    "{} objects lie outside the rectangles and do not count: draw one around those that are complete.",
)
_CUT = (
    "{} {} lies mostly outside the rectangles, where it does not count: enlarge one to take it in.",
    "{} objects lie mostly outside the rectangles, where they do not count: enlarge these to take them in.",
)


def poor_regions(painted: PaintedPlane) -> Iterator[Problem]:
    """Rectangles with nothing but background, or nothing but one object, the largest first."""
    for region in sorted(painted.regions, key=lambda region: -painted.labels[region].size):
        inside = painted.labels[region]
        is_uniform = inside.size > 0 and bool((inside == inside.flat[0]).all())
        if is_uniform and inside.any() and painted.task == "instances":
            said = (
                "This rectangle holds no background: erase what is no object, or enlarge it, to show where "
                "objects end."
            )
            yield painted.problem("region without background", said, _middle(region))
        elif is_uniform and not inside.any():
            said = (
                "No object is painted in this rectangle, so all of it is learned as background: paint what "
                "is in it, or delete it, unless it is really empty."
            )
            yield painted.problem("region without object", said, _middle(region))


def _middle(box: Box) -> Point:
    return (box[0].start + box[0].stop) // 2, (box[1].start + box[1].stop) // 2


def short_of_edge(painted: PaintedPlane) -> Iterator[Problem]:
    """Objects that end in a line just before the edge of a rectangle, the longest lines first.

    An object that a rectangle cuts is no harm: what lies outside contributes nothing. But a strip that was
    left unpainted inside is learned as background, in the middle of the object.
    """
    found = [short for region in painted.regions for short in _short_in(painted.labels, region)]
    for length_px, one, center in sorted(found, reverse=True):
        said = (
            f"{painted.noun} {painted.shown(one)} ends just before the rectangle's edge, along {length_px} "
            "px: if it goes on outside, paint it up to the edge, since what is left counts as background."
        )
        yield painted.problem("short of edge", said, center, [one])


def _short_in(labels: Ints, region: Box) -> Iterator[tuple[int, int, Point]]:
    """Length, id and place of each line; not at the edge of the plane, where nothing goes on."""
    inside = labels[region]
    if min(inside.shape, default=0) <= 2 * SHORT_PX:
        return
    top, left = region[0].start, region[1].start
    bottom, right = top + inside.shape[0], left + inside.shape[1]
    sides: list[tuple[Ints, bool, Callable[[int], Point]]] = [
        (inside, top > 0, lambda at: (top, left + at)),
        (inside[::-1], bottom < labels.shape[0], lambda at: (bottom - 1, left + at)),
        (inside.T, left > 0, lambda at: (top + at, left)),
        (inside.T[::-1], right < labels.shape[1], lambda at: (top + at, right - 1)),
    ]
    for lines, goes_on, place in sides:
        if goes_on:
            yield from ((length_px, one, place(at)) for length_px, one, at in _short_lines(lines))


def _short_lines(lines: Ints) -> Iterator[tuple[int, int, int]]:
    """Length, id and middle of what runs along the first of the lines without reaching it."""
    touching = lines[0]
    short = np.zeros_like(touching)
    for line in lines[SHORT_PX:0:-1]:
        short = np.where(line > 0, line, short)
    short = np.where(touching > 0, 0, short)
    for one in np.unique(short[short > 0]):
        at = np.flatnonzero(short == one)
        if len(at) >= _SHORTEST_LINE_PX and len(at) > np.count_nonzero(touching == one):
            yield len(at), int(one), int(at[len(at) // 2])
