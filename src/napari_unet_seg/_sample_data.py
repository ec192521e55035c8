"""File > Open Sample: made-up EM tissue and nuclei with their truth, and real images of scikit-image."""

from __future__ import annotations

from typing import Any

import numpy as np
from skimage import data

from napari_unet_seg._space import layer_space
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.synthetic import Sample, synthetic_em, synthetic_nuclei

LayerData = tuple[Any, dict[str, Any], str]


def em_stack() -> list[LayerData]:
    """A made-up stack of neural tissue, 5 planes of 40 × 8 × 8 nm, and its cells."""
    return _with_truth(synthetic_em(), "synthetic EM", "ZYX")


def nuclei() -> list[LayerData]:
    """A made-up image of fluorescent nuclei, 16 bit, 0.65 µm per pixel, and its nuclei."""
    return _with_truth(synthetic_nuclei(), "synthetic nuclei", "YX")


def phase_contrast_cell() -> list[LayerData]:
    """A real cell in phase contrast (scikit-image's `cell`)."""
    return [(data.cell(), {"name": "cell", "contrast_limits": (0, 255), **layer_space("YX", None)}, "image")]


def stained_tissue() -> list[LayerData]:
    """Real stained tissue in colour (scikit-image's `immunohistochemistry`)."""
    space = layer_space("YX", None)
    return [(data.immunohistochemistry(), {"name": "immunohistochemistry", "rgb": True, **space}, "image")]


def human_mitosis() -> list[LayerData]:
    """Real nuclei of dividing human cells (scikit-image's `human_mitosis`, fetched once from the internet).

    Raises
    ------
    InputError
        It is not on this computer and cannot be fetched.
    """
    try:
        image = data.human_mitosis()
    except (ImportError, OSError, ValueError) as error:
        raise InputError(
            "The sample 'human mitosis' is not on this computer and could not be fetched: connect to the "
            "internet and run `pip install pooch`, or open the synthetic nuclei instead."
        ) from error
    meta = {"name": "human mitosis", "contrast_limits": (0, int(np.max(image))), **layer_space("YX", None)}
    return [(image, meta, "image")]


def _with_truth(sample: Sample, name: str, axes: str) -> list[LayerData]:
    space = layer_space(axes, sample.voxel_size_nm)
    brightest = 255 if sample.image.dtype == np.uint8 else int(np.percentile(sample.image, 99.9))
    limits = (0 if sample.image.dtype == np.uint8 else int(sample.image.min()), brightest)
    return [
        (sample.image, {"name": name, "contrast_limits": limits, **space}, "image"),
        (sample.truth, {"name": f"{name} › truth", "visible": False, **space}, "labels"),
    ]
