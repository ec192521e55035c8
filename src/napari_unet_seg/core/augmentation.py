"""Random variation of training patches: one coordinate map per patch, then grey values; no choice of places.

All geometry (flip, rotation, scale, shear, shift, elastic deformation) is composed into one map from patch
pixels to source positions, so that the image is interpolated once, and labels, mask and weights move with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core.errors import InputError

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Shape = tuple[int, int]

MAX_ELASTIC_SIGMA_PER_SPACING = 0.1  # a coarse grid displaced by more than this begins to fold onto itself


@dataclass(frozen=True)
class AugmentSettings:
    """How far a training patch may differ from what the microscope saw.

    Attributes
    ----------
    flips, rotate90
        Mirror each axis with probability 1/2; turn by 0, 90, 180 or 270 degrees. Grey values stay exact.
    warp_probability
        Share of patches that get the free geometry below (rotation, scale, shear, elastic). The others keep
        their pixels uninterpolated, as the network meets them in prediction.
    rotation_degrees
        Free rotation, uniform within ± this.
    shift_px
        Largest distance per axis, in whole pixels, between the drawn centre and the middle of the patch. The
        drawn pixel always stays inside the patch.
    scale_range
        Smallest and largest magnification (2 shows objects twice as large), drawn log-uniformly. Shrinking
        averages over the area, as rescaling before prediction does.
    shear
        Largest shear: displacement per pixel of distance, along x.
    elastic_sigma_px
        Standard deviation of the displacement of each control point, per axis (0 = no deformation). On a grid
        finer than 10 times this, it is reduced to a tenth of the spacing, so that the image never folds.
    elastic_grid
        Control points per axis, from edge to edge of the image patch.
    elastic_spacing_px
        Distance between control points; replaces `elastic_grid` when given (150 in the Fiji plugin).
    brightness
        Lowest and highest value added to the grey values (which lie in about 0..1).
    contrast
        Lowest and highest factor on the distance of a grey value from the patch mean.
    gamma
        Lowest and highest exponent, drawn log-uniformly; it bends 0..1 and leaves what is outside in place.
    noise_sigma
        Largest standard deviation of the added Gaussian noise.
    blur_sigma_px
        Largest standard deviation of the Gaussian blur.
    invert_probability
        Share of patches whose contrast is inverted (grey value g becomes 1 − g).
    cubic
        Interpolate the image bicubically: sharper, and about three times slower than linear.
    """

    flips: bool = True
    rotate90: bool = True
    warp_probability: float = 0.75
    rotation_degrees: float = 45.0
    shift_px: float = 0.0
    scale_range: tuple[float, float] = (0.8, 1.25)
    shear: float = 0.1
    elastic_sigma_px: float = 10.0
    elastic_grid: int = 3
    elastic_spacing_px: float | None = None
    brightness: tuple[float, float] = (-0.1, 0.1)
    contrast: tuple[float, float] = (0.75, 1.33)
    gamma: tuple[float, float] = (0.7, 1.4)
    noise_sigma: float = 0.05
    blur_sigma_px: float = 0.8
    invert_probability: float = 0.0
    cubic: bool = False

    def __post_init__(self) -> None:
        for name in ("scale_range", "brightness", "contrast", "gamma"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise InputError(f"Augmentation {name} is ({low}, {high}): give a lower and an upper limit.")
            if name != "brightness" and low <= 0:
                raise InputError(f"Augmentation {name} is ({low}, {high}): both limits must be above 0.")
        for name in (
            "rotation_degrees",
            "shift_px",
            "shear",
            "elastic_sigma_px",
            "noise_sigma",
            "blur_sigma_px",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"Augmentation {name} is {getattr(self, name)}: give 0 (off) or more.")
        for name in ("warp_probability", "invert_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Augmentation {name} is {getattr(self, name)}: give a value from 0 to 1.")
        if self.elastic_grid < 2:
            raise InputError(
                f"Augmentation elastic_grid is {self.elastic_grid}: give at least 2 control points."
            )
        if self.elastic_spacing_px is not None and not self.elastic_spacing_px > 0:
            raise InputError(
                f"Augmentation elastic_spacing_px is {self.elastic_spacing_px}: give a distance above 0."
            )

    @classmethod
    def none(cls) -> AugmentSettings:
        """Patches exactly as they are in the source."""
        return cls(
            flips=False,
            rotate90=False,
            warp_probability=0.0,
            rotation_degrees=0.0,
            scale_range=(1.0, 1.0),
            shear=0.0,
            elastic_sigma_px=0.0,
            brightness=(0.0, 0.0),
            contrast=(1.0, 1.0),
            gamma=(1.0, 1.0),
            noise_sigma=0.0,
            blur_sigma_px=0.0,
        )

    @classmethod
    def paper(cls) -> AugmentSettings:
        """Shift, rotation, grey values and 3×3 elastic deformation of σ 10 px (Ronneberger et al. 2015).

        The paper gives numbers for the elastic deformation only; the other ranges are this project's.
        """
        return cls(
            flips=False,
            rotate90=False,
            warp_probability=1.0,
            rotation_degrees=180.0,
            shift_px=20.0,
            scale_range=(1.0, 1.0),
            shear=0.0,
            gamma=(1.0, 1.0),
            noise_sigma=0.0,
            blur_sigma_px=0.0,
        )

    @classmethod
    def default(cls) -> AugmentSettings:
        """Everything that leaves an EM section or a fluorescence image believable."""
        return cls()


@dataclass(frozen=True, eq=False)
class Sample:
    """One annotated plane, ready to cut patches from.

    Attributes
    ----------
    image
        (C, Y, X) float32, normalised to about 0..1, finite.
    labels
        (Y, X) integers, 0 = background; they count only where `annotated`.
    annotated
        (Y, X) bool.
    weights
        (Y, X) float32 weight map, or None for 1 everywhere.
    """

    image: Floats
    labels: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    weights: Floats | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or 0 in self.image.shape:
            raise InputError(
                f"A training image has shape {self.image.shape}: give (channel, y, x), not empty."
            )
        for name in ("labels", "annotated", "weights"):
            array = getattr(self, name)
            if array is not None and array.shape != self.shape:
                raise InputError(
                    f"The {name} are {array.shape} but their image is {self.shape}: make them match."
                )
        if not (np.isfinite(self.image.min()) and np.isfinite(self.image.max())):
            raise InputError("A training image holds NaN or infinite values: normalise it first.")

    @property
    def shape(self) -> Shape:
        """(Y, X)."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(frozen=True, eq=False)
