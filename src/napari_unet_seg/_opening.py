"""What a person wants of an image on disk, checked, and the layers that come of it; knows no Qt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_unet_seg._layers import METADATA
from napari_unet_seg._reader import LayerData, layers_of, read
from napari_unet_seg._space import layer_space
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import (
    ImageInfo,
    LazyArray,
    OpenedImage,
    image_stem,
    look_at,
    open_image,
)

UNKNOWN = "?"
"""Stands for an axis that neither the file nor the person has named yet."""
_LETTERS = "TZCYX"


@dataclass(frozen=True)
class OpenRequest:
    """An image that was looked at, and what of it is wanted.

    Attributes
    ----------
    axes
        A letter of T Z C Y X, or `UNKNOWN`, for each axis of `info.shape`.
    channel
        Number or name of the only channel wanted, "grey" for the luminance of colours, None for all.
    voxel_size_nm
        Of the axes Z, Y, X; an axis that is left out has an unknown size.
    parts
        First and last index wanted, both included and counted from 0, of some of the axes.
    """

    info: ImageInfo
    axes: str
    channel: int | str | None = None
    voxel_size_nm: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def length(self, axis: str) -> int:
        """Number of pixels, planes or channels along an axis; 1 where there is no such axis."""
        return self.info.shape[self.axes.index(axis)] if axis in self.axes else 1

    @property
    def plane_axis(self) -> str | None:
        """The axis whose planes can be chosen: Z, or T where there is no Z."""
        return next((axis for axis in "ZT" if axis in self.axes), None)

    @property
    def opened_shape(self) -> dict[str, int]:
        """Length of each axis of what will be opened."""
        shape = {axis: self.length(axis) for axis in _LETTERS if axis in self.axes}
        shape.update({axis: last - first + 1 for axis, (first, last) in self.parts.items() if axis in shape})
        if self.channel is not None:
            shape.pop("C", None)
        return shape

    @property
    def n_bytes(self) -> int:
        """Memory that everything wanted would take at once."""
        return math.prod(self.opened_shape.values()) * self.info.dtype.itemsize

    def check(self) -> None:
        """Say in one sentence what is still missing or wrong.

        Raises
        ------
        InputError
            It cannot be opened like this.
        """
        _check_axes(self)
        for axis, (first, last) in self.parts.items():
            length = self.length(axis)
            if first > last:
                raise InputError(
                    f"The part of {axis} runs from {first} back to {last}: choose an end after the start."
                )
            if first < 0 or last >= length:
                raise InputError(
                    f"{axis} has {length} positions, 0 to {length - 1}: choose a part inside them."
                )
        for axis, size in self.voxel_size_nm.items():
            if not (math.isfinite(size) and size > 0):
                raise InputError(
                    f"The voxel size of {axis} is {size:g} nm: give a positive number, or leave it empty."
                )


def _check_axes(request: OpenRequest) -> None:
    axes = request.axes
    for letter in _LETTERS:
        if axes.count(letter) > 1:
            raise InputError(f"Two axes are called {letter}: give each axis its own letter.")
    if UNKNOWN in axes:
        lengths = [str(n) for n, axis in zip(request.info.shape, axes, strict=True) if axis == UNKNOWN]
        which = (
            f"The axis of length {lengths[0]} has"
            if len(lengths) == 1
            else f"The axes of lengths {', '.join(lengths)} have"
        )
        raise InputError(f"{which} no name in the file: choose planes (Z), times (T) or channels (C).")
    if not {"Y", "X"} <= set(axes):
        raise InputError("A picture needs rows and columns: call one axis Y and another X.")


def request_as_found(info: ImageInfo) -> OpenRequest:
    """Everything, with the axes and the voxel size that the file names."""
    return OpenRequest(info, info.axes.replace("Q", UNKNOWN), voxel_size_nm=dict(info.voxel_size_nm or {}))


def layers_for(request: OpenRequest) -> list[LayerData]:
    """The layers that were asked for, lazy, lying where their pixels lie in the whole image.

    Raises
    ------
    InputError
        The request does not fit, or the file has changed since it was looked at.
    """
    request.check()
    opened = open_image(request.info.path, axes=request.axes, channel=request.channel)
    if (opened.info.shape, opened.info.dtype) != (request.info.shape, request.info.dtype):
        raise InputError(f"'{request.info.path}' has changed since it was looked at: choose it again.")
    opened = replace(opened, data=_part(opened, request), voxel_size_nm=dict(request.voxel_size_nm))
    name = image_stem(request.info.path.resolve())
    metadata = {METADATA: {"path": str(request.info.path), "opened": _as_opened(request)}}
    return [
        (data, {**options, "translate": _corner(request, opened.axes), "metadata": metadata}, kind)
        for data, options, kind in layers_of(opened, name=name)
    ]


def open_layers(
    path: Path | str,
    *,
    axes: str | None = None,
    channel: int | str | None = None,
    voxel_size_nm: Mapping[str, float] | None = None,
    parts: Mapping[str, tuple[int, int]] | None = None,
    viewer: Any = None,
) -> list[Any]:
    """Open an image file or a folder of sections in the viewer: exactly what the Open button does.

    Parameters
    ----------
    axes
        A letter of T Z C Y X for each axis of the image; None: as the file says.
    channel
        Number or name of the only one wanted, "grey" for the luminance of colours; None: all.
    voxel_size_nm
        Of the axes Z, Y, X in nm; one that is left out is unknown. None: as the file says.
    parts
        First and last index wanted, both included and counted from 0, of some of the axes; None: everything.
    viewer
        Where the layers go; None: the active one.

    Returns
    -------
    layers
        That were added, lazy: pixels are read when they are shown.

    Raises
    ------
    InputError
        It is no image, or cannot be opened like this; nothing was added.
    """
    import napari

    viewer = viewer or napari.current_viewer()
    if viewer is None:
        raise InputError("There is no viewer to open it in: give one, viewer=....")
    found = request_as_found(look_at(Path(path)))
    request = replace(
        found,
        axes=axes or found.axes,
        channel=channel,
        voxel_size_nm=found.voxel_size_nm if voxel_size_nm is None else voxel_size_nm,
        parts=parts or {},
    )
    return add_layers(viewer, layers_for(request))


def add_layers(viewer: Any, found: Iterable[LayerData]) -> list[Any]:
    """Add what `layers_for` made."""
    from napari.layers import Layer

    return [viewer.add_layer(Layer.create(*layer)) for layer in found]


def opening_script(request: OpenRequest) -> str:
    """Lines for napari's console that open the same."""
    found = request_as_found(request.info)
    wishes = [
        f"    {name}={value!r},"
        for name, value in _as_opened(request, tuple).items()
        if value != _as_opened(found, tuple)[name]
    ]
    return "\n".join(
        [
            "import napari_unet_seg as nus",
            "",
            "layers = nus.open_layers(",
            f"    {str(request.info.path)!r},",
            *wishes,
            ")",
            "",
        ]
    )


