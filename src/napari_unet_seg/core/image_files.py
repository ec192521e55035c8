"""Images on disk: look at them, open them lazily, pair them by name, write results.

Reads TIFF, OME-TIFF, ImageJ hyperstacks, PNG and folders of sections. Knows nothing of napari.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core import _tiff_metadata as meta
from napari_unet_seg.core._lazy import FileContent, LazyArray, Source
from napari_unet_seg.core._ome_writer import (
    TIFF_ENDINGS,
    check_output,
    replaced_when_complete,
    write_float_map,
    write_labels,
    write_probabilities,
)
from napari_unet_seg.core._pillow import read_png_header
from napari_unet_seg.core._sections import (
    SECTION_ENDINGS,
    Sections,
    natural_order,
    section_files,
)
from napari_unet_seg.core._tiff import ome_xml_of, read_header
from napari_unet_seg.core.errors import InputError, NotOneStackError, SettingError

__all__ = [
    "SECTION_ENDINGS",
    "TIFF_ENDINGS",
    "ImageInfo",
    "LazyArray",
    "OpenedImage",
    "check_output",
    "image_stem",
    "look_at",
    "natural_order",
    "open_image",
    "pair_by_name",
    "read_provenance",
    "replaced_when_complete",
    "section_files",
    "write_float_map",
    "write_labels",
    "write_probabilities",
]

PathLike = str | os.PathLike[str]
AXES = "TZCYX"
_RGB_NAMES = ("red", "green", "blue", "alpha")
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721])  # ITU-R BT.709, as skimage.color.rgb2gray
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MAGIC = b"\x89PNG"


@dataclass(frozen=True)
class ImageInfo:
    """What an image file or a folder of sections was found to hold; Y and X are the last axes.

    `axes` names each axis of `shape` with one of T Z C Y X, or Q where the file does not say.
    `voxel_size_nm` has the axes whose size is known, None if there is none.
    `n_planes` counts (Y, X) planes without the channels. `note` is a sentence for the person, or empty.
    `content` is "labels", "probabilities" or "map" in files written by this package, else "image".
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    voxel_size_nm: dict[str, float] | None
    n_planes: int
    channel_names: tuple[str, ...]
    is_rgb: bool = False
    note: str = ""
    content: str = "image"

    @property
    def n_channels(self) -> int:
        """Number of channels; 1 without a channel axis."""
        return self.shape[self.axes.index("C")] if "C" in self.axes else 1


@dataclass(frozen=True)
class OpenedImage:
    """An image whose pixels are read when they are asked for; `axes` and the rest describe `data`."""

    info: ImageInfo
    data: LazyArray
    axes: str
    voxel_size_nm: dict[str, float] | None
    channel_names: tuple[str, ...]
    is_rgb: bool


def look_at(path: PathLike) -> ImageInfo:
    """Read the headers of an image file or a folder of sections.

    Raises
    ------
    InputError
        The file is missing, empty, unreadable, not an image, truncated, has no pixels, or needs a codec that
        is not installed; the files of the folder do not make one stack.
    """
    return _found(Path(path))[0]


def open_image(
    path: PathLike,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    planes: slice | None = None,
) -> OpenedImage:
    """Open an image lazily; axes come out with Y and X last.

    Parameters
    ----------
    path : path
        TIFF, OME-TIFF, ImageJ hyperstack, PNG, or a folder of them.
    axes : str, optional
        Names for the axes as `look_at` lists them, each one of T Z C Y X.
    channel : int, str, optional
        Number (from 0) or name of the one channel wanted, or "grey" for the luminance of a colour image.
    planes : slice, optional
        Part of the Z axis (of T where there is no Z).

    Raises
    ------
    InputError
        As `look_at`; more than one axis is unknown and `axes` is not given, or does not fit; no such channel
        or plane.
    """
    info, source = _found(Path(path))
    names = _named_axes(info, axes)
    order = [*(i for i, a in enumerate(names) if a not in "YX"), names.index("Y"), names.index("X")]
    opened = OpenedImage(
        info=info,
        data=LazyArray.of(source).transposed(order),
        axes="".join(names[i] for i in order),
        voxel_size_nm=info.voxel_size_nm,
        channel_names=info.channel_names if "C" in names else (),
        is_rgb=info.is_rgb and "C" in names,
    )
    if planes is not None:
        opened = _with_planes(opened, planes)
    return opened if channel is None else _with_channel(opened, channel)


def _found(path: Path) -> tuple[ImageInfo, Source]:
    """The description of an image and its pixels, axes ordered as described."""
    if path.is_dir():
        return _found_folder(path)
    magic = _first_bytes(path)
    if magic.startswith(_TIFF_MAGIC):
        return _described(path, read_header(path))
    if magic.startswith(_PNG_MAGIC):
        return _described(path, read_png_header(path))
    raise InputError(f"'{path}' is not an image that can be read: TIFF, OME-TIFF and PNG can.")


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            magic = file.read(8)
    except FileNotFoundError as error:
        raise InputError(f"'{path}' does not exist: check the name.") from error
    except PermissionError as error:
        raise InputError(f"'{path}' may not be read: ask for permission, or copy it.") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror}.") from error
    if not magic:
        raise InputError(f"'{path}' is empty (0 bytes): copy it again.")
    return magic


