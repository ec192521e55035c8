"""What only a CUDA GPU can show; skipped without one. `make gpu` runs these and the GPU benchmarks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import new_model
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.training import TrainSettings, fine_tune

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

SMALL = Architecture(base_channels=8, depth=4, batch_norm=True, padding="same", dropout=0.0)


def image(side: int = 700) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, (side, side)).astype(np.float32)


def test_gpu_and_cpu_agree_in_float32() -> None:
    model = new_model(SMALL, seed=0)
    cpu = predict(image(), model, PredictSettings(device="cpu"))
    gpu = predict(image(), model, PredictSettings(device="cuda"))
    assert np.abs(cpu.probabilities - gpu.probabilities).max() < 1e-4, "TF32 must be off"


def test_tiled_equals_whole_on_the_gpu() -> None:
    model = new_model(SMALL, seed=0)
    small = predict(image(), model, PredictSettings(device="cuda", tile_px=128))
    large = predict(image(), model, PredictSettings(device="cuda", tile_px=1024))
    assert np.abs(small.probabilities - large.probabilities).max() <= 1e-5


def test_out_of_memory_is_survived_with_smaller_tiles() -> None:
    wide = new_model(replace(SMALL, base_channels=64), seed=0)
    expected = predict(image(), wide, PredictSettings(device="cuda", tile_px=128))
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5 * 2**30 / total)
    try:
        result = predict(image(), wide, PredictSettings(device="cuda", tile_px=2048))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert any("Memory ran out" in note for note in result.notes)
    assert np.abs(result.probabilities - expected.probabilities).max() <= 1e-5


def test_training_in_bfloat16_learns() -> None:
    y, x = np.mgrid[:256, :256]
    labels = ((np.sin(y / 8) * np.sin(x / 8)) > 0.5).astype(np.int32)
    annotation = Annotation.dense((labels * 100).astype(np.float32) + image(256), labels)
    settings = TrainSettings(steps=150, patch_px=128, learning_rate=3e-3, validate_every=50, device="cuda")
    tuned = fine_tune(new_model(SMALL, seed=0), [annotation], settings)
    assert tuned.history[-1]["score"]["value"] > 0.6
    assert all(tensor.device.type == "cpu" for tensor in tuned.network.state_dict().values())
