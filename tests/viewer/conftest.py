"""What the viewer's tests share: a small model, a small stack, and a viewer that shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import napari
import numpy as np
import pytest
from numpy.typing import NDArray

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import Model, new_model


@pytest.fixture
def bright_model() -> Model:
    """A saved model named "bright" that finds bright pixels."""
    model = new_model(
        Architecture(base_channels=2, depth=1, padding="same", dropout=0.0),
        name="bright",
        pixel_size_nm=10.0,
        description="Bright squares",
    )
    make_bright(model)
    model.save("bright")
    return model


def make_bright(model: Model) -> None:
    """Weights by hand: every layer hands channel 0 on, the head compares it with one half."""
    import torch

    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            parameter.zero_()
            if name.startswith("up") and parameter.ndim == 4:
                continue
            if parameter.ndim == 4 and parameter.shape[-1] == 3:
                parameter[0, 0, 1, 1] = 1.0
        model.network.head.weight[1, 0] = 20.0
        model.network.head.bias[1] = -10.0


@pytest.fixture
def squares() -> NDArray[np.uint8]:
    """(3, 64, 80): plane z holds z + 1 bright squares of 12 px."""
    stack = np.full((3, 64, 80), 10, np.uint8)
    for z in range(3):
        for n in range(z + 1):
            stack[z, 20:32, 5 + 25 * n : 17 + 25 * n] = 200
    return stack


def add_stack(viewer: napari.Viewer, data: NDArray[Any], **changes: Any) -> Any:
    """Add a stack with voxel size, units and axis names as our reader does."""
    where = {
        "scale": (40, 10, 10),
        "translate": (5, 7, 9),
        "units": ("nm",) * 3,
        "axis_labels": ("z", "y", "x"),
    }
    layer = viewer.add_image(data, name="em", **(where | changes))
    viewer.dims.set_current_step(0, 1)
    return layer


@pytest.fixture
def no_thread_left() -> Callable[[], bool]:
    """Whether the threads that the test started have ended."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) <= before
