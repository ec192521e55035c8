"""What a CUDA GPU gains: a training step in bfloat16 against float32, prediction against the CPU.

Prints a sentence and ends well where there is no GPU. Ratios within one run.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from _common import median_seconds, write_result
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import new_model
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.training import TrainSettings, training_steps

STEPS = 30


def train(settings: TrainSettings) -> None:
    y, x = np.indices((1024, 1024)) // 32
    labels = np.where((y + x) % 3 > 0, y * 32 + x + 1, 0).astype(np.int32)
    annotation = Annotation.dense((80 * (labels > 0)).astype(np.uint8), labels)
    model = new_model(Architecture(base_channels=64, batch_norm=True, padding="same", dropout=0.0))
    for _ in training_steps(model, [annotation], settings):
        pass
    torch.cuda.synchronize()


def main() -> None:
    if not torch.cuda.is_available():
        print("No CUDA GPU here: nothing was measured.")
        return
    mixed = TrainSettings(steps=STEPS, validate_every=STEPS, validation_fraction=0.05, device="cuda")
    in_float32 = replace(mixed, mixed_precision=False)
    bf16_s, float32_s = median_seconds(lambda: train(mixed), lambda: train(in_float32))
    image = np.random.default_rng(0).normal(100, 20, (512, 512)).astype(np.float32).repeat(4, 0).repeat(4, 1)
    model = new_model(Architecture(base_channels=16, batch_norm=True, padding="same", dropout=0.0))
    gpu_s, cpu_s = median_seconds(
        lambda: predict(image, model, PredictSettings(device="cuda")),
        lambda: predict(image, model, PredictSettings(device="cpu")),
    )
    write_result(
        "gpu",
        {
            "what": "training, float32 over bfloat16 (64 channels); 2048² predicted, CPU over GPU",
            "value": [float32_s / bf16_s, cpu_s / gpu_s],
            "unit": "×",
            "target": "none set",
            "met": None,
            "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20,
        },
    )


if __name__ == "__main__":
    main()
