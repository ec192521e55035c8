"""Distances from pixels to the nearest and second nearest object, exact out to a reach.

The exact separable distance transform of Saito and Toriwaki (1994), Pattern Recognition 27:1551, carried out
for the two nearest *different* objects at once and stopped at the reach. A squared distance and the object
that it leads to travel together in one integer, the *key* `squared distance << id_bits | object id`: the
smaller key is the nearer object, one `minimum` moves both, and the narrower the key the faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BLOCK_PX = 8  # crowded places are looked for in blocks of this side
LINES_AT_ONCE = 16  # work is cut into pieces that stay in the processor's cache
PIXELS_AT_ONCE = 1 << 15
CODES_16, CODES_32 = 63, 1023  # ids for narrow keys, each used for many objects
MANY_IDS = 1 << 20  # beyond, ids are numbered anew: tables indexed by id would grow too long
FRACTION = 1 << 12  # squared distances are kept in 1/4096 px^2 where spacing is not integer

Keys = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Reach:
    """How far distances are followed, in units of `spacing`."""

    px: float
    spacing: tuple[float, ...]

    @property
    def margin(self) -> tuple[int, ...]:
        """Pixels along each axis that have to be known around a box to get the distances inside it."""
        return tuple(int(self.px / s) for s in self.spacing)


@dataclass(frozen=True)
class Distances:
    """Distance to the nearest and the second nearest object, at the pixels `where` (flat indices)."""

    where: NDArray[np.intp]
    nearest: NDArray[np.float32]
    second: NDArray[np.float32]


def two_nearest(objects: NDArray[np.integer[Any]], wanted: NDArray[np.bool_], reach: Reach) -> Distances:
    """Euclidean distances to the two nearest different objects, where wanted and their sum is in reach.

    Parameters
    ----------
    objects
        (Y, X) or (Z, Y, X), 0 = no object. Distances go to the nearest pixel centre of an object.
    wanted
        Boolean, same shape.
    """
    if objects.max() > MANY_IDS:
        objects = _numbered_anew(objects)
    wanted = wanted & _is_crowded(objects, reach)
    parts = []
    if wanted.any():
        coding, ids = _coded(objects, reach)
        first, other = _along_first_axis(ids, coding)
        for axis in range(1, objects.ndim - 1):
            _widen_along(axis, first, other, coding)
        parts = list(_along_last_axis(first, other, wanted, reach, coding))
    return Distances(
        where=np.concatenate([np.empty(0, np.intp), *(p.where for p in parts)]),
        nearest=np.concatenate([np.empty(0, np.float32), *(p.nearest for p in parts)]),
        second=np.concatenate([np.empty(0, np.float32), *(p.second for p in parts)]),
    )


@dataclass(frozen=True)
class _Coding:
    """How keys are packed, and what squared distances are in them."""

    id_bits: int
    dtype: type[np.unsignedinteger[Any]]
    unit: int  # the squared distance 1 px^2
    squares: tuple[int, ...]  # the squared distance of one step, per axis
    steps: tuple[int, ...]  # how many steps are in reach, per axis
    far: int  # a squared distance that is out of reach

    @classmethod
    def of(cls, reach: Reach, highest_id: int) -> _Coding:
        unit = 1 if all(s.is_integer() for s in reach.spacing) else FRACTION
        far = int(reach.px**2 * unit) + 1
        squares = tuple(min(far, round(s**2 * unit)) for s in reach.spacing)
        too_many = [(m + 1) ** 2 * square for m, square in zip(reach.margin, squares, strict=True)]
        far = min(far, *too_many)
        id_bits = highest_id.bit_length()
        key_bits = max(2 * far, *too_many).bit_length() + id_bits
        dtype = np.uint16 if key_bits <= 16 else np.uint32 if key_bits <= 32 else np.uint64
        return cls(id_bits, dtype, unit, squares, reach.margin, far)

    @property
    def ids(self) -> int:
        """Mask of the id in a key."""
        return (1 << self.id_bits) - 1

    @property
    def nothing(self) -> int:
        """Key of no object in reach."""
        return self.far << self.id_bits

    def cost(self, axis: int, n_steps: int) -> int:
        """What `n_steps` along `axis` add to a key."""
        return (n_steps**2 * self.squares[axis]) << self.id_bits

    def px(self, keys: Keys) -> NDArray[np.float32]:
        """Distances of keys that are in reach, in units of spacing."""
        return np.sqrt((keys >> self.id_bits) / self.unit).astype(np.float32)


def _numbered_anew(objects: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """The same objects with ids 1, 2, ..."""
    found, numbers = np.unique(objects, return_inverse=True)
    anew: NDArray[np.intp] = numbers.reshape(objects.shape) + int(found[0] != 0)
    return anew


def _coded(objects: NDArray[np.integer[Any]], reach: Reach) -> tuple[_Coding, Keys]:
    """The objects' ids in the narrowest coding that can be had."""
    highest = int(objects.max())
    for n_codes in (CODES_16, CODES_32):
        coding = _Coding.of(reach, n_codes)
        if coding.dtype is np.uint64:
            break
        codes = _reused_codes(objects, n_codes, reach.margin[-1])
        if codes is not None:
            return coding, codes.astype(coding.dtype).take(objects)
    coding = _Coding.of(reach, highest)
    return coding, objects.astype(coding.dtype)


