"""TIFF files: what is in them, and their pixels plane by plane, piece by piece.

The file is opened anew for the header and for every read: nothing stays open or locked between reads.
"""

from __future__ import annotations

import logging
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_unet_seg.core import _tiff_metadata as meta
from napari_unet_seg.core._lazy import FileContent, InMemory, SegmentCache, Source, as_slice
from napari_unet_seg.core._pillow import PillowPages
from napari_unet_seg.core.errors import InputError

BROKEN_TIFF = (
    tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, AttributeError, AssertionError,
    struct.error, zlib.error, OverflowError, ZeroDivisionError, EOFError, RuntimeError,
)  # fmt: skip
"""What tifffile raises on damaged files."""

_JPEGS = {6, 7, 34892, 33007}


def read_header(path: Path) -> FileContent:
    """Look into a TIFF; raises InputError with one sentence when its pixels cannot be had."""
    with _quiet_tifffile() as complaints:
        try:
            with tifffile.TiffFile(path) as tif:
                return _content(tif, path, complaints)
        except BROKEN_TIFF as error:
            raise InputError(f"'{path}' is damaged or not a complete TIFF file: copy it again.") from error


def _content(tif: Any, path: Path, complaints: list[str]) -> FileContent:
    if not len(tif.pages):
        raise InputError(f"'{path}' holds no image: it is damaged or empty.")
    if not tif.series:
        raise InputError(f"'{path}' holds no image that can be read.")
    series = tif.series[0]
    ome_xml = tif.ome_metadata if tif.is_ome else None
    shape, axes = _shape_and_axes(series, ome_xml)
    _refuse_unusable(path, series, shape, complaints)
    keyframe = series.keyframe
    return FileContent(
        kind="OME-TIFF" if tif.is_ome else "ImageJ TIFF" if tif.is_imagej else "TIFF",
        axes=axes,
        source=_source(path, series, shape),
        voxel_size_nm=_voxel_size(tif, ome_xml),
        channel_names=_channel_names(tif, ome_xml, shape, axes),
        is_rgb="S" in axes and keyframe.samplesperpixel in (3, 4) and int(keyframe.photometric) in (2, 6),
        note=_note(tif),
        content=str(meta.our_notes(ome_xml).get("content", "image")),
    )


def _note(tif: Any) -> str:
    n_others = len(tif.series) - 1
    if not n_others:
        return ""
    return f"The file holds {n_others} more image{'s' * (n_others > 1)} of other sizes; the first is used."


def _shape_and_axes(series: Any, ome_xml: str | None) -> tuple[tuple[int, ...], str]:
    """Axes without singletons, except those that our own files name on purpose."""
    shape, axes = tuple(series.get_shape(squeeze=True)), str(series.get_axes(squeeze=True))
    wanted = meta.our_notes(ome_xml).get("axes", "")
    full = dict(zip(series.get_axes(squeeze=False), series.get_shape(squeeze=False), strict=True))
    if wanted and set(axes) <= set(wanted) <= set(full):
        named = "".join(a for a in series.get_axes(squeeze=False) if a in wanted)
        if named == wanted:
            return tuple(full[a] for a in wanted), wanted
    return shape, axes


def _refuse_unusable(path: Path, series: Any, shape: tuple[int, ...], complaints: list[str]) -> None:
    if 0 in shape or not shape:
        raise InputError(f"'{path}' holds an image without pixels ({' × '.join(map(str, shape))}).")
    if series.dtype is None or series.dtype.kind not in "biuf":
        raise InputError(
            f"'{path}' has pixels of type {series.dtype}: only whole and real numbers can be used."
        )
    for complaint in complaints:
        if any(word in complaint for word in ("invalid", "corrupt", "missing", "raised", "does not match")):
            raise InputError(f"'{path}' is truncated or damaged: copy it again.")
    size = path.stat().st_size
    for page in series.pages:
        local = page is not None and page.parent is series.parent
        if local and len(page.dataoffsets) and page.dataoffsets[-1] + page.databytecounts[-1] > size:
            raise InputError(f"'{path}' is truncated: it ends before its last pixel; copy it again.")


def _needs_codec(keyframe: Any) -> bool:
    """Whether tifffile cannot decode these pages by itself."""
    try:
        keyframe.decode(None, 0)
    except (ValueError, NotImplementedError, ImportError):
        return True
    return False


