"""The segmentation challenge that the U-Net was made for: trained on 15 sections, scored on 5 others.

    python benchmarks/isbi2012.py                 # our recipe
    python benchmarks/isbi2012.py --recipe paper  # the network, loss and training of 2015: days on a CPU
    python benchmarks/isbi2012.py --recipe paper --steps 200
    python benchmarks/isbi2012.py --recipe ours-at-10-nm

By the project's own commands: `train` on em-isbi2012/train (a fifth held out to choose the weights by),
`predict --tta --probabilities` and `evaluate` on em-isbi2012/test, whose best of 10 thresholds counts, as in
the challenge; once of the bare threshold, and once of the objects that our own pipeline makes of it. An
interrupted training goes on where it was, a finished one is scored again. The sections of both folders
adjoin, so this is no ranking; the challenge's own test sections have no public truth.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import REPOSITORY, RESULTS, data_dir, write_result
from model_scores import run
from napari_unet_seg.core._rand import pieces, segment_agreement
from napari_unet_seg.core.metrics import PROBABILITY_THRESHOLDS, evaluate
from napari_unet_seg.core.models import load_model
from napari_unet_seg.core.objects import objects_from_probabilities
from napari_unet_seg.core.weight_map import WeightSettings

TARGET_RAND_ERROR = 0.0382
"""Ronneberger et al. 2015, table 1, from all 30 sections."""
OURS = ("--from", "em-boundaries", "--preset", "thorough")
RECIPES = {
    "ours": (*OURS, "--steps", "1500"),
    "ours-at-10-nm": (*OURS, "--steps", "1500", "--pixel-size", "4"),
    "paper": ("--preset", "paper"),
}
"""`em-boundaries` sees 10 nm/px: it shrinks images of a known pixel size, and takes others as they are. That
is far better on the held-out sections: Rand error of the objects 0.02 instead of 0.13."""
KEPT = ("rand_error", "v_rand", "v_info", "warping_error", "pixel_error", "thresholds")
WORK = REPOSITORY / ".scratch" / "isbi2012"


def trained(recipe: str, steps: int | None, device: str) -> Path:
    """Train on the 15 sections, or go on with it, or take the model that this has left."""
    options = [*RECIPES[recipe], *(() if steps is None else ("--steps", str(steps)))]
    folder = WORK / "-".join(options).replace("--", "")
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.safetensors"
    if model.exists() and not model.with_suffix(".checkpoint").exists():
        return model
    train = data_dir() / "em-isbi2012" / "train"
    where = ["--images", str(train / "images.tif"), "--labels", str(train / "labels.tif")]
    out = ("--out", str(model), "--resume", "--overwrite")
    run("train", *where, *out, *options, "--device", device)
    return model


def scored(model: Path, recipe: str, device: str) -> dict[str, Any]:
    """Scores on the 5 sections, by the 8-fold average, and by a single pass."""
    scale = ("--pixel-size", "4") if "--pixel-size" in RECIPES[recipe] else ("--zoom", "1")
    test = data_dir() / "em-isbi2012" / "test"
    scores: dict[str, Any] = {}
    for name, options in (("8-fold", ("--tta",)), ("single", ())):
        labels, probabilities = WORK / "labels.ome.tif", WORK / "probabilities.ome.tif"
        outputs = ["--out", str(labels), "--probabilities", str(probabilities), "--overwrite"]
        predicted = run(
            "predict", str(test / "images.tif"), "--model", str(model), *outputs, *scale, *options,
            "--device", device,
        )  # fmt: skip
        found = run("evaluate", str(probabilities), str(test / "labels.tif"))
        scores[name] = {key: found[key] for key in KEPT if key in found}
        scores[name]["objects"] = of_objects(model, probabilities, test / "labels.tif", predicted["zoom"])
        scores[name]["seconds"] = predicted["seconds"]
    return scores


def of_objects(model: Path, probabilities: Path, truth: Path, zoom: float) -> dict[str, float]:
    """Scores of our own objects, cut at thin necks and closed up; of 10 thresholds, the smallest Rand error.

    Un-thinned, membranes wider than the truth's are errors and missing ones are not, so low thresholds win.
    """
    foreground, labels = 1 - tifffile.imread(probabilities)[0], tifffile.imread(truth)
    of_model = replace(load_model(model).objects, border_w0=WeightSettings.border_only().w0)
    found = {}
    for threshold in PROBABILITY_THRESHOLDS:
        wished = replace(of_model.without_grid, threshold=threshold)
        found[threshold] = objects_from_probabilities(foreground, wished.settled(of_model, (zoom, zoom)))
    segments = [pieces(plane) for plane in labels]
    best = max(found, key=lambda threshold: v_rand(found[threshold], segments))
    scores = evaluate(found[best], labels)
    kept = {key: getattr(scores, key) for key in KEPT if key != "thresholds"}
    return {**kept, "threshold": best}


def v_rand(found: NDArray[Any], segments: list[NDArray[Any]]) -> float:
    """Mean over the planes, un-thinned."""
    return float(np.mean([segment_agreement(*pair).rand for pair in zip(found, segments, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="ours")
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe's")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    model = trained(arguments.recipe, arguments.steps, arguments.device)
    history = load_model(model).info.history[-1]
    scores = scored(model, arguments.recipe, arguments.device)
    path = RESULTS / "isbi2012.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["recipes"] if path.exists() else {}
    training = {key: history[key] for key in ("steps", "best_step", "seconds", "score")}
    recipes = earlier | {arguments.recipe: {"training": training, "scores": scores}}
    error = recipes["ours"]["scores"]["8-fold"]["objects"]["rand_error"] if "ours" in recipes else 1.0
    print(json.dumps(scores, indent=2))
    write_result(
        "isbi2012",
        {
            "what": "ISBI 2012, trained on 15 sections: Rand error on 5, not thinned, objects of our recipe",
            "value": round(error, 4),
            "target": f"≤ {TARGET_RAND_ERROR} (the paper's, from 30 sections)",
            "met": error <= TARGET_RAND_ERROR,
            "recipes": recipes,
        },
    )


if __name__ == "__main__":
    main()