def _described(path: Path, found: FileContent) -> tuple[ImageInfo, Source]:
    """Rename the stored axes to T Z C Y X (Q: unknown), Y and X last."""
    names = _tidy_axes(found.axes)
    order = [*(i for i, a in enumerate(names) if a not in "YX"), names.index("Y"), names.index("X")]
    source = found.source if order == sorted(order) else _Transposed(found.source, tuple(order))
    axes = "".join(names[i] for i in order)
    is_rgb = found.is_rgb and "C" in axes
    n_planes = math.prod(n for n, a in zip(source.shape, axes, strict=True) if a not in "CYX")
    info = ImageInfo(
        path=path,
        kind=found.kind,
        shape=source.shape,
        axes=axes,
        dtype=source.dtype,
        voxel_size_nm={a: found.voxel_size_nm[a] for a in "ZYX" if a in found.voxel_size_nm and a in axes}
        or None,
        n_planes=n_planes,
        channel_names=_RGB_NAMES[: source.shape[axes.index("C")]] if is_rgb else found.channel_names,
        is_rgb=is_rgb,
        note=found.note,
        content=found.content,
    )
    return info, source


def _tidy_axes(stored: str) -> str:
    names = stored if "C" in stored else stored.replace("S", "C")
    names = "".join(a if a in AXES else "Q" for a in names)
    return names.replace("Q", "Z") if names.count("Q") == 1 and "Z" not in names else names


@dataclass(frozen=True)
class _Transposed:
    """A source with its axes in another order."""

    source: Source
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.source.shape[i] for i in self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        stored = [ranges[self.order.index(i)] for i in range(len(self.order))]
        return self.source.read(stored).transpose(self.order)


def _found_folder(folder: Path) -> tuple[ImageInfo, Source]:
    if (folder / ".zattrs").exists() or (folder / "zarr.json").exists():
        raise InputError(f"'{folder}' is an OME-Zarr store, which cannot be read yet: save it as OME-TIFF.")
    files = section_files(folder)
    first, _ = _found(files[0])
    if set(first.axes) - set("CYX"):
        raise NotOneStackError(
            f"The folder '{folder}' holds stacks, not sections "
            f"('{files[0].name}' has {first.n_planes} planes): take its files as separate images."
        )
    for file in files[1:]:
        _refuse_odd_section(folder, first, _found(file)[0])
    source = Sections(tuple(files), first.shape, first.dtype, lambda path: _found(path)[1])
    info = replace(
        first,
        path=folder,
        kind="folder of sections",
        shape=source.shape,
        axes=f"Z{first.axes}",
        n_planes=len(files),
    )
    return info, source


def _refuse_odd_section(folder: Path, first: ImageInfo, other: ImageInfo) -> None:
    if (other.shape, other.axes, other.dtype) == (first.shape, first.axes, first.dtype):
        return
    raise NotOneStackError(
        f"The folder '{folder}' is not one stack: '{other.path.name}' is {_size(other)}, but "
        f"'{first.path.name}' is {_size(first)}; take its files as separate images."
    )


def _size(info: ImageInfo) -> str:
    return f"{' × '.join(map(str, info.shape))} {info.dtype}"


def _named_axes(info: ImageInfo, axes: str | None) -> str:
    if axes is None:
        if "Q" in info.axes:
            raise SettingError(
                f"'{info.path}' has {len(info.shape)} axes ({_size(info)}) and does not say which they are: "
                "name them by the letters T Z C Y X, such as TZYX, or save it as OME-TIFF.",
                "axes",
                "TZYX",
            )
        return info.axes
    names = axes.upper()
    if len(names) != len(info.shape):
        raise InputError(
            f"The axes '{axes}' name {len(names)} axes, but '{info.path}' has {len(info.shape)}."
        )
    if set(names) - set(AXES) or len(set(names)) != len(names) or not {"Y", "X"} <= set(names):
        raise InputError(f"The axes '{axes}' must be different letters of T Z C Y X, among them Y and X.")
    return names


def _with_planes(opened: OpenedImage, planes: slice) -> OpenedImage:
    axis = next((a for a in "ZT" if a in opened.axes), None)
    if axis is None:
        raise InputError(f"'{opened.info.path}' has one plane: none can be chosen.")
    at = opened.axes.index(axis)
    part = opened.data.part(*[slice(None)] * at, planes)
    if not part.shape[at]:
        n = opened.data.shape[at]
        raise InputError(f"'{opened.info.path}' has planes 0 to {n - 1}: the chosen part is empty.")
    return replace(opened, data=part)


