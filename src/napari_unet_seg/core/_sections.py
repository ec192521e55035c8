"""Folders of sections, one TIFF or PNG file per plane, as one array."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._lazy import Source
from napari_unet_seg.core.errors import InputError

SECTION_ENDINGS = (".tif", ".tiff", ".png")


def natural_order(path: Path) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts section 9 before section 10, on every platform alike."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts)


def section_files(folder: Path) -> list[Path]:
    """The TIFF and PNG files of a folder in natural order, hidden ones left out."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in SECTION_ENDINGS and p.is_file()]
    except PermissionError as error:
        raise InputError(f"The folder '{folder}' may not be read: ask for permission.") from error
    files = sorted((p for p in found if not p.name.startswith(".")), key=natural_order)
    if not files:
        raise InputError(f"The folder '{folder}' holds no TIFF or PNG files.")
    return files


@dataclass(frozen=True)
class Sections:
    """Equal planes in separate files, as one source with the plane axis first."""

    files: tuple[Path, ...]
    plane_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    open_plane: Callable[[Path], Source]
    _open: OrderedDict[int, Source] = field(default_factory=OrderedDict, compare=False, repr=False)
    _lock: Any = field(default_factory=Lock, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Planes, then the axes of one plane."""
        return (len(self.files), *self.plane_shape)

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        """The asked pixels; only files of asked planes are opened."""
        out = np.zeros(tuple(len(r) for r in ranges), self.dtype)
        for to, number in enumerate(ranges[0]):
            out[to] = self._plane(number).read(ranges[1:])
        return out

    def _plane(self, number: int) -> Source:
        with self._lock:
            if number in self._open:
                return self._open[number]
        plane = self.open_plane(self.files[number])
        if plane.shape != self.plane_shape or plane.dtype != self.dtype:
            raise InputError(f"'{self.files[number]}' has changed since the folder was opened.")
        with self._lock:
            self._open[number] = plane
            while len(self._open) > 2:
                self._open.popitem(last=False)
        return plane
