"""Tiled prediction against one pass over the whole image and against MONAI's sliding window."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from _common import REPOSITORY, median_seconds, write_result
from _prediction import benchmark_image, benchmark_model, predict_tiles
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.network import UNet
from napari_unet_seg.core.normalisation import apply, plane_statistics
from napari_unet_seg.core.prediction import PredictSettings, warm_up, whole_image_probabilities

MONAI_FOLDER = REPOSITORY / ".scratch" / "monai"
ROI_PX = 512
"""Window of MONAI's `sliding_window_inference`; `sw_batch_size` is 4, as in its tutorials."""


def monai_sliding_window() -> Callable[..., torch.Tensor]:
    """MONAI's function, installed beside the project without its dependencies when it is not there yet."""
    if not (MONAI_FOLDER / "monai").is_dir():
        command = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(MONAI_FOLDER),
            "monai",
        ]
        subprocess.run(command, check=True)
    sys.path.append(str(MONAI_FOLDER))
    from monai.inferers import sliding_window_inference

    function: Callable[..., torch.Tensor] = sliding_window_inference
    return function


def monai_runs(model: Model, image: np.ndarray) -> dict[str, Callable[[], Any]]:
    """The network as it was built (same-size output, as MONAI needs it), in both memory formats."""
    slide = monai_sliding_window()
    runs: dict[str, Callable[[], Any]] = {}
    for name, memory_format in (("", torch.contiguous_format), ("_channels_last", torch.channels_last)):
        network = UNet(replace(model.architecture, padding="same"))
        network.load_state_dict(model.network.state_dict())
        network = network.eval().to(memory_format=memory_format)
        for overlap in (0.25, 0.5):

            def run(network: UNet = network, overlap: float = overlap, layout: Any = memory_format) -> None:
                values = apply(image[np.newaxis], plane_statistics(image[np.newaxis], model.normalisation))
                inputs = torch.from_numpy(values)[np.newaxis].contiguous(memory_format=layout)
                with torch.inference_mode():
                    slide(inputs, (ROI_PX, ROI_PX), 4, network, overlap=overlap, mode="gaussian")

            runs[f"monai_{overlap}{name}_s"] = run
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    model, image = benchmark_model(), benchmark_image(options.side)
    warm_up(model, "cpu")
    tiled = PredictSettings(device="cpu", zoom=1)
    runs: dict[str, Callable[[], Any]] = {
        "tiled_s": lambda: predict_tiles(image, model, tiled),
        "whole_s": lambda: predict_tiles(image, model, replace(tiled, tile_px=options.side)),
        "whole_network_as_built_s": lambda: whole_image_probabilities(image[np.newaxis], model),
        **monai_runs(model, image),
    }
    seconds = dict(zip(runs, median_seconds(*runs.values(), repeats=options.repeats), strict=True))
    ratios = {
        "speed_to_whole": seconds["whole_s"] / seconds["tiled_s"],
        "speed_to_monai_0.25": seconds["monai_0.25_s"] / seconds["tiled_s"],
        "speed_to_monai_0.5": seconds["monai_0.5_s"] / seconds["tiled_s"],
        "speed_to_monai_0.25_in_our_memory_format": seconds["monai_0.25_channels_last_s"]
        / seconds["tiled_s"],
        "speed_to_monai_0.5_in_our_memory_format": seconds["monai_0.5_channels_last_s"] / seconds["tiled_s"],
    }
    targets = {"speed_to_whole": 0.85, "speed_to_monai_0.25": 2, "speed_to_monai_0.5": 4}
    write_result(
        "prediction_speed",
        {
            "what": f"tiled prediction, {options.side}²: speed relative to whole pass, MONAI 0.25, MONAI 0.5",
            "value": [round(ratios[name], 2) for name in targets],
            "unit": "×",
            "target": ", ".join(f"≥ {target}" for target in targets.values()),
            "met": all(ratios[name] >= target for name, target in targets.items()),
            "model": model.name,
            "tile_px": predict_tiles(image, model, tiled),
            "threads": torch.get_num_threads(),
            "mega_px_per_s": round(image.size / seconds["tiled_s"] / 1e6, 3),
            **{name: round(ratio, 2) for name, ratio in ratios.items()},
            **{name: round(value, 3) for name, value in seconds.items()},
        },
    )


if __name__ == "__main__":
    main()
