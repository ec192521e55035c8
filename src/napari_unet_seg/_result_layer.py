"""A labels layer that is filled piece by piece and never replaces what a person has changed; no Qt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._layers import METADATA, Index, LayerImage, Region, label_dtype, placement


@dataclass
class _Record:
    """What we know of a result layer; lives in its metadata, so that it can be copied with the layer."""

    image: str
    model: str
    is_touched: bool = False
    is_being_written: bool = False
    filled: dict[Index, list[tuple[range, range]]] = field(default_factory=dict)
    last_ids: dict[Index, int] = field(default_factory=dict)


def is_touched(layer: Any) -> bool:
    """Whether a person has painted in a layer or given it other data; one that is not ours counts as such."""
    record = _record_of(layer)
    return record is None or record.is_touched


def _record_of(layer: Any) -> _Record | None:
    record = layer.metadata.get(METADATA)
    return record if isinstance(record, _Record) else None


def _note_touch(event: Any) -> None:
    record = _record_of(event.source)
    if record is not None and not record.is_being_written:
        record.is_touched = True


class ResultLayer:
    """Writes into one labels layer of ours.

    Attributes
    ----------
    layer
        Of napari; 16 bit while the ids fit.
    """

    def __init__(self, layer: Any, record: _Record) -> None:
        self.layer, self._record = layer, record

    @classmethod
    def new(cls, layer: Any, image: str, model: str) -> ResultLayer:
        """Take a layer over that was just made."""
        record = _Record(image, model)
        layer.metadata[METADATA] = record
        layer.events.paint.connect(_note_touch)
        layer.events.data.connect(_note_touch)
        return cls(layer, record)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._record.is_being_written = True
        try:
            yield
        finally:
            self._record.is_being_written = False

    def may_hold(self, shape: tuple[int, ...], region: Region) -> bool:
        """Whether nobody changed it, and it is still empty where a new result would go."""
        if self._record.is_touched or self.layer.data.shape != shape:
            return False
        rows, columns = _ranges(region, shape)
        return not any(
            _overlap(rows, box[0]) and _overlap(columns, box[1])
            for plane in planes_of(region, shape)
            for box in self._record.filled.get(plane, ())
        )

    @property
    def is_touched(self) -> bool:
        """Whether a person has changed it."""
        return self._record.is_touched

    def claim(self, region: Region) -> None:
        """Note that a new result is going to fill this region."""
        shape = self.layer.data.shape
        for plane in planes_of(region, shape):
            self._record.filled.setdefault(plane, []).append(_ranges(region, shape))

    def write(self, index: Region, values: NDArray[Any]) -> None:
        """Put values into a region, without drawing it."""
        with self._writing():
            largest = int(values.max(initial=0))
            if largest > np.iinfo(self.layer.data.dtype).max:
                self.layer.data = self.layer.data.astype(label_dtype(largest))
            self.layer.data[index] = values

    def last_id_outside(self, region: Region) -> int:
        """The largest id that objects elsewhere in the layer have."""
        here = set(planes_of(region, self.layer.data.shape))
        is_shared = any(len(self._record.filled.get(plane, ())) > 1 for plane in here)
        last_ids = self._record.last_ids.items()
        return max((last for plane, last in last_ids if is_shared or plane not in here), default=0)

    def note_last_id(self, plane: Index, last_id: int) -> None:
        """Remember the largest id of a plane."""
        self._record.last_ids[plane] = max(last_id, self._record.last_ids.get(plane, 0))

    def refresh(self) -> None:
        """Draw it."""
        with self._writing():
            self.layer.refresh(thumbnail=False, highlight=False, extent=False)

    def refresh_with_thumbnail(self) -> None:
        """Draw it with its thumbnail, once it is complete."""
        with self._writing():
            self.layer.refresh(highlight=False, extent=False)


def result_layer(
    viewer: Any, image_layer: Any, image: LayerImage, model_name: str, region: Region
) -> ResultLayer:
    """The layer for a new result: the last of this image and model if it is free there, else a new one."""
    base = f"{image.name} › {model_name} › labels"
    names = {str(layer.name): layer for layer in viewer.layers}
    number = 1
    latest: Any = None
    while (name := base if number == 1 else f"{base} #{number}") in names:
        latest = names[name]
        number += 1
    record = None if latest is None else _record_of(latest)
    result = None if record is None else ResultLayer(latest, record)
    if result is None or not result.may_hold(image.label_shape, region):
        if latest is not None:
            latest.visible = False
        where = placement(image_layer, image.axes.replace("S", ""), image.label_axes)
        layer = viewer.add_labels(np.zeros(image.label_shape, np.uint16), name=name, **where)
        result = ResultLayer.new(layer, image.name, model_name)
    result.layer.visible = True
    result.claim(region)
    return result


def planes_of(region: Region, shape: tuple[int, ...]) -> Iterator[Index]:
    """The index of each plane that a region reaches."""
    entries = region[:-2]
    ranges = [
        range(*entry.indices(length)) if isinstance(entry, slice) else range(entry, entry + 1)
        for entry, length in zip(entries, shape, strict=False)
    ]
    for position in np.ndindex(*(len(part) for part in ranges)):
        yield tuple(part[i] for part, i in zip(ranges, position, strict=True))


def _ranges(region: Region, shape: tuple[int, ...]) -> tuple[range, range]:
    rows, columns = (
        range(*entry.indices(length))
        for entry, length in zip(region[-2:], shape[-2:], strict=True)
        if isinstance(entry, slice)
    )
    return rows, columns


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop
