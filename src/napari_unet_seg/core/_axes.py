"""What the axes of an image mean to a 2D network: planes, channels; and reading one plane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_unet_seg.core.errors import InputError, SettingError
from napari_unet_seg.core.normalisation import ArrayLike

AXES = "TZCYXS"
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)
"""Grey of red, green, blue (ITU-R BT.709), as scikit-image's ``rgb2gray``."""


@dataclass(frozen=True)
class Layout:
    """An image whose axes are understood.

    Attributes
    ----------
    axes
        One letter of T Z C Y X per axis of the image; S (samples of RGB) is the channel axis too.
    shape
        Of the image.
    channels
        Which channels the network sees, or "grey": the luminance of red, green and blue.
    """

    axes: str
    shape: tuple[int, ...]
    channels: tuple[int, ...] | Literal["grey"]

    @property
    def plane_axes(self) -> str:
        """Axes that are walked plane by plane, in the image's order."""
        return "".join(axis for axis in self.axes if axis in "TZ")

    @property
    def plane_counts(self) -> tuple[int, ...]:
        """Length of each plane axis."""
        return tuple(self.shape[self.axes.index(axis)] for axis in self.plane_axes)

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(Y, X)."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]

    @property
    def n_planes(self) -> int:
        """How many planes the image has."""
        return math.prod(self.plane_counts)

    def planes(self) -> Iterator[tuple[int, ...]]:
        """The index of each plane along the plane axes."""
        return np.ndindex(*self.plane_counts)


def understand(
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    *,
    axes: str | None,
    channel: int | Literal["grey"] | None,
    in_channels: int,
) -> Layout:
    """Name the axes of an image and choose the channels that a network of `in_channels` sees.

    Raises
    ------
    InputError
        The image has no pixels or no grey values, its axes are unclear, or its channels do not fit the
        network.
    """
    shape = tuple(int(length) for length in shape)
    _check_pixels(shape, np.dtype(dtype))
    axes = guess_axes(shape, np.dtype(dtype)) if axes is None else check_axes(axes, shape)
    return Layout(axes, shape, _choose_channels(axes, shape, channel, in_channels))


def guess_axes(shape: tuple[int, ...], dtype: npt.DTypeLike) -> str:
    """Axes of an array that says nothing: Y X, one leading axis is Z, a last one of 3 or 4 bytes is colour.

    Raises
    ------
    InputError
        More than one axis is unknown.
    """
    colour = "S" if len(shape) > 2 and looks_like_colour(shape, dtype) else ""
    n_leading = len(shape) - len(colour) - 2
    if n_leading < 0 or n_leading > 1:
        raise _unclear(shape)
    return "Z" * n_leading + "YX" + colour


def _unclear(shape: tuple[int, ...]) -> InputError:
    if len(shape) < 2:
        return InputError(f"The image has shape {shape}: a picture needs at least two axes, Y and X.")
    return SettingError(
        f"The image has {len(shape)} axes of shape {shape}: say what they are, "
        "by the letters T Z C Y X, such as TZYX.",
        "axes",
        "TZYX",
    )


def looks_like_colour(shape: tuple[int, ...], dtype: npt.DTypeLike) -> bool:
    """Whether the last axis is red, green, blue (and alpha) of an 8 or 16 bit picture."""
    return shape[-1] in (3, 4) and np.dtype(dtype) in (np.uint8, np.uint16) and min(shape[-3:-1]) > 4


def check_axes(axes: str, shape: tuple[int, ...]) -> str:
    """The axes in capitals.

    Raises
    ------
    InputError
        A letter is unknown or named twice, Y or X is missing, or there are not as many as the image has axes.
    """
    letters = axes.upper()
    if any(letter not in AXES for letter in letters) or len(set(letters)) != len(letters):
        raise InputError(f"Axes '{axes}' are not clear: name each axis once, by the letters T Z C Y X.")
    if "Y" not in letters or "X" not in letters or ("C" in letters and "S" in letters):
        raise InputError(
            f"Axes '{axes}' are not clear: Y and X are needed, and at most one channel axis, C or S."
        )
    if len(letters) != len(shape):
        raise InputError(
            f"Axes '{axes}' name {len(letters)} axes, but the image has {len(shape)}, of shape {shape}."
        )
    return letters


