"""What Pillow reads for us: PNG, and TIFF pages in codecs that tifffile does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin, TiffImagePlugin

from napari_unet_seg.core import _tiff_metadata as meta
from napari_unet_seg.core._lazy import FileContent, SegmentCache, as_slice
from napari_unet_seg.core.errors import InputError

_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError)
"""What Pillow raises on damaged files."""


def read_png_header(path: Path) -> FileContent:
    """Look into a PNG without decoding it; raises InputError when it is damaged."""
    _refuse_truncated_png(path)
    with _opened_png(path) as png:
        mode, (width, height) = _plain_mode(png), png.size
        dots_per_inch = png.info.get("dpi", (0, 0))
        is_deep = any(str(tile[3]).endswith(";16B") for tile in png.tile)
    n_samples = {"RGB": 3, "RGBA": 4}.get(mode, 1)
    dtype = np.dtype(np.uint8) if mode in ("L", "RGB", "RGBA") else np.dtype(np.uint16)
    shape = (height, width) if n_samples == 1 else (height, width, n_samples)
    return FileContent(
        kind="PNG",
        axes="YX" if n_samples == 1 else "YXS",
        source=_Png(path, shape, dtype, SegmentCache(max_bytes=2 * int(np.prod(shape)) * dtype.itemsize)),
        voxel_size_nm=meta.size_from_resolution((float(dots_per_inch[1]), float(dots_per_inch[0])), "inch"),
        is_rgb=n_samples > 1,
        note="Its 16-bit colours are read with 8 bits." if is_deep and n_samples > 1 else "",
    )


def _refuse_truncated_png(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        if b"IEND" not in file.read():
            raise InputError(f"'{path}' is truncated: copy it again.")


def _opened_png(path: Path) -> PngImagePlugin.PngImageFile:
    # Not Image.open: that refuses sections above 179 MP as an attack.
    try:
        return PngImagePlugin.PngImageFile(path)
    except _BROKEN as error:
        raise InputError(f"'{path}' is damaged or not a complete PNG file: copy it again.") from error


def _plain_mode(png: PngImagePlugin.PngImageFile) -> str:
    """The pixel mode after palettes and transparency of grey images are resolved."""
    if png.mode == "P":
        return "RGB"
    return {"1": "L", "LA": "L", "I": "I;16", "I;16B": "I;16"}.get(png.mode, png.mode)


@dataclass(frozen=True)
class _Png:
    """The pixels of a PNG; the whole file is decoded at once, the last one is kept."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    cache: SegmentCache

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        whole = self.cache.get("plane", self._decoded)
        return np.array(whole[tuple(as_slice(r) for r in ranges)], dtype=self.dtype)

    def _decoded(self) -> NDArray[Any]:
        try:
            with _opened_png(self.path) as png:
                mode = _plain_mode(png)
                image = png if png.mode == mode or mode == "I;16" else png.convert(mode)
                return np.asarray(image).astype(self.dtype).reshape(self.shape)
        except _BROKEN as error:
            raise InputError(f"'{self.path}' is truncated or damaged and cannot be decoded.") from error


@dataclass(frozen=True)
class PillowPages:
    """Pages of a TIFF, each decoded as a whole; `numbers`: their places in the file (None: zeros)."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    page_shape: tuple[int, ...]
    numbers: tuple[int | None, ...]
    cache: SegmentCache

    def can_decode(self) -> bool:
        """Whether Pillow has the codec and means the same pixels."""
        number = next((n for n in self.numbers if n is not None), None)
        try:
            return number is not None and self._page(number).size > 0
        except InputError:
            return False

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        """The asked pixels of the asked pages."""
        n_leading = len(self.shape) - len(self.page_shape)
        out = np.zeros(tuple(len(r) for r in ranges), self.dtype)
        for at in np.ndindex(*(len(r) for r in ranges[:n_leading])):
            index = [r[i] for r, i in zip(ranges[:n_leading], at, strict=True)]
            number = self.numbers[int(np.ravel_multi_index(index, self.shape[:n_leading])) if index else 0]
            if number is not None:
                out[at] = self._page(number)[tuple(as_slice(r) for r in ranges[n_leading:])]
        return out

    def _page(self, number: int) -> NDArray[Any]:
        return self.cache.get(number, lambda: self._decoded(number))

    def _decoded(self, number: int) -> NDArray[Any]:
        try:
            with TiffImagePlugin.TiffImageFile(self.path) as tiff:
                tiff.seek(number)
                page = np.asarray(tiff)
        except _BROKEN as error:
            raise InputError(f"Plane {number} of '{self.path}' is damaged and cannot be decoded.") from error
        if page.shape != self.page_shape or page.dtype.newbyteorder("=") != self.dtype:
            raise InputError(f"Plane {number} of '{self.path}' cannot be decoded without imagecodecs.")
        return page.astype(self.dtype)
