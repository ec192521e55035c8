"""What the benchmarks of prediction share: the model, an image, and running tiles without making objects."""

from __future__ import annotations

import numpy as np

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import ModelFileError
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.prediction import PredictSettings, TileDone, prediction_steps
from napari_unet_seg.core.steps import STOP

BUNDLED = "em-boundaries"


def benchmark_model() -> Model:
    """The bundled EM model; where it is not there, an untrained network of a usual size takes as long."""
    try:
        return load_model(BUNDLED)
    except ModelFileError:
        architecture = Architecture(base_channels=16, batch_norm=True, padding="same")
        return new_model(architecture, name=f"untrained, in place of {BUNDLED}")


def benchmark_image(side_px: int) -> np.ndarray:
    """Grey squares: how long a tile takes does not depend on what it shows, as long as it is not blank."""
    squares = np.random.default_rng(0).integers(0, 255, (-(-side_px // 16),) * 2, dtype=np.uint8)
    return squares.repeat(16, axis=0).repeat(16, axis=1)[:side_px, :side_px]


def predict_tiles(
    image: np.ndarray, model: Model, settings: PredictSettings, out: np.ndarray | None = None
) -> int:
    """Predict all tiles of one plane and stop before objects are made; the tile's side."""
    steps = prediction_steps(image, model, settings, probabilities_out=out)
    tile_px = next(steps).tile_px
    for step in steps:
        if isinstance(step, TileDone) and step.tiles_done == step.n_tiles:
            break
    try:
        steps.send(STOP)
    except StopIteration:
        return tile_px
    raise RuntimeError("the prediction did not stop")
