"""What the tests of training share: a tiny network, a quick training, a picture of discs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.steps import STOP
from napari_unet_seg.core.training import TrainSettings, TrainStep

TINY = Architecture(base_channels=4, depth=2, batch_norm=True, padding="same", dropout=0.0)
QUICK = TrainSettings(
    steps=8,
    batch_size=2,
    patch_px=32,
    learning_rate=1e-2,
    validate_every=3,
    augmentation=AugmentSettings.default(),
    device="cpu",
)


def discs(seed: int = 0, size: int = 96) -> Annotation:
    """Bright discs of 6 px radius on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    labels = np.zeros((size, size), np.int32)
    for number in range(1, 7):
        cy, cx = rng.integers(10, size - 10, 2)
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 36] = number
    image = (40 + 120 * (labels > 0) + rng.normal(0, 5, labels.shape)).astype(np.float32)
    return Annotation.dense(image, labels)


def weights_of(model: Model) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def assert_same_weights(a: Model, b: Model) -> None:
    one, other = weights_of(a), weights_of(b)
    different = [key for key in one if not torch.equal(one[key], other[key])]
    assert not different, f"these weights differ: {different[:3]}"


def score_as(monkeypatch: pytest.MonkeyPatch, *values: float, resolution: float = 1e-6) -> None:
    """Let validations give these values, the last one again and again."""
    from napari_unet_seg.core import training
    from napari_unet_seg.core.validation import Score

    waiting = list(values)

    def scoring_steps(*_: object, **__: object) -> Generator[int, None, Score]:
        yield 0
        value = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return Score(value, "made up", "nothing", resolution=resolution)

    monkeypatch.setattr(training, "scoring_steps", scoring_steps)


def scribbled(annotation: Annotation, every_px: int = 8) -> Annotation:
    """Only a column in so many is annotated."""
    annotated = np.zeros(annotation.labels.shape, bool)
    annotated[:, ::every_px] = True
    return Annotation(annotation.image, np.where(annotated, annotation.labels, 0), annotated)


def sending(steps: Generator[Any, Any, Model], answer_to: Callable[[Any], Any]) -> tuple[list[Any], Model]:
    """Run to the end, answering each step."""
    seen: list[Any] = []
    answer = None
    while True:
        try:
            seen.append(steps.send(answer))
        except StopIteration as end:
            return seen, end.value
        answer = answer_to(seen[-1])


def collect(steps: Generator[Any, Any, Model], stop_after: int | None = None) -> tuple[list[Any], Model]:
    seen: list[Any] = []
    answer = None
    while True:
        try:
            seen.append(steps.send(answer))
        except StopIteration as end:
            return seen, end.value
        learned = sum(isinstance(step, TrainStep) for step in seen)
        answer = STOP if learned == stop_after else None
