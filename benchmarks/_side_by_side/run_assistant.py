"""napari-unet-assistant, without its window: its data set, network, loss and epochs, and its predictor.

The loop over epochs lives in its window, so it is written here as it is there: a fifth of the files held out,
Adam 1e-3, the weights with the best Dice on held-out patches kept, patches of 256², batches of 2, its
"conservative" augmentation. Two things differ, for its sake: one pass over all patches takes longer than a
budget of minutes, and what is not a whole epoch is lost in the window, so an epoch is `BATCHES` drawn
batches; and its width is "standard" (32), the default of its network, not "large" (64), that of its window.
Early stopping, which would need more epochs than there are, is left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import _torchvision  # noqa: F401, before torchvision
import torch
from _job import Clock, Found, Image, Job, run
from napari_unet_assistant.inference.predictor import _predict_with_model, load_model_from_run_folder
from napari_unet_assistant.training.augment import AugmentationConfig
from napari_unet_assistant.training.datasets import PatchDataset
from napari_unet_assistant.training.trainer import (
    TrainConfig,
    TrainingCancelled,
    _run_epoch,
    build_loss,
    build_model,
)
from scipy import ndimage as ndi
from torch.utils.data import DataLoader, RandomSampler, Subset

PATCH_PX = 256
BATCHES, VALIDATION_PATCHES = 10, 8
CONFIG = TrainConfig(model_base=32, batch_size=2, lr=1e-3, device="cpu")


def patches(files: list[tuple[str, str]], *, augment: bool) -> PatchDataset:
    """Patches of images with their masks, as the window cuts them."""
    return PatchDataset(
        image_paths=[image for image, _ in files],
        mask_paths=[mask for _, mask in files],
        mode_2d_or_3d="2d",
        task_type="binary",
        patch_xy=PATCH_PX,
        patch_z=None,
        overlap_percent=0,
        include_empty_mask=False,
        augment=augment,
        augment_config=AugmentationConfig.preset_config("conservative" if augment else "none"),
    )


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Epochs until the time is over; the last one, if not whole, is lost."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    files = [(str(image), str(labels)) for image, labels in job.train_files()]
    n_held_out = max(1, round(len(files) * CONFIG.val_split))
    learned_from = patches(files[n_held_out:], augment=True)
    held_out = patches(files[:n_held_out], augment=False)
    some = torch.randperm(len(held_out))[:VALIDATION_PATCHES].tolist()
    sampler = RandomSampler(learned_from, num_samples=BATCHES * CONFIG.batch_size)
    train_loader = DataLoader(learned_from, batch_size=CONFIG.batch_size, sampler=sampler)
    val_loader = DataLoader(Subset(held_out, some), batch_size=CONFIG.batch_size)
    model, loss = build_model(CONFIG), build_loss(CONFIG)
    optimizer = torch.optim.Adam(model.parameters(), lr=CONFIG.lr)
    best_dice, best, epochs = -1.0, model.state_dict(), 0
    try:
        while True:
            _run_epoch(model, train_loader, loss, optimizer, CONFIG, True, lambda: clock.left_s < 0)
            _, metrics = _run_epoch(model, val_loader, loss, optimizer, CONFIG, False)
            epochs += 1
            if metrics["dice"] > best_dice:
                best_dice = metrics["dice"]
                best = {name: value.clone() for name, value in model.state_dict().items()}
    except TrainingCancelled:
        pass
    torch.save(best, job.folder / "best_model.pt")
    config = {**asdict(CONFIG), "patch_xy": PATCH_PX, "overlap_percent": 0}
    (job.folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return {"epochs": epochs, "steps": epochs * BATCHES, "held_out_dice": best_dice}


def load(job: Job) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network and its settings, from the run's folder."""
    torch.set_num_threads(job.threads)
    model, config = load_model_from_run_folder(job.folder, device="cpu")
    return model, config


def predict(model: tuple[torch.nn.Module, dict[str, Any]], image: Image) -> Found:
    """Its mask (it gives no probabilities); connected components."""
    mask, _ = _predict_with_model(*model, image, device="cpu")
    return ndi.label(mask)[0], mask


if __name__ == "__main__":
    run(train, load, predict, ("napari-unet-assistant", "torch", "torchvision", "numpy"))
