"""Where training and validation patches are taken from: places and planes, not how patches are varied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.augmentation import sample_patch
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.patches import Floats, Patch, Sample, Shape


@dataclass(frozen=True)
class SamplingSettings:
    """How likely an annotated pixel is to become the centre of a patch; pixels not annotated never do.

    Attributes
    ----------
    foreground, background
        Relative density of object and background pixels (Fiji U-Net plugin: 1 and v_bal = 0.1). Where only
        one of them is annotated, it takes all.
    """

    foreground: float = 1.0
    background: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.foreground < np.inf and 0 < self.background < np.inf):
            raise InputError(
                f"Sampling densities are {self.foreground} (foreground) and {self.background} (background): "
                "both must be above 0."
            )


@dataclass(frozen=True, eq=False)
class Batch:
    """Patches stacked along a new first axis: image (N, C, Y', X'), the rest (N, Y, X)."""

    image: Floats
    labels: NDArray[np.int32]
    annotated: NDArray[np.bool_]
    weights: Floats | None = None


class PatchSampler:
    """Draws patches whose centre is an annotated pixel, from planes of any sizes.

    A plane is picked with probability proportional to the square root of its annotated pixels. Proportional
    to the area itself, one large section would drown a few small ones of another kind; with equal chances,
    the few pixels of a single scribble would be seen again and again.

    Parameters
    ----------
    samples
        The annotated planes; those without any annotated pixel are never picked.
    out_shape, image_shape
        (Y, X) of the label patch and (Y', X') of the image patch, see `sample_patch`.
    augmentation
        How patches are varied.
    settings
        Density of patch centres.

    Raises
    ------
    InputError
        Nothing is annotated, or only some samples have weights, or they differ in channels.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        out_shape: Shape,
        *,
        image_shape: Shape | None = None,
        augmentation: AugmentSettings | None = None,
        settings: SamplingSettings | None = None,
    ) -> None:
        self._samples = [sample for sample in samples if sample.annotated.any()]
        _check_alike(self._samples)
        self._out_shape = out_shape
        self._image_shape = image_shape
        self._augmentation = AugmentSettings.default() if augmentation is None else augmentation
        self._settings = SamplingSettings() if settings is None else settings
        self._row_ends = [np.cumsum(_row_densities(sample, self._settings)) for sample in self._samples]
        areas = [np.count_nonzero(sample.annotated) for sample in self._samples]
        self._sample_ends = np.cumsum(np.sqrt(areas))

    def draw(self, rng: np.random.Generator) -> Patch:
        """One patch; the same state of `rng` gives bitwise the same patch."""
        index = _draw_index(self._sample_ends, rng)
        centre = self.draw_centre(index, rng)
        return sample_patch(
            self._samples[index],
            centre,
            self._out_shape,
            self._augmentation,
            rng,
            image_shape=self._image_shape,
        )

    def draw_centre(self, index: int, rng: np.random.Generator) -> Shape:
        """(y, x) of an annotated pixel of one of the samples that have any."""
        sample = self._samples[index]
        row = _draw_index(self._row_ends[index], rng)
        densities = _densities(sample.labels[row], sample.annotated[row], self._settings)
        return row, _draw_index(np.cumsum(densities), rng)

    def draw_batch(self, n: int, rng: np.random.Generator) -> Batch:
        """`n` patches, stacked."""
        return stack_patches([self.draw(rng) for _ in range(n)])


def stack_patches(patches: Sequence[Patch]) -> Batch:
    """Patches of one shape as one batch."""
    weights = [patch.weights for patch in patches if patch.weights is not None]
    return Batch(
        np.stack([patch.image for patch in patches]),
        np.stack([patch.labels for patch in patches]),
        np.stack([patch.annotated for patch in patches]),
        np.stack(weights) if weights else None,
    )


def validation_tiles(sample: Sample, shape: Shape, *, image_shape: Shape | None = None) -> Iterator[Patch]:
    """Cut a plane into tiles without variation; every annotated pixel is annotated in exactly one tile.

    Tiles at the right and bottom are filled up by mirroring, where nothing counts as annotated. Tiles without
    any annotated pixel are left out.

    Parameters
    ----------
    sample
        The plane to cut.
    shape, image_shape
        (Y, X) of the label tile and (Y', X') of the image tile, see `sample_patch`.
    """
    plain = AugmentSettings.none()
    unused = np.random.default_rng(0)
    for y in range(0, sample.shape[0], shape[0]):
        for x in range(0, sample.shape[1], shape[1]):
            if not sample.annotated[y : y + shape[0], x : x + shape[1]].any():
                continue
            centre = (y + shape[0] // 2, x + shape[1] // 2)
            patch = sample_patch(sample, centre, shape, plain, unused, image_shape=image_shape)
            yield _without_mirrored_annotation(patch, sample.shape[0] - y, sample.shape[1] - x)


def _without_mirrored_annotation(patch: Patch, rows_left: int, columns_left: int) -> Patch:
    annotated = patch.annotated.copy()
    annotated[rows_left:] = False
    annotated[:, columns_left:] = False
    weights = None if patch.weights is None else patch.weights * annotated
    return Patch(patch.image, patch.labels, annotated, weights)


def _check_alike(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("Nothing is annotated: paint some objects and some background, or add a region.")
    if len({sample.image.shape[0] for sample in samples}) > 1:
        raise InputError(
            "The training images differ in their number of channels: choose one channel of each."
        )
    if len({sample.weights is None for sample in samples}) > 1:
        raise InputError("Only some training images have a weight map: give all of them one, or none.")


def _densities(
    labels: NDArray[np.int32], annotated: NDArray[np.bool_], settings: SamplingSettings
) -> NDArray[np.float64]:
    densities = np.where(labels > 0, settings.foreground, settings.background)
    densities[~annotated] = 0
    return densities


def _row_densities(sample: Sample, settings: SamplingSettings) -> NDArray[np.float64]:
    """(Y,) density summed over each row: all that is kept per plane, so that large planes cost nothing."""
    annotated = np.count_nonzero(sample.annotated, axis=1)
    foreground = np.count_nonzero(sample.annotated & (sample.labels > 0), axis=1)
    background = annotated - foreground
    densities: NDArray[np.float64] = settings.foreground * foreground + settings.background * background
    return densities


def _draw_index(ends: NDArray[np.float64], rng: np.random.Generator) -> int:
    """Index drawn with the densities whose running sum is `ends`; never one of density 0."""
    position = int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))
    return min(position, int(np.searchsorted(ends, ends[-1])))
