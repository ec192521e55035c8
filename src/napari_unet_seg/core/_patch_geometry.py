"""The random geometry of a patch: one map from patch pixels to source positions.

Flip, rotation, scale, shear, shift and elastic deformation are composed, so that the image is interpolated
once, and labels, mask and weights move with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core._grey_values import draw_log_uniform
from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.patches import Floats, Shape

MAX_ELASTIC_SIGMA_PER_SPACING = 0.1  # a coarse grid displaced by more than this begins to fold onto itself


@dataclass(frozen=True, eq=False)
class Geometry:
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


def margin_of(out_shape: Shape, image_shape: Shape) -> Shape:
    """Context on each side of the label patch, in pixels."""
    extra = [big - small for big, small in zip(image_shape, out_shape, strict=True)]
    if min(out_shape) < 1 or min(extra) < 0 or any(e % 2 for e in extra):
        raise InputError(
            f"An image patch of {image_shape} cannot surround a label patch of {out_shape} evenly: "
            "make it larger by an even number of pixels."
        )
    return extra[0] // 2, extra[1] // 2


def draw_geometry(
    out_shape: Shape, image_shape: Shape, settings: AugmentSettings, rng: np.random.Generator
) -> Geometry:
    margin = margin_of(out_shape, image_shape)
    pivot_y, pivot_x = (
        m + n // 2 + _draw_shift(n, settings.shift_px, rng) for m, n in zip(margin, out_shape, strict=True)
    )
    matrix = _draw_flip_and_turn(settings, rng)
    displacement, scale = None, 1.0
    if rng.random() < settings.warp_probability:
        scale = draw_log_uniform(settings.scale_range, rng)
        matrix = _draw_rotation_and_shear(settings, rng) @ matrix / scale
        displacement = draw_displacement(image_shape, settings, rng)
    return Geometry(matrix, (pivot_y, pivot_x), image_shape, displacement, _smoothing_px(scale))


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
