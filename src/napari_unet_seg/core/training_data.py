"""From annotations to what training consumes: weighted planes on the model's grid, held-out tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._holding_out import HoldingOut
from napari_unet_seg.core._object_size import typical_diameter_px
from napari_unet_seg.core._training_planes import PlaneShop, TrainingPlane, grid_of
from napari_unet_seg.core._validation_tiles import cut_tiles, few_tiles, varied_tiles
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture, grid_px, output_size, valid_input_size
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, Task
from napari_unet_seg.core.patches import Patch, Sample
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.tiling import halo_px
from napari_unet_seg.core.train_settings import TrainSettings
from napari_unet_seg.core.weight_map import ClassCounts

VALIDATION_SHARE: Final = 0.1
"""How much time scoring may take of that of the training between two scores."""
COARSEST_RESOLUTION: Final = 0.05
FINEST_RESOLUTION: Final = 0.002
"""What one object changes in a score is taken to be between these."""
LEAST_COMPLETE: Final = 0.1
"""With a smaller part of complete objects they tell nothing of the others: scribbles."""
_PASSES_PER_STEP: Final = 3
"""A training step costs about three forward passes."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What one training uses.

    Attributes
    ----------
    samples
        Planes to learn from; labels carved by the 1-px rule (instances) or class indices (classes).
    validation_tiles
        Fixed tiles to score on, with the context that the network sees.
    tiles_identity
        The same for the same tiles: scores on others cannot be compared.
    scored_on
        In the person's words, what the tiles are.
    scores_objects
        Whether tiles hold whole areas, so that objects can be compared, not only pixels.
    score_resolution
        What one object more or less changes in a score.
    input_px, output_px
        Sides of the network's input and output patch.
    n_objects
        Ids that are annotated.
    object_diameter_px
        Typical of the objects that are annotated completely; None without any.
    usual_zoom
        Of images of which the pixel sizes do not tell it; None without such.
    """

    samples: tuple[Sample, ...]
    validation_tiles: tuple[Patch, ...]
    tiles_identity: str
    scored_on: str
    scores_objects: bool
    score_resolution: float
    task: Task
    input_px: int
    output_px: int
    n_objects: int
    object_diameter_px: float | None
    pixel_size_nm: float | None
    usual_zoom: float | None = None
    notes: tuple[str, ...] = ()


class TrainingSource:
    """Makes the data of one training, again and again while a person goes on annotating.

    What was held out stays held out, and planes that did not change are not prepared again.

    Parameters
    ----------
    annotations
        The first ones; where the model has no pixel size, theirs decides the grid.
    validation
        Annotations to score on; without any a part of the others is held out.
    info, settings
        Of the model and the training.

    Raises
    ------
    InputError
        Nothing useful is annotated, or image and model do not fit.
    """

    def __init__(
        self,
        annotations: Sequence[Annotation],
        validation: Sequence[Annotation],
        info: ModelInfo,
        settings: TrainSettings,
    ) -> None:
        self._info, self._settings = info, settings
        self._grid = grid_of(annotations, info, settings.zoom)
        self._input_px = smallest_input_px(settings.patch_px, info.architecture)
        reach_px = _reach_px(self._input_px, settings.augmentation, info.architecture)
        self._shop = PlaneShop(info, settings.weights, self._grid, reach_px)
        self._given = PlaneShop(info, settings.weights, self._grid, reach_px).planes(validation)
        self._holding_out = HoldingOut(settings.validation_fraction, settings.seed)
        self._prepared: dict[TrainingPlane, _Prepared] = {}
        self.data = self.renewed(annotations)

    def renewed(self, annotations: Sequence[Annotation]) -> TrainingData:
        """Make the data for these annotations, which replace those before.

        Raises
        ------
        InputError
            They cannot be used; nothing has changed.
        """
        planes = self._shop.planes(annotations)
        counts = _counts(planes, self._info)
        if not self._given:
            self._holding_out.update(planes)
        self._prepared = {plane: self._prepare(plane, counts) for plane in (*planes, *self._given)}
        samples = tuple(
            self._prepared[plane].sample for plane in planes if self._prepared[plane].sample.annotated.any()
        )
        tiles = self._tiles(planes, samples)
        self.data = TrainingData(
            samples=samples,
            validation_tiles=tiles.patches,
            tiles_identity=_identity(tiles.patches),
            scored_on=tiles.what,
            scores_objects=self._scores_objects,
            score_resolution=min(COARSEST_RESOLUTION, max(FINEST_RESOLUTION, 1 / max(1, tiles.n_objects))),
            task=self._info.task,
            input_px=self._input_px,
            output_px=output_size(self._input_px, self._info.architecture),
            n_objects=sum(plane.n_objects for plane in planes) if self._info.task == "instances" else 0,
            object_diameter_px=_diameter_px(planes, self._info.task),
            pixel_size_nm=self._grid.pixel_size_nm,
            usual_zoom=self._grid.usual_zoom if self._grid.is_usual else None,
            notes=_notes(planes, self._given, tiles.what, self._info.task),
        )
        return self.data

    def shrink_patch(self) -> bool:
        """Halve the patch for a memory that is too small; False when there is no smaller one."""
        smaller_px = smallest_input_px(self.data.output_px // 2, self._info.architecture)
        if smaller_px >= self._input_px:
            return False
        self._input_px = smaller_px
        output_px = output_size(smaller_px, self._info.architecture)
        self.data = replace(self.data, input_px=smaller_px, output_px=output_px)
        return True

    @property
    def _scores_objects(self) -> bool:
        if self._given or self._settings.validation_fraction == 0:
            return True
        return self._holding_out.is_by_area

    def _prepare(self, plane: TrainingPlane, counts: ClassCounts) -> _Prepared:
        """What to learn from a plane; as before when neither it nor the balance of classes has changed."""
        learned = plane.annotated & ~self._holding_out.held(plane)
        before = self._prepared.get(plane)
        if before is None or counts.moved_from(before.counts, self._settings.weights):
            weights = plane.parts.weights(self._settings.weights, counts)
            return _Prepared(Sample(plane.image, plane.carved, learned, weights), counts)
        if np.array_equal(before.sample.annotated, learned):
            return before
        return _Prepared(replace(before.sample, annotated=learned), before.counts)

    def _tiles(self, planes: Sequence[TrainingPlane], samples: Sequence[Sample]) -> _Tiles:
        settings, depth = self._settings, self._info.architecture.depth
        scored_on, parts = self._scored_parts(planes)
        if not parts:
            varied = varied_tiles(samples, AugmentSettings.default(), depth, settings.seed)
            return _Tiles(tuple(varied), scored_on, sum(plane.n_objects for plane in planes))
        tiles = [
            tile for plane, where in parts for tile in cut_tiles(plane, where, self._weights_of(plane), depth)
        ]
        steps_px = settings.batch_size * self._input_px**2 * settings.validate_every
        most_px = VALIDATION_SHARE * _PASSES_PER_STEP * steps_px
        n_objects = sum(np.unique(plane.labels[where & (plane.labels > 0)]).size for plane, where in parts)
        return _Tiles(few_tiles(tiles, most_px, settings.seed), scored_on, n_objects)

    def _scored_parts(
        self, planes: Sequence[TrainingPlane]
    ) -> tuple[str, list[tuple[TrainingPlane, NDArray[np.bool_]]]]:
        """What is scored on, in words, and where it is; no place when only copies can be."""
        if self._given:
            return "validation images", [(plane, plane.annotated) for plane in self._given]
        held_out = [(plane, self._holding_out.held(plane)) for plane in planes]
        if any(where.any() for _, where in held_out):
            return self._holding_out.what, held_out
        if self._settings.validation_fraction == 0:
            everything = [(plane, plane.annotated) for plane in planes]
            return "the training area itself (nothing was held out)", everything
        return "varied copies of the training area (too small to hold a part out)", []

    def _weights_of(self, plane: TrainingPlane) -> Floats:
        weights = self._prepared[plane].sample.weights
        return plane.annotated.astype(np.float32) if weights is None else weights


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A plane to learn from, and the counts that its class weights are made of."""

    sample: Sample
    counts: ClassCounts


