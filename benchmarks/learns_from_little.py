"""What a minute of fine-tuning on a few objects is worth: against the model before it, and a random forest.

    python benchmarks/learns_from_little.py                # one section, five seeds: about half an hour
    python benchmarks/learns_from_little.py --curve        # 3 and 15 sections too: some 20 minutes more
    python benchmarks/learns_from_little.py --quick-check  # one seed, one section; nothing is recorded
    python benchmarks/learns_from_little.py --tuning       # scored on sections of train/; nothing is recorded

20 objects of one section of `train/` as scribbles, or one region in which everything is annotated, are drawn
at random. The bundled model is fine-tuned on them with `TrainSettings.quick` for 60 s of wall time on 2
cores, preparation and validation included; a forest on multi-scale features gets the same annotation and
time, and its probabilities become objects by the same function. All are scored on `test/`, which nothing was
tuned on. docs/learning-from-little.md says more.

Finished cells of the table are kept in .scratch/learns_from_little, so that an interrupted run goes on, as
long as neither recipe nor the bundled weights have changed; `--fresh` forgets them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from itertools import product
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from _common import REPOSITORY, data_dir, write_result
from _forest import Forest, ForestSettings
from _small_annotations import Coding, annotate, diameter_px
from napari_unet_seg.core.metrics import evaluate
from napari_unet_seg.core.model_store import find_model
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.objects import ObjectSettings, objects_from_probabilities
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.training import TrainSettings, fine_tune

N_CORES = 2
TIME_LIMIT_S = 60.0
SEEDS = range(5)
CODINGS: tuple[Coding, ...] = ("scribbles", "region")
SECTIONS = {1: (7,), 3: (2, 7, 12), 15: tuple(range(15))}
FINISHED = REPOSITORY / ".scratch" / "learns_from_little"

Images = NDArray[Any]


@dataclass(frozen=True)
class DataSet:
    """Images with their truth, the model to start from, the score that counts.

    How objects are made of probabilities was chosen for each data set and method on its `train/` folder, and
    so was the forest's smoothing; `network_objects` serve the network before and after. Where the pixel size
    is unknown, `measured_quantile` says which of the annotated objects the person measures.
    """

    folder: str
    model: str
    metric: str
    pixel_size_nm: float | None
    tuning_sections: tuple[int, ...]
    network_objects: ObjectSettings
    forest: ForestSettings
    forest_objects: ObjectSettings
    measured_quantile: float | None = None


EM = DataSet(
    folder="em-isbi2012",
    model="em-boundaries",
    metric="V_rand, thinned",
    pixel_size_nm=4.0,
    tuning_sections=(0, 2, 10, 12, 14),
    network_objects=ObjectSettings(threshold=0.5, split_touching=0),
    forest=ForestSettings(smoothing_px=1),
    forest_objects=ObjectSettings(threshold=0.6, split_touching=0),
)
CELLS = DataSet(
    folder="cells-phase-usiigaci",
    model="nuclei-fluorescence",
    metric="F1 at IoU 0.5",
    pixel_size_nm=None,
    tuning_sections=(1, 22, 30),
    network_objects=ObjectSettings(threshold=0.3, split_touching=0.35),
    forest=ForestSettings(smoothing_px=4),
    forest_objects=ObjectSettings(threshold=0.5, split_touching=0.3),
    measured_quantile=0.25,
)


@dataclass(frozen=True)
class Cell:
    """One annotation, from which both methods learn."""

    data: DataSet
    coding: Coding
    n_sections: int
    seed: int

    @property
    def name(self) -> str:
        """Its file."""
        return f"{self.data.folder}_{self.coding}_{self.n_sections}_{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """Scores, 1 is best, and what they took."""

    before: float
    after: float
    forest: float
    seconds: float
    steps: int
    forest_seconds: float
    n_trees: int


def cells(*, is_quick_check: bool, with_curve: bool) -> list[Cell]:
    """Everything to be measured: the bars, and the curve over sections, which has one seed."""
    seeds = SEEDS[:1] if is_quick_check else SEEDS
    bars = [Cell(data, coding, 1, seed) for data, coding, seed in product((EM, CELLS), CODINGS, seeds)]
    curve = [Cell(data, coding, n, 0) for data, coding, n in product((EM, CELLS), CODINGS, (3, 15))]
    return bars + curve if with_curve else bars


def recipe(seed: int) -> TrainSettings:
    """The quick preset, ended by the clock."""
    return TrainSettings.quick(time_limit_s=TIME_LIMIT_S, device="cpu", seed=seed)


def measure(cell: Cell, *, is_tuning: bool) -> Outcome:
    """Annotate, learn both ways, and score."""
    data = cell.data
    images, labels = stack(data.folder, "train")
    sections = SECTIONS[cell.n_sections]
    scored_images, truth = (
        stack(data.folder, "train", data.tuning_sections) if is_tuning else stack(data.folder, "test")
    )
    annotation = annotate(images, labels, sections, cell.coding, cell.seed)
    measured_px = diameter_px(labels, sections, annotation, data.measured_quantile or 0.5)
    model, pixel_size_nm = to_start_from(data, measured_px)
    sized = annotate(images, labels, sections, cell.coding, cell.seed, pixel_size_nm=pixel_size_nm)
    started = time.perf_counter()
    tuned = fine_tune(model, sized, recipe(cell.seed))
    seconds = time.perf_counter() - started
    forest = Forest(annotation, data.forest, cell.seed, TIME_LIMIT_S, N_CORES)
    settings = PredictSettings(
        axes="ZYX", pixel_size_nm=pixel_size_nm, objects=data.network_objects, device="cpu"
    )
    foreground = np.stack([forest.foreground(image) for image in scored_images])
    return Outcome(
        before=score(data, predict(scored_images, model, settings).labels, truth),
        after=score(data, predict(scored_images, tuned, settings).labels, truth),
        forest=score(data, objects_from_probabilities(foreground, data.forest_objects), truth),
        seconds=round(seconds, 1),
        steps=tuned.history[-1]["steps"],
        forest_seconds=round(forest.seconds, 1),
        n_trees=forest.n_trees,
    )


@cache
def stack(folder: str, part: str, sections: tuple[int, ...] | None = None) -> tuple[Images, Images]:
    """Images and labels (Z, Y, X)."""
    images, labels = (
        tifffile.imread(data_dir() / folder / part / f"{kind}.tif") for kind in ("images", "labels")
    )
    return (images, labels) if sections is None else (images[list(sections)], labels[list(sections)])


def to_start_from(data: DataSet, diameter_px: float) -> tuple[Model, float]:
    """The bundled model, and the size of the images' pixels in its unit.

    Where no pixel size is known, the person tells how large the smaller ones of the annotated objects are:
    the images are zoomed until these are as large as the objects that the model knows, for larger ones are
    found too and smaller ones are not. Its own pixels are the unit then.
    """
    model = load_model(data.model)
    if data.pixel_size_nm is not None:
        return model, data.pixel_size_nm
    assert model.object_diameter_px is not None
    return model.copy(pixel_size_nm=1.0), model.object_diameter_px / diameter_px


def score(data: DataSet, found: Images, truth: Images) -> float:
    """Score objects against the truth."""
    scores = evaluate(found, truth)
    assert scores.v_rand is not None
    assert scores.f1_at is not None
    return scores.v_rand if data is EM else scores.f1_at["0.5"]


def finished(cell: Cell, *, is_tuning: bool, is_fresh: bool) -> Outcome:
    """The outcome of a cell, measured now or earlier by the same recipes."""
    folder = FINISHED / ("tuning" if is_tuning else "test")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{cell.name}.json"
    weights = sha256(find_model(cell.data.model)[0].read_bytes()).hexdigest()
    recipes = json.loads(json.dumps([asdict(recipe(cell.seed)), asdict(cell.data), weights]))
    if path.exists() and not is_fresh:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["recipes"] == recipes:
            return Outcome(**kept["outcome"])
    outcome = measure(cell, is_tuning=is_tuning)
    path.write_text(json.dumps({"outcome": asdict(outcome), "recipes": recipes}), encoding="utf-8")
    return outcome


def row(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Mean and spread over seeds, and whether the bar is met."""
    leads = [outcome.after - outcome.forest for outcome in outcomes]
    gains = [outcome.after - outcome.before for outcome in outcomes]
    lead, spread = statistics.mean(leads), statistics.stdev(leads) if len(leads) > 1 else 0.0
    names = ("before", "after", "forest")
    means = {name: statistics.mean(getattr(each, name) for each in outcomes) for name in names}
    return {
        **{name: round(value, 4) for name, value in means.items()},
        "lead_over_forest": round(lead, 4),
        "spread_of_lead": round(spread, 4),
        "met": statistics.mean(gains) > 0 and lead > spread,
        "cells": [asdict(outcome) for outcome in outcomes],
    }


