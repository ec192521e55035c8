"""What drawing and augmenting patches adds to a training step, on the CPU.

A is forward, backward and optimiser step of the same network on one batch that stays in memory; B is a step
of `training_steps`, which also draws, augments and stacks four new patches (and checks loss and gradients); C
is a batch alone. They take turns. The result is the larger of B / A - 1 and C / A.
"""

from __future__ import annotations

import numpy as np
import torch

from _common import median_seconds, write_result
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.batches import BatchSource
from napari_unet_seg.core.losses import weighted_cross_entropy
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.training import TrainSettings, TrainStep, training_steps
from napari_unet_seg.core.training_data import prepare

PATCH_PX = 256
BATCH = 4
REPEATS = 15


def annotation() -> Annotation:
    """A noisy 1024² picture of touching squares."""
    y, x = np.indices((1024, 1024)) // 32
    labels = np.where((y + x) % 3 > 0, y * 32 + x + 1, 0).astype(np.int32)
    noise = np.random.default_rng(0).normal(0, 20, labels.shape)
    return Annotation.dense((80.0 * (labels > 0) + 60 + noise).clip(0, 255).astype(np.uint8), labels)


class BareStep:
    """Forward, backward and step on resident data."""

    def __init__(self, model: Model) -> None:
        self.network = model.copy().network.train().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-4)
        generator = torch.Generator().manual_seed(0)
        shape = (BATCH, PATCH_PX, PATCH_PX)
        image = torch.rand(BATCH, 1, PATCH_PX, PATCH_PX, generator=generator)
        self.image = image.to(memory_format=torch.channels_last)
        self.classes = torch.randint(2, shape, generator=generator)
        self.weights = torch.rand(shape, generator=generator) + 0.5

    def __call__(self) -> None:
        loss = weighted_cross_entropy(self.network(self.image), self.classes, self.weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class TrainingStep:
    """One step of the product's own training."""

    def __init__(self, model: Model, settings: TrainSettings) -> None:
        self.steps = training_steps(model, [annotation()], settings)

    def __call__(self) -> None:
        while not isinstance(next(self.steps), TrainStep):
            pass


class BatchAlone:
    """Drawing, augmenting and stacking one batch after the other."""

    def __init__(self, model: Model, settings: TrainSettings) -> None:
        data = prepare([annotation()], [], model.info, settings)
        self.source = BatchSource(data, BATCH, settings.augmentation, settings.seed)
        self.number = 0

    def __call__(self) -> None:
        self.source.batch(self.number)
        self.number += 1


def main() -> None:
    model = new_model(Architecture(base_channels=16, padding="same"))
    result: dict[str, object] = {}
    worst = 0.0
    for name in ("default", "paper"):
        settings = TrainSettings(
            steps=1000,
            batch_size=BATCH,
            patch_px=PATCH_PX,
            validate_every=1000,
            validation_fraction=0.0,
            augmentation=getattr(AugmentSettings, name)(),
            device="cpu",
        )
        runs = BareStep(model), TrainingStep(model, settings), BatchAlone(model, settings)
        bare, full, batch = median_seconds(*runs, repeats=REPEATS, warm_up=2)
        worst = max(worst, full / bare - 1, batch / bare)
        result[name] = {
            "bare_step_ms": round(bare * 1e3, 1),
            "training_step_ms": round(full * 1e3, 1),
            "batch_ms": round(batch * 1e3, 1),
            "step_adds": round(full / bare - 1, 4),
            "batch_adds": round(batch / bare, 4),
        }
    write_result(
        "data_pipeline",
        {
            "what": "Data pipeline added to a bare training step (256², batch 4, 16-channel U-Net, CPU)",
            "value": round(100 * worst, 1),
            "unit": "%",
            "target": "≤ 15 %",
            "met": worst <= 0.15,
            "threads": torch.get_num_threads(),
            "augmentation": result,
        },
    )


if __name__ == "__main__":
    main()
