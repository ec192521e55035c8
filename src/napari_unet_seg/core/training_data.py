"""From annotations to what training consumes: weighted planes on the model's grid, held-out tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import output_size, valid_input_size
from napari_unet_seg.core.augmentation import Patch, Sample
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, Task
from napari_unet_seg.core.normalisation import apply, plane_statistics
from napari_unet_seg.core.rescaling import mix, zoomed_length, zoomed_weights
from napari_unet_seg.core.sampling import validation_tiles
from napari_unet_seg.core.weight_map import ClassCounts, carve_gaps, weight_parts

if TYPE_CHECKING:
    from napari_unet_seg.core.train_settings import TrainSettings

MOST_VALIDATION_TILES: Final = 48
SMALLEST_HELD_OUT_PX: Final = 64
"""Side below which a held-out part of a plane says too little."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What one training uses.

    Parameters
    ----------
    samples
        Planes to learn from; labels carved by the 1-px rule (instances) or class indices (classes).
    validation_tiles
        Fixed tiles to score on, not varied.
    scored_on
        In the person's words, what the tiles are.
    input_px, output_px
        Sides of the network's input and output patch.
    """

    samples: tuple[Sample, ...]
    validation_tiles: tuple[Patch, ...]
    scored_on: str
    task: Task
    input_px: int
    output_px: int
    n_objects: int
    object_diameter_px: float | None
    pixel_size_nm: float | None
    notes: tuple[str, ...] = ()


def prepare(
    annotations: Sequence[Annotation],
    validation: Sequence[Annotation],
    info: ModelInfo,
    settings: TrainSettings,
) -> TrainingData:
    """Bring annotations to the model's grid and grey range, weigh them, and hold a part out.

    Raises
    ------
    InputError
        Nothing is annotated, or image and model do not fit.
    """
    input_px = valid_input_size(settings.patch_px, info.architecture)
    output_px = output_size(input_px, info.architecture)
    pixel_size = info.pixel_size_nm or _common_pixel_size(annotations)
    planes = [plane for annotation in annotations for plane in _planes(annotation, info, pixel_size)]
    if not planes:
        raise InputError("Nothing is annotated: paint some objects and some background, or add a region.")
    if validation:
        kept, held_out = (
            planes,
            [plane for annotation in validation for plane in _planes(annotation, info, pixel_size)],
        )
        scored_on = "validation images"
    else:
        kept, held_out, scored_on = _hold_out(planes, settings.validation_fraction, settings.seed)
    samples = _weighted(kept, info, settings)
    tiles = _some_tiles(held_out or kept, input_px, output_px, settings.seed)
    diameters = [_diameters(plane, info.task) for plane in planes]
    all_diameters = np.concatenate(diameters) if diameters else np.zeros(0)
    return TrainingData(
        samples=samples,
        validation_tiles=tiles,
        scored_on=scored_on,
        task=info.task,
        input_px=input_px,
        output_px=output_px,
        n_objects=all_diameters.size,
        object_diameter_px=float(np.median(all_diameters)) if all_diameters.size else None,
        pixel_size_nm=pixel_size,
        notes=(f"{len(samples)} plane(s) to learn from; scored on {len(tiles)} tile(s) of {scored_on}.",),
    )


def class_indices(labels: NDArray[np.int32], task: Task) -> NDArray[np.int64]:
    """Return the true class of each pixel: 0 or 1 for instances, the label itself for classes."""
    return (labels > 0).astype(np.int64) if task == "instances" else labels.astype(np.int64)


def _planes(annotation: Annotation, info: ModelInfo, pixel_size_nm: float | None) -> Iterator[Sample]:
    """Yield each annotated plane, normalised and on the model's grid, labels uncarved."""
    image = _channels_and_planes(annotation, info)
    labels = annotation.labels.reshape(image.shape[1:])
    annotated = annotation.annotated_mask.reshape(labels.shape)
    zoom = _zoom(annotation, pixel_size_nm)
    if info.task == "classes" and labels.max(initial=0) >= info.architecture.n_classes:
        raise InputError(
            f"The labels go up to class {labels.max()}, but model '{info.name}' has classes 0 to "
            f"{info.architecture.n_classes - 1}: check the labels, or choose another model."
        )
    for index in range(image.shape[1]):
        if not annotated[index].any():
            continue
        plane = image[:, index]
        grey = apply(plane, plane_statistics(plane, info.normalisation))
        counted = np.where(annotated[index], labels[index], 0).astype(np.int32)
        if zoom != (1.0, 1.0):
            grey = _zoomed(grey, zoom)
            counted = _nearest(counted, zoom)
            mask = _nearest(annotated[index], zoom)
        else:
            mask = np.array(annotated[index])
        yield Sample(grey, counted, mask)


def _in_plane_nm(annotation: Annotation) -> tuple[float, float] | None:
    """Return the pixel size along Y and X."""
    if annotation.pixel_size_nm is None:
        return None
    y_nm, x_nm = np.broadcast_to(np.atleast_1d(annotation.pixel_size_nm)[-2:], 2)
    return float(y_nm), float(x_nm)


def _zoom(annotation: Annotation, model_nm: float | None) -> tuple[float, float]:
    """Return model-grid pixels per image pixel along Y and X; 1 where a size is unknown."""
    sizes = _in_plane_nm(annotation)
    return (sizes[0] / model_nm, sizes[1] / model_nm) if sizes and model_nm else (1.0, 1.0)


