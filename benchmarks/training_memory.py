"""What a second training leaves in memory beyond what the first left, both in the background of the viewer.

A run fine-tunes the bundled model on a 1024² picture, takes new annotations and makes previews meanwhile;
its job is forgotten when it has ended. Measured is what the process holds after each of five runs, and what
PyTorch holds on a GPU where there is one; the value is the second less the first.
"""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch
from napari.qt import get_qapp

import napari_unet_seg as nus
from _common import write_result
from napari_unet_seg.core.training import NewAnnotations, PreviewRequest, TrainStep

RUNS = 5
SETTINGS = nus.TrainSettings.quick(steps=40, validate_every=20, patch_px=256)
ALLOWED_MB = 100.0


def annotation(seed: int) -> nus.Annotation:
    """A noisy picture of touching squares."""
    y, x = np.indices((1024, 1024)) // 32
    labels = np.where((y + x) % 3 > 0, y * 32 + x + 1, 0).astype(np.int32)
    noise = np.random.default_rng(seed).normal(0, 20, labels.shape)
    return nus.Annotation.dense((80.0 * (labels > 0) + 60 + noise).clip(0, 255).astype(np.uint8), labels)


def train(model: nus.Model, seed: int) -> weakref.ref[Any]:
    """One run from start to end; the reference tells whether its result is still held."""
    first = annotation(seed)
    job = nus.start(nus.training_steps(model, first, SETTINGS))

    def on_step(step: Any) -> None:
        if isinstance(step, TrainStep) and step.step == 10:
            job.send(NewAnnotations([first, annotation(seed + 100)]))
        if isinstance(step, TrainStep) and step.step % 15 == 0:
            job.send(PreviewRequest(first.image))

    job.stepped.connect(on_step)
    if not job.wait(600) or job.error is not None:
        raise SystemExit(f"The training failed: {job.details}")
    return weakref.ref(job.result)


def resident_mb() -> float:
    """What Linux counts for this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    app = get_qapp()
    model = nus.load_model("em-boundaries")
    resident, reserved, held = [], [], []
    for run in range(RUNS):
        held.append(train(model, run))
        app.processEvents()
        gc.collect()
        resident.append(resident_mb())
        reserved.append(torch.cuda.memory_reserved() / 2**20 if torch.cuda.is_available() else 0.0)
        print(f"after run {run + 1}: {resident[-1]:.0f} MB, on the GPU {reserved[-1]:.0f} MB", flush=True)
    more, more_on_gpu = resident[1] - resident[0], reserved[1] - reserved[0]
    write_result(
        "training_memory",
        {
            "what": "Memory that a second training leaves beyond what the first left",
            "value": round(max(more, more_on_gpu), 1),
            "unit": "MB",
            "target": f"≤ {ALLOWED_MB:.0f} MB",
            "met": max(more, more_on_gpu) <= ALLOWED_MB,
            "resident_mb_after_each_run": [round(mb, 1) for mb in resident],
            "gpu_mb_after_each_run": [round(mb, 1) for mb in reserved] if torch.cuda.is_available() else None,
            "results_still_held": sum(reference() is not None for reference in held),
        },
    )


if __name__ == "__main__":
    main()
