"""Segment, correct and fine-tune microscopy images with a U-Net: numpy in, numpy out.

Names are imported when they are first used, so that `import napari_unet_seg` loads neither torch nor napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet_seg._annotate.correcting import correct
    from napari_unet_seg._annotate.reading import annotation_from_layers
    from napari_unet_seg._jobs import Job, start
    from napari_unet_seg._layers import add_prediction
    from napari_unet_seg._opening import open_layers
    from napari_unet_seg._segment.segmenting import segment
    from napari_unet_seg.core.annotation import Annotation
    from napari_unet_seg.core.auto_zoom import find_zoom
    from napari_unet_seg.core.metrics import evaluate
    from napari_unet_seg.core.models import Model, list_models, load_model, new_model
    from napari_unet_seg.core.prediction import Prediction, PredictSettings, predict, prediction_steps
    from napari_unet_seg.core.training import TrainSettings, fine_tune, training_steps
    from napari_unet_seg.core.weight_map import WeightSettings, weight_map

__version__ = "0.1.0"

__all__ = [
    "Annotation",
    "Job",
    "Model",
    "PredictSettings",
    "Prediction",
    "TrainSettings",
    "WeightSettings",
    "add_prediction",
    "annotation_from_layers",
    "correct",
    "evaluate",
    "find_zoom",
    "fine_tune",
    "list_models",
    "load_model",
    "new_model",
    "open_layers",
    "predict",
    "prediction_steps",
    "segment",
    "start",
    "training_steps",
    "weight_map",
]

_HOME = {
    "Annotation": "core.annotation",
    "Job": "_jobs",
    "Model": "core.models",
    "PredictSettings": "core.prediction",
    "Prediction": "core.prediction",
    "TrainSettings": "core.training",
    "WeightSettings": "core.weight_map",
    "add_prediction": "_layers",
    "annotation_from_layers": "_annotate.reading",
    "correct": "_annotate.correcting",
    "evaluate": "core.metrics",
    "find_zoom": "core.auto_zoom",
    "fine_tune": "core.training",
    "list_models": "core.models",
    "load_model": "core.models",
    "new_model": "core.models",
    "open_layers": "_opening",
    "predict": "core.prediction",
    "prediction_steps": "core.prediction",
    "segment": "_segment.segmenting",
    "start": "_jobs",
    "training_steps": "core.training",
    "weight_map": "core.weight_map",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