def _reused_codes(objects: NDArray[np.integer[Any]], n_codes: int, gap_px: int) -> NDArray[np.intp] | None:
    """A code 1 to n_codes for each id, the same for two only if they are out of reach of each other.

    Objects may share a code if a gap across the last axis, as wide as the reach, parts them: then no pixel
    has both in reach, and no line along another axis meets both. None if the codes do not suffice.
    """
    codes = np.zeros(int(objects.max()) + 1, np.intp)
    free, taken = list(range(n_codes, 0, -1)), list[tuple[int, int]]()
    for start, stop, i in _extents(objects):
        while taken and taken[0][0] <= start:
            free.append(heappop(taken)[1])
        if not free:
            return None
        codes[i] = free.pop()
        heappush(taken, (stop + gap_px, int(codes[i])))
    return codes


def _extents(objects: NDArray[np.integer[Any]]) -> list[tuple[int, int, int]]:
    """Start, stop along the last axis, and id of every object, sorted."""
    width = objects.shape[-1]
    lines = objects.reshape(-1, width)
    changes = np.flatnonzero(lines[:, 1:] != lines[:, :-1])
    line, column = np.divmod(changes, width - 1) if width > 1 else (changes, changes)
    starts, stops = np.full(int(objects.max()) + 1, width), np.zeros(int(objects.max()) + 1, np.intp)
    np.minimum.at(starts, lines[line, column + 1], column + 1)
    np.maximum.at(stops, lines[line, column], column + 1)
    starts[lines[:, 0]] = 0
    stops[lines[:, -1]] = width
    ids = np.flatnonzero(stops[1:]) + 1
    return sorted(zip(starts[ids].tolist(), stops[ids].tolist(), ids.tolist(), strict=True))


