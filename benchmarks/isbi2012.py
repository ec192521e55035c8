"""The segmentation challenge that the U-Net was made for: trained on 15 sections, scored on 5 others.

    python benchmarks/isbi2012.py                 # our recipe
    python benchmarks/isbi2012.py --recipe paper  # the network, loss and training of 2015: days on a CPU
    python benchmarks/isbi2012.py --recipe paper --steps 200

By the project's own commands: `train` on em-isbi2012/train (a fifth held out to choose the weights by),
`predict --tta --probabilities` and `evaluate` on em-isbi2012/test, whose best of 10 thresholds counts, as in
the challenge. An interrupted training goes on where it was. The sections of both folders adjoin, so this is
no ranking; the challenge's own test sections have no public truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS, data_dir, write_result
from model_scores import run

TARGET_RAND_ERROR = 0.0382
"""Ronneberger et al. 2015, table 1, from all 30 sections."""
RECIPES = {
    "ours": ("--from", "em-boundaries", "--preset", "thorough", "--steps", "1500"),
    "paper": ("--preset", "paper"),
}
KEPT = ("rand_error", "v_rand", "v_info", "warping_error", "pixel_error", "thresholds")
PIXEL_SIZE = ("--pixel-size", "4")
WORK = REPOSITORY / ".scratch" / "isbi2012"


def trained(recipe: str, steps: int | None, device: str) -> tuple[Path, dict[str, Any]]:
    """Train on the 15 sections, or go on with it."""
    WORK.mkdir(parents=True, exist_ok=True)
    model = WORK / f"{recipe}.safetensors"
    options = [*RECIPES[recipe], *(() if steps is None else ("--steps", str(steps)))]
    train = data_dir() / "em-isbi2012" / "train"
    where = ["--images", str(train / "images.tif"), "--labels", str(train / "labels.tif")]
    result = run(
        "train",
        *where,
        "--out",
        str(model),
        *options,
        *PIXEL_SIZE,
        "--device",
        device,
        "--resume",
        "--overwrite",
    )
    return model, result


def scored(model: Path, device: str) -> dict[str, Any]:
    """Scores on the 5 sections, by the 8-fold average, and by a single pass."""
    test = data_dir() / "em-isbi2012" / "test"
    scores: dict[str, Any] = {}
    for name, options in (("8-fold", ("--tta",)), ("single", ())):
        labels, probabilities = WORK / "labels.ome.tif", WORK / "probabilities.ome.tif"
        outputs = ["--out", str(labels), "--probabilities", str(probabilities), "--overwrite"]
        predicted = run(
            "predict", str(test / "images.tif"), "--model", str(model), *outputs, *PIXEL_SIZE, *options,
            "--device", device,
        )  # fmt: skip
        found = run("evaluate", str(probabilities), str(test / "labels.tif"))
        scores[name] = {key: found[key] for key in KEPT if key in found}
        scores[name]["seconds"] = predicted["seconds"]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="ours")
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe's")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    model, training = trained(arguments.recipe, arguments.steps, arguments.device)
    scores = scored(model, arguments.device)
    path = RESULTS / "isbi2012.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))["recipes"] if path.exists() else {}
    kept = {key: value for key, value in training.items() if key != "model"}  # a path of this machine
    recipes = earlier | {arguments.recipe: {"training": kept, "scores": scores}}
    errors = {name: each["scores"]["8-fold"]["rand_error"] for name, each in recipes.items()}
    print(json.dumps(scores, indent=2))
    write_result(
        "isbi2012",
        {
            "what": "ISBI 2012, trained on 15 sections, scored on 5: Rand error, not thinned, our recipe",
            "value": round(errors.get("ours", 1.0), 4),
            "target": f"≤ {TARGET_RAND_ERROR} (the paper's, from 30 sections)",
            "met": errors.get("ours", 1.0) <= TARGET_RAND_ERROR,
            "recipes": recipes,
        },
    )


if __name__ == "__main__":
    main()
