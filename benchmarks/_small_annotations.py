"""Small annotations drawn at random from true labels, of the kind that a person makes in a few minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.morphology import skeletonize

from napari_unet_seg.core.annotation import Annotation

Coding = Literal["scribbles", "region"]
Labels = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]

N_OBJECTS = 20
"""Objects of a plane that get a scribble."""
REGION_SHARE = 1 / 4
"""Side of a region as a share of the plane's: 128 px of 512, 256 of 1024."""
FEWEST_WHOLE_OBJECTS = 2
"""In a region: nobody frames an empty place."""
BESIDE_PX = 2.0
"""So much nearer may an object without a scribble be to a background line that still gets drawn."""
_SQUARE = np.ones((3, 3), bool)


def annotate(
    images: NDArray[Any],
    labels: Labels,
    planes: Sequence[int],
    coding: Coding,
    seed: int,
    *,
    pixel_size_nm: float | None = None,
) -> Annotation:
    """Annotate some planes of a stack (Z, Y, X); the result holds only these."""
    masks = [_annotated(labels[plane], coding, np.random.default_rng([seed, plane])) for plane in planes]
    annotated = np.stack(masks)
    shown = np.where(annotated, labels[list(planes)], 0)
    return Annotation(images[list(planes)], shown, annotated, axes="ZYX", pixel_size_nm=pixel_size_nm)


def _annotated(labels: Labels, coding: Coding, rng: np.random.Generator) -> Mask:
    return _scribbles(labels, rng) if coding == "scribbles" else _region(labels, rng)


def _scribbles(labels: Labels, rng: np.random.Generator) -> Mask:
    """A line in each of 20 objects, and lines in the background beside them."""
    drawn = rng.choice(_ids_with_a_core(labels), N_OBJECTS, replace=False)
    lines = np.zeros(labels.shape, bool)
    for number in drawn:
        lines |= _line(labels == number)
    return lines | (_line(labels == 0) & _is_beside(np.isin(labels, drawn), labels > 0))


def _ids_with_a_core(labels: Labels) -> NDArray[np.integer[Any]]:
    """Objects that have a pixel left when their rim is taken away."""
    is_core = (ndi.minimum_filter(labels, 3) == labels) & (ndi.maximum_filter(labels, 3) == labels)
    ids = np.unique(labels[is_core])
    return ids[ids > 0]


def _line(mask: Mask) -> Mask:
    """Skeleton of the mask without its rim, 3 px wide, inside the mask."""
    core = ndi.binary_erosion(mask, _SQUARE, border_value=1)
    return np.asarray(ndi.binary_dilation(skeletonize(core), _SQUARE) & mask)


def _is_beside(drawn: Mask, objects: Mask) -> Mask:
    """Where a drawn object is the nearest, or as good as."""
    to_drawn, to_any = (ndi.distance_transform_edt(~mask) for mask in (drawn, objects))
    return np.asarray(to_drawn <= to_any + BESIDE_PX)


def _region(labels: Labels, rng: np.random.Generator) -> Mask:
    """A square in which everything is annotated, drawn again until it holds two whole objects."""
    side = round(min(labels.shape) * REGION_SHARE)
    while True:
        top, left = (int(rng.integers(length - side + 1)) for length in labels.shape)
        box = slice(top, top + side), slice(left, left + side)
        if _n_whole_objects(labels[box]) >= FEWEST_WHOLE_OBJECTS:
            mask = np.zeros(labels.shape, bool)
            mask[box] = True
            return mask


def _n_whole_objects(part: Labels) -> int:
    rim = np.ones(part.shape, bool)
    rim[1:-1, 1:-1] = False
    return len(np.setdiff1d(part, np.append(part[rim], 0)))


def diameter_px(
    labels: Labels, planes: Sequence[int], annotation: Annotation, quantile: float = 0.5
) -> float:
    """What a person would measure of the objects that are annotated: the diameter of discs of their area."""
    diameters = []
    for whole, drawn in zip(labels[list(planes)], annotation.labels, strict=True):
        areas = np.bincount(whole.ravel())[np.unique(drawn[drawn > 0])]
        diameters.append(np.sqrt(4 * areas / np.pi))
    return float(np.quantile(np.concatenate(diameters), quantile))