def _check_pixels(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if math.prod(shape) == 0:
        raise InputError(f"The image has no pixels (shape {shape}): check the file or the crop.")
    if dtype.kind not in "buif":
        raise InputError(f"The image holds {dtype} values: grey values must be integers or real numbers.")


def _choose_channels(
    axes: str, shape: tuple[int, ...], channel: int | Literal["grey"] | None, in_channels: int
) -> tuple[int, ...] | Literal["grey"]:
    axis = next((axes.index(letter) for letter in "CS" if letter in axes), None)
    n_channels = 1 if axis is None else shape[axis]
    if channel is not None and in_channels != 1:
        raise InputError(
            f"The model sees {in_channels} channels at once: leave the choice of one channel out."
        )
    if channel == "grey":
        return _grey(n_channels)
    if channel is not None:
        if not 0 <= channel < n_channels:
            raise InputError(f"Channel {channel} does not exist: the image has {n_channels}, counted from 0.")
        return (channel,)
    if in_channels == n_channels or ("S" in axes and (n_channels, in_channels) == (4, 3)):
        return tuple(range(in_channels))
    raise _unfitting(n_channels, in_channels)


def _grey(n_channels: int) -> tuple[int, ...] | Literal["grey"]:
    if n_channels == 1:
        return (0,)
    if n_channels in (3, 4):
        return "grey"
    raise InputError(
        f"Grey needs red, green and blue, but the image has {n_channels} channels: choose one by number."
    )


def _unfitting(n_channels: int, in_channels: int) -> SettingError:
    if in_channels == 1 and n_channels in (3, 4):
        return SettingError(
            f"The image has {n_channels} channels (RGB?) and the model takes 1: "
            f"choose grey, or one of the channels 0 to {n_channels - 1}.",
            "channel",
            "grey",
        )
    if in_channels == 1:
        return SettingError(
            f"The image has {n_channels} channels and the model takes 1: choose one, 0 to {n_channels - 1}.",
            "channel",
            "0",
        )
    return SettingError(
        f"The image has {n_channels} channel(s) and the model takes {in_channels}: "
        "choose another model, or say which axis holds the channels, such as CYX.",
        "axes",
        "CYX",
    )


class PlaneView:
    """One plane of an image as a lazy (C, Y, X) array: slices are read when they are asked for."""

    def __init__(self, image: ArrayLike, layout: Layout, plane: tuple[int, ...]) -> None:
        self._image, self._layout = image, layout
        self._plane = dict(zip(layout.plane_axes, plane, strict=True))
        n_channels = 1 if layout.channels == "grey" else len(layout.channels)
        self.shape = (n_channels, *layout.plane_shape)
        self.dtype = _read_dtype(np.dtype(image.dtype), is_mixed=layout.channels == "grey")

    def __getitem__(self, key: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        """(C, rows, columns); the first slice must take all channels."""
        axes, channels = self._layout.axes, self._layout.channels
        one = (
            slice(channels[0], channels[0] + 1) if len(channels) == 1 and channels != "grey" else slice(None)
        )
        chosen: dict[str, int | slice] = {"Y": key[1], "X": key[2], "C": one, "S": one, **self._plane}
        part = np.asarray(self._image[tuple(chosen[axis] for axis in axes)])
        kept = "".join(axis for axis in axes if axis not in self._plane).replace("S", "C")
        if "C" not in kept:
            part, kept = part[np.newaxis], "C" + kept
        part = part.transpose([kept.index(axis) for axis in "CYX"])
        if channels == "grey":
            return _luminance(part, self.dtype)
        if part.shape[0] != len(channels):
            part = part[list(channels)]
        return part.astype(self.dtype, copy=False)


def _read_dtype(dtype: np.dtype[Any], *, is_mixed: bool) -> np.dtype[Any]:
    """Truth values become 0 and 1, mixed channels real numbers; everything is in the machine's byte order."""
    if is_mixed:
        is_wide = dtype.itemsize > 2 and dtype.newbyteorder("=") != np.float32
        return np.dtype(np.float64 if is_wide else np.float32)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def _luminance(part: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """(1, Y, X) from (3 or 4, Y, X)."""
    return np.tensordot(_LUMINANCE.astype(dtype), part[:3].astype(dtype), axes=1)[np.newaxis]
