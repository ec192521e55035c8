"""Losses equal their formulas, and what is not annotated contributes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from napari_unet_seg.core.losses import LOSSES, dice, weighted_cross_entropy


def random_case(n_out: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, n_out, 5, 6, generator=generator, requires_grad=True)
    classes = torch.randint(0, max(2, n_out), (2, 5, 6), generator=generator)
    weights = torch.rand(2, 5, 6, generator=generator) + 0.5
    return logits, classes, weights


def test_weighted_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0]], [[0.0, math.log(3)]]]])  # p of class 1: 1/2 and 3/4
    classes = torch.tensor([[[1, 0]]])
    weights = torch.tensor([[[2.0, 5.0]]])
    expected = (2 * -math.log(1 / 2) + 5 * -math.log(1 / 4)) / 2
    assert weighted_cross_entropy(logits, classes, weights).item() == pytest.approx(expected)


def test_dice_of_a_perfect_prediction_is_nearly_zero_and_of_the_opposite_nearly_one() -> None:
    classes = (torch.arange(400).reshape(1, 20, 20) % 2).long()
    sure = torch.stack([-50.0 * (2 * classes - 1.0), 50.0 * (2 * classes - 1.0)], dim=1)
    weights = torch.ones(1, 20, 20)
    assert dice(sure, classes, weights).item() < 0.001
    assert dice(-sure, classes, weights).item() > 0.99


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n_out", [1, 2, 3])
def test_pixels_that_are_not_annotated_contribute_exactly_nothing(name: str, n_out: int) -> None:
    logits, classes, weights = random_case(n_out)
    weights[:, :, 3:] = 0
    other_classes = classes.clone()
    other_classes[:, :, 3:] = 1 - classes[:, :, 3:].clamp(max=1)
    gradients = []
    for truth in (classes, other_classes):
        logits.grad = None
        LOSSES[name](logits, truth, weights).backward()  # type: ignore[index]
        assert logits.grad is not None
        gradients.append(logits.grad.clone())
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0][..., 3:], torch.zeros_like(gradients[0][..., 3:]))
    assert gradients[0][..., :3].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_annotation_is_no_division_by_zero(name: str) -> None:
    logits, classes, weights = random_case(2)
    assert LOSSES[name](logits, classes, torch.zeros_like(weights)).isfinite()  # type: ignore[index]


@pytest.mark.parametrize("name", LOSSES)
def test_one_sigmoid_and_two_softmax_outputs_agree_on_what_is_better(name: str) -> None:
    _, classes, weights = random_case(1)
    good, bad = (sign * (2.0 * classes[:, None] - 1) for sign in (3, -3))
    assert LOSSES[name](good, classes, weights) < LOSSES[name](bad, classes, weights)  # type: ignore[index]