def _is_crowded(objects: NDArray[np.integer[Any]], reach: Reach) -> NDArray[np.bool_]:
    """False where no two objects are in reach; looked up in blocks, so True is no promise."""
    numbers = (objects - objects.dtype.type(1)).view(f"u{objects.itemsize}")  # no object is the highest
    lowest = _blockwise(np.minimum, numbers)
    highest = _blockwise(np.maximum, objects).astype(numbers.dtype)
    around = [2 * -(-m // BLOCK_PX) + 1 for m in reach.margin]
    highest, lowest = ndimage.maximum_filter(highest, around), ndimage.minimum_filter(lowest, around)
    crowded = (highest > 0) & (highest - 1 > lowest)
    for axis in range(objects.ndim):
        crowded = crowded.repeat(BLOCK_PX, axis=axis)
    return crowded[tuple(slice(n) for n in objects.shape)]


def _blockwise(extreme: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
    """The highest or lowest value of each block of BLOCK_PX pixels along every axis."""
    for axis in range(values.ndim):
        lines = np.moveaxis(values, axis, 0)
        blocks = lines[::BLOCK_PX].copy()
        for i in range(1, min(BLOCK_PX, len(lines))):
            part = lines[i::BLOCK_PX]
            extreme(blocks[: len(part)], part, out=blocks[: len(part)])
        values = np.moveaxis(blocks, 0, axis)
    return values


def _along_first_axis(ids: Keys, coding: _Coding) -> tuple[Keys, Keys]:
    """Keys of the two nearest objects in the line along axis 0 through each pixel."""
    flat = ids.reshape(len(ids), -1)
    first, other = _behind(flat, coding)
    first_ahead, other_ahead = (keys[::-1] for keys in _behind(flat[::-1], coding))
    nothing = np.full(flat.shape[1], coding.nothing, coding.dtype)
    for start in range(0, len(flat), LINES_AT_ONCE):
        lines = slice(start, start + LINES_AT_ONCE)
        _merge(first[lines], other[lines], first_ahead[lines], other_ahead[lines], coding)
        for keys in (first[lines], other[lines]):
            squares = keys >> coding.id_bits
            squares *= squares
            squares *= coding.squares[0]
            squares <<= coding.id_bits
            keys &= coding.ids
            keys |= squares
            np.minimum(keys, nothing, out=keys)
    return first.reshape(ids.shape), other.reshape(ids.shape)


def _behind(ids: Keys, coding: _Coding) -> tuple[Keys, Keys]:
    """Keys, with steps in place of squares, of the last two different objects met along axis 0 of (N, M)."""
    one_step = 1 << coding.id_bits
    nothing = (coding.steps[0] + 1) << coding.id_bits
    first = np.where(ids == 0, np.array(nothing, ids.dtype), ids)
    passed = np.empty_like(first[0])
    for before, here in pairwise(first):
        np.add(before, one_step, out=passed)
        np.minimum(here, passed, out=here)
    other = np.full_like(first, nothing)
    starts = np.flatnonzero((ids[1:] != ids[:-1]) & (ids[1:] != 0))
    left_behind = first.ravel()[starts]
    is_other = ((left_behind ^ ids[1:].ravel()[starts]) & coding.ids) != 0
    other[1:].ravel()[starts[is_other]] = left_behind[is_other] + one_step
    for before, here in pairwise(other):
        np.add(before, one_step, out=passed)
        np.minimum(here, passed, out=here)
    return first, other


def _merge(first: Keys, other: Keys, more_first: Keys, more_other: Keys, coding: _Coding) -> None:
    """Into first, other: the two nearest different objects of both pairs."""
    farther = np.maximum(first, more_first)
    is_same = ((first ^ more_first) & coding.ids) == 0
    np.copyto(farther, more_other, where=is_same)
    np.minimum(other, farther, out=other)
    np.minimum(other, more_other, out=other)
    np.minimum(first, more_first, out=first)


def _widen_along(axis: int, first: Keys, other: Keys, coding: _Coding) -> None:
    """Let the two nearest objects of the axes so far (in place) be those of one more axis."""
    lines_first, lines_other = first.copy(), other.copy()
    for n_steps in range(1, min(coding.steps[axis] + 1, first.shape[axis])):
        cost = coding.cost(axis, n_steps)
        ahead = (slice(None),) * axis + (slice(n_steps, None),)
        behind = (slice(None),) * axis + (slice(None, -n_steps),)
        for here, there in ((ahead, behind), (behind, ahead)):
            _merge(first[here], other[here], lines_first[there] + cost, lines_other[there] + cost, coding)
    np.minimum(first, coding.nothing, out=first)
    np.minimum(other, coding.nothing, out=other)


def _along_last_axis(
    first: Keys, other: Keys, wanted: NDArray[np.bool_], reach: Reach, coding: _Coding
) -> Iterator[Distances]:
    """Distances, some pixels at a time, from the two nearest objects along the other axes.

    Lines are laid end to end with `n_steps` empty pixels between them, so that a step along the axis is a
    step in one long line; what comes out for these empty pixels is never wanted.
    """
    width = wanted.shape[-1]
    n_steps = min(coding.steps[-1], width - 1)
    first, other = (_end_to_end(keys, n_steps, nothing=coding.nothing) for keys in (first, other))
    wanted = _end_to_end(wanted, n_steps, nothing=0)[n_steps : len(first) - n_steps]
    half_way = (int((reach.px / 2) ** 2 * coding.unit) + 1) << coding.id_bits
    for start in range(0, len(wanted), PIXELS_AT_ONCE):
        here = wanted[start : start + PIXELS_AT_ONCE]
        if not here.any():
            continue
        around = slice(start, start + len(here) + 2 * n_steps)
        nearest = _nearest(first[around], n_steps, coding)
        second = _second(first[around], other[around], nearest, n_steps, coding)
        near = np.flatnonzero(here & (nearest < half_way) & (second < coding.nothing))
        d1, d2 = coding.px(nearest[near]), coding.px(second[near])
        line, column = np.divmod(start + near, width + n_steps)
        is_pair = d1 + d2 <= reach.px
        yield Distances((line * width + column)[is_pair], d1[is_pair], d2[is_pair])


def _end_to_end(lines: NDArray[Any], n_steps: int, *, nothing: int) -> NDArray[Any]:
    """One long line: n_steps of nothing, then each line along the last axis with n_steps of nothing."""
    width = lines.shape[-1]
    n_lines = lines.size // width
    long = np.full(n_steps + n_lines * (width + n_steps), nothing, lines.dtype)
    long[n_steps:].reshape(n_lines, width + n_steps)[:, :width] = lines.reshape(n_lines, width)
    return long


def _nearest(around: Keys, n_steps: int, coding: _Coding) -> Keys:
    """Key of the nearest object, for all pixels but the n_steps at both ends."""
    n = len(around) - 2 * n_steps
    best = around[n_steps : n_steps + n].copy()
    key = np.empty_like(best)
    for step in range(1, min(n_steps, coding.steps[-1] // 2) + 1):  # a pair's nearest is at most half way
        left, right = n_steps - step, n_steps + step
        np.minimum(around[left : left + n], around[right : right + n], out=key)
        key += coding.cost(-1, step)
        np.minimum(best, key, out=best)
    return best


def _second(around: Keys, other_around: Keys, nearest: Keys, n_steps: int, coding: _Coding) -> Keys:
    """Key (its id bits are of no meaning) of the nearest object that is not the nearest one."""
    n = len(nearest)
    own = nearest & coding.ids
    ids = around & coding.ids
    extra = other_around - around
    one = np.ones_like(own)  # an array, because numpy's minimum with a scalar is six times slower
    left, right = np.empty_like(own), np.empty_like(own)

    def not_own(start: int, out: Keys) -> None:
        """other_around where around leads to the own object, else around (faster than `where`)."""
        part = slice(start, start + n)
        np.bitwise_xor(ids[part], own, out=out)
        np.minimum(out, one, out=out)
        out *= extra[part]
        np.subtract(other_around[part], out, out=out)

    not_own(n_steps, left)
    best = left.copy()
    for step in range(1, n_steps + 1):
        not_own(n_steps - step, left)
        not_own(n_steps + step, right)
        np.minimum(left, right, out=left)
        left += coding.cost(-1, step)
        np.minimum(best, left, out=best)
    return best
