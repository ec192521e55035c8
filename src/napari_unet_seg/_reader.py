"""Opens TIFF files and folders of sections in napari: lazily, with voxel size, units and axis names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._space import layer_space
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import (
    SECTION_ENDINGS,
    TIFF_ENDINGS,
    LazyArray,
    OpenedImage,
    image_stem,
    look_at,
    open_image,
)

LayerData = tuple[Any, dict[str, Any], str]

_COLOURS = ("magenta", "green", "cyan", "yellow", "red", "blue")
_RGB_COLOURS = {"red": "red", "green": "green", "blue": "blue", "alpha": "gray"}
_MAX_LABELS_IN_MEMORY = 2**30
_SAMPLE_SIDE_PX = 1024


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """The reader, when `path` looks like a TIFF or a folder of sections; contents are not looked at yet."""
    paths = _as_list(path)
    return read if paths and all(_may_be_ours(p) for p in paths) else None


def read(path: str | Sequence[str]) -> list[LayerData]:
    """The layers of one or several files, one per channel, pixels not yet read.

    Raises
    ------
    InputError
        A file cannot be used; the sentence says why.
    """
    return [layer for p in _as_list(path) for layer in layers_of(opened_as_found(p), name=image_stem(p))]


def opened_as_found(path: Path) -> OpenedImage:
    """The image with axes that the file does not name taken as planes, then time."""
    info = look_at(path)
    if "Q" not in info.axes:
        return open_image(path)
    free = [axis for axis in "ZTC" if axis not in info.axes]
    if info.axes.count("Q") > len(free):
        raise InputError(f"'{path}' has {len(info.shape)} axes: napari-unet-seg knows T, Z, C, Y and X only.")
    letters = iter(reversed(free[: info.axes.count("Q")]))
    return open_image(path, axes="".join(next(letters) if axis == "Q" else axis for axis in info.axes))


def layers_of(opened: OpenedImage, *, name: str) -> list[LayerData]:
    """One layer per channel, an 8-bit colour image as one rgb layer, a labels file of ours as labels."""
    space = layer_space(opened.axes.replace("C", ""), opened.voxel_size_nm)
    metadata = {"napari-unet-seg": {"path": str(opened.info.path)}}
    common = {**space, "metadata": metadata}
    if opened.info.content == "labels":
        return [(_labels(opened.data), {"name": name, **common}, "labels")]
    if "C" not in opened.axes:
        return [(opened.data, {"name": name, **_look(opened.data), **common}, "image")]
    at = opened.axes.index("C")
    names = _channel_names(opened)
    if opened.is_rgb and opened.data.dtype == np.uint8 and names == opened.channel_names:
        last = [*(i for i in range(opened.data.ndim) if i != at), at]
        return [(opened.data.transposed(last), {"name": name, "rgb": True, **common}, "image")]
    channels = [opened.data.at(at, number) for number in range(opened.data.shape[at])]
    return [
        (
            data,
            {"name": f"{name} · {label}", "colormap": colour, **_blended(number), **_look(data), **common},
            "image",
        )
        for number, (data, label, colour) in enumerate(zip(channels, names, _colours(opened), strict=True))
    ]


def contrast_limits(data: LazyArray) -> tuple[float, float]:
    """Limits from the type (8 bit), or from the middle of the middle plane; nothing else is read."""
    if data.dtype in (np.uint8, np.bool_):
        return (0.0, 255.0 if data.dtype == np.uint8 else 1.0)
    sample = _middle(data)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    return (low, high if high > low else low + 1.0)


def _middle(data: LazyArray) -> NDArray[Any]:
    plane = tuple(n // 2 for n in data.shape[:-2])
    starts = [max(0, (n - _SAMPLE_SIDE_PX) // 2) for n in data.shape[-2:]]
    return np.asarray(data[(*plane, *(slice(s, s + _SAMPLE_SIDE_PX) for s in starts))])


def _look(data: LazyArray) -> dict[str, Any]:
    return {"contrast_limits": contrast_limits(data)}


def _labels(data: LazyArray) -> Any:
    """In memory, so that a person can paint, unless that would be too much."""
    return np.asarray(data) if data.nbytes <= _MAX_LABELS_IN_MEMORY else data


def _blended(number: int) -> dict[str, str]:
    return {"blending": "additive" if number else "translucent_no_depth"}


def _channel_names(opened: OpenedImage) -> Sequence[str]:
    """The file's own where there is one per channel; the axis may be called C by the person only."""
    n_channels = opened.data.shape[opened.axes.index("C")]
    if len(opened.channel_names) == n_channels:
        return opened.channel_names
    return [f"channel {number}" for number in range(n_channels)]


def _colours(opened: OpenedImage) -> list[str]:
    n_channels = opened.data.shape[opened.axes.index("C")]
    if opened.is_rgb and len(opened.channel_names) == n_channels:
        return [_RGB_COLOURS[name] for name in opened.channel_names]
    if opened.info.content == "probabilities" or n_channels == 1:
        return ["gray"] * n_channels
    return [_COLOURS[number % len(_COLOURS)] for number in range(n_channels)]


def _as_list(path: str | Sequence[str]) -> list[Path]:
    return [Path(path)] if isinstance(path, str) else [Path(p) for p in path]


def _may_be_ours(path: Path) -> bool:
    if path.is_dir():
        return not path.name.lower().endswith(".zarr") and any(
            p.suffix.lower() in SECTION_ENDINGS for p in path.iterdir()
        )
    return path.name.lower().endswith(TIFF_ENDINGS)
