"""What changes in a labels layer: on which plane and where; by brush, fill, undo, another array, or a script.

napari says little of it: painting through its API is announced before the data are written, undo and redo say
no more than "draw it anew", and so does much that changes no label. So the labels of the plane in view and of
what was painted lately are remembered, in tiles, and what counts is where the layer differs from them.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._layers import Index, behind_proxy
from napari_unet_seg.core.boxes import as_few, common, extent, relative

Box: TypeAlias = tuple[slice, slice]
_TileKey: TypeAlias = tuple[Index, int, int]

TILE_PX = 256
DRAG_MS = 30
"""Time between two notices of a drag of the brush."""
_LOOK_MS = 8.0
"""How long looking for changes may keep the window waiting; then it goes on after the next events."""
_MOST_PAINTED_TILES = 2048
"""Tiles of other planes that are remembered, in case a stroke there is undone: 256 MB of 16-bit labels."""


@dataclass(frozen=True)
class Change:
    """A part of one plane in which labels are other than before.

    Attributes
    ----------
    plane
        Index over the axes before Y and X.
    box
        Rows and columns.
    mask
        (Y, X) of the box: True where the label is another one; None where that is not known.
    """

    plane: Index
    box: Box
    mask: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)


class LabelWatcher(QObject):  # type: ignore[misc]
    """Says what changes in one labels layer; those of the same layer share their memory of it.

    Attributes
    ----------
    changed
        Qt signal with a `Change`, after the data were written; now and then during a drag, and at its end.
    replaced
        Qt signal: the layer has another array; everything may be different.
    plane_changed
        Qt signal with the index of the plane that is now in view.
    """

    changed = Signal(object)
    replaced = Signal()
    plane_changed = Signal(object)

    def __init__(self, layer: Any, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._watch = _Watch.of(behind_proxy(layer), behind_proxy(viewer))
        self._watch.add(self)
        self._farewell: Any = partial(self._watch.release, id(self))
        self.destroyed.connect(self._farewell)

    @property
    def plane(self) -> Index:
        """The plane in view: index over the axes before Y and X."""
        return self._watch.plane

    def flush(self) -> None:
        """Take notice now of everything that has happened."""
        self._watch.flush()

    def close(self) -> None:
        """Say nothing any more."""
        self._watch.release(id(self))
        if self._farewell is not None:
            # A slot that the garbage collector has emptied before Qt deletes the watcher would crash.
            self.destroyed.disconnect(self._farewell)
            self._farewell = None


class _Watch(QObject):  # type: ignore[misc]
    """Watches one layer for all its watchers; lives as long as they do."""

    def __init__(self, layer: Any, viewer: Any) -> None:
        super().__init__()
        self._layer, self._viewer = layer, viewer
        self._listeners: weakref.WeakValueDictionary[int, LabelWatcher] = weakref.WeakValueDictionary()
        self._painted: dict[_TileKey, None] = {}  # what was painted last comes last
        self._boxes: list[tuple[slice, ...]] = []  # that were painted, one slice per axis
        self._doubtful: dict[_TileKey, bool] = {}  # tiles to look at; True: one not yet seen may have changed
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._work)
        self._begin()
        self._connect()

    @classmethod
    def of(cls, layer: Any, viewer: Any) -> _Watch:
        """The one of this layer."""
        watch = _watches.get(id(layer))
        if watch is None:
            watch = _watches[id(layer)] = cls(layer, viewer)
        return watch

    def add(self, listener: LabelWatcher) -> None:
        """Tell it of changes until it is released or destroyed."""
        self._listeners[id(listener)] = listener

    def release(self, listener_id: int, _gone: Any = None) -> None:
        """Tell it nothing any more."""
        self._listeners.pop(listener_id, None)
        if not self._listeners and _watches.get(id(self._layer)) is self:
            del _watches[id(self._layer)]
            self._disconnect()

    def flush(self) -> None:
        """Do at once what would be done bit by bit."""
        self._notice_plane()
        self._work(longest_ms=float("inf"))

    # What napari says

    def _connect(self) -> None:
        events = self._layer.events
        events.labels_update.connect(self._note_dab)
        events.paint.connect(self._note_stroke)
        events.set_data.connect(self._note_drawing)
        events.data.connect(self._note_replacement)
        self._viewer.dims.events.current_step.connect(self._notice_plane)

    def _disconnect(self) -> None:
        with contextlib.suppress(RuntimeError):  # at the program's end Qt may have deleted it already
            self._timer.stop()
        events = self._layer.events
        events.labels_update.disconnect(self._note_dab)
        events.paint.disconnect(self._note_stroke)
        events.set_data.disconnect(self._note_drawing)
        events.data.disconnect(self._note_replacement)
        self._viewer.dims.events.current_step.disconnect(self._notice_plane)

    def _note_dab(self, event: Any) -> None:
        """The brush has moved."""
        first_axis = self._viewer.dims.ndim - self._layer.ndim
        axes = [axis - first_axis for axis in self._viewer.dims.displayed]
        if min(axes) < 0:
            return  # what it says belongs to another view; the end of the stroke comes with its place
        box = [slice(at, at + 1) for at in self._position()]
        for axis, start, length in zip(axes, event.offset, event.data.shape, strict=False):
            box[axis] = slice(int(start), int(start) + length)
        self._boxes.append(tuple(box))
        if not self._timer.isActive():
            self._timer.start(DRAG_MS)

    def _note_stroke(self, event: Any) -> None:
        """A stroke has ended and is looked at, or it is about to be written: the second look finds it."""
        boxes = as_few([_box_of(atom) for atom in event.value])
        keys = [key for box in boxes for plane, part in _planes_of(box) for key in _keys(plane, part)]
        for key in keys:
            self._painted.pop(key, None)
            self._painted[key] = None
        if self._memory.tiles.keys() >= set(keys):
            self._boxes += boxes
            self._work(longest_ms=0)
        self._boxes += boxes
        self._timer.start(0)

    def _note_drawing(self, _event: Any = None) -> None:
        """The layer is drawn anew, for whatever reason; other data say so themselves, right after."""
        if self._notice_plane() or self._layer.data is not self._array:
            return
        self._doubtful |= dict.fromkeys([*self._tiles_in_view(), *self._memory.tiles], True)
        self._timer.start(0)

    def _note_replacement(self, _event: Any = None) -> None:
        self._boxes.clear()
        self._doubtful.clear()
        self._painted.clear()
        self._begin()
        for listener in list(self._listeners.values()):
            listener.replaced.emit()

    def _begin(self) -> None:
        """Remember the labels as they are."""
        self._array = self._layer.data
        self.plane = self._plane_in_view()
        self._memory = _Memory()
        self._memory.remember(self._data, self._tiles_in_view())

    def _notice_plane(self, _event: Any = None) -> bool:
        """Whether another plane is in view."""
        plane = self._plane_in_view()
        if plane == self.plane or self._layer.data is not self._array:
            return False
        self._doubtful = {key: True for key, may_differ in self._doubtful.items() if may_differ}
        self._work(longest_ms=float("inf"))
        self.plane = plane
        for key in list(self._painted)[:-_MOST_PAINTED_TILES]:
            del self._painted[key]
        self._memory.keep(self._painted.keys())
        self._doubtful |= dict.fromkeys(self._tiles_in_view(), False)
        self._timer.start(0)
        for listener in list(self._listeners.values()):
            listener.plane_changed.emit(plane)
        return True

    # What has changed

    def _work(self, longest_ms: float = _LOOK_MS) -> None:
        """Look where something was painted, then, for so long, where something else may have happened."""
        if self._layer.data is not self._array:
            self._note_replacement()
            return
        until = time.perf_counter() + longest_ms / 1e3
        data, boxes, self._boxes = self._data, self._boxes, []
        parts: dict[_TileKey, list[Box]] = {}
        for plane, part in (place for box in boxes for place in _planes_of(box)):
            for key in _keys(plane, part):
                parts.setdefault(key, []).append(part)
        found: list[Change] = []
        for key, where in parts.items():
            is_doubtful = self._doubtful.pop(key, False)
            found += self._memory.compare(data, key, [_tile(data, key)] if is_doubtful else where)
        while self._doubtful and time.perf_counter() < until:
            key = next(iter(self._doubtful))
            may_differ = self._doubtful.pop(key)
            found += self._memory.compare(data, key, [_tile(data, key)] if may_differ else [])
        if self._doubtful:
            self._timer.start(0)
        for change in _gathered(found):
            for listener in list(self._listeners.values()):
                listener.changed.emit(change)

    @property
    def _data(self) -> Any:
        return self._layer.data[0] if self._layer.multiscale else self._layer.data

    def _position(self) -> list[int]:
        """The pixel of the layer at the viewer's sliders."""
        point = self._layer.world_to_data(self._viewer.dims.point)
        pixels = (round(float(at)) for at in point)
        return [min(max(at, 0), n - 1) for at, n in zip(pixels, self._data.shape, strict=True)]

    def _plane_in_view(self) -> Index:
        return tuple(self._position()[:-2])

    def _tiles_in_view(self) -> list[_TileKey]:
        height, width = self._data.shape[-2:]
        return list(_keys(self.plane, (slice(0, height), slice(0, width))))