class Patch:
    """What one training example is made of; the image may be larger than the labels (unpadded networks).

    Attributes
    ----------
    image
        (C, Y', X') float32.
    labels, annotated
        (Y, X) int32 and bool, the middle of the image.
    weights
        (Y, X) float32, 0 where not annotated; None if the sample has none.
    """

    image: Floats
    labels: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    weights: Floats | None = None


def sample_patch(
    source: Sample,
    centre: Shape,
    out_shape: Shape,
    settings: AugmentSettings,
    rng: np.random.Generator,
    *,
    image_shape: Shape | None = None,
) -> Patch:
    """Cut and vary one patch around a source pixel; that pixel is always inside the label patch.

    Parameters
    ----------
    source
        The plane to cut from. Beyond its edges it is mirrored, edge pixel not repeated, as often as needed;
        labels, mask and weights are mirrored with it.
    centre
        (y, x) of the source pixel that becomes the patch pixel (Y // 2, X // 2), apart from the random shift.
    out_shape
        (Y, X) of labels, mask and weights.
    settings
        How far the patch may differ from its source.
    rng
        The same state gives bitwise the same patch.
    image_shape
        (Y', X') of the image when it needs context around the labels; larger by an even number.

    Raises
    ------
    InputError
        The image patch does not surround the label patch evenly.
    """
    image_shape = out_shape if image_shape is None else image_shape
    margin = _margin(out_shape, image_shape)
    geometry = _draw_geometry(out_shape, image_shape, settings, rng)
    if geometry.is_exact:
        patch = _cut_exactly(source, centre, geometry, margin)
    else:
        patch = _cut_interpolated(source, centre, geometry, margin, cubic=settings.cubic)
    return Patch(_vary_grey_values(patch.image, settings, rng), patch.labels, patch.annotated, patch.weights)


