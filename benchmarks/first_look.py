"""From the click on Segment to the first tile and to the labels of a 512² image, in new processes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from _common import write_result
from _prediction import benchmark_model
from napari_unet_seg.core.prediction import PlaneDone, PredictSettings, TileDone, prediction_steps, warm_up
from napari_unet_seg.core.synthetic import synthetic_em

SIDE_PX = 512
REPEATS = 5
TARGETS_S = {"first_tile_s": 0.5, "complete_s": 1.0}


def look(*, is_warm: bool) -> dict[str, float]:
    """Seconds until the first tile and until the labels; model loaded, and tile sizes measured if warm."""
    model, image = benchmark_model(), synthetic_em((1, SIDE_PX, SIDE_PX))[0][0]
    if is_warm:
        warm_up(model, "cpu")
    seconds: dict[str, float] = {}
    clicked = time.perf_counter()
    for step in prediction_steps(image, model, PredictSettings(device="cpu", zoom=1)):
        if isinstance(step, TileDone):
            seconds.setdefault("first_tile_s", time.perf_counter() - clicked)
        if isinstance(step, PlaneDone):
            seconds["complete_s"] = time.perf_counter() - clicked
    return seconds


def medians(state: str) -> dict[str, float]:
    """Median over new processes."""
    command = [sys.executable, __file__, state]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(REPEATS)
    ]
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in TARGETS_S}


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(look(is_warm=sys.argv[1] == "warm")))
        return
    warm, cold = medians("warm"), medians("cold")
    write_result(
        "first_look",
        {
            "what": f"first look, {SIDE_PX}²: first tile, complete",
            "value": [warm[name] for name in TARGETS_S],
            "unit": "s",
            "target": ", ".join(f"≤ {target}" for target in TARGETS_S.values()),
            "met": all(warm[name] <= target for name, target in TARGETS_S.items()),
            "model": benchmark_model().name,
            "warm": warm,
            "cold": cold,
        },
    )


if __name__ == "__main__":
    main()
