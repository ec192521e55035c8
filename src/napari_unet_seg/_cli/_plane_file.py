"""An array in a plain file on disk: planes are written in any order and read one at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class PlaneFile:
    """A float32 array (C, ..., Y, X) whose (Y, X) planes are on disk.

    Parameters
    ----------
    path
        Of the file, which is made here; whoever makes its folder removes it.
    shape
        (C, ..., Y, X).
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self._path = path
        self._plane_bytes = math.prod(shape[-2:]) * self.dtype.itemsize
        path.touch(exist_ok=False)

    def put(self, plane: tuple[int, ...], values: NDArray[np.float32]) -> None:
        """Store (C, Y, X) of one plane."""
        with self._path.open("r+b") as file:
            for channel, part in enumerate(values):
                file.seek(self._offset((channel, *plane)))
                file.write(np.ascontiguousarray(part, self.dtype).data)

    def __getitem__(self, index: tuple[int, ...]) -> NDArray[np.float32]:
        """One (Y, X) plane; zeros where nothing was put."""
        stored = np.fromfile(self._path, self.dtype, math.prod(self.shape[-2:]), offset=self._offset(index))
        plane = np.zeros(self.shape[-2:], self.dtype)
        plane.reshape(-1)[: stored.size] = stored
        return plane

    def _offset(self, index: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index(index, self.shape[:-2])) * self._plane_bytes
