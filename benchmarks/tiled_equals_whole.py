"""Largest difference between tiled prediction and one pass of the network as built, over random cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from _common import write_result
from _prediction import benchmark_model
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.prediction import PredictSettings, predict, whole_image_probabilities

N_CASES = 45
TARGET = 1e-5


def random_model(rng: np.random.Generator) -> Model:
    """A small network of random shape and weights, its batch norms with statistics of their own."""
    architecture = Architecture(
        base_channels=int(rng.integers(2, 9)),
        depth=int(rng.integers(2, 5)),
        batch_norm=bool(rng.integers(2)),
        padding="same" if rng.integers(2) else "valid",
        out_channels=int(rng.integers(1, 4)),
    )
    model = new_model(architecture, seed=int(rng.integers(1 << 30)))
    for part in model.network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean = torch.randn(part.num_features) / 2
            part.running_var = torch.rand(part.num_features) + 1
    return model


def random_case(rng: np.random.Generator, model: Model) -> dict[str, Any]:
    """One comparison: sizes odd, tiny, or a single row; any tile; half of the cases zoomed."""
    shape = tuple(int(rng.integers(1, limit)) for limit in ((200, 200), (2, 200), (40, 40))[rng.integers(3)])
    zoom = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5)))) if rng.integers(2) else 1.0
    tile_px, tta = int(rng.integers(1, 200)), bool(rng.integers(6) == 0)
    image = rng.integers(0, 65535, shape, dtype=np.uint16)
    image = image.repeat(3, axis=0).repeat(3, axis=1)[: shape[0], : shape[1]]  # noise is not predicted
    tiled = predict(image, model, PredictSettings(tile_px=tile_px, zoom=zoom, tta=tta, device="cpu"))
    whole = whole_image_probabilities(image[np.newaxis], model, zoom=(zoom, zoom), tta=tta)
    return {
        "difference": float(np.abs(tiled.probabilities - whole).max()),
        "model": model.name,
        "architecture": model.architecture.to_json(),
        "shape": shape,
        "zoom": round(zoom, 3),
        "tile_px": tiled.tile_px,
        "tta": tta,
    }


def main() -> None:
    rng, bundled = np.random.default_rng(0), benchmark_model()
    torch.manual_seed(0)
    cases = [random_case(rng, bundled if case % 3 == 0 else random_model(rng)) for case in range(N_CASES)]
    worst = max(cases, key=lambda case: case["difference"])
    write_result(
        "tiled_equals_whole",
        {
            "what": f"tiled = whole, {N_CASES} random cases: largest difference of a probability",
            "value": worst["difference"],
            "unit": "",
            "target": f"≤ {TARGET:g}",
            "met": worst["difference"] <= TARGET,
            "worst": worst,
            "bundled_model_worst": max(case["difference"] for case in cases[::3]),
        },
    )


if __name__ == "__main__":
    main()