def _zoomed(image: NDArray[np.float32], zoom: tuple[float, float]) -> NDArray[np.float32]:
    """Resample (C, Y, X) as prediction does."""
    for axis, factor in zip((1, 2), zoom, strict=True):
        length = image.shape[axis]
        image = mix(image, zoomed_weights(0, zoomed_length(length, factor), length, factor), axis)
    return image


def _nearest(labels: NDArray[Any], zoom: tuple[float, float]) -> NDArray[Any]:
    """Resample (Y, X) to the pixels that `_zoomed` gives: the label at (i + 0.5) / zoom."""
    indices = [
        np.minimum(((np.arange(zoomed_length(length, factor)) + 0.5) / factor).astype(np.intp), length - 1)
        for length, factor in zip(labels.shape, zoom, strict=True)
    ]
    return labels[np.ix_(*indices)]


def _channels_and_planes(annotation: Annotation, info: ModelInfo) -> NDArray[np.generic]:
    """Return the image as (C, planes, Y, X)."""
    image, axes = annotation.image, annotation.axes
    channels = image.shape[axes.index("C")] if "C" in axes else 1
    if channels != info.architecture.in_channels:
        raise InputError(
            f"The training image has {channels} channel(s), but model '{info.name}' takes "
            f"{info.architecture.in_channels}: choose a channel, or convert it to grey."
        )
    image = np.moveaxis(image, axes.index("C"), 0) if "C" in axes else image[np.newaxis]
    return image.reshape(channels, -1, *image.shape[-2:])


def _common_pixel_size(annotations: Sequence[Annotation]) -> float | None:
    """Return the finest pixel size, when every annotation has one."""
    sizes = [_in_plane_nm(annotation) for annotation in annotations]
    known = [min(size) for size in sizes if size]
    return min(known) if len(known) == len(sizes) and known else None


def _hold_out(planes: list[Sample], fraction: float, seed: int) -> tuple[list[Sample], list[Sample], str]:
    """Split off whole planes when there are several, else a strip of the only one; say which."""
    if fraction == 0:
        return planes, [], "the training area itself (nothing was held out)"
    if len(planes) >= 4:
        order = np.random.default_rng([seed, len(planes)]).permutation(len(planes))
        n_held_out = min(len(planes) - 1, max(1, round(fraction * len(planes))))
        held_out = set(order[:n_held_out].tolist())
        kept = [plane for index, plane in enumerate(planes) if index not in held_out]
        return kept, [planes[index] for index in sorted(held_out)], "held-out planes"
    parts = [_split_strip(plane, fraction) for plane in planes]
    held_out_parts = [part for _, part in parts if part is not None]
    if not held_out_parts:
        return planes, [], "the training area itself (too small to hold a part out)"
    return [kept for kept, _ in parts], held_out_parts, "a held-out strip of the annotation"


def _split_strip(plane: Sample, fraction: float) -> tuple[Sample, Sample | None]:
    """Take the last part of the annotated box, along its longer side, out of the mask of the first sample."""
    rows, columns = np.nonzero(plane.annotated)
    spans = [(int(rows.min()), int(rows.max()) + 1), (int(columns.min()), int(columns.max()) + 1)]
    axis = int(np.argmax([stop - start for start, stop in spans]))
    start, stop = spans[axis]
    width = round((stop - start) * fraction)
    if width < SMALLEST_HELD_OUT_PX:
        return plane, None
    strip = np.zeros_like(plane.annotated)
    strip[tuple(slice(stop - width, stop) if number == axis else slice(None) for number in range(2))] = True
    if not (plane.annotated & strip & (plane.labels > 0)).any() or not (plane.annotated & ~strip).any():
        return plane, None
    return _restricted(plane, plane.annotated & ~strip), _restricted(plane, plane.annotated & strip)


def _restricted(plane: Sample, annotated: NDArray[np.bool_]) -> Sample:
    return replace(plane, annotated=annotated, labels=np.where(annotated, plane.labels, 0))


def _weighted(planes: Sequence[Sample], info: ModelInfo, settings: TrainSettings) -> tuple[Sample, ...]:
    """Carve the gaps and add the weight map; classes are counted over all planes together."""
    parts = [
        weight_parts(
            plane.labels,
            settings.weights,
            annotated=plane.annotated,
            task=info.task,
            n_classes=info.architecture.n_classes,
        )
        for plane in planes
    ]
    counts = ClassCounts(tuple(np.sum([part.counts.pixels for part in parts], axis=0).tolist()))
    return tuple(
        replace(
            plane,
            labels=carve_gaps(plane.labels, task=info.task).astype(np.int32),
            weights=part.weights(settings.weights, counts),
        )
        for plane, part in zip(planes, parts, strict=True)
    )


def _some_tiles(planes: Sequence[Sample], input_px: int, output_px: int, seed: int) -> tuple[Patch, ...]:
    """Cut planes into tiles; of too many keep a fixed random choice."""
    out, image = (output_px, output_px), (input_px, input_px)
    tiles = [tile for plane in planes for tile in validation_tiles(plane, out, image_shape=image)]
    if len(tiles) <= MOST_VALIDATION_TILES:
        return tuple(tiles)
    chosen = np.random.default_rng([seed, 1]).choice(len(tiles), MOST_VALIDATION_TILES, replace=False)
    return tuple(tiles[index] for index in sorted(chosen))


def _diameters(plane: Sample, task: Task) -> NDArray[np.float64]:
    """Return the diameter of each object as that of a disc of its area, in px of the model's grid."""
    if task != "instances":
        return np.zeros(0)
    areas = np.bincount(plane.labels.ravel())[1:]
    return np.sqrt(4 * areas[areas > 0] / math.pi)
