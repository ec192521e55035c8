"""Which threshold, splitting and smallest size suit a model that `train_bundled.py` has trained.

    python scripts/choose_objects.py nuclei-fluorescence           # what the last stage has left
    python scripts/choose_objects.py nuclei-fluorescence --bundled # the one in the package

Every combination is tried on the images that the last stage held out of learning, and the best ones are
printed; `test/` has no part in it. The choice is then written into the recipe by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._holding_out import HoldingOut
from napari_unet_seg.core._matching import match_objects
from napari_unet_seg.core._rand import pieces, segment_agreement, thinned
from napari_unet_seg.core._training_planes import PlaneShop, grid_of
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.models import load_model
from napari_unet_seg.core.objects import ObjectSettings, objects_from_probabilities
from napari_unet_seg.core.prediction import PredictSettings, predict
from train_bundled import RECIPES, Stage, annotations_of, stage_file

THRESHOLDS = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)
SPLITS = (0.05, 0.1, 0.2, 0.35, 0.5)
SMALLEST_PX = (10, 20, 50, 100)
SHOWN = 8

Labels = NDArray[np.integer[Any]]
Score = Callable[[Sequence[tuple[Labels, Labels]]], float]


def mean_f1(pairs: Sequence[tuple[Labels, Labels]]) -> float:
    """Mean of the F1 at IoU 0.5, 0.7 and 0.9, each pooled: objects that are found, and outlined well."""
    f1 = reduce(add, (match_objects(found, truth) for found, truth in pairs)).f1()
    return float(np.mean([f1[overlap] for overlap in ("0.5", "0.7", "0.9")]))


def mean_v_rand(pairs: Sequence[tuple[Labels, Labels]]) -> float:
    """Mean V_rand of the planes, borders thinned."""
    return float(np.mean([segment_agreement(thinned(found), pieces(truth)).rand for found, truth in pairs]))


def held_out(stage: Stage, info: ModelInfo) -> list[Annotation]:
    """What the stage did not learn from: its validation images, else those that it held out as a whole."""
    if stage.validation is not None:
        return annotations_of(stage.validation, info.pixel_size_nm)
    annotations, settings = annotations_of(stage.train, info.pixel_size_nm), stage.settings
    grid = grid_of(annotations, info, settings.zoom)
    planes = PlaneShop(info, settings.weights, grid, reach_px=0).planes(annotations)
    holding_out = HoldingOut(settings.validation_fraction, info.history[-1]["seed"])
    holding_out.update(planes)
    return [
        annotation
        for annotation, plane in zip(annotations, planes, strict=True)
        if holding_out.held(plane).all()
    ]


def candidates(recipe: ObjectSettings) -> Iterator[ObjectSettings]:
    """All combinations; closing up stays as the recipe has it."""
    for threshold, split, smallest in product(THRESHOLDS, SPLITS, SMALLEST_PX):
        yield replace(recipe, threshold=threshold, split_touching=split, min_size_px=smallest)


def main() -> None:
    """Try and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=[name for name, one in RECIPES.items() if "task" not in one.info])
    parser.add_argument("--bundled", action="store_true", help="the model in the package")
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.model]
    model = load_model(
        arguments.model if arguments.bundled else stage_file(arguments.model, len(recipe.stages))
    )
    score: Score = mean_v_rand if model.class_names[0] == "membrane" else mean_f1
    annotations = held_out(recipe.stages[-1], model.info)
    foregrounds = [
        1 - predict(each.image, model, PredictSettings(zoom=1.0)).probabilities[0] for each in annotations
    ]
    print(f"{len(annotations)} held-out images, {score.__name__}", flush=True)
    truths = [each.labels for each in annotations]
    scored = []
    for settings in candidates(ObjectSettings(**recipe.objects)):
        found = [objects_from_probabilities(foreground, settings) for foreground in foregrounds]
        scored.append((score(list(zip(found, truths, strict=True))), settings))
    for value, settings in sorted(scored, key=lambda pair: -pair[0])[:SHOWN]:
        print(
            f"{value:.4f}  threshold {settings.threshold:g}, split {settings.split_touching:g}, "
            f"smallest {settings.min_size_px} px"
        )


if __name__ == "__main__":
    main()