def _with_channel(opened: OpenedImage, channel: int | str) -> OpenedImage:
    if "C" not in opened.axes:
        if channel in (0, "0", "grey"):
            return opened
        raise InputError(f"'{opened.info.path}' has one channel only: there is no channel '{channel}'.")
    at = opened.axes.index("C")
    if channel == "grey" and "grey" not in opened.channel_names:
        if not opened.is_rgb:
            raise InputError(f"'{opened.info.path}' is not a colour image: {_channel_choice(opened)}.")
        data = LazyArray.of(_Grey(opened.data, at))
    else:
        data = opened.data.at(at, _channel_number(opened, channel))
    axes = opened.axes.replace("C", "")
    return replace(opened, data=data, axes=axes, channel_names=(), is_rgb=False)


def _channel_number(opened: OpenedImage, channel: int | str) -> int:
    if channel in opened.channel_names:
        return opened.channel_names.index(str(channel))
    n_channels = opened.data.shape[opened.axes.index("C")]
    try:
        number = int(channel)
    except ValueError:
        number = -1
    if not 0 <= number < n_channels:
        raise InputError(f"'{opened.info.path}' has no channel '{channel}': {_channel_choice(opened)}.")
    return number


def _channel_choice(opened: OpenedImage) -> str:
    n_channels = opened.data.shape[opened.axes.index("C")]
    names = f" ({', '.join(opened.channel_names)})" if opened.channel_names else ""
    return f"choose channel 0 to {n_channels - 1}{names}"


@dataclass(frozen=True)
class _Grey:
    """The luminance of a colour image, computed for what is read."""

    colour: LazyArray
    channel_axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for i, n in enumerate(self.colour.shape) if i != self.channel_axis)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.colour.dtype

    def read(self, ranges: Sequence[range]) -> NDArray[Any]:
        keys: list[slice] = [slice(r.start, r.stop, r.step) for r in ranges]
        keys.insert(self.channel_axis, slice(0, 3))
        grey = np.tensordot(_LUMINANCE, self.colour[tuple(keys)], axes=(0, self.channel_axis))
        return (grey if self.dtype.kind == "f" else np.rint(grey)).astype(self.dtype)


def read_provenance(path: PathLike) -> dict[str, Any]:
    """How a result of this package was made, as its writer was told; empty for other files.

    Raises
    ------
    InputError
        As `look_at`.
    """
    path = Path(path)
    if not _first_bytes(path).startswith(_TIFF_MAGIC):
        return {}
    provenance = meta.our_notes(ome_xml_of(path)).get("provenance", {})
    return dict(provenance)


def image_stem(path: PathLike) -> str:
    """A file's name without .ome.tif(f), .tif(f), .png or .ome.zarr; other names stay whole."""
    return re.sub(r"(\.ome\.tiff?|\.tiff?|\.png|\.ome\.zarr)$", "", Path(path).name, flags=re.IGNORECASE)


def pair_by_name(images: PathLike, labels: PathLike, *, may_be_same: bool = False) -> list[tuple[Path, Path]]:
    """Pair image files with label files of the same stem, or `x.png` with `x_mask.png`.

    Two files are one pair whatever their names. `labels` may be the folder `images` itself, then masks are
    told by their names; with `may_be_same`, each file of such a folder without masks is its own partner.

    Raises
    ------
    InputError
        Nothing pairs, something has no partner, or a stem occurs twice.
    """
    images, labels = Path(images), Path(labels)
    for path in (images, labels):
        if not path.exists():
            raise InputError(f"'{path}' does not exist: check the name.")
    if images.is_dir() != labels.is_dir():
        raise InputError(f"'{images}' and '{labels}' cannot be paired: give two files, or two folders.")
    if not images.is_dir():
        return [(images, labels)]
    of_image, of_labels = _by_stem(images), _by_stem(labels)
    has_masks = any(stem.endswith("_mask") for stem in of_labels)
    if images.resolve() == labels.resolve() and (has_masks or not may_be_same):
        of_image = {stem: p for stem, p in of_image.items() if not stem.endswith("_mask")}
        of_labels = {stem: p for stem, p in of_labels.items() if stem.endswith("_mask")}
    return _paired(of_image, of_labels, images, labels)


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in section_files(folder):
        stem = image_stem(file)
        if stem in found:
            raise InputError(
                f"'{found[stem].name}' and '{file.name}' in '{folder}' have the same stem: rename one."
            )
        found[stem] = file
    return found


def _paired(
    of_image: Mapping[str, Path], of_labels: Mapping[str, Path], images: Path, labels: Path
) -> list[tuple[Path, Path]]:
    partner = {stem: stem if stem in of_labels else f"{stem}_mask" for stem in of_image}
    lonely = [of_image[stem].name for stem, other in partner.items() if other not in of_labels]
    if lonely:
        raise InputError(f"{_listed(lonely)} in '{images}' has no labels of the same name in '{labels}'.")
    unused = [p.name for stem, p in of_labels.items() if stem not in set(partner.values())]
    if unused:
        raise InputError(f"{_listed(unused)} in '{labels}' has no image of the same name in '{images}'.")
    if not partner:
        raise InputError(f"No image in '{images}' has labels in '{labels}': names must match.")
    return [(of_image[stem], of_labels[other]) for stem, other in partner.items()]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
