"""Grey values to the range that a network knows: statistics per channel of one plane, then one affine map.

The statistics are taken once per plane, before its first tile, so that every tile is mapped alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import ceil, sqrt
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from napari_unet_seg.core.errors import InputError


class NoFinitePixelError(InputError):
    """A channel of a plane holds nothing but NaN and infinity."""


NormalisationKind = Literal["percentile", "min-max", "zero-mean", "max-norm", "none"]

LARGEST_WHOLE_PLANE_PX = 16_000_000
"""Planes in memory up to this size are measured pixel by pixel; larger ones from a sample."""
SAMPLE_PX = 1_000_000
"""Most pixels of a channel that the sample of a large or lazy plane holds."""
_FEW_GREY_VALUES = 16
"""A mask or a drawing has no more, a micrograph has."""
_NOTABLE_SHARE = 0.01
"""Of the pixels at the largest grey value; with fewer it does not matter whether it is a drawing."""


class ArrayLike(Protocol):
    """What is asked of an image: a shape, a dtype, and reading by slices (NumPy, zarr, dask, lazy files)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along each axis."""

    @property
    def dtype(self) -> Any:
        """Type of the pixels."""

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Normalisation:
    """How grey values are mapped before the network sees them.

    Attributes
    ----------
    kind
        ``percentile``: the percentiles `low` and `high` become 0 and 1, without clipping; ``min-max``: the
        smallest and largest value become 0 and 1; ``zero-mean``: mean 0 and standard deviation 1;
        ``max-norm``: divided by the largest length of a pixel's channel vector; ``none``: as they are.
    low, high
        Percentiles, only used by ``percentile``.
    """

    kind: NormalisationKind = "percentile"
    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        if self.kind not in get_args(NormalisationKind):
            kinds = ", ".join(get_args(NormalisationKind))
            raise InputError(f"Normalisation '{self.kind}' is unknown: choose one of {kinds}.")
        if not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"Normalisation percentiles {self.low:g}, {self.high:g} must satisfy 0 <= low < high <= 100."
            )

    def to_json(self) -> dict[str, str | float]:
        """The values as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Normalisation:
        """The inverse of `to_json`; raises InputError when an entry is unknown or of the wrong type."""
        try:
            return cls(
                kind=values["kind"], low=float(values.get("low", 1.0)), high=float(values.get("high", 99.8))
            )
        except (KeyError, TypeError, ValueError) as cause:
            raise InputError(
                f"Normalisation {values!r} cannot be read: it needs 'kind', 'low', 'high'."
            ) from cause


@dataclass(frozen=True)
class PlaneStatistics:
    """The affine map of one plane: ``(value - offset) / scale``, per channel.

    Attributes
    ----------
    offset, scale
        One value per channel; a scale is never 0, and negative where the contrast is inverted.
    fill
        Per channel the median of the finite values: what NaN and infinite pixels are replaced by.
    n_not_finite
        How many NaN or infinite values were met while measuring (in the sample, for large planes).
    saturated
        Share of the finite pixels measured that have the largest grey value, of the channel with most; 0 in a
        drawing of a few grey values.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    fill: tuple[float, ...]
    n_not_finite: int = 0
    saturated: float = 0.0

    def to_json(self) -> dict[str, list[float]]:
        """What is stored with the output."""
        return {"offset": list(self.offset), "scale": list(self.scale)}


def plane_statistics(
    plane: ArrayLike, normalisation: Normalisation = Normalisation(), *, invert: bool = False
) -> PlaneStatistics:
    """Measure one plane.

    Parameters
    ----------
    plane
        (C, Y, X). A NumPy array of up to 16 MP per channel is measured as a whole; a larger or lazy one from
        a fixed strided sample of at most 1 MP per channel, so that it never has to fit the memory.
    normalisation
        What to measure.
    invert
        Bright becomes dark: the statistics are those of the inverted plane.

    Raises
    ------
    NoFinitePixelError
        When a channel has no finite pixel.
    InputError
        When the plane has no pixels.
    """
    sample = _sample(plane)
    channels = [_finite(channel, index) for index, channel in enumerate(sample)]
    n_not_finite = sample.size - sum(channel.size for channel in channels)
    may_be_missing = n_not_finite > 0 or (sample is not plane and sample.dtype.kind == "f")
    fills = tuple(float(np.median(channel)) if may_be_missing else 0.0 for channel in channels)
    saturated = max(_saturated_share(channel) for channel in channels)
    mirrors = tuple(_mirror(channel) for channel in channels) if invert else (0.0,) * len(channels)
    if invert:
        channels = [
            mirror - channel.astype(np.float64) for mirror, channel in zip(mirrors, channels, strict=True)
        ]
    maps = _affine_maps(channels, sample, normalisation)
    sign = -1.0 if invert else 1.0
    return PlaneStatistics(
        offset=tuple(mirror + sign * offset for mirror, (offset, _) in zip(mirrors, maps, strict=True)),
        scale=tuple(sign * scale for _, scale in maps),
        fill=fills,
        n_not_finite=n_not_finite,
        saturated=saturated,
    )


def apply(array: npt.NDArray[Any], statistics: PlaneStatistics) -> npt.NDArray[np.float32]:
    """Map `array` (C, ...) of the measured plane; NaN and infinite values become the plane's median first.

    A new float32 array of the same shape.
    """
    shape = (-1,) + (1,) * (array.ndim - 1)
    work = array.astype(_working_dtype(array.dtype))
    if array.dtype.kind == "f" and not np.isfinite(work).all():
        fill = np.broadcast_to(np.asarray(statistics.fill, work.dtype).reshape(shape), work.shape)
        work = np.where(np.isfinite(work), work, fill)
    work -= np.asarray(statistics.offset, work.dtype).reshape(shape)
    work /= np.asarray(statistics.scale, work.dtype).reshape(shape)
    return work.astype(np.float32, copy=False)


def _working_dtype(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Float32 holds 8 and 16 bit integers exactly; wider numbers lose their small differences in it."""
    return np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64