def layers_again(path: Path, opened: Mapping[str, Any]) -> list[LayerData]:
    """The layers of an image that was opened before.

    Parameters
    ----------
    opened
        What its layers' metadata say of how; empty: as found.

    Raises
    ------
    InputError
        It is no longer there, or another one.
    """
    if not opened:
        return read(str(path))
    parts = {axis: (first, last) for axis, (first, last) in opened["parts"].items()}
    return layers_for(OpenRequest(look_at(path), **{**opened, "parts": parts}))


def _as_opened(request: OpenRequest, part_type: type = list) -> dict[str, Any]:
    """Plain values for `layers_again`, or for a script."""
    return {
        "axes": request.axes,
        "channel": request.channel,
        "voxel_size_nm": dict(request.voxel_size_nm),
        "parts": {axis: part_type(part) for axis, part in request.parts.items()},
    }


def _part(opened: OpenedImage, request: OpenRequest) -> LazyArray:
    wanted = {axis: slice(first, last + 1) for axis, (first, last) in request.parts.items()}
    return opened.data.part(*(wanted.get(axis, slice(None)) for axis in opened.axes))


def _corner(request: OpenRequest, axes: str) -> tuple[float, ...]:
    """Where the first pixel lies in the world of the whole image."""
    axes = axes.replace("C", "")
    scale: tuple[float, ...] = layer_space(axes, request.voxel_size_nm)["scale"]
    return tuple(step * request.parts.get(axis, (0, 0))[0] for axis, step in zip(axes, scale, strict=True))


def in_words(info: ImageInfo) -> str:
    """What was found, in one line: kind, planes, size, channels, type."""
    lengths: dict[str, Any] = dict(zip(info.axes, info.shape, strict=True))
    parts = [info.kind]
    if info.n_planes > 1:
        parts.append(f"{info.n_planes:,} planes")
    parts.append(f"{lengths['Y']} × {lengths['X']} px")
    if info.is_rgb:
        parts.append("colour")
    elif info.n_channels > 1:
        parts.append(f"{info.n_channels} channels")
    return ", ".join([*parts, str(info.dtype)])


def bytes_in_words(n_bytes: int) -> str:
    """A size with its unit."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