# ---------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True, eq=False)
class _Geometry:
    """Patch pixel p shows source position centre + matrix · (p − pivot) + elastic(p) − elastic(pivot)."""

    matrix: NDArray[np.float64]  # (2, 2)
    pivot: Shape  # pixel of the image patch that shows the drawn centre
    image_shape: Shape
    displacement: Floats | None  # (2, Y', X')
    smoothing_px: float  # of the source, before it is shrunk

    @property
    def is_exact(self) -> bool:
        """True if every patch pixel shows exactly one source pixel."""
        return self.displacement is None and bool(np.isin(self.matrix, (-1.0, 0.0, 1.0)).all())

    def positions(self) -> Floats:
        """(2, Y', X') source positions relative to the drawn centre."""
        y = np.arange(self.image_shape[0], dtype=np.float32)[:, None] - self.pivot[0]
        x = np.arange(self.image_shape[1], dtype=np.float32)[None, :] - self.pivot[1]
        m = self.matrix.astype(np.float32)
        out = np.stack([m[0, 0] * y + m[0, 1] * x, m[1, 0] * y + m[1, 1] * x])
        if self.displacement is not None:
            out += self.displacement - self.displacement[:, self.pivot[0], self.pivot[1], None, None]
        return out


def _margin(out_shape: Shape, image_shape: Shape) -> Shape:
    """Context on each side of the label patch, in pixels."""
    extra = [big - small for big, small in zip(image_shape, out_shape, strict=True)]
    if min(out_shape) < 1 or min(extra) < 0 or any(e % 2 for e in extra):
        raise InputError(
            f"An image patch of {image_shape} cannot surround a label patch of {out_shape} evenly: "
            "make it larger by an even number of pixels."
        )
    return extra[0] // 2, extra[1] // 2


def _draw_geometry(
    out_shape: Shape, image_shape: Shape, settings: AugmentSettings, rng: np.random.Generator
) -> _Geometry:
    margin = _margin(out_shape, image_shape)
    pivot_y, pivot_x = (
        m + n // 2 + _draw_shift(n, settings.shift_px, rng) for m, n in zip(margin, out_shape, strict=True)
    )
    matrix = _draw_flip_and_turn(settings, rng)
    displacement, scale = None, 1.0
    if rng.random() < settings.warp_probability:
        scale = _draw_log_uniform(settings.scale_range, rng)
        matrix = _draw_rotation_and_shear(settings, rng) @ matrix / scale
        displacement = draw_displacement(image_shape, settings, rng)
    return _Geometry(matrix, (pivot_y, pivot_x), image_shape, displacement, _smoothing_px(scale))