_watches: weakref.WeakValueDictionary[int, _Watch] = weakref.WeakValueDictionary()
"""By the id of their layers, which they hold; they are held by the watchers."""


class _Memory:
    """How labels were when they were last looked at, in tiles of planes."""

    def __init__(self) -> None:
        self.tiles: dict[_TileKey, NDArray[Any]] = {}

    def remember(self, data: Any, keys: Iterable[_TileKey]) -> None:
        """Copy tiles."""
        for key in keys:
            self.tiles[key] = np.array(data[(*key[0], *_tile(data, key))])

    def keep(self, keys: Collection[_TileKey]) -> None:
        """Forget all others."""
        self.tiles = {key: tile for key, tile in self.tiles.items() if key in keys}

    def compare(self, data: Any, key: _TileKey, boxes: Sequence[Box]) -> Iterator[Change]:
        """What is different in these boxes of a tile, and remember it; all of them, if it was not known."""
        tile_box = _tile(data, key)
        known = self.tiles.get(key)
        if known is None:
            self.remember(data, [key])
        for part in (common(box, tile_box) for box in boxes):
            if known is None:
                yield Change(key[0], part)
                continue
            now, before = np.asarray(data[(*key[0], *part)]), known[relative(part, tile_box)]
            differs = now != before
            if differs.any():
                inner = extent(differs)
                before[inner] = now[inner]
                yield Change(key[0], _moved(inner, part), differs[inner])


