"""Peak memory of tiled prediction beyond the input and output arrays, for planes of growing size (Linux)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from _common import write_result
from _prediction import benchmark_image, benchmark_model, predict_tiles
from napari_unet_seg.core.prediction import PredictSettings

SIDES_PX = (1024, 2048, 4096, 8192)
TILE_PX = 512
LARGEST_GROWTH = 1.1
"""What counts as independent of the size: the largest plane may need so much more than the smallest."""


def peak_mb(side_px: int) -> float:
    """Peak in this process while a plane is predicted, less what was there before, arrays included."""
    model = benchmark_model()
    settings = PredictSettings(device="cpu", zoom=1, tile_px=TILE_PX)
    image = benchmark_image(side_px)
    out = np.ones((model.architecture.n_classes, side_px, side_px), np.float32)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is used now
    before = _status_mb("VmHWM")
    predict_tiles(
        image, model, settings, out
    )  # the first in this process, so no freed memory hides its needs
    return _status_mb("VmHWM") - before


def _status_mb(entry: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(entry)) / 1024


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(peak_mb(int(sys.argv[1]))))
        return
    peaks = {}
    for side in SIDES_PX:
        child = subprocess.run(
            [sys.executable, __file__, str(side)], check=True, capture_output=True, text=True
        )
        peaks[side] = json.loads(child.stdout)
    growth = peaks[SIDES_PX[-1]] / max(1.0, peaks[SIDES_PX[0]])
    write_result(
        "prediction_memory",
        {
            "what": f"tiled prediction: peak memory beyond the arrays, {SIDES_PX[-1]}² to {SIDES_PX[0]}²",
            "value": round(growth, 2),
            "unit": "×",
            "target": f"≤ {LARGEST_GROWTH}",
            "met": growth <= LARGEST_GROWTH,
            "tile_px": TILE_PX,
            "model": benchmark_model().name,
            "peak_mb": {str(side): round(peak, 1) for side, peak in peaks.items()},
        },
    )


if __name__ == "__main__":
    main()
