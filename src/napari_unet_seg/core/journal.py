"""A crash-safe record of label planes: each changed box is appended, and what a crash has cut off is ignored.

A journal is one file, `journal-000001.bin`, in a folder of its own. Its first record says the shape; each
further one holds the values of one box of one plane, later ones over earlier ones, over zeros. When it has
grown it is written anew under the next number, and the old file goes when the new one is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_unet_seg.core.atomic import append_durably, make_folder, replacing, write_all
from napari_unet_seg.core.errors import InputError, OutputError

Index: TypeAlias = tuple[int, ...]
"""Of a plane: one number per axis before Y and X."""
Box: TypeAlias = tuple[slice, slice]

LABELS = "labels"
"""The part that every journal has; others are kept beside it, plane by plane, such as a mask."""

_FORMAT = 1
_NAME = re.compile(r"journal-(\d{6,})\.bin")
_MARK = b"NUS\x1e"
_PREFIX = struct.Struct("<4sIQI")  # mark, bytes of the header, bytes of the values, CRC-32 of both
_LARGEST_HEADER_BYTES = 64 * 1024
_GROWN_BYTES = 4 * 1024 * 1024
_GROWN_TIMES = 4
_FAST = 1
"""Of zlib's levels: labels shrink well with any."""


@dataclass(frozen=True, eq=False)
class Patch:
    """Values of a box of one plane.

    Attributes
    ----------
    values
        (Y, X) of the box.
    part
        What they are of: the labels, or something that is kept beside them.
    """

    plane: Index
    box: Box
    values: NDArray[Any]
    part: str = LABELS


