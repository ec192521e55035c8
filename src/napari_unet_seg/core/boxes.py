"""Boxes of pixels, one slice per axis, with their starts and stops in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Box = TypeVar("Box", bound=tuple[slice, ...])

_MOST_BOXES = 64
_LARGEST_WASTE = 1.5


def hull(*boxes: Box) -> Box:
    """The smallest box around all."""
    return type(boxes[0])(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )


def common(a: Box, b: Box) -> Box:
    """What lies in both; they overlap."""
    return type(a)(
        slice(max(one.start, other.start), min(one.stop, other.stop)) for one, other in zip(a, b, strict=True)
    )


def relative(box: Box, origin: Box) -> Box:
    """The box as it is in an array that was cut out at `origin`."""
    return type(box)(
        slice(part.start - at.start, part.stop - at.start) for part, at in zip(box, origin, strict=True)
    )


def grown(box: Box, margin_px: int | Sequence[int], shape: Sequence[int]) -> Box:
    """The box with a margin, as far as there are pixels."""
    margins = [margin_px] * len(box) if isinstance(margin_px, int) else margin_px
    return type(box)(
        slice(max(0, part.start - margin), min(length, part.stop + margin))
        for part, margin, length in zip(box, margins, shape, strict=True)
    )


def n_pixels(box: tuple[slice, ...]) -> int:
    """How many it holds."""
    return prod(part.stop - part.start for part in box)


def extent(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest box around what is True in (Y, X); something is."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def as_few(boxes: Sequence[Box]) -> list[Box]:
    """Fewer boxes that hold the same: joined are those whose hull is not much larger than they are.

    Very many become one for each position along the axes before the last two.
    """
    if len(boxes) > _MOST_BOXES:
        by_plane: dict[Any, list[Box]] = {}
        for box in boxes:
            by_plane.setdefault(tuple((part.start, part.stop) for part in box[:-2]), []).append(box)
        return [hull(*group) for group in by_plane.values()]
    few: list[Box] = []
    for box in boxes:
        while (other := next((one for one in few if _are_close(one, box)), None)) is not None:
            few.remove(other)
            box = hull(other, box)
        few.append(box)
    return few


def _are_close(a: tuple[slice, ...], b: tuple[slice, ...]) -> bool:
    return n_pixels(hull(a, b)) <= _LARGEST_WASTE * (n_pixels(a) + n_pixels(b))
