"""Prepares the first click while a dock is open: PyTorch, the device, the model, the tile size."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.steps import STOP, Stop

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model

_FOR_THE_FIRST_LAYER = ("pandas", "scipy.linalg", "skimage.color", "skimage.exposure")
"""What napari imports when it makes a labels layer."""


@dataclass(frozen=True, eq=False)
class Readiness:
    """What is ready.

    Attributes
    ----------
    device_reason
        Which device runs the network, and why.
    model
        Loaded; None when only the device is known.
    """

    device_reason: str
    model: Model | None = None
    _changed_s: float | None = None

    def model_for(self, info: ModelInfo) -> Model | None:
        """The loaded model if it is this one and its file has not changed since."""
        if self.model is None or self.model.info.path != info.path or _changed_s(info) != self._changed_s:
            return None
        return self.model


def warm_up_steps(info: ModelInfo | None, device: str) -> Generator[str, Stop | None, Readiness | None]:
    """Get a model ready for a device; runs in a job's thread.

    Raises
    ------
    UNetSegError
        There is no such device, or the model is damaged.
    """
    from napari_unet_seg.core.devices import choose_device
    from napari_unet_seg.core.models import load_model
    from napari_unet_seg.core.prediction import warm_up

    _spare_the_first_layer()
    choice = choose_device(device)
    if info is None or info.path is None or (yield "Loading the model") is STOP:
        return Readiness(choice.reason)
    changed_s = _changed_s(info)
    model = load_model(info.path)
    if (yield "Measuring tile sizes") is not STOP:
        warm_up(model, device)
    return Readiness(choice.reason, model, changed_s)


@cache
def _spare_the_first_layer() -> None:
    """Do here what the first labels layer would hold the window up with, for a quarter of a second."""
    for module in _FOR_THE_FIRST_LAYER:
        import_module(module)
    with suppress(ImportError, AttributeError):  # VisPy may come to draw its lines in another way
        import_module("vispy.visuals.line.dash_atlas").DashAtlas()


@cache
def look_for_garbage() -> None:
    """Let Python look through all objects once, on the main thread, rather than at the first click.

    PyTorch has brought so many that it would do so soon, for a quarter of a second.
    """
    gc.collect()


def _changed_s(info: ModelInfo) -> float | None:
    return info.path.stat().st_mtime if info.path is not None and info.path.is_file() else None
