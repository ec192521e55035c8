"""napari-unet-seg from scratch, as `napari-unet-seg train` does it without `--from`, ended by the clock.

Nothing is chosen for this data: a network of the command line's default width, objects by the default
settings, and the preset that is made for the time, `quick` below `QUICK_BELOW_S` and `thorough` above, but
with as many steps as the time holds. `VALIDATION_IMAGES` are held out, not a fifth, as with the rivals. The
images to be segmented are of the kind that was learned from, so that their zoom is 1 and need not be found.
This runner alone imports the package, whose own interpreter runs it.
"""

from __future__ import annotations

from typing import Any

import torch
from _job import Clock, Found, Image, Job, run

from napari_unet_seg._cli._annotations import read_annotations
from napari_unet_seg._cli._options import Coding
from napari_unet_seg._cli.train import DEFAULT_WIDTH
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.training import TrainSettings, fine_tune

QUICK_BELOW_S = 900
VALIDATION_IMAGES = 20
MANY_STEPS = 100_000


def settings_for(seconds: float, n_images: int, seed: int) -> TrainSettings:
    """The preset for the time, ended by the clock."""
    changes = {
        "time_limit_s": seconds,
        "validation_fraction": VALIDATION_IMAGES / n_images,
        "device": "cpu",
        "seed": seed,
    }
    if seconds < QUICK_BELOW_S:
        return TrainSettings.quick(steps=MANY_STEPS, **changes)
    return TrainSettings.thorough(steps=MANY_STEPS, **changes)


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Learn from what is left of the time after reading the files."""
    torch.set_num_threads(job.threads)
    annotations = read_annotations(job.train_images, job.train_labels, None, Coding.dense, None)
    architecture = Architecture(base_channels=DEFAULT_WIDTH, batch_norm=True, padding="same", dropout=0.0)
    model = new_model(architecture, seed=job.seed)
    trained = fine_tune(model, annotations, settings_for(clock.left_s, len(annotations), job.seed))
    trained.save(job.folder / "model.safetensors", overwrite=True)
    return {"steps": trained.history[-1]["steps"], "score": trained.history[-1]["score"]}


def load(job: Job) -> Model:
    """The best model met."""
    torch.set_num_threads(job.threads)
    return load_model(job.folder / "model.safetensors")


def segment(model: Model, image: Image) -> Found:
    """Its own objects."""
    return predict(image, model, PredictSettings(axes="YX", device="cpu", zoom=1)).labels, None


if __name__ == "__main__":
    run(train, load, segment, ("napari-unet-seg", "torch", "numpy"))