def _moved(inner: Box, box: Box) -> Box:
    """A part of a box, in the plane."""
    rows, columns = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, inner, strict=True))
    return rows, columns


def _gathered(changes: Sequence[Change]) -> list[Change]:
    """Those close to each other as one."""
    gathered: list[Change] = []
    for plane in dict.fromkeys(change.plane for change in changes):
        here = [change for change in changes if change.plane == plane]
        boxes = as_few([change.box for change in here])
        gathered += (_united(plane, box, [one for one in here if _is_in(one.box, box)]) for box in boxes)
    return gathered


def _united(plane: Index, box: Box, changes: list[Change]) -> Change:
    """One for all of a box."""
    if any(change.mask is None for change in changes):
        return Change(plane, box)
    mask = np.zeros([part.stop - part.start for part in box], bool)
    for change in changes:
        mask[relative(change.box, box)] |= change.mask
    return Change(plane, box, mask)


def _is_in(box: Box, around: Box) -> bool:
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(around, box, strict=True))


def _planes_of(box: tuple[slice, ...]) -> Iterator[tuple[Index, Box]]:
    """The planes that a box of a stack reaches."""
    rows, columns = box[-2:]
    for plane in product(*(range(part.start, part.stop) for part in box[:-2])):
        yield plane, (rows, columns)


def _keys(plane: Index, box: Box) -> Iterator[_TileKey]:
    """The tiles that a box of a plane touches."""
    rows, columns = (range(part.start // TILE_PX, -(-part.stop // TILE_PX)) for part in box)
    for row, column in product(rows, columns):
        yield plane, row, column


def _tile(data: Any, key: _TileKey) -> Box:
    """Rows and columns of a tile."""
    rows, columns = (
        slice(at * TILE_PX, min(length, (at + 1) * TILE_PX))
        for at, length in zip(key[1:], data.shape[-2:], strict=True)
    )
    return rows, columns


def _box_of(atom: Any) -> tuple[slice, ...]:
    """Where an atom of napari's history lies: a mask in a box since 0.8, else arrays of indices."""
    if hasattr(atom, "slice_key"):
        return tuple(slice(int(part.start), int(part.stop)) for part in atom.slice_key)
    return tuple(slice(int(np.min(places)), int(np.max(places)) + 1) for places in atom[0])