def _draw_shift(length_px: int, shift_px: float, rng: np.random.Generator) -> int:
    if shift_px == 0:
        return 0
    shift = round(rng.uniform(-shift_px, shift_px))
    return int(np.clip(shift, -(length_px // 2), length_px - 1 - length_px // 2))


def _draw_flip_and_turn(settings: AugmentSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = np.eye(2)
    if settings.flips:
        matrix = np.diag(1.0 - 2.0 * rng.integers(2, size=2))
    if settings.rotate90:
        quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
        matrix = np.linalg.matrix_power(quarter_turn, int(rng.integers(4))) @ matrix
    return matrix


def _draw_rotation_and_shear(settings: AugmentSettings, rng: np.random.Generator) -> NDArray[np.float64]:
    angle = math.radians(rng.uniform(-settings.rotation_degrees, settings.rotation_degrees))
    shear = rng.uniform(-settings.shear, settings.shear)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix: NDArray[np.float64] = rotation @ np.array([[1.0, 0.0], [shear, 1.0]])
    return matrix


def _smoothing_px(scale: float) -> float:
    """σ of the Gaussian as wide as averaging over the 1/scale pixels that become one; 0 when enlarging."""
    return math.sqrt(max(0.0, scale**-2 - 1) / 12)


def _draw_log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


def draw_displacement(shape: Shape, settings: AugmentSettings, rng: np.random.Generator) -> Floats | None:
    """Draw an elastic deformation: Gaussian displacements of a coarse grid, bicubic in between.

    Returns
    -------
    (2, Y, X) float32 displacement along y and x in pixels, or None if `settings` ask for none.

    Notes
    -----
    Ronneberger et al. 2015, section 3.1: a 3×3 grid, standard deviation 10 px. Bicubic means the cubic spline
    through the control points (`scipy.ndimage.map_coordinates`, order 3, mirrored at the edges).
    """
    if settings.elastic_sigma_px == 0:
        return None
    points = [_control_points(n, settings) for n in shape]
    spacing = min((n - 1) / (k - 1) for n, k in zip(shape, points, strict=True))
    sigma = min(settings.elastic_sigma_px, MAX_ELASTIC_SIGMA_PER_SPACING * spacing)
    coarse = rng.normal(0.0, sigma, size=(2, *points)).astype(np.float32)
    rows, columns = _spline_basis(shape[0], points[0]), _spline_basis(shape[1], points[1])
    fine: Floats = (rows @ coarse @ columns.T).astype(np.float32, copy=False)
    return fine


def _control_points(length_px: int, settings: AugmentSettings) -> int:
    if settings.elastic_spacing_px is None:
        return settings.elastic_grid
    return max(2, round((length_px - 1) / settings.elastic_spacing_px) + 1)


@lru_cache(maxsize=32)
def _spline_basis(length_px: int, points: int) -> Floats:
    """(length_px, points): value at each pixel of the cubic spline through a unit impulse at each point."""
    positions = np.linspace(0, points - 1, length_px)[None]
    impulses = np.eye(points)
    columns = [ndimage.map_coordinates(row, positions, order=3, mode="mirror") for row in impulses]
    basis: Floats = np.stack(columns, axis=1).astype(np.float32)
    basis.setflags(write=False)
    return basis


# --------------------------------------------------------------------------------------------- cutting


def mirrored(index: NDArray[np.signedinteger[Any]], length: int) -> Indices:
    """Fold indices beyond 0..length − 1 back inside; the edge pixel is not repeated."""
    if length == 1:
        return np.zeros_like(index, dtype=np.intp)
    period = 2 * (length - 1)
    folded = np.abs(index) % period
    inside: Indices = np.minimum(folded, period - folded).astype(np.intp)
    return inside


def _cut_exactly(source: Sample, centre: Shape, geometry: _Geometry, margin: Shape) -> Patch:
    """Pixels as they are: a crop, flipped or turned."""
    matrix = geometry.matrix.astype(np.intp)
    offsets = [np.arange(n) - p for n, p in zip(geometry.image_shape, geometry.pivot, strict=True)]
    is_turned = matrix[0, 0] == 0
    if is_turned:
        along_y, along_x = matrix[0, 1] * offsets[1], matrix[1, 0] * offsets[0]
    else:
        along_y, along_x = matrix[0, 0] * offsets[0], matrix[1, 1] * offsets[1]
    rows = mirrored(centre[0] + along_y, source.shape[0])
    columns = mirrored(centre[1] + along_x, source.shape[1])

    def cut(array: NDArray[Any], trim: Shape) -> NDArray[Any]:
        crop = array[..., rows, :][..., columns]
        crop = np.swapaxes(crop, -1, -2) if is_turned else crop
        return np.ascontiguousarray(_trimmed(crop, trim))

    return _patch(
        cut(source.image, (0, 0)),
        cut(source.labels, margin),
        cut(source.annotated, margin),
        None if source.weights is None else cut(source.weights, margin),
    )


def _cut_interpolated(
    source: Sample, centre: Shape, geometry: _Geometry, margin: Shape, *, cubic: bool
) -> Patch:
    """Image and weights interpolated, labels and mask from the nearest pixel, all at the same positions."""
    positions = geometry.positions()
    reach = 2 if cubic else 1
    low = np.floor(positions.min(axis=(1, 2))).astype(int) - (reach - 1)
    high = np.floor(positions.max(axis=(1, 2))).astype(int) + reach
    rows, columns = (
        mirrored(np.arange(centre[axis] + low[axis], centre[axis] + high[axis] + 1), source.shape[axis])
        for axis in (0, 1)
    )
    positions -= low[:, None, None].astype(np.float32)
    inner = _trimmed(positions, margin)
    nearest = _nearest(inner, len(columns))

    def at_nearest(array: NDArray[Any]) -> NDArray[Any]:
        return np.take(_crop(array, rows, columns).reshape(-1), nearest)

    weights = None
    if source.weights is not None:
        weights = _interpolate(_crop(source.weights[None], rows, columns), inner, cubic=False)[0]
    crop = _blur(_crop(source.image, rows, columns), geometry.smoothing_px)
    image = _interpolate(crop, positions, cubic=cubic)
    return _patch(image, at_nearest(source.labels), at_nearest(source.annotated), weights)


def _patch(
    image: NDArray[Any], labels: NDArray[Any], annotated: NDArray[Any], weights: NDArray[Any] | None
) -> Patch:
    if weights is not None:
        weights = weights.astype(np.float32, copy=False) * annotated
    return Patch(
        image.astype(np.float32, copy=False), labels.astype(np.int32, copy=False), annotated, weights
    )


def _trimmed(array: NDArray[Any], margin: Shape) -> NDArray[Any]:
    """Without the context around it; margins are along the last two axes."""
    y, x = margin
    return array[..., y : array.shape[-2] - y, x : array.shape[-1] - x]


def _crop(array: NDArray[Any], rows: Indices, columns: Indices) -> NDArray[Any]:
    """A contiguous copy of some rows and columns; a plain slice where nothing is mirrored."""
    if _is_run(rows) and _is_run(columns):
        return np.array(array[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], order="C")
    return np.ascontiguousarray(array[..., rows, :][..., columns])


def _is_run(indices: Indices) -> bool:
    return bool((np.diff(indices) == 1).all())


def _nearest(positions: Floats, row_length: int) -> Indices:
    """(Y, X) index of the nearest pixel in the flattened crop."""
    rounded = np.rint(positions).astype(np.intp)
    flat: Indices = rounded[0] * row_length + rounded[1]
    return flat


def _interpolate(crop: NDArray[Any], positions: Floats, *, cubic: bool) -> Floats:
    """(C, Y, X) values of a (C, h, w) crop at (2, Y, X) positions."""
    size = np.array([crop.shape[1], crop.shape[2]], dtype=np.float32)[:, None, None]
    scaled = positions * (2 / (size - 1)) - 1
    grid = torch.from_numpy(np.stack([scaled[1], scaled[0]], axis=-1))[None]
    source = torch.from_numpy(crop.astype(np.float32, copy=False))[None]
    mode = "bicubic" if cubic else "bilinear"
    values = torch.nn.functional.grid_sample(
        source, grid, mode=mode, padding_mode="border", align_corners=True
    )
    out: Floats = values[0].numpy()
    return out


# ----------------------------------------------------------------------------------------- grey values


def _vary_grey_values(image: Floats, settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    """Blur, contrast, brightness, gamma, inversion, then noise; (C, Y, X), grey values in about 0..1."""
    image = _blur(image, rng.uniform(0.0, settings.blur_sigma_px))
    for channel in range(image.shape[0]):
        factor = _draw_log_uniform(settings.contrast, rng)
        offset = rng.uniform(*settings.brightness)
        exponent = _draw_log_uniform(settings.gamma, rng)
        image[channel] = _bend(_stretch(image[channel], factor, offset), exponent)
    if rng.random() < settings.invert_probability:
        image = 1 - image
    if settings.noise_sigma > 0:
        sigma = np.float32(rng.uniform(0.0, settings.noise_sigma))
        image += sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def _stretch(channel: Floats, factor: float, offset: float) -> Floats:
    if factor == 1 and offset == 0:
        return channel
    mean = float(channel.mean())
    out: Floats = channel * np.float32(factor) + np.float32(mean * (1 - factor) + offset)
    return out


def _bend(channel: Floats, exponent: float) -> Floats:
    """Gamma on 0..1; what lies outside keeps its distance to the range, so that nothing is clipped away."""
    if exponent == 1:
        return channel
    inside = np.clip(channel, 0, 1)
    bent: Floats = inside ** np.float32(exponent) + (channel - inside)
    return bent


def _blur(image: Floats, sigma_px: float) -> Floats:
    if sigma_px < 0.25:  # changes a pixel by less than 0.1 % of its neighbours
        return image
    blurred: Floats = ndimage.gaussian_filter(image, (0, sigma_px, sigma_px), mode="mirror", truncate=3)
    return blurred
