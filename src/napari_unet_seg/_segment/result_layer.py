"""A labels layer that is filled piece by piece and never replaces what a person has changed; no Qt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet_seg._layers import METADATA, Index, LayerImage, Region, label_dtype, placement
from napari_unet_seg.core.errors import InputError

_Box: TypeAlias = tuple[int, int, int, int]
_Part: TypeAlias = tuple[Index, _Box]
"""A plane, and first and end of its rows and columns."""


@dataclass
class _Record:
    """What is known of a result layer; lives in its metadata, so that it is copied with it.

    `ids` says for every part that was filled, or is going to be, its smallest and largest id (0, 0: none).
    `painted` holds what a person painted while something was filling it: where, and with which label.
    """

    is_touched: bool = False
    is_being_written: bool = False
    n_filling: int = 0
    ids: dict[_Part, tuple[int, int]] = field(default_factory=dict)
    painted: list[tuple[Any, Any]] = field(default_factory=list)


def is_touched(layer: Any) -> bool:
    """Whether a person has painted in a layer or given it other data; one that is not ours counts as such."""
    record = _record_of(layer)
    return record is None or record.is_touched


def _record_of(layer: Any) -> _Record | None:
    said = layer.metadata.get(METADATA)
    record = said.get("result") if isinstance(said, dict) else None
    return record if isinstance(record, _Record) else None


def _note_touch(event: Any) -> None:
    record = _record_of(event.source)
    if record is not None and not record.is_being_written:
        record.is_touched = True


def _note_paint(event: Any) -> None:
    """Remember a stroke, and draw it again where a piece of the result came in between."""
    _note_touch(event)
    record, data = _record_of(event.source), event.source.data
    if record is not None and record.n_filling:
        for atom in event.value:
            where, label = _where_and_what(atom)
            record.painted.append((where, label))
            data[where] = label


def _where_and_what(atom: Any) -> tuple[Any, Any]:
    """Indices and labels of a change, of which napari has two kinds: masks in a box, and tuples."""
    if not hasattr(atom, "mask"):
        where, _before, label = atom
        return where, label
    starts = [part.start for part in atom.slice_key]
    mask = np.broadcast_to(
        True if atom.mask is None else atom.mask, [part.stop - part.start for part in atom.slice_key]
    )
    where = tuple(inside + start for inside, start in zip(np.nonzero(mask), starts, strict=True))
    return where, atom.new_value


class ResultLayer:
    """Writes into one labels layer of ours.

    Attributes
    ----------
    layer
        Of napari; 16 bit while the ids fit.
    is_written
        Whether anything was put into it by way of this object.
    """

    def __init__(self, layer: Any, record: _Record, hidden: Any = None) -> None:
        self.layer, self._record, self._hidden = layer, record, hidden
        self._claimed: set[_Part] = set()
        self._is_filling = False
        self.is_written = False

    @classmethod
    def new(cls, layer: Any, hidden: Any = None) -> ResultLayer:
        """Take over a layer that was just made, and that is to hide another one when it is shown."""
        record = _Record()
        layer.metadata.setdefault(METADATA, {})["result"] = record
        layer.events.paint.connect(_note_paint)
        layer.events.data.connect(_note_touch)
        return cls(layer, record, hidden)

    @property
    def is_touched(self) -> bool:
        """Whether a person has changed it."""
        return self._record.is_touched

    def is_free_for(self, shape: tuple[int, ...], region: Region) -> bool:
        """Whether nobody changed it, and it is still empty where a new result would go."""
        if self._record.is_touched or self.layer.data.shape != shape:
            return False
        wanted = _parts(region, shape)
        return not any(a[0] == b[0] and _overlap(a[1], b[1]) for a in wanted for b in self._record.ids)

    def show(self) -> None:
        """Make it visible, in place of the one before."""
        if self._hidden is not None:
            self._hidden.visible = False
        self.layer.visible = True
        _show_tools(self.layer, are_visible=True)

    def claim(self, region: Region) -> None:
        """Note that a new result is going to fill this region."""
        self._claimed = _parts(region, self.layer.data.shape)
        self._record.ids |= dict.fromkeys(self._claimed, (0, 0))

    def begin(self) -> None:
        """Keep what is painted from now on out of what is written, until the end."""
        if not self._is_filling:
            self._is_filling = True
            self._record.n_filling += 1

    def end(self) -> None:
        """Write no more; strokes need not be remembered."""
        if self._is_filling:
            self._is_filling = False
            self._record.n_filling -= 1
            if not self._record.n_filling:
                self._record.painted.clear()

    def write(self, index: Region, values: NDArray[Any], largest: int) -> None:
        """Put values, of which the largest is known, into a region, under what is painted, undrawn."""
        self.is_written = True
        with self._writing():
            if largest > np.iinfo(self.layer.data.dtype).max:
                self.layer.data = self.layer.data.astype(label_dtype(largest))
            data = self.layer.data
            painted = [(where, label, data[where] == label) for where, label in self._record.painted]
            data[index] = values
            for where, label, is_so in painted:  # what was undone since is not
                data[where] = np.where(is_so, label, data[where])

    def note_ids(self, index: Region, first: int, last: int) -> None:
        """Remember which ids a part of one plane holds."""
        for part in _parts(index, self.layer.data.shape):
            self._record.ids[part] = (first, last)

    def last_id_outside(self, region: Region) -> int:
        """The largest id that objects elsewhere in the layer have."""
        return max((last for _, last in self._ids_outside(region)), default=0)

    def free_ids_before(self, region: Region, n_ids: int) -> int:
        """The smallest number after which `n_ids` ids follow that nothing elsewhere in the layer uses."""
        offset = 0
        for first, last in sorted(self._ids_outside(region)):
            if first - 1 - offset >= n_ids:
                break
            offset = max(offset, last)
        return offset

    def withdraw(self, viewer: Any) -> None:
        """Give the region up again; a layer in which nothing else is or is to come leaves the viewer."""
        if self._record.is_touched:
            return
        for part in self._claimed:
            self._record.ids.pop(part, None)
        if self._record.ids:
            return
        viewer.layers.remove(self.layer)
        if self._hidden is not None:
            self._hidden.visible = True

    def refresh(self) -> None:
        """Draw it."""
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def refresh_with_thumbnail(self) -> None:
        """Draw it once it is complete."""
        self.layer.refresh(highlight=False, extent=False)

    def _ids_outside(self, region: Region) -> list[tuple[int, int]]:
        here = _parts(region, self.layer.data.shape)
        return [ids for part, ids in self._record.ids.items() if part not in here and ids[1]]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._record.is_being_written = True
        try:
            yield
        finally:
            self._record.is_being_written = False


def result_layer(
    viewer: Any, image_layer: Any, image: LayerImage, model_name: str, region: Region, what: str = "labels"
) -> ResultLayer:
    """The layer for a new result: the last of this image and model if free there, else a hidden new one.

    Parameters
    ----------
    what
        It holds, as the end of its name.

    Raises
    ------
    InputError
        The system does not give the memory for a new one.
    """
    base = f"{image.name} › {model_name} › {what}"
    names = {str(layer.name): layer for layer in viewer.layers}
    number, latest = 1, None
    while (name := base if number == 1 else f"{base} #{number}") in names:
        latest = names[name]
        number += 1
    record = None if latest is None else _record_of(latest)
    result = None if record is None else ResultLayer(latest, record)
    if result is None or not result.is_free_for(image.label_shape, region):
        hidden = latest if latest is not None and latest.visible else None
        where = placement(image_layer, image.axes.replace("S", ""), image.label_axes)
        layer = Labels(_empty_labels(image), name=name, visible=False, **where)
        _show_tools(layer, are_visible=False)
        result = ResultLayer.new(viewer.add_layer(layer), hidden)
    result.claim(region)
    return result


def _show_tools(layer: Any, *, are_visible: bool) -> None:
    """Show what napari draws around its brush and polygon; making it costs as much as the layer itself."""
    overlays = getattr(layer, "_overlays", {})  # no public way leads there
    for name in {"polygon", "brush_stroke"} & set(overlays):
        overlays[name].visible = are_visible


def _empty_labels(image: LayerImage) -> NDArray[np.uint16]:
    try:
        return np.zeros(image.label_shape, np.uint16)
    except MemoryError as error:
        raise InputError(
            f"There is no memory for labels of '{image.name}': open fewer of its planes."
        ) from error


def _parts(region: Region, shape: tuple[int, ...]) -> set[_Part]:
    """The planes that a region reaches, with its rows and columns."""
    (top, bottom), (left, right) = (
        entry.indices(length)[:2]
        for entry, length in zip(region[-2:], shape[-2:], strict=True)
        if isinstance(entry, slice)
    )
    ranges = [
        range(*entry.indices(length)) if isinstance(entry, slice) else range(entry, entry + 1)
        for entry, length in zip(region[:-2], shape, strict=False)
    ]
    planes = np.ndindex(*(len(part) for part in ranges))
    return {
        (tuple(part[i] for part, i in zip(ranges, position, strict=True)), (top, bottom, left, right))
        for position in planes
    }


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]
