"""A program that fine-tunes on a painted layer until it is killed; says on stdout when a model is better."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

from napari_unet_seg import TrainSettings, new_model
from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._fine_tune.fine_tuning import FineTuning
from napari_unet_seg._fine_tune.request import training_request
from napari_unet_seg._recover.recovery import recorder_of
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.training import ValidationStep


def main() -> None:
    app = QApplication([])
    viewer = ViewerModel()
    layer = painted(viewer)
    model = new_model(
        Architecture(base_channels=4, depth=1, padding="same", dropout=0.0), name="fresh", seed=1
    )
    settings = TrainSettings(
        steps=1_000_000, batch_size=2, patch_px=32, learning_rate=1e-2, validate_every=10, device="cpu"
    )
    request = training_request([layer], viewer.layers, model, settings)
    one = FineTuning(request, [layer], viewer, recorder_of(viewer))
    job = one.run(previews=False)
    job.stepped.connect(say)
    app.exec()


def painted(viewer: ViewerModel) -> Any:
    """Bright squares, two of them painted."""
    image = np.full((64, 80), 10, np.uint8)
    image[20:32, 5:17] = image[20:32, 30:42] = 200
    layer = new_annotation_layer(viewer, viewer.add_image(image, name="em"))
    layer.data[24:28, 7:15], layer.data[24:28, 32:40] = 2, 3
    layer.data[14:40, 22:25] = layer.data[40:44, 5:50] = 1
    layer.refresh()
    return layer


def say(step: Any) -> None:
    if isinstance(step, ValidationStep) and step.is_best and step.step:
        os.write(1, f"{step.step} {step.score.value}\n".encode())


if __name__ == "__main__":
    main()