@dataclass(frozen=True, eq=False)
class _Tiles:
    """What is scored: the tiles, what they are in words, and how many objects there are to be found."""

    patches: tuple[Patch, ...]
    what: str
    n_objects: int


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
    return TrainingSource(annotations, validation, info, settings).data


def class_indices(labels: NDArray[np.int32], task: Task) -> NDArray[np.int64]:
    """Return the true class of each pixel: 0 or 1 for instances, the label itself for classes."""
    return (labels > 0).astype(np.int64) if task == "instances" else labels.astype(np.int64)


def smallest_input_px(output_px: int, architecture: Architecture) -> int:
    """Side of the smallest input whose output covers so many pixels, and that can be trained on.

    Batch norm needs more than one value per channel at the bottom: two steps of the pooling grid.
    """
    smallest = valid_input_size(1, architecture)
    if architecture.batch_norm and architecture.padding == "same":
        smallest = 2 * grid_px(architecture.depth)
    return max(smallest, valid_input_size(max(1, output_px), architecture))


def _reach_px(input_px: int, augmentation: AugmentSettings, architecture: Architecture) -> int:
    """How far from an annotated pixel an image can be seen, by a varied patch or by a tile to score on."""
    half_diagonal = input_px / math.sqrt(2) * (1 + augmentation.shear) / min(1.0, augmentation.scale_range[0])
    by_patch = half_diagonal + augmentation.shift_px + 4 * augmentation.elastic_sigma_px
    by_tile = halo_px(architecture.depth) + grid_px(architecture.depth)
    return math.ceil(max(by_patch, by_tile)) + 1


