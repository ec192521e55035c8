"""Losses on logits, weighted pixel by pixel; a pixel of weight 0 contributes exactly nothing.

All take logits `(N, out, Y, X)`, class indices `(N, Y, X)` and weights `(N, Y, X)`, and return a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet_seg.core.network import class_probabilities

LossName = Literal["weighted-cross-entropy", "bce", "dice", "bce+dice"]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

_DICE_SMOOTHING = 1.0


def weighted_cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Mean over the annotated pixels of w(x)·(-log p of the true class): the paper's energy, per pixel."""
    if logits.shape[1] == 1:
        energy = functional.binary_cross_entropy_with_logits(
            logits[:, 0], classes.to(logits.dtype), reduction="none"
        )
    else:
        energy = functional.cross_entropy(logits, classes, reduction="none")
    return _annotated_mean(energy * weights, weights)


def binary_cross_entropy(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Mean over the annotated pixels of the binary cross-entropy of each class against the rest."""
    if logits.shape[1] == 1:
        energy = functional.binary_cross_entropy_with_logits(
            logits[:, 0], classes.to(logits.dtype), reduction="none"
        )
    else:
        target = functional.one_hot(classes, logits.shape[1]).movedim(-1, 1).to(logits.dtype)
        energy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    return _annotated_mean(torch.where(weights > 0, energy, 0), weights)


def dice(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """One minus the mean over classes of 2·Σpt / (Σp + Σt), without background and pixels not annotated."""
    probabilities = class_probabilities(logits)
    annotated = (weights > 0).to(probabilities.dtype)[:, None]
    target = functional.one_hot(classes, probabilities.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, *range(2, probabilities.ndim))
    overlap = (probabilities * target * annotated).sum(axes)
    total = ((probabilities + target) * annotated).sum(axes)
    score = (2 * overlap + _DICE_SMOOTHING) / (total + _DICE_SMOOTHING)
    return 1 - score[1:].mean()


def bce_and_dice(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of the binary cross-entropy and the Dice loss."""
    return binary_cross_entropy(logits, classes, weights) + dice(logits, classes, weights)


LOSSES: Final[dict[LossName, Loss]] = {
    "weighted-cross-entropy": weighted_cross_entropy,
    "bce": binary_cross_entropy,
    "dice": dice,
    "bce+dice": bce_and_dice,
}


def _annotated_mean(energy: Tensor, weights: Tensor) -> Tensor:
    return energy.sum() / (weights > 0).sum().clamp(min=1)