def _sample(plane: ArrayLike) -> npt.NDArray[Any]:
    _, height, width = plane.shape
    if isinstance(plane, np.ndarray) and height * width <= LARGEST_WHOLE_PLANE_PX:
        return plane
    step = max(1, ceil(sqrt(height * width / SAMPLE_PX)))
    while ceil(height / step) * ceil(width / step) > SAMPLE_PX:
        step += 1
    return np.asarray(plane[:, ::step, ::step])


def _finite(channel: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
    if channel.size == 0:
        raise InputError(f"The image has no pixels (shape {channel.shape}): check the file or the crop.")
    if channel.dtype.kind != "f":
        return channel.ravel()
    values: npt.NDArray[Any] = channel[np.isfinite(channel)]
    if values.size == 0:
        raise NoFinitePixelError(
            f"Channel {index} of a plane has no finite pixel (all NaN or infinite): leave it out."
        )
    return values


def _saturated_share(channel: npt.NDArray[Any]) -> float:
    share = float(np.mean(channel == channel.max()))
    if share < _NOTABLE_SHARE:  # of most images; telling the grey values apart takes longer than all the rest
        return share
    n_values = np.unique(channel[:: ceil(channel.size / SAMPLE_PX)]).size
    return share if n_values > _FEW_GREY_VALUES else 0.0


def _mirror(channel: npt.NDArray[Any]) -> float:
    """The value m for which m - x is the inverted contrast of x."""
    if channel.dtype.kind in "ui" and channel.dtype.itemsize <= 4:  # float64 rounds longer ones
        return float(np.iinfo(channel.dtype).max)
    return float(channel.min()) + float(channel.max())


def _affine_maps(
    channels: list[npt.NDArray[Any]], sample: npt.NDArray[Any], normalisation: Normalisation
) -> list[tuple[float, float]]:
    """(offset, scale) per channel."""
    if normalisation.kind == "max-norm":
        return [(0.0, _largest_norm(channels, sample))] * len(channels)
    return [_affine_map(channel, normalisation) for channel in channels]


def _affine_map(channel: npt.NDArray[Any], normalisation: Normalisation) -> tuple[float, float]:
    if normalisation.kind == "none":
        return 0.0, 1.0
    if normalisation.kind == "zero-mean":
        return float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64)) or 1.0
    if normalisation.kind == "percentile":
        low, high = (
            float(value) for value in np.percentile(channel, [normalisation.low, normalisation.high])
        )
        if high > low:
            return low, high - low
    # min-max, and a plane so empty that both percentiles fall on one value
    smallest, largest = float(channel.min()), float(channel.max())
    return smallest, (largest - smallest) or 1.0


def _largest_norm(channels: list[npt.NDArray[Any]], sample: npt.NDArray[Any]) -> float:
    """The largest length of a pixel's vector of channels; per channel where pixels are missing."""
    if all(channel.size == sample[0].size for channel in channels):
        squares = sum(np.square(channel, dtype=np.float64) for channel in channels)
        return float(np.sqrt(np.max(squares))) or 1.0
    return sqrt(sum(float(np.abs(channel).max()) ** 2 for channel in channels)) or 1.0
