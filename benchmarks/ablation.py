"""What each part of the recipe is worth: the same short training with one thing changed at a time.

    python benchmarks/ablation.py                    # an hour on one core; goes on where it was
    python benchmarks/ablation.py --only no-border   # variants whose names hold this; nothing is recorded

Learned from five sixths of nuclei-dsb2018 train/fluo and scored on the rest; `test/` has no part in it. Each
variant is cut into objects at the threshold that suits it best, of three, on the images that it is scored on:
weights and losses move the outlines, and that is not what is asked here. Figures are therefore a little too
high, all alike. Touching objects are those with another one within 2 px.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from _common import REPOSITORY, data_dir, write_result
from napari_unet_seg.core._matching import match_objects
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.objects import ObjectSettings, objects_from_probabilities
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.training import TrainSettings, fine_tune
from napari_unet_seg.core.weight_map import WeightSettings

FINISHED = REPOSITORY / ".scratch" / "ablation"
HELD_OUT = 6
"""Every so many-th image is scored on."""
THRESHOLDS = (0.3, 0.4, 0.5)
TOUCHING_PX = 2
LEAST_RECORDED = 2
"""Variants, the first of which are the recipe and the one without a border."""
AUGMENTATION = TrainSettings.thorough().augmentation
RECIPE = TrainSettings.thorough(steps=600, patch_px=128, averaging=0.99, validation_fraction=0.0)

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Variant:
    """The recipe with one thing changed."""

    name: str
    what: str
    settings: TrainSettings = RECIPE
    architecture: dict[str, Any] = field(default_factory=dict)
    tta: bool = False
    weights_of: str = ""
    """Variant whose network is used, where nothing is trained."""


def with_augmentation(augmentation: AugmentSettings) -> TrainSettings:
    """The recipe with patches varied otherwise."""
    return replace(RECIPE, augmentation=augmentation)


VARIANTS = (
    Variant("recipe", "the recipe: 16 channels, batch norm, separation border, elastic deformation"),
    Variant(
        "no-border",
        "no separation border (w0 = 0)",
        replace(RECIPE, weights=WeightSettings.border_only(w0=0)),
    ),
    Variant("8-fold", "the recipe, predicted as the 8-fold average", tta=True, weights_of="recipe"),
    Variant(
        "no-elastic",
        "no elastic deformation",
        with_augmentation(replace(AUGMENTATION, elastic_sigma_px=0.0)),
    ),
    Variant("8-channels", "8 channels", architecture={"base_channels": 8}),
    Variant("no-batch-norm", "no batch norm", architecture={"batch_norm": False}),
    Variant(
        "paper-weights",
        "the paper's weights: border and class balance",
        replace(RECIPE, weights=WeightSettings.paper()),
    ),
    Variant("no-augmentation", "patches as they are", with_augmentation(AugmentSettings.none())),
    Variant("dice", "BCE + Dice instead of weighted cross-entropy", replace(RECIPE, loss="bce+dice")),
    Variant("24-channels", "24 channels", architecture={"base_channels": 24}),
)


@cache
def images() -> tuple[tuple[NDArray[Any], Labels], ...]:
    """All images with their objects, by name."""
    folder = data_dir() / "nuclei-dsb2018" / "train" / "fluo"
    files = sorted((folder / "images").iterdir())
    pairs = ((tifffile.imread(file), tifffile.imread(folder / "labels" / file.name)) for file in files)
    return tuple((image, labels.astype(np.int32)) for image, labels in pairs)


def learned_from() -> list[Annotation]:
    """What is not scored on."""
    return [
        Annotation.dense(image, labels, may_be_empty=True)
        for number, (image, labels) in enumerate(images())
        if number % HELD_OUT
    ]


def trained(variant: Variant, seed: int) -> Model:
    """The network of a variant, from its file if it is finished."""
    name = variant.weights_of or variant.name
    file = FINISHED / f"{name}.{seed}.safetensors"
    if not file.exists():
        parts: dict[str, Any] = {"base_channels": 16, "batch_norm": True, "padding": "same", "dropout": 0.0}
        start = new_model(Architecture(**parts | variant.architecture), seed=seed)
        FINISHED.mkdir(parents=True, exist_ok=True)
        fine_tune(start, learned_from(), replace(variant.settings, seed=seed)).save(file)
    return load_model(file)


def scores(model: Model, *, tta: bool) -> dict[str, float]:
    """Pooled F1 of the held-out images and the share of touching objects that were found."""
    held_out = images()[::HELD_OUT]
    foregrounds = [
        1 - predict(image, model, PredictSettings(zoom=1.0, tta=tta)).probabilities[0]
        for image, _ in held_out
    ]
    return max((scores_at(threshold, foregrounds) for threshold in THRESHOLDS), key=lambda found: found["f1"])


def scores_at(threshold: float, foregrounds: list[NDArray[np.float32]]) -> dict[str, float]:
    """The same, for one threshold."""
    settings = ObjectSettings(threshold=threshold, split_touching=0.35)
    matches, n_touching, n_found = [], 0, 0
    for foreground, (_, truth) in zip(foregrounds, images()[::HELD_OUT], strict=True):
        found = objects_from_probabilities(foreground, settings)
        matches.append(match_objects(found, truth))
        for number in touching(truth):
            n_touching += 1
            n_found += best_overlap(found, truth == number) >= 0.5
    f1 = reduce(add, matches).f1()
    return {
        "f1": round(f1["0.5"], 4),
        "f1_at_0.8": round(f1["0.8"], 4),
        "touching_found": round(n_found / n_touching, 4),
        "n_touching": n_touching,
        "threshold": threshold,
    }


def touching(truth: Labels) -> Iterator[int]:
    """Ids with another object within `TOUCHING_PX`."""
    for number, box in enumerate(ndimage.find_objects(truth), start=1):
        if box is None:
            continue
        around = tuple(slice(max(0, part.start - TOUCHING_PX), part.stop + TOUCHING_PX) for part in box)
        part = truth[around]
        near = ndimage.binary_dilation(part == number, np.ones((3, 3), bool), iterations=TOUCHING_PX)
        if ((part != number) & (part > 0) & near).any():
            yield number


def best_overlap(found: Labels, is_object: NDArray[np.bool_]) -> float:
    """IoU of the found object that covers a true one best."""
    inside = np.bincount(found[is_object])
    inside[0] = 0
    if not inside.any():
        return 0.0
    best = int(inside.argmax())
    union = np.count_nonzero(is_object) + np.count_nonzero(found == best) - int(inside[best])
    return float(inside[best] / union)


def measured(variant: Variant, seed: int) -> dict[str, Any]:
    """Train and score a variant, or read what it scored."""
    file = FINISHED / f"{variant.name}.{seed}.json"
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known
    begin = time.perf_counter()
    model = trained(variant, seed)
    seconds = round(time.perf_counter() - begin)
    result = {"what": variant.what, **scores(model, tta=variant.tta), "training_s": seconds}
    Path(file).write_text(json.dumps(result), encoding="utf-8")
    return result


def main() -> None:
    """Measure every variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of the name of a variant")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        if arguments.only not in variant.name:
            continue
        for seed in range(arguments.seeds):
            result = measured(variant, seed)
            rows.setdefault(variant.name, []).append(result)
            print(f"{variant.name} (seed {seed}): {result}", flush=True)
        if not arguments.only and len(rows) >= LEAST_RECORDED:
            record(rows)


def record(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Write what is measured so far: the rest takes an hour, and is often interrupted."""
    mean = {name: float(np.mean([one["touching_found"] for one in runs])) for name, runs in rows.items()}
    write_result(
        "ablation",
        {
            "what": "separation border: share of touching nuclei found with it, and without",
            "value": [round(mean["recipe"], 4), round(mean["no-border"], 4)],
            "target": "more with it",
            "met": mean["recipe"] > mean["no-border"],
            "steps": RECIPE.steps,
            "variants": rows,
        },
    )


if __name__ == "__main__":
    main()
