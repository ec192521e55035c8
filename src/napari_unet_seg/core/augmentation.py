"""Random variation of training patches: their geometry, then their grey values; no choice of places."""

from __future__ import annotations

import numpy as np

from napari_unet_seg.core._grey_values import vary_grey_values
from napari_unet_seg.core._patch_cutting import cut_exactly, cut_interpolated, mirrored
from napari_unet_seg.core._patch_geometry import draw_displacement, draw_geometry, margin_of
from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.patches import Patch, Sample, Shape

__all__ = ["AugmentSettings", "Patch", "Sample", "draw_displacement", "mirrored", "sample_patch"]


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
    margin = margin_of(out_shape, image_shape)
    geometry = draw_geometry(out_shape, image_shape, settings, rng)
    if geometry.is_exact:
        patch = cut_exactly(source, centre, geometry, margin)
    else:
        patch = cut_interpolated(source, centre, geometry, margin, cubic=settings.cubic)
    return Patch(vary_grey_values(patch.image, settings, rng), patch.labels, patch.annotated, patch.weights)
