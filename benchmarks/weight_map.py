"""How fast and how exact the weight map is: whole, in the box of a brush stroke, and after a shift of w_c."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels

from _common import median_seconds, seconds, write_result
from napari_unet_seg.core.weight_map import ClassCounts, WeightSettings, weight_map, weight_parts

PAPER = WeightSettings.paper()
STROKES = 200
TARGET_BOX_MS, TARGET_REWRITE_MS = 16, 60


def tissue(side_px: int, n_objects: int, seed: int = 0, radius_px: float = 28) -> NDArray[np.int32]:
    """Objects that grow from random points until they touch; about four tenths of the plane stays free."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side_px, side_px), np.int32)
    chosen = rng.choice(side_px * side_px, n_objects, replace=False)
    labels.ravel()[chosen] = np.arange(1, n_objects + 1)
    return expand_labels(labels, radius_px)


def full_map() -> dict[str, float]:
    """Time of the whole map over that of one distance transform of the same plane."""
    labels = tissue(2048, 1500)
    whole, transform = median_seconds(
        lambda: weight_map(labels, PAPER), lambda: ndimage.distance_transform_edt(labels == 0)
    )
    return {
        "seconds": round(whole, 3),
        "edt_seconds": round(transform, 3),
        "ratio": round(whole / transform, 3),
    }


def core_ms(run: Callable[[], object]) -> float:
    """Milliseconds of one core: the wall clock of an idle machine, whatever else this one is doing."""
    begin = time.process_time()
    run()
    return 1e3 * (time.process_time() - begin)


def stroke(side_px: int, n_objects: int) -> dict[str, float]:
    """Percentiles over brush strokes of 20 to 60 px, of ids in turn, at random places."""
    labels = tissue(side_px, n_objects)
    rng = np.random.default_rng(1)
    wall_ms, one_core_ms = [], []
    for _ in range(STROKES):
        size = int(rng.integers(20, 61))
        top, left = (int(corner) for corner in rng.integers(0, side_px - size, 2))
        box = (slice(top, top + size), slice(left, left + size))
        labels[box] = rng.integers(0, n_objects + 1)
        update = partial(weight_parts, labels, PAPER, changed=box)
        one_core_ms.append(core_ms(lambda update=update: wall_ms.append(1e3 * seconds(update))))
    percentiles = {"median": 50, "p95": 95}
    return {
        f"{name}_{what}": round(float(np.percentile(taken, percent)), 2)
        for what, taken in (("core_ms", one_core_ms), ("wall_ms", wall_ms))
        for name, percent in percentiles.items()
    }


def rewrite_ms() -> float:
    """Median time of one core to put new class weights under an existing border term, 4096²."""
    parts = weight_parts(tissue(4096, 2000), PAPER)
    counts = ClassCounts((9_000_000, 7_777_216))
    return round(median(core_ms(lambda: parts.weights(PAPER, counts)) for _ in range(5)), 1)


def largest_error(settings: WeightSettings) -> float:
    """Largest difference to the formula, over w0, on a 512² plane; one distance transform per object."""
    labels = tissue(512, 90, seed=2)
    found = weight_parts(labels, settings).border
    none = np.full(labels.shape, np.inf)
    d1, d2 = none, none.copy()
    for object_id in range(1, int(labels.max()) + 1):
        distance = ndimage.distance_transform_edt(labels != object_id)
        d1, d2 = np.minimum(d1, distance), np.minimum(d2, np.maximum(d1, distance))
    expected = settings.w0 * np.exp(-((d1 + d2) ** 2) / (2 * settings.sigma_px**2))
    if settings.preset == "fiji":
        expected += (1 - settings.balance) * np.exp(-(d1**2) / (2 * settings.sigma1_px**2))
    is_background = weight_parts(labels, settings).classes == 0
    return float(np.abs(found - expected)[is_background].max() / settings.w0)


def main() -> None:
    whole = full_map()
    small, large = stroke(1024, 125), stroke(4096, 2000)
    rewrite = rewrite_ms()
    write_result(
        "weight_map",
        {
            "what": "full weight map, 2048², 1500 touching objects, over one distance transform",
            "value": whole["ratio"],
            "unit": "× distance_transform_edt",
            "target": "≤ 1",
            "met": whole["ratio"] <= 1,
            "full_map": whole,
            "largest_error_over_w0": {
                preset.preset: largest_error(preset) for preset in (PAPER, WeightSettings.fiji())
            },
        },
    )
    write_result(
        "weight_map_stroke",
        {
            "what": "weight map after a stroke, 4096², 2000 objects, 95th percentile",
            "value": large["p95_core_ms"],
            "unit": "ms of one core",
            "target": f"≤ {TARGET_BOX_MS} ms",
            "met": large["p95_core_ms"] <= TARGET_BOX_MS,
            "side_4096": large,
            "side_1024": small,
            "ratio_4096_to_1024": round(large["median_core_ms"] / small["median_core_ms"], 2),
            "w_c_rewrite_core_ms": rewrite,
            "w_c_rewrite_met": rewrite <= TARGET_REWRITE_MS,
        },
    )


if __name__ == "__main__":
    main()
