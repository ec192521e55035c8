"""Cellpose 3 from scratch (no published weights), by `train_seg` with its command line's settings.

SGD, learning rate 0.2, weight decay 1e-5, batches of 8 patches of 224², images rescaled to one diameter. Its
schedule (10 epochs of warm-up, halving at the end of 100 epochs and more) goes by epochs, whose number it
must know beforehand: some steps are timed first, within the budget. An epoch is one batch here, for of epochs
over all images a budget of minutes holds so few that all would be warm-up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from _job import Clock, Found, Image, Job, run
from cellpose.dynamics import labels_to_flows
from cellpose.models import CellposeModel
from cellpose.train import train_seg

BATCH, PATCH_PX = 8, 224
PREPARING_SHARE = 0.3
"""Of the time: images whose flows are not made by then are left out."""
TRIED_STEPS = 2
SPARE_SHARE = 0.08


def fit(model: CellposeModel, data: list[Image], flows: list[Image], folder: Path, epochs: int) -> Path:
    """Train the model's network; return the file of its weights."""
    path, *_ = train_seg(
        model.net,
        train_data=data,
        train_labels=flows,
        channels=[0, 0],
        batch_size=BATCH,
        learning_rate=0.2,
        weight_decay=1e-5,
        SGD=True,
        n_epochs=epochs,
        nimg_per_epoch=BATCH,
        save_path=folder,
        save_every=1_000_000,
        model_name="weights",
    )
    return Path(path)


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Make the flows, time some steps, then as many epochs as fit."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    images, flows = [], []
    for image, labels in job.train_files():
        ids = tifffile.imread(labels).astype(np.int32)
        images.append(tifffile.imread(image))
        flows += labels_to_flows([ids], device=torch.device("cpu"))
        if clock.seconds > PREPARING_SHARE * clock.limit_s:
            break
    per_step_s = seconds_per_step(CellposeModel(gpu=False, pretrained_model=None).net)
    epochs = max(1, int((clock.left_s - SPARE_SHARE * clock.limit_s) / per_step_s))
    fit(CellposeModel(gpu=False, pretrained_model=None), images, flows, job.folder, epochs)
    return {"images_used": len(images), "steps": epochs, "seconds_per_step": round(per_step_s, 3)}


def seconds_per_step(net: torch.nn.Module) -> float:
    """Of learning from a batch, the first one not counted; on a network that is thrown away."""
    batch = torch.randn(BATCH, 2, PATCH_PX, PATCH_PX)
    optimizer = torch.optim.SGD(net.parameters(), 1e-6)
    clock = Clock(0)
    for step in range(1 + TRIED_STEPS):
        if step == 1:
            clock = Clock(0)
        optimizer.zero_grad()
        net(batch)[0].square().mean().backward()
        optimizer.step()
    return clock.seconds / TRIED_STEPS


def load(job: Job) -> CellposeModel:
    """The network with its weights; it knows the mean diameter of the nuclei that it learned from."""
    torch.set_num_threads(job.threads)
    return CellposeModel(gpu=False, pretrained_model=str(job.folder / "models" / "weights"))


def predict(model: CellposeModel, image: Image) -> Found:
    """Its own objects, at that diameter."""
    labels, *_ = model.eval(image, channels=[0, 0], diameter=float(model.net.diam_labels.item()))
    return labels, None


if __name__ == "__main__":
    run(train, load, predict, ("cellpose", "torch", "numpy"))
