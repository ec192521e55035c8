"""How far training patches may differ from what the microscope saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_unet_seg.core.errors import InputError


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
    crop_contrast_probability
        Share of patches whose grey values are stretched once more, to their own percentiles 1 and 99.8, as if
        each were an image that a person opened: far from what is bright, the dim becomes as bright, and where
        nothing is, the noise.
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
    crop_contrast_probability: float = 0.0
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
        for name in ("warp_probability", "crop_contrast_probability", "invert_probability"):
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