def table(outcomes: dict[Cell, Outcome]) -> dict[str, dict[str, Any]]:
    """One row per data set, coding and number of sections, over seeds."""
    rows = {}
    for data, coding, n_sections in product((EM, CELLS), CODINGS, SECTIONS):
        found = [
            outcome
            for cell, outcome in outcomes.items()
            if (cell.data, cell.coding, cell.n_sections) == (data, coding, n_sections)
        ]
        if found:
            rows[f"{data.folder}, {coding}, {n_sections}"] = row(found)
    return rows


def show(rows: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(f"{'':44}before  after  forest  lead ± spread  seeds  met")
    for name, each in rows.items():
        print(
            f"{name:44}{each['before']:.3f}  {each['after']:.3f}   {each['forest']:.3f}  "
            f"{each['lead_over_forest']:+.3f} ± {each['spread_of_lead']:.3f}  {len(each['cells']):5}  "
            f"{'yes' if each['met'] else 'no'}"
        )


def use_two_cores() -> None:
    """Whatever the machine has."""
    import torch  # after the package, which says how its threads wait

    torch.set_num_threads(N_CORES)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])


def record(rows: dict[str, dict[str, Any]]) -> None:
    """Write the result of the whole table."""
    bars = {name: each for name, each in rows.items() if name.endswith(", 1")}
    write_result(
        "learns_from_little",
        {
            "what": "learns from little: lead over a forest after 60 s, EM (V_rand) and cells (F1)",
            "value": [each["lead_over_forest"] for each in bars.values()],
            "target": "above before; lead above one standard deviation",
            "met": all(each["met"] for each in bars.values()),
            "rows": rows,
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--quick-check", "--curve", "--tuning", "--fresh"):
        parser.add_argument(flag, action="store_true")
    arguments = parser.parse_args()
    use_two_cores()
    outcomes = {}
    for cell in cells(is_quick_check=arguments.quick_check, with_curve=arguments.curve):
        outcomes[cell] = finished(cell, is_tuning=arguments.tuning, is_fresh=arguments.fresh)
        print(cell.name, outcomes[cell], flush=True)
    rows = table(outcomes)
    show(rows)
    if not (arguments.quick_check or arguments.tuning):
        record(rows)


if __name__ == "__main__":
    main()
