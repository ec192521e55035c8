"""What in an annotation would hurt training, found plane by plane: sentences, each with the place to look at.

`find_problems` looks at one plane; `summarise` makes the list that a person reads out of all planes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from napari_unet_seg.core import _object_problems, _region_problems
from napari_unet_seg.core._gaps import Task
from napari_unet_seg.core._label_checks import check_labels, check_mask
from napari_unet_seg.core._painted_plane import (
    KINDS,
    Box,
    Coding,
    Index,
    Ints,
    Kind,
    Mask,
    PaintedPlane,
    Problem,
)
from napari_unet_seg.core._pieces import Point

__all__ = ["KINDS", "Kind", "Problem", "find_problems", "summarise"]

MOST_OF_A_KIND = 5
"""Of more problems of one kind, those after these are only counted."""

ONLY_IF_EVERYWHERE: frozenset[Kind] = frozenset({"no object", "no background", "one class", "one object"})
"""No harm on one plane as long as another makes up for it."""

_NO_OBJECT: dict[Coding, str] = {
    "dense": "There is no object: draw at least one, or choose other labels.",
    "scribbles": "Only background is painted: paint objects, too.",
    "regions": "No object is painted in the rectangles: paint what is in them.",
    "planes": "No object is painted on a plane that counts: paint what is on it.",
    "corrections": "Only background counts so far: paint objects, too, or mark some as checked.",
}
_NO_BACKGROUND: dict[Coding, str] = {
    "dense": "There is no background: leave 0 between objects, to show where they end.",
    "scribbles": "No background is painted: paint some around the objects, to show where they end.",
    "regions": "There is no background in the rectangles: enlarge them, to show where objects end.",
    "planes": "There is no background: erase what is no object, to show where objects end.",
    "corrections": "Only objects count so far: paint background, too, to show where they end.",
}


def find_problems(
    labels: Ints,
    annotated: Mask,
    plane: Index,
    *,
    coding: Coding,
    regions: Sequence[Box] = (),
    task: Task = "instances",
) -> list[Problem]:
    """All problems of one plane, the worst first.

    Parameters
    ----------
    labels, annotated
        (Y, X), whatever the coding: 0 background, >= 1 objects (of scribbles the painted id - 1), and where
        that counts.
    plane
        Where it is in the stack.
    coding
        How it was painted, which decides what is a slip: scribbles are thin and often several per object;
        of what a person corrects in a prediction only that part is looked at.
    regions
        Rows and columns of the rectangles on this plane.
    task
        Pieces of a class, and contact between classes, are no problem.

    Raises
    ------
    InputError
        These are no labels, or no mask that fits them.
    """
    labels = np.asarray(labels)
    check_labels(labels)
    check_mask(annotated, labels.shape)
    painted = PaintedPlane(labels, annotated, plane, coding, regions, task)
    # Of one kind, the rules report the worst first already.
    return sorted(_problems(painted), key=lambda problem: KINDS.index(problem.kind))


def summarise(planes: Iterable[Sequence[Problem]]) -> list[Problem]:
    """The list for a person: the worst first, a few of each kind, and how many more there are.

    Parameters
    ----------
    planes
        What `find_problems` found on each plane on which anything counts: that there is no object, say, is
        a problem only when no other plane has one.
    """
    found = [list(problems) for problems in planes]
    on_planes = Counter((problem.kind, problem.ids) for problems in found for problem in problems)
    by_kind: dict[Kind, list[Problem]] = {kind: [] for kind in KINDS}
    for problem in (problem for problems in found for problem in problems):
        if problem.kind not in ONLY_IF_EVERYWHERE:
            by_kind[problem.kind].append(problem)
        elif on_planes[problem.kind, problem.ids] == len(found):
            by_kind[problem.kind] = [problem]
    return [problem for problems in by_kind.values() for problem in _capped(problems)]


def _problems(painted: PaintedPlane) -> Iterator[Problem]:
    if not painted.annotated.any():
        yield from _region_problems.nothing_counts(painted)
        return
    of_the_plane = list(_of_the_plane(painted))
    yield from of_the_plane
    if painted.task == "instances":
        crossings = _object_problems.crossings(painted)
        yield from crossings
        crossing_ids = [one - painted.is_scribbled for problem in crossings for one in problem.ids]
        yield from _object_problems.scattered(painted, np.array(crossing_ids, np.int64))
    if not {"no object", "no background"} & {problem.kind for problem in of_the_plane}:
        yield from _object_problems.without_background_near(painted)
        yield from _region_problems.poor_regions(painted)
    yield from _region_problems.outside(painted)
    yield from _region_problems.short_of_edge(painted)
    yield from _object_problems.specks(painted)


def _of_the_plane(painted: PaintedPlane) -> Iterator[Problem]:
    """What is missing on the whole plane, the most important only."""
    ids = np.unique(painted.pieces.ids[painted.counting_px > 0])
    has_background = painted.has_background
    center = _middle(painted.annotated)
    if painted.task == "classes":
        if len(ids) + has_background == 1:
            said = "Only one class is painted: paint another, since there is nothing to tell it from."
            yield painted.problem("one class", said, center, ids)
    elif not len(ids):
        yield painted.problem("no object", _NO_OBJECT[painted.coding], center)
    elif not has_background:
        yield painted.problem("no background", _NO_BACKGROUND[painted.coding], center)
    elif len(ids) == 1:
        said = (
            f"Only object {painted.shown(ids[0])} counts so far: with a few more the network learns what "
            "objects have in common, and some can be held out to check it."
        )
        yield painted.problem("one object", said, painted.middle_of(ids[0]), ids)


def _middle(mask: Mask) -> Point:
    """Of the rows and columns in which anything is True."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0] + rows[-1]) // 2, int(columns[0] + columns[-1]) // 2


_AND_MORE: dict[Kind, str] = {
    "crossing": "pairs of objects whose scribbles touch",
    "pieces": "objects in several pieces",
    "no background near": "objects with no background near them",
    "does not count": "places at which something does not count",
    "region without background": "rectangles without background",
    "region without object": "rectangles without an object",
    "short of edge": "objects that end just before the edge of a rectangle",
    "speck": "objects with specks",
}


def _capped(problems: list[Problem]) -> list[Problem]:
    """The first few, and one that counts the rest and leads to the next."""
    n_more = len(problems) - MOST_OF_A_KIND
    if n_more <= 1:
        return problems
    following = problems[MOST_OF_A_KIND]
    ids = tuple(dict.fromkeys(one for problem in problems[MOST_OF_A_KIND:] for one in problem.ids))
    message = f"And {n_more} more {_AND_MORE[following.kind]}."
    counted = Problem(following.kind, message, following.plane, following.center, ids)
    return [*problems[:MOST_OF_A_KIND], counted]
