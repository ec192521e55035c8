"""MONAI's U-Net and sliding window, as in its tutorial "unet_training_array" (2D segmentation).

Network (16 to 256 channels, two residual units), Dice loss, Adam 1e-3, batches of 10 patches of 96², quarter
turns, sliding windows of 96² in batches of 4, threshold 0.5, the weights with the best Dice on held-out
images kept. Images stay in memory, and learning ends by the clock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tifffile
import torch
from _job import Clock, Found, Image, Job, run
from monai.data import decollate_batch
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import (
    Activations,
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    RandRotate90d,
    RandSpatialCropd,
    ScaleIntensityd,
    ToTensord,
)
from monai.utils import set_determinism
from scipy import ndimage as ndi

PATCH = (96, 96)
BATCH = 10
VALIDATION_IMAGES = 16
STEPS_PER_EPOCH = 20
"""Between validations."""
KEYS = ("image", "mask")
POST = Compose([Activations(sigmoid=True), AsDiscrete(threshold=0.5)])


def network() -> UNet:
    """As in the tutorial."""
    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )


def prepared(job: Job) -> list[dict[str, Any]]:
    """Images (1, Y, X) in 0..1 with their masks."""
    ready = Compose(
        [EnsureChannelFirstd(KEYS, channel_dim="no_channel"), ScaleIntensityd("image"), ToTensord(KEYS)]
    )
    pairs = [
        {"image": tifffile.imread(image), "mask": (tifffile.imread(labels) > 0).astype(np.float32)}
        for image, labels in job.train_files()
    ]
    return [ready(pair) for pair in pairs]


def probabilities(model: UNet, images: torch.Tensor) -> torch.Tensor:
    """Logits (1, 1, Y, X) by sliding windows."""
    with torch.inference_mode():
        return sliding_window_inference(images, PATCH, 4, model)


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Learn until the time is over; keep the weights with the best Dice on held-out images."""
    torch.set_num_threads(job.threads)
    set_determinism(job.seed)
    data = prepared(job)
    n_held_out = len(data) // 5
    held_out, learned_from = data[:n_held_out][:VALIDATION_IMAGES], data[n_held_out:]
    vary = Compose(
        [RandSpatialCropd(KEYS, PATCH, random_size=False), RandRotate90d(KEYS, prob=0.5, spatial_axes=(0, 1))]
    )
    rng = np.random.default_rng(job.seed)
    model, loss = network(), DiceLoss(sigmoid=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    best_dice, best, steps = -1.0, model.state_dict(), 0
    while clock.left_s > 0:
        model.train()
        for _ in range(STEPS_PER_EPOCH):
            batch = [vary(learned_from[i]) for i in rng.integers(len(learned_from), size=BATCH)]
            images, masks = (torch.stack([each[key].as_tensor() for each in batch]) for key in KEYS)
            optimizer.zero_grad()
            loss(model(images), masks).backward()
            optimizer.step()
            steps += 1
            if clock.left_s < 0:
                break
        if (dice := held_out_dice(model, held_out)) > best_dice:
            best_dice = dice
            best = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(best, job.folder / "model.pt")
    return {"steps": steps, "held_out_dice": best_dice}


def held_out_dice(model: UNet, images: list[dict[str, Any]]) -> float:
    """Mean Dice."""
    model.eval()
    metric = DiceMetric(include_background=True, reduction="mean")
    for each in images:
        found = [POST(one) for one in decollate_batch(probabilities(model, each["image"].as_tensor()[None]))]
        metric(y_pred=found, y=[each["mask"].as_tensor()])
    return float(metric.aggregate().item())


def load(job: Job) -> UNet:
    """The network with its best weights."""
    torch.set_num_threads(job.threads)
    model = network()
    model.load_state_dict(torch.load(job.folder / "model.pt", weights_only=True))
    return model.eval()


def predict(model: UNet, image: Image) -> Found:
    """Threshold 0.5, connected components."""
    scaled = ScaleIntensityd("image")({"image": image[np.newaxis].astype(np.float32)})["image"]
    logits = probabilities(model, torch.as_tensor(np.asarray(scaled))[None])
    foreground = torch.sigmoid(logits)[0, 0].numpy()
    return ndi.label(foreground >= 0.5)[0], foreground


if __name__ == "__main__":
    run(train, load, predict, ("monai", "torch", "numpy"))
