"""A program that annotates and trains until it is killed; says on stdout what it has done, line by line.

`python killed_session.py SEED [slow]`; slow: every write to the disk takes a while half way, so that the kill
comes in the middle of one.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_unet_seg import Annotation, TrainSettings, new_model, start, training_steps
from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._recover.recovery import recorder_of
from napari_unet_seg.core import atomic, journal
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.training import TrainStep, ValidationStep

SHAPE = (3, 96, 128)
BRUSH_PX = 7
STROKE_EVERY_MS = 25
BEST_EVERY_MS = 300
"""Better models than a training finds, and more often: each kill may come in the middle of saving one."""


def main() -> None:
    app = QApplication([])
    rng = np.random.default_rng(int(sys.argv[1]))
    if "slow" in sys.argv:
        write_slowly()
    viewer = ViewerModel()
    image = viewer.add_image(picture(), name="em")
    recorder = recorder_of(viewer)
    layer = new_annotation_layer(viewer, image)
    layer.brush_size = BRUSH_PX
    strokes = QTimer()
    strokes.timeout.connect(lambda: paint(viewer, layer, rng))
    strokes.start(STROKE_EVERY_MS)
    recorder.begin_training("killed", {})
    model = new_model(Architecture(base_channels=8, depth=2, padding="same", dropout=0.0))
    numbers = itertools.count()
    bests = QTimer()
    bests.timeout.connect(lambda: take_best(recorder, model, next(numbers)))
    bests.start(BEST_EVERY_MS)
    job = start(steps(model), "Training", on_step=lambda step: take(recorder, step))
    say(ready=True)
    app.exec()
    del job


def paint(viewer: Any, layer: Any, rng: np.random.Generator) -> None:
    """A dab somewhere; now and then the plane changes, or the last dab is taken back."""
    plane = int(viewer.dims.current_step[0])
    if rng.random() < 0.05:
        plane = int(rng.integers(SHAPE[0]))
        viewer.dims.set_point(0, plane)
    if rng.random() < 0.1:
        layer.undo()
        say(undo=True)
        return
    place = [plane, int(rng.integers(SHAPE[1])), int(rng.integers(SHAPE[2]))]
    label = int(rng.integers(0, 30))
    layer.paint(place, label)
    say(place=place, label=label)


def picture() -> np.ndarray:
    """Bright squares on a dark ground."""
    values = np.full(SHAPE, 20, np.uint8)
    values[:, 20:60, 20:60] = values[:, 30:80, 80:110] = 200
    return values


def steps(model: Model) -> Any:
    labels = (picture()[0] > 100).astype(np.uint16)
    annotation = Annotation.dense(picture()[0], labels)
    settings = TrainSettings(steps=100_000, batch_size=1, patch_px=32, validate_every=5, device="cpu")
    return training_steps(model, [annotation], settings)


def take(recorder: Any, step: Any) -> None:
    if isinstance(step, TrainStep | ValidationStep):
        recorder.record_training(step)


def take_best(recorder: Any, model: Model, number: int) -> None:
    recorder.record_best(model.copy(history=({"number": number},)))
    say(best=number)


def say(**what: Any) -> None:
    os.write(1, (json.dumps({"time": time.time(), **what}) + "\n").encode())


def write_slowly() -> None:
    """Every write stops half way."""

    def write_all(file: Any, content: bytes) -> None:
        half = len(content) // 2
        file.write(content[:half])
        time.sleep(0.2)
        file.write(content[half:])

    atomic.write_all = journal.write_all = write_all


if __name__ == "__main__":
    main()
