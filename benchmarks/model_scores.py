"""Scores of the bundled models on the `test/` folders, by the project's own commands, whole pipeline.

    python benchmarks/model_scores.py            # measure and record
    python benchmarks/model_scores.py --check    # measure, and fail where a model falls short of its record

Runs `napari-unet-seg predict` and `evaluate` in a temporary folder, prints the figures, and writes them to
benchmarks/results/model_scores.json. Test folders are never trained or tuned on. Pixel sizes and zooms are
given: what is lost where they have to be found is measured by auto_zoom.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import RESULTS, data_dir, write_result
from napari_unet_seg.core._matching import match_objects

COMMAND = [str(Path(sys.executable).with_name("napari-unet-seg"))]
MAY_FALL = 0.005
"""Below the record, before it counts: another version of a library rounds otherwise."""
REPEATS = 1000
SHOWN_OVERLAPS = ("0.5", "0.7", "0.9")
Labels = NDArray[np.integer[Any]]
KEPT = ("rand_error", "v_rand", "v_info", "warping_error", "pixel_error", "f1_at", "ap")


@dataclass(frozen=True)
class Case:
    """One test set for one model."""

    name: str
    model: str
    images: str
    labels: str
    arguments: tuple[str, ...] = ()
    task: str = "instances"


CASES = (
    Case(
        "nuclei-dsb2018/test/fluo",
        "nuclei-fluorescence",
        "nuclei-dsb2018/test/fluo/images",
        "nuclei-dsb2018/test/fluo/labels",
        ("--each", "--zoom=1"),
    ),
    Case(
        "nuclei-bbbc039/test",
        "nuclei-fluorescence",
        "nuclei-bbbc039/test/images.tif",
        "nuclei-bbbc039/test/labels.tif",
        ("--zoom=1",),
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
    Case(
        "cells-phase-usiigaci/test",
        "cells-phase-contrast",
        "cells-phase-usiigaci/test/images.tif",
        "cells-phase-usiigaci/test/labels.tif",
        ("--zoom=0.5",),
    ),
    Case(
        "axons-sem/test",
        "axons-sem",
        "axons-sem/test/images",
        "axons-sem/test/labels",
        ("--each", "--zoom=1"),
        task="classes",
    ),
)


def score(case: Case, folder: Path) -> dict[str, Any]:
    """Predict and evaluate one case."""
    out = folder / ("labels" if "--each" in case.arguments else "labels.tif")
    images, labels = (str(data_dir() / path) for path in (case.images, case.labels))
    predicted = run("predict", images, "--model", case.model, "--out", str(out), *case.arguments)
    scores = run("evaluate", str(out), labels, "--task", case.task)
    result = {"model": case.model, "seconds": predicted["seconds"]}
    if case.task == "classes":
        result["dice"] = {str(each["class_id"]): each["f1"] for each in scores["per_class"]}
        return result
    result |= {key: scores[key] for key in KEPT}
    result["intervals"] = intervals(planes(out), planes(Path(labels)), scores["per_plane"])
    return result


def planes(path: Path) -> list[Labels]:
    """The planes of a file, or the files of a folder by name."""
    if path.is_dir():
        return [tifffile.imread(file) for file in sorted(path.glob("*.tif"))]
    return list(tifffile.imread(path))


def intervals(
    found: list[Labels], truth: list[Labels], per_plane: list[dict[str, Any]]
) -> dict[str, tuple[float, float]]:
    """95 % intervals of the pooled F1 and of the mean V_rand, by drawing the images anew (bootstrap)."""
    rng = np.random.default_rng(0)
    counts = [match_objects(a, b.astype(np.int64)) for a, b in zip(found, truth, strict=True)]
    v_rand = np.array([plane["v_rand"] for plane in per_plane])
    drawn: dict[str, list[float]] = {f"F1 at {overlap}": [] for overlap in SHOWN_OVERLAPS} | {"v_rand": []}
    for _ in range(REPEATS):
        chosen = rng.integers(len(counts), size=len(counts))
        f1 = reduce(add, (counts[i] for i in chosen)).f1()
        for overlap in SHOWN_OVERLAPS:
            drawn[f"F1 at {overlap}"].append(f1[overlap])
        drawn["v_rand"].append(float(v_rand[chosen].mean()))
    percentiles = {name: np.percentile(values, (2.5, 97.5)).round(4) for name, values in drawn.items()}
    return {name: (float(low), float(high)) for name, (low, high) in percentiles.items()}


def run(*arguments: str) -> dict[str, Any]:
    """Run a command of the project and return its JSON."""
    done = subprocess.run([*COMMAND, *arguments, "--json"], check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def fallen(results: dict[str, Any], recorded: dict[str, Any]) -> list[str]:
    """A sentence for each score that is lower than its record."""
    sentences = []
    for name, record in recorded.items():
        for what, was, now in compared(record, results.get(name)):
            if now < was - MAY_FALL:
                sentences.append(f"{name}: {what} fell from {was:.4f} to {now:.4f}")
    return sentences


def compared(record: dict[str, Any], result: dict[str, Any] | None) -> list[tuple[str, float, float]]:
    """What is compared, its record, and what it is now; 0 where it was not measured."""
    was, now = figures(record), {} if result is None else figures(result)
    return [(name, figure, now.get(name, 0.0)) for name, figure in was.items()]


def figures(result: dict[str, Any]) -> dict[str, float]:
    """The scores of a test set by name, the higher the better."""
    if "dice" in result:
        return {f"Dice of class {number}": dice for number, dice in result["dice"].items()}
    return {"v_rand": result["v_rand"]} | {f"F1 at {at}": f1 for at, f1 in result["f1_at"].items()}


def check(results: dict[str, Any]) -> None:
    """Compare with what is recorded; the program fails where something is lower."""
    recorded = json.loads((RESULTS / "model_scores.json").read_text(encoding="utf-8"))
    sentences = fallen(results, recorded["test_sets"])
    print("\n".join(sentences) or "Every model reaches its record.")
    raise SystemExit(1 if sentences else 0)


def main() -> None:
    """Score every case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the record instead of writing it")
    arguments = parser.parse_args()
    results = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            results[case.name] = score(case, Path(folder))
        said = ", ".join(f"{name} {figure:.4f}" for name, figure in figures(results[case.name]).items())
        print(f"{case.name}: {said}", flush=True)
    if arguments.check:
        check(results)
    fluo, flyem = results["nuclei-dsb2018/test/fluo"], results["em-flyem-medulla/test"]
    f1, rand_error = fluo["f1_at"]["0.5"], 1 - flyem["v_rand"]
    write_result(
        "model_scores",
        {
            "what": "bundled models: F1 at IoU 0.5, nuclei-dsb2018 fluo; Rand error thinned, FlyEM",
            "value": [round(f1, 4), round(rand_error, 4)],
            "target": "≥ 0.92, ≤ 0.06",
            "met": f1 >= 0.92 and rand_error <= 0.06,
            "test_sets": results,
        },
    )


if __name__ == "__main__":
    main()