def _decoded_by_pillow(path: Path, series: Any, shape: tuple[int, ...]) -> Source:
    """The pages as Pillow's codecs (LZW, JPEG, ...) give them; InputError when it has none either."""
    keyframe = series.keyframe
    pages = [None if page is None else int(page.index) for page in series.pages]
    page_shape = tuple(keyframe.shape)
    source = PillowPages(
        path, shape, series.dtype.newbyteorder("="), page_shape, tuple(pages), SegmentCache()
    )
    if shape[len(shape) - len(page_shape) :] != page_shape or not source.can_decode():
        name = getattr(keyframe.compression, "name", str(keyframe.compression))
        raise InputError(
            f"'{path}' is compressed in a way ({name}) that needs a package which is not installed: "
            "run `pip install imagecodecs`, or save it again uncompressed or with zlib."
        )
    return source


def _voxel_size(tif: Any, ome_xml: str | None) -> dict[str, float]:
    if ome_xml:
        return meta.ome_voxel_size(ome_xml)
    tags = tif.pages.first.tags
    if tif.is_imagej:
        return meta.imagej_voxel_size(tif.imagej_metadata or {}, tags)
    from_microscope = meta.sem_pixel_size(tif.fei_metadata, tif.sem_metadata)
    return from_microscope or meta.size_from_resolution(*meta.resolution_of_page(tags))


def _channel_names(tif: Any, ome_xml: str | None, shape: tuple[int, ...], axes: str) -> tuple[str, ...]:
    if "C" not in axes:
        return ()
    n_channels = shape[axes.index("C")]
    if tif.is_imagej:
        return meta.imagej_channel_names(tif.imagej_metadata or {}, n_channels)
    names = meta.ome_channel_names(ome_xml)
    return names if len(names) == n_channels else ()


def _source(path: Path, series: Any, shape: tuple[int, ...]) -> Source:
    dtype = series.dtype.newbyteorder("=")
    if series.dataoffset is not None:
        stored = series.dtype.newbyteorder(series.parent.byteorder)
        if series.dataoffset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize > path.stat().st_size:
            raise InputError(f"'{path}' is truncated: it ends before its last pixel; copy it again.")
        return _OnePiece(path, int(series.dataoffset), shape, stored)
    keyframe = series.keyframe
    if _needs_codec(keyframe):
        return _decoded_by_pillow(path, series, shape)
    page_shape = tuple(keyframe.shape)
    n_leading = len(shape) - len(page_shape)
    n_pages = int(np.prod(shape[:n_leading], dtype=np.int64)) if n_leading >= 0 else -1
    if shape[n_leading:] != page_shape or n_pages != len(series.pages) or set(keyframe.axes) - set("ZYXS"):
        return InMemory(np.asarray(series.asarray()).reshape(shape).astype(dtype, copy=False))
    return _Pages(
        shape=shape,
        dtype=dtype,
        page_axes=keyframe.axes,
        normal_shape=tuple(keyframe.shaped),
        decode=keyframe.decode,
        pages=tuple(_page(p) for p in series.pages),
        path=path,
        cache=SegmentCache(),
    )


@dataclass(frozen=True)
class _OnePiece:
    """Uncompressed pixels in one run of bytes: mapped into memory for the moment of a read."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    stored: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        with _readable(self.path):
            mapped = np.memmap(self.path, self.stored, "r", self.offset, self.shape)
        return np.array(mapped[tuple(as_slice(r) for r in ranges)], dtype=self.dtype, copy=True)


@dataclass(frozen=True)
class _Page:
    """Where one page's strips or tiles are; no offsets: a page that is missing and reads as zeros."""

    path: Path | None
    offsets: tuple[int, ...]
    byte_counts: tuple[int, ...]
    jpeg_tables: bytes | None


def _page(page: Any) -> _Page:
    if page is None:
        return _Page(None, (), (), None)
    tables = page.jpegtables if page.keyframe.compression in _JPEGS else None
    return _Page(Path(page.parent.filehandle.path), page.dataoffsets, page.databytecounts, tables)