def patch_of(plane: Index, values: NDArray[Any], part: str = LABELS) -> Patch | None:
    """What a whole plane (Y, X) holds besides zeros; None where it holds nothing."""
    is_there = np.asarray(values) != 0
    rows, columns = (np.flatnonzero(is_there.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    return Patch(plane, box, np.asarray(values[box]), part)


@dataclass(frozen=True)
class _Place:
    """Where the values of a record lie in its file."""

    box: Box
    dtype: np.dtype[Any]
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Recorded:
    """What a journal holds, of which planes are read when they are asked for.

    Attributes
    ----------
    shape, dtype
        Of the labels.
    n_bytes
        Of the file, up to where it is whole.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    n_bytes: int
    _places: Mapping[tuple[str, Index], Sequence[_Place]] = field(repr=False)

    @property
    def parts(self) -> set[str]:
        """The labels, and what is kept beside them."""
        return {part for part, _ in self._places}

    def planes(self, part: str = LABELS) -> list[Index]:
        """Those that were ever written to, in order."""
        return sorted(plane for name, plane in self._places if name == part)

    def plane(self, plane: Index, part: str = LABELS) -> NDArray[Any]:
        """(Y, X), zero where nothing was written; labels have the type of labels, parts their own.

        Raises
        ------
        InputError
            The file cannot be read any more.
        """
        places = self._places.get((part, plane), ())
        dtype = self.dtype if part == LABELS else _common_dtype(places)
        values = np.zeros(self.shape[-2:], dtype)
        with _reading(self.path) as file:
            for place in places:
                file.seek(place.offset)
                values[place.box] = _decoded(file.read(place.n_bytes), place)
        return values

    def patches(self) -> Iterator[Patch]:
        """As few patches as hold it all."""
        for part, plane in self._places:
            patch = patch_of(plane, self.plane(plane, part), part)
            if patch is not None:
                yield patch


def read_journal(folder: Path) -> Recorded | None:
    """What was recorded in a folder: the newest file that begins well, up to where it is whole; None without.

    Raises
    ------
    InputError
        The folder cannot be read.
    """
    for path in reversed(_files_in(folder)):
        found = _scanned(path)
        if found is not None:
            return found
    return None


class Journal:
    """The writing side. One thread at a time.

    Parameters
    ----------
    folder
        Its own; the journal that is there is gone on with.

    Raises
    ------
    InputError
        The folder cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = read_journal(folder)
        self._n_bytes = self._compact_bytes = 0 if found is None else found.n_bytes
        self._path = None if found is None else found.path

    @property
    def is_begun(self) -> bool:
        """Whether its file is there, whole."""
        try:
            return self._path is not None and self._path.stat().st_size >= self._n_bytes
        except OSError:
            return False

    @property
    def is_grown(self) -> bool:
        """Whether writing it anew would make it much smaller."""
        return self._n_bytes > max(_GROWN_BYTES, _GROWN_TIMES * self._compact_bytes)

    def append(self, patches: Iterable[Patch]) -> None:
        """Add patches and make sure that they are on the disk.

        Raises
        ------
        OutputError
            The disk is full, or the file is gone; what was recorded before is still there.
        """
        if self._path is None:
            raise OutputError(f"No journal was begun in '{self.folder}'.")
        content = b"".join(map(_encoded, patches))
        self._n_bytes = append_durably(self._path, self._n_bytes, content)

    def rewrite(self, patches: Iterable[Patch], shape: Sequence[int], dtype: DTypeLike) -> None:
        """Begin anew with these patches; until they are all written, the old file is what counts.

        Raises
        ------
        OutputError
            The disk is full, or the folder cannot be written; the old file is still there.
        """
        old = _files_in(self.folder)
        path = self.folder / f"journal-{_next_number(old):06}.bin"
        first = {"format": _FORMAT, "shape": list(shape), "dtype": np.dtype(dtype).str}
        make_folder(self.folder)
        try:
            with replacing(path) as temporary, temporary.open("xb", buffering=0) as file:
                write_all(file, _record(first, b""))
                for patch in patches:
                    write_all(file, _encoded(patch))
                os.fsync(file.fileno())
                n_bytes = file.tell()
            _settle(self.folder)
        except OSError as error:
            raise OutputError(f"'{path}' cannot be written: {error.strerror or error}.") from error
        self._path, self._n_bytes, self._compact_bytes = path, n_bytes, n_bytes
        for other in [*old, *self.folder.glob(".journal-*.part")]:
            with contextlib.suppress(OSError):  # it no longer counts
                other.unlink()

    def compact(self) -> None:
        """Write what counts of it anew.

        Raises
        ------
        OutputError, InputError
            As `rewrite` and `read_journal`; nothing is lost.
        """
        found = read_journal(self.folder)
        if found is not None:
            self.rewrite(found.patches(), found.shape, found.dtype)


# Records


def _encoded(patch: Patch) -> bytes:
    values = np.ascontiguousarray(patch.values)
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    rows, columns = patch.box
    header = {
        "part": patch.part,
        "plane": list(patch.plane),
        "box": [rows.start, rows.stop, columns.start, columns.stop],
        "dtype": values.dtype.str,
    }
    return _record(header, zlib.compress(values.tobytes(), _FAST))


def _record(header: Mapping[str, Any], values: bytes) -> bytes:
    said = json.dumps(header).encode()
    return _PREFIX.pack(_MARK, len(said), len(values), zlib.crc32(values, zlib.crc32(said))) + said + values


def _decoded(stored: bytes, place: _Place) -> NDArray[Any]:
    shape = [part.stop - part.start for part in place.box]
    return np.frombuffer(zlib.decompress(stored), place.dtype).reshape(shape)


def _scanned(path: Path) -> Recorded | None:
    """Find the records of a file, up to the first that is not whole; None when not even the first one is."""
    with _reading(path) as file:
        records = _records(file)
        try:
            shape, dtype = _shape_and_dtype(next(records)[0])
        except (StopIteration, KeyError, TypeError, ValueError):
            return None
        end = file.tell()
        places: dict[tuple[str, Index], list[_Place]] = {}
        for header, offset, n_bytes in records:
            try:
                part, plane, place = _place(header, offset, n_bytes, shape)
            except (KeyError, TypeError, ValueError):
                break
            places.setdefault((part, plane), []).append(place)
            end = offset + n_bytes
    return Recorded(path, shape, dtype, end, places)


def _records(file: BinaryIO) -> Iterator[tuple[Any, int, int]]:
    """Header, offset and length of the values of each record that is whole."""
    size = os.fstat(file.fileno()).st_size
    while len(prefix := file.read(_PREFIX.size)) == _PREFIX.size:
        mark, header_bytes, value_bytes, crc = _PREFIX.unpack(prefix)
        offset = file.tell() + header_bytes
        if mark != _MARK or header_bytes > _LARGEST_HEADER_BYTES or offset + value_bytes > size:
            return
        said, values = file.read(header_bytes), file.read(value_bytes)
        if zlib.crc32(values, zlib.crc32(said)) != crc:
            return
        try:
            header = json.loads(said)
        except ValueError:
            return
        yield header, offset, value_bytes
        file.seek(offset + value_bytes)


def _shape_and_dtype(header: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if header["format"] != _FORMAT:
        raise ValueError(header["format"])
    return tuple(int(length) for length in header["shape"]), np.dtype(header["dtype"])


def _place(header: Any, offset: int, n_bytes: int, shape: tuple[int, ...]) -> tuple[str, Index, _Place]:
    plane = tuple(int(at) for at in header["plane"])
    top, bottom, left, right = (int(edge) for edge in header["box"])
    is_inside = 0 <= top <= bottom <= shape[-2] and 0 <= left <= right <= shape[-1]
    if not is_inside or len(plane) != len(shape) - 2:
        raise ValueError(header)
    box = slice(top, bottom), slice(left, right)
    return str(header["part"]), plane, _Place(box, np.dtype(header["dtype"]), offset, n_bytes)


def _common_dtype(places: Sequence[_Place]) -> np.dtype[Any]:
    return places[-1].dtype if places else np.dtype(np.uint8)


# Files


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error


def _files_in(folder: Path) -> list[Path]:
    """The journals of a folder, oldest first."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"The folder '{folder}' cannot be read: {error.strerror or error}.") from error
    named = ((_NAME.fullmatch(path.name), path) for path in paths)
    return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]


def _next_number(files: Sequence[Path]) -> int:
    return 1 + max((int(path.stem.partition("-")[2]) for path in files), default=0)


def _settle(folder: Path) -> None:
    """Make sure that a new name is on the disk, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        return  # some network drives cannot
    finally:
        os.close(descriptor)
