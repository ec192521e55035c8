"""Image, label and mask files to annotations, each error naming the file that it is about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_unet_seg._cli._options import Coding
from napari_unet_seg.core._label_checks import check_mask
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import open_image, pair_by_name


def read_annotations(
    images: Path, labels: Path, annotated: Path | None, coding: Coding, pixel_size_nm: float | None
) -> list[Annotation]:
    """Annotations of two files, or of two folders paired by name.

    Raises
    ------
    InputError
        Nothing pairs, a file cannot be used, labels and image do not fit, or nothing at all is labelled.
    """
    masks = dict(pair_by_name(images, annotated)) if annotated is not None else {}
    pairs = pair_by_name(images, labels)
    may_be_empty = len(pairs) > 1
    result = [
        read_annotation(image, label, masks.get(image), coding, pixel_size_nm, may_be_empty=may_be_empty)
        for image, label in pairs
    ]
    if not any(annotation.labels.any() for annotation in result):
        raise InputError(f"All labels in '{labels}' are 0: draw at least one object, or choose other labels.")
    return result


def read_annotation(
    image: Path,
    labels: Path,
    annotated: Path | None,
    coding: Coding,
    pixel_size_nm: float | None,
    *,
    may_be_empty: bool = False,
) -> Annotation:
    """The annotation of one image; `pixel_size_nm` beats what the file says.

    Raises
    ------
    InputError
        A file cannot be used, or labels, mask and image do not fit.
    """
    opened, coded = open_image(image), open_image(labels)
    sizes = opened.voxel_size_nm or {}
    of_file = (sizes["Y"], sizes["X"]) if {"Y", "X"} <= set(sizes) else None
    size = of_file if pixel_size_nm is None else pixel_size_nm
    grey, ids = np.asarray(opened.data[...]), np.asarray(coded.data[...])
    try:
        if coding is Coding.scribbles:
            annotation = Annotation.scribbles(grey, ids, axes=opened.axes, pixel_size_nm=size)
        else:
            annotation = Annotation.dense(
                grey, ids, axes=opened.axes, pixel_size_nm=size, may_be_empty=may_be_empty
            )
        if annotated is None:
            return annotation
        mask = np.asarray(open_image(annotated).data[...]) != 0
        check_mask(mask, annotation.labels.shape)
        return replace(annotation, annotated=mask & annotation.annotated_mask)
    except InputError as error:
        raise InputError(f"'{labels}': {error}") from error
