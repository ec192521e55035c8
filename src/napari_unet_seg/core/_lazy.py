"""An array that stays on disk: reads what it is asked for, and nothing else.

Knows nothing of file formats; a `Source` does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Source(Protocol):
    """What a file can do: hand out parts of one array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, in the machine's byte order."""

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        """A fresh array of the asked pixels; `ranges` (one per axis) ascend and stay inside the shape."""


@dataclass(frozen=True)
class FileContent:
    """What a format's reader found in one file, pixels not yet read; axes as stored, S = colour samples."""

    kind: str
    axes: str
    source: Source
    voxel_size_nm: dict[str, float]
    channel_names: tuple[str, ...] = ()
    is_rgb: bool = False
    note: str = ""
    content: str = "image"


class SegmentCache:
    """The decoded pieces used last, at most `max_bytes` of them, shared by threads."""

    def __init__(self, max_bytes: int = 64 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[object, NDArray[Any]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: object, decode: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The piece called `key`, decoded now if it is not at hand; not to be written into."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
                return self._items[key]
        piece = decode()
        with self._lock:
            if key not in self._items and piece.nbytes <= self._max_bytes // 2:
                self._items[key] = piece
                self._bytes += piece.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._items.popitem(last=False)[1].nbytes
        return piece


@dataclass(frozen=True, eq=False)
class LazyArray:
    """A view of a `Source` that numpy and napari take for an array; indexing reads from disk.

    Parameters
    ----------
    source : Source
        Where pixels come from.
    ranges : tuple of range
        The part of the source that is seen, per axis of the source.
    order : tuple of int
        Which source axis each axis of the view is; axes left out have length 1 in `ranges`.
    """

    source: Source
    ranges: tuple[range, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, source: Source) -> LazyArray:
        """All of a source, its axes in their order."""
        return cls(source, tuple(range(n) for n in source.shape), tuple(range(len(source.shape))))

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return tuple(len(self.ranges[axis]) for axis in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self.source.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.order)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Memory that the whole array would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.order:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype})"

    def __array__(
        self,
        dtype: DTypeLike | None = None,
        copy: bool | None = None,  # noqa: FBT001 (numpy's protocol)
    ) -> NDArray[Any]:
        """Everything, in memory."""
        if copy is False:
            raise ValueError("an array on disk cannot be had without a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> Any:
        """The asked part, in memory; integers and slices read only that part."""
        keys = key if isinstance(key, tuple) else (key,)
        if not all(_is_basic(k) for k in keys):
            return np.asarray(self)[key]
        view, flipped = self._narrowed(_one_key_per_axis(keys, self.ndim))
        read = view.source.read(view.ranges)
        kept = read.transpose([*view.order, *_dropped(view)]).reshape(view.shape)
        part = kept[tuple(slice(None, None, -1) if axis in flipped else slice(None) for axis in view.order)]
        return part if part.ndim else part[()]

    def part(self, *keys: slice) -> LazyArray:
        """A smaller lazy view; one ascending slice per leading axis, nothing is read."""
        if any((k.step or 1) < 0 for k in keys):
            raise ValueError("a part of an array on disk cannot run backwards")
        return self._narrowed(_one_key_per_axis(keys, self.ndim))[0]

    def at(self, axis: int, index: int) -> LazyArray:
        """The view without `axis`, fixed at `index`; nothing is read."""
        keys: list[int | slice] = [slice(None)] * self.ndim
        keys[axis] = index
        return self._narrowed(tuple(keys))[0]

    def transposed(self, order: Sequence[int]) -> LazyArray:
        """The view with its axes in another order; nothing is read."""
        return LazyArray(self.source, self.ranges, tuple(self.order[i] for i in order))

    def _narrowed(self, keys: tuple[int | slice, ...]) -> tuple[LazyArray, frozenset[int]]:
        """The part that `keys` choose, ascending, and the source axes that were asked backwards."""
        ranges, order, flipped = list(self.ranges), [], set()
        for axis, key in zip(self.order, keys, strict=True):
            whole = self.ranges[axis]
            if isinstance(key, slice):
                chosen = whole[key]
                if chosen.step < 0:
                    chosen = chosen[::-1]
                    flipped.add(axis)
                order.append(axis)
            else:
                if not -len(whole) <= key < len(whole):
                    raise IndexError(f"index {key} is out of bounds for an axis of {len(whole)}")
                at = whole[key]
                chosen = range(at, at + 1)
            ranges[axis] = chosen
        return LazyArray(self.source, tuple(ranges), tuple(order)), frozenset(flipped)


def _dropped(view: LazyArray) -> list[int]:
    return [axis for axis in range(len(view.ranges)) if axis not in view.order]


def _is_basic(key: Any) -> bool:
    if isinstance(key, bool | np.bool_):
        return False
    return key is Ellipsis or isinstance(key, slice | int | np.integer)


def _one_key_per_axis(keys: Sequence[Any], ndim: int) -> tuple[int | slice, ...]:
    given: list[Any] = [k if k is Ellipsis or isinstance(k, slice) else int(k) for k in keys]
    n_given = sum(k is not Ellipsis for k in given)
    if n_given > ndim or len(given) - n_given > 1:
        raise IndexError(f"{len(given)} indices for an array of {ndim} axes")
    if n_given == len(given):
        given.append(Ellipsis)
    at = given.index(Ellipsis)
    return (*given[:at], *[slice(None)] * (ndim - n_given), *given[at + 1 :])


class InMemory:
    """A source that already is an array; used for what cannot be read in parts."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels."""
        return self._array.dtype

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        """A copy of the asked pixels."""
        return self._array[tuple(as_slice(r) for r in ranges)].copy()


def as_slice(ascending: range) -> slice:
    """The slice that picks what an ascending range counts."""
    return slice(ascending.start, ascending.stop, ascending.step)
