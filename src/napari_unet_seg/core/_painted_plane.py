"""One annotated plane as the rules of `annotation_problems` see it, and the problems that they report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._gaps import Task, is_gap
from napari_unet_seg.core._pieces import Pieces, Point, find_pieces

Index: TypeAlias = tuple[int, ...]
Box: TypeAlias = tuple[slice, slice]
Ints: TypeAlias = NDArray[np.integer[Any]]
Mask: TypeAlias = NDArray[np.bool_]

Coding: TypeAlias = Literal["dense", "scribbles", "regions", "planes", "corrections"]

Kind: TypeAlias = Literal[
    "no object",
    "no background",
    "one class",
    "crossing",
    "pieces",
    "no background near",
    "does not count",
    "region without background",
    "region without object",
    "short of edge",
    "speck",
    "one object",
]
"""The worst first."""
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Problem:
    """Something that would hurt training.

    Attributes
    ----------
    kind
        What is wrong.
    message
        A sentence for the person, with a way out.
    plane
        Where, in a stack.
    center
        Row and column to look at.
    ids
        Of the objects that it is about, as they are painted (among scribbles 1 is background).
    """

    kind: Kind
    message: str
    plane: Index
    center: Point
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class PaintedPlane:
    """What is looked through; see `find_problems`."""

    labels: Ints
    annotated: Mask
    plane: Index
    coding: Coding
    regions: Sequence[Box]
    task: Task

    @property
    def is_scribbled(self) -> bool:
        """Whether objects are only hinted at."""
        return self.coding == "scribbles"

    @cached_property
    def pieces(self) -> Pieces:
        """Of all that is painted, whether it counts or not."""
        return find_pieces(self.labels)

    @cached_property
    def counting_px(self) -> Ints:
        """How much counts of each piece."""
        return self.pieces.count(self.annotated)

    @property
    def has_background(self) -> bool:
        """Whether any counts, be it the gap that training puts between painted objects that touch."""
        if self.counting_px.sum() < np.count_nonzero(self.annotated):
            return True
        return not self.is_scribbled and bool((is_gap(self.labels) & self.annotated).any())

    @property
    def noun(self) -> str:
        """What an id stands for."""
        return "Object" if self.task == "instances" else "Class id"

    def shown(self, one: Any) -> int:
        """The id as it is painted."""
        return int(one) + self.is_scribbled

    def middle_of(self, one: Any) -> Point:
        """A pixel of the largest piece of an id."""
        areas_px = np.where(self.pieces.ids == one, self.pieces.areas_px, 0)
        return self.pieces.middle(int(areas_px.argmax()))

    def problem(self, kind: Kind, message: str, center: Point, ids: Iterable[Any] = ()) -> Problem:
        """A problem of this plane."""
        return Problem(kind, message, self.plane, center, tuple(self.shown(one) for one in ids))