@dataclass(frozen=True)
class _Pages:
    """Pixels in strips or tiles, possibly compressed: only those that a read touches are decoded."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    page_axes: str
    normal_shape: tuple[int, int, int, int, int]  # samples apart, depth, length, width, samples together
    decode: Callable[..., tuple[NDArray[Any] | None, tuple[int, ...], tuple[int, ...]]]
    pages: tuple[_Page, ...]
    path: Path
    cache: SegmentCache

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        n_leading = len(self.shape) - len(self.page_axes)
        leading, inside = ranges[:n_leading], dict(zip(self.page_axes, ranges[n_leading:], strict=True))
        out = np.zeros(tuple(len(r) for r in ranges), self.dtype)
        for at in np.ndindex(*(len(r) for r in leading)):
            index = [r[i] for r, i in zip(leading, at, strict=True)]
            page = int(np.ravel_multi_index(index, self.shape[:n_leading])) if index else 0
            out[at] = self._read_page(page, inside)
        return out

    def _read_page(self, number: int, inside: dict[str, range]) -> NDArray[Any]:
        samples_apart, depth, _, _, samples = self.normal_shape
        rows, columns = inside["Y"], inside["X"]
        out = np.zeros((samples_apart, depth, len(rows), len(columns), samples), self.dtype)
        page = self.pages[number]
        if page.path is not None and out.size:
            with _readable(page.path), page.path.open("rb") as file:
                for segment in range(len(page.offsets)):
                    self._copy_segment(file, number, segment, rows, columns, out)
        lengths = [len(inside[a]) if a in "YX" else n for a, n in self._page_lengths()]
        whole = out.reshape(lengths)
        return whole[tuple(slice(None) if a in "YX" else as_slice(inside[a]) for a in self.page_axes)]

    def _page_lengths(self) -> Iterator[tuple[str, int]]:
        return zip(self.page_axes, self.shape[len(self.shape) - len(self.page_axes) :], strict=True)

    def _copy_segment(
        self, file: Any, number: int, segment: int, rows: range, columns: range, out: NDArray[Any]
    ) -> None:
        _, (s, z, y, x, _), (n_z, n_y, n_x, _) = self.decode(None, segment)
        to_y, from_y = _overlap(rows, y, n_y)
        to_x, from_x = _overlap(columns, x, n_x)
        n_z = min(n_z, out.shape[1] - z)
        if s >= out.shape[0] or n_z <= 0 or to_y.start >= to_y.stop or to_x.start >= to_x.stop:
            return
        data = self.cache.get((number, segment), lambda: self._decoded(file, number, segment))
        if data.size:
            out[s, z : z + n_z, to_y, to_x] = data[:n_z, from_y, from_x]

    def _decoded(self, file: Any, number: int, segment: int) -> NDArray[Any]:
        page = self.pages[number]
        n_bytes = page.byte_counts[segment]
        if not n_bytes or not page.offsets[segment]:
            return np.zeros((0,), self.dtype)
        file.seek(page.offsets[segment])
        encoded = file.read(n_bytes)
        extra = {} if page.jpeg_tables is None else {"jpegtables": page.jpeg_tables}
        try:
            data = self.decode(encoded, segment, **extra)[0] if len(encoded) == n_bytes else None
        except BROKEN_TIFF as error:
            raise InputError(f"Plane {number} of '{page.path}' is damaged and cannot be decoded.") from error
        if data is None:
            raise InputError(f"Plane {number} of '{page.path}' is truncated.")
        return data.astype(self.dtype, copy=False)


def _overlap(wanted: range, start: int, length: int) -> tuple[slice, slice]:
    """Where a piece [start, start + length) lands among `wanted`, and what of the piece goes there."""
    first = max(0, -((wanted.start - start) // wanted.step))
    last = max(first, min(len(wanted), -((wanted.start - start - length) // wanted.step)))
    begin = wanted.start + first * wanted.step - start
    return slice(first, last), slice(begin, begin + (last - first) * wanted.step, wanted.step)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"'{path}' can no longer be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: its parts do not fit together; copy it again.") from error


@contextmanager
def _quiet_tifffile() -> Iterator[list[str]]:
    """Collect what tifffile would log in this thread, so that our own sentence is the only one."""
    complaints: list[str] = []
    thread = threading.get_ident()

    def collect(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.WARNING:
            complaints.append(record.getMessage())
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(collect)
    try:
        yield complaints
    finally:
        logger.removeFilter(collect)


def ome_xml_of(path: Path) -> str | None:
    """The OME-XML text of a TIFF, None if it has none; raises InputError when the file is damaged."""
    with _quiet_tifffile():
        try:
            with tifffile.TiffFile(path) as tif:
                return str(tif.ome_metadata) if tif.is_ome else None
        except BROKEN_TIFF as error:
            raise InputError(f"'{path}' is damaged or not a complete TIFF file: copy it again.") from error