def _counts(planes: Sequence[TrainingPlane], info: ModelInfo) -> ClassCounts:
    """Annotated pixels of each class over all planes.

    Raises
    ------
    InputError
        There is nothing to tell apart.
    """
    if not planes:
        raise InputError("Nothing is annotated: paint some objects and some background, or add a region.")
    pixels = np.sum([plane.parts.counts.pixels for plane in planes], axis=0).tolist()
    if info.task == "classes" and sum(count > 0 for count in pixels) < 2:
        raise InputError("Only one class is annotated: paint some pixels of another one too.")
    if info.task == "instances" and not sum(pixels[1:]):
        raise InputError("No object is annotated, only background: paint some objects too.")
    if info.task == "instances" and not pixels[0]:
        raise InputError("Only objects are annotated: paint some background too, between and beside them.")
    return ClassCounts(tuple(pixels))


def _diameter_px(planes: Sequence[TrainingPlane], task: Task) -> float | None:
    if task != "instances":
        return None
    areas = np.concatenate([plane.complete_areas for plane in planes])
    n_objects = sum(plane.n_objects for plane in planes)
    return typical_diameter_px(areas) if areas.size > LEAST_COMPLETE * n_objects else None


def _notes(
    planes: Sequence[TrainingPlane], given: Sequence[TrainingPlane], scored_on: str, task: Task
) -> tuple[str, ...]:
    """What the person should know before it begins."""
    n_objects = sum(plane.n_objects for plane in planes)
    objects = f"{n_objects} object{'s' * (n_objects != 1)} on " * (task == "instances")
    notes = [f"Learning from {objects}{len(planes)} plane{'s' * (len(planes) != 1)}; scored on {scored_on}."]
    if any(plane.has_gaps_in_image for plane in (*planes, *given)):
        notes.append("Some pixels are NaN or infinite: they became the median of their plane.")
    return tuple(notes)


def _identity(tiles: Sequence[Patch]) -> str:
    """The same for the same tiles."""
    digest = blake2b(digest_size=16)
    for tile in tiles:
        for array in (tile.image, tile.labels, tile.annotated):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
