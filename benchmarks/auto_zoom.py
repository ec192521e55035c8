"""Whether the zoom is found: bundled models on test images at other sizes, whose pixel size is not given.

    python benchmarks/auto_zoom.py                                       # about half an hour
    python benchmarks/auto_zoom.py --only nuclei-dsb2018 --sizes 0.5 2   # nothing is recorded

Images and truth are resampled to half, once, twice and three times their size, and segmented by
`napari-unet-seg predict --each`. For comparison, the same images at the zoom that undoes the resampling.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skimage.transform import resize

import model_scores
from _common import data_dir, write_result
from napari_unet_seg.core._matching import match_objects

SIZES = (0.5, 1.0, 2.0, 3.0)
MOST_LOST = 0.03
"""Of the score at the images' own size."""


@dataclass(frozen=True)
class Case:
    """A test set of `model_scores`, and how it is judged here."""

    of: model_scores.Case
    score: str
    true_zoom: float
    """At the images' own size."""
    has_bar: bool


JUDGED = {
    "nuclei-dsb2018/test/fluo": ("f1_at", 1.0, True),
    "nuclei-bbbc039/test": ("f1_at", 1.0, True),
    "em-flyem-medulla/test": ("v_rand", 1.0, False),
    "em-isbi2012/test": ("v_rand", 0.4, False),
    "cells-phase-usiigaci/test": ("f1_at", 0.5, False),
}
CASES = tuple(Case(case, *JUDGED[case.name]) for case in model_scores.CASES if case.name in JUDGED)


def write_resampled(case: Case, size: float, folder: Path) -> None:
    """Images linearly, after smoothing where they shrink; labels by the nearest pixel."""
    for part in ("images", "labels"):
        (folder / part).mkdir()
    images, labels = (model_scores.planes(data_dir() / path) for path in (case.of.images, case.of.labels))
    for number, (image, truth) in enumerate(zip(images, labels, strict=True)):
        shape = tuple(max(1, round(length * size)) for length in truth.shape)
        indices = (
            np.minimum(((np.arange(new) + 0.5) / size).astype(int), old - 1)
            for new, old in zip(shape, truth.shape, strict=True)
        )
        resampled = resize(image, shape, order=1, anti_aliasing=size < 1, preserve_range=True)
        tifffile.imwrite(folder / "images" / f"{number:03d}.tif", np.rint(resampled).astype(image.dtype))
        tifffile.imwrite(folder / "labels" / f"{number:03d}.tif", truth[np.ix_(*indices)])


def scored(case: Case, folder: Path, zoom: str) -> tuple[float, list[float]]:
    """Score of all images, and the zoom of each."""
    out = folder / f"out-{zoom}"
    options = ["--model", case.of.model, "--out", str(out), "--each"]
    options += [] if zoom == "found" else ["--zoom", zoom]
    predicted = model_scores.run("predict", str(folder / "images"), *options)
    zooms = [each["zoom"] for each in predicted["images"]]
    if case.score == "v_rand":
        return model_scores.run("evaluate", str(out), str(folder / "labels"))["v_rand"], zooms
    # Without the other scores, which take minutes on large images.
    pairs = zip(model_scores.planes(out), model_scores.planes(folder / "labels"), strict=True)
    matches = reduce(add, (match_objects(found, truth.astype(np.int64)) for found, truth in pairs))
    return matches.f1()["0.5"], zooms


def measured(case: Case, size: float) -> dict[str, Any]:
    """Scores of one test set at one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_resampled(case, size, folder)
        true_zoom = case.true_zoom / size
        found, zooms = scored(case, folder, "found")
        undone, _ = scored(case, folder, f"{true_zoom:.4f}")
        ratios = np.log2(np.array(zooms) / true_zoom)
    result = {
        "found": round(found, 4),
        "undone": round(undone, 4),
        "median_zoom": round(float(np.median(zooms)), 3),
        "off_by_octaves": [round(float(value), 2) for value in np.percentile(ratios, [5, 50, 95])],
    }
    print(f"{case.of.name} × {size:g}: {result}", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of the name of a test set")
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES)
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for case in CASES:
        if arguments.only in case.of.name:
            rows[case.of.name] = {f"{size:g}": measured(case, size) for size in arguments.sizes}
            if not arguments.only and tuple(arguments.sizes) == SIZES:
                record(rows)


def record(rows: dict[str, dict[str, Any]]) -> None:
    """Of the test sets so far."""
    lost = {
        case.of.name: round(
            rows[case.of.name]["1"]["undone"] - min(row["found"] for row in rows[case.of.name].values()), 4
        )
        for case in CASES
        if case.has_bar and case.of.name in rows
    }
    write_result(
        "auto_zoom",
        {
            "what": "found zoom, test sets at half to three times their size: F1 at 0.5 lost at most",
            "value": list(lost.values()),
            "target": f"≤ {MOST_LOST}",
            "met": max(lost.values()) <= MOST_LOST,
            "lost": lost,
            "test_sets": rows,
        },
    )


if __name__ == "__main__":
    main()
