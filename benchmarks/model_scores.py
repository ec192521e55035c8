"""Scores of the bundled models on the `test/` folders, by the project's own commands, whole pipeline.

    python benchmarks/model_scores.py

Runs `napari-unet-seg predict` and `evaluate` in a temporary folder, prints the figures, and writes them to
benchmarks/results/model_scores.json. Test folders are never trained or tuned on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import data_dir, write_result

COMMAND = [str(Path(sys.executable).with_name("napari-unet-seg"))]
KEPT = ("rand_error", "v_rand", "v_info", "warping_error", "pixel_error", "f1_at", "ap")


@dataclass(frozen=True)
class Case:
    """One test set for one model."""

    name: str
    model: str
    images: str
    labels: str
    arguments: tuple[str, ...] = ()


CASES = (
    Case(
        "nuclei-dsb2018/test/fluo",
        "nuclei-fluorescence",
        "nuclei-dsb2018/test/fluo/images",
        "nuclei-dsb2018/test/fluo/labels",
        ("--each",),
    ),
    Case(
        "nuclei-bbbc039/test",
        "nuclei-fluorescence",
        "nuclei-bbbc039/test/images.tif",
        "nuclei-bbbc039/test/labels.tif",
    ),
    Case(
        "em-flyem-medulla/test",
        "em-boundaries",
        "em-flyem-medulla/test/images.tif",
        "em-flyem-medulla/test/labels.tif",
        ("--pixel-size=10",),
    ),
    Case(
        "em-isbi2012/test",
        "em-boundaries",
        "em-isbi2012/test/images.tif",
        "em-isbi2012/test/labels.tif",
        ("--pixel-size=4",),
    ),
)


def score(case: Case, folder: Path) -> dict[str, Any]:
    """Predict and evaluate one case."""
    out = folder / ("labels" if "--each" in case.arguments else "labels.tif")
    images, labels = (str(data_dir() / path) for path in (case.images, case.labels))
    predicted = run("predict", images, "--model", case.model, "--out", str(out), *case.arguments)
    scores = run("evaluate", str(out), labels)
    return {"model": case.model, "seconds": predicted["seconds"], **{key: scores[key] for key in KEPT}}


def run(*arguments: str) -> dict[str, Any]:
    """Run a command of the project and return its JSON."""
    done = subprocess.run([*COMMAND, *arguments, "--json"], check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Score every case."""
    results = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            results[case.name] = score(case, Path(folder))
        f1, v_rand = results[case.name]["f1_at"], results[case.name]["v_rand"]
        print(f"{case.name}: F1 at 0.5 {f1['0.5']:.3f}, Rand error thinned {1 - v_rand:.4f}", flush=True)
    fluo, flyem = results["nuclei-dsb2018/test/fluo"], results["em-flyem-medulla/test"]
    f1, rand_error = fluo["f1_at"]["0.5"], 1 - flyem["v_rand"]
    write_result(
        "model_scores",
        {
            "what": "bundled models: F1 at IoU 0.5, nuclei-dsb2018 fluo; Rand error thinned, FlyEM",
            "value": [round(f1, 4), round(rand_error, 4)],
            "target": "≥ 0.88, ≤ 0.10",
            "met": f1 >= 0.88 and rand_error <= 0.10,
            "test_sets": results,
        },
    )


if __name__ == "__main__":
    main()
