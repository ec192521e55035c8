"""What goes wrong while training becomes a smaller batch or a sentence; the best model is never lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.core.training_cases import QUICK, TINY, collect, discs, scribbled, weights_of

from napari_unet_seg.core import training
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.devices import is_lost
from napari_unet_seg.core.errors import DeviceLostError, InputError, TrainingOutOfMemoryError
from napari_unet_seg.core.losses import LOSSES, weighted_cross_entropy
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.steps import Note
from napari_unet_seg.core.training import (
    TrainSettings,
    TrainStep,
    ValidationStep,
    fine_tune,
    training_steps,
)
from napari_unet_seg.core.training_data import prepare

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory."),
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
]


def failing_above(monkeypatch: pytest.MonkeyPatch, n_px: int, error: BaseException) -> list[tuple[int, ...]]:
    """Let the loss fail for batches of more pixels; returns the shapes that it saw."""
    seen: list[tuple[int, ...]] = []

    def loss(logits: torch.Tensor, classes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(classes.shape))
        if classes.numel() > n_px:
            raise error
        return weighted_cross_entropy(logits, classes, weights)

    monkeypatch.setitem(LOSSES, "weighted-cross-entropy", loss)
    return seen


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_batch_then_the_patch_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    shapes = failing_above(monkeypatch, 16 * 16, error)
    settings = replace(QUICK, batch_size=4, patch_px=32)
    seen, model = collect(training_steps(new_model(TINY), [discs()], settings))
    assert shapes[:4] == [(4, 32, 32), (2, 32, 32), (1, 32, 32), (1, 16, 16)]
    assert sum(isinstance(step, TrainStep) for step in seen) == settings.steps
    notes = [step.message for step in seen if isinstance(step, Note) and "Memory ran out" in step.message]
    assert len(notes) == 3
    assert "going on with 1 patch of 16 px" in notes[-1]
    assert (model.history[-1]["batch_size"], model.history[-1]["patch_px"]) == (1, 16)


def test_only_when_the_smallest_patch_does_not_fit_training_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = failing_above(monkeypatch, 0, torch.OutOfMemoryError("out of memory"))
    with pytest.raises(TrainingOutOfMemoryError, match="Not even one patch of 8 px") as caught:
        fine_tune(new_model(TINY), [discs()], QUICK)
    assert shapes[-1] == (1, 8, 8)
    assert isinstance(caught.value.best, Model)


def test_an_unpadded_network_shrinks_to_its_smallest_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    unpadded = replace(TINY, padding="valid")
    shapes = failing_above(monkeypatch, 4 * 4, MemoryError())
    collect(training_steps(new_model(unpadded), [discs()], replace(QUICK, patch_px=20)))
    assert shapes[-1] == (1, 4, 4)


def test_out_of_memory_while_scoring_cuts_the_tiles_and_the_score_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    annotations = [scribbled(discs(seed, size=160)) for seed in range(4)]
    settings = replace(QUICK, steps=1)

    def scores() -> list[float]:
        seen, _ = collect(training_steps(new_model(TINY, seed=0), annotations, settings))
        return [step.score.value for step in seen if isinstance(step, ValidationStep)]

    whole = scores()
    plain_call = InferenceNetwork.__call__

    def small_only(self: InferenceNetwork, images: torch.Tensor) -> torch.Tensor:
        if images[0, 0].numel() > 110 * 110:
            raise torch.OutOfMemoryError("out of memory")
        return plain_call(self, images)

    monkeypatch.setattr(InferenceNetwork, "__call__", small_only)
    assert scores() == whole


def test_a_gpu_that_is_gone_is_one_sentence_with_the_best_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "is_lost", lambda error, _: "unspecified" in str(error))
    failing_above(monkeypatch, 0, RuntimeError("CUDA error: unspecified launch failure"))
    start = new_model(TINY, seed=0)
    with pytest.raises(DeviceLostError, match="stopped working at step 1") as caught:
        fine_tune(start, [discs()], QUICK)
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights_of(start).values(), weights_of(caught.value.best).values(), strict=True)
    )


def test_a_lost_gpu_is_told_from_full_memory_and_from_our_own_mistakes() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert is_lost(RuntimeError("CUDA error: unspecified launch failure"), gpu)
    assert is_lost(RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), gpu)
    assert not is_lost(RuntimeError("CUDA error: out of memory"), gpu)
    assert not is_lost(RuntimeError("The size of tensor a must match"), gpu)
    assert not is_lost(RuntimeError("CUDA error: unspecified launch failure"), cpu)


def test_an_error_that_is_no_fault_of_the_machine_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_above(monkeypatch, 0, RuntimeError("The size of tensor a must match"))
    with pytest.raises(RuntimeError, match="size of tensor"):
        fine_tune(new_model(TINY), [discs()], QUICK)


def test_a_checkpoint_that_cannot_be_written_is_said_once_and_does_not_end_training(tmp_path: Path) -> None:
    missing = tmp_path / "gone" / "run.checkpoint"
    seen, model = collect(training_steps(new_model(TINY), [discs()], QUICK, checkpoint=missing))
    notes = [
        step.message for step in seen if isinstance(step, Note) and "could not be resumed" in step.message
    ]
    assert len(notes) == 1
    assert model.history[-1]["steps"] == QUICK.steps


def tuned(annotations: list[Annotation], **changes: Any) -> tuple[list[Any], Model]:
    return collect(training_steps(new_model(TINY), annotations, replace(QUICK, steps=2, **changes)))


def test_nan_in_an_image_is_replaced_and_said() -> None:
    annotation = discs()
    annotation.image[:5] = np.nan
    seen, model = tuned([annotation])
    assert any(isinstance(step, Note) and "NaN" in step.message for step in seen)
    assert all(tensor.isfinite().all() for tensor in weights_of(model).values())


def test_a_plane_without_a_finite_pixel_is_left_out_unless_it_is_the_only_one() -> None:
    blank = replace(discs(1), image=np.full((96, 96), np.nan, np.float32))
    _, model = tuned([discs(), blank])
    assert model.history[-1]["planes"] == 1
    with pytest.raises(InputError, match="no finite pixel"):
        tuned([blank])


def test_one_object_is_enough() -> None:
    annotation = discs()
    seen, model = tuned([replace(annotation, labels=np.where(annotation.labels == 1, 1, 0).astype(np.int32))])
    scores = [step.score for step in seen if isinstance(step, ValidationStep)]
    assert "too small to hold a part out" in scores[0].measured_on
    assert model.history[-1]["objects"] == 1


def test_only_background_is_refused_with_a_way_out() -> None:
    annotation = discs()
    with pytest.raises(InputError, match="No object is annotated"):
        tuned([Annotation.dense(annotation.image, np.zeros_like(annotation.labels), may_be_empty=True)])


def test_only_objects_are_refused_with_a_way_out() -> None:
    annotation = discs()
    with pytest.raises(InputError, match="paint some background"):
        tuned([Annotation(annotation.image, annotation.labels, annotation.labels > 0)])


def test_one_class_only_is_refused_with_a_way_out() -> None:
    annotation = discs()
    ones = np.ones_like(annotation.labels)
    with pytest.raises(InputError, match="Only one class"):
        fine_tune(new_model(TINY, task="classes"), Annotation.dense(annotation.image, ones), QUICK)


def test_a_class_beyond_the_model_does_not_matter_where_nothing_is_annotated() -> None:
    annotation = discs()
    annotated = np.ones(annotation.labels.shape, bool)
    annotated[:10] = False
    classes = np.where(annotated, np.minimum(annotation.labels, 1), 99)
    model = fine_tune(
        new_model(TINY, task="classes"),
        Annotation(annotation.image, classes, annotated),
        replace(QUICK, steps=1),
    )
    assert model.history[-1]["planes"] == 1


@pytest.mark.parametrize("largest", [70_000, 2**31 - 1, 2**31, 2**40, 2**63 + 1])
def test_label_ids_of_any_size_mean_what_small_ones_mean(largest: int) -> None:
    annotation = discs()
    ids = np.unique(annotation.labels)
    large = np.array([0, *(largest - np.arange(len(ids) - 1).astype(np.uint64))], np.uint64)
    renamed = large[np.searchsorted(ids, annotation.labels)]
    info = new_model(TINY).info
    plain, huge = (
        prepare([Annotation.dense(annotation.image, labels)], [], info, replace(QUICK, seed=1))
        for labels in (annotation.labels, renamed)
    )
    assert huge.n_objects == plain.n_objects
    for one, other in zip(plain.samples, huge.samples, strict=True):
        np.testing.assert_array_equal(one.labels > 0, other.labels > 0)
        np.testing.assert_array_equal(one.weights, other.weights)


def test_a_speck_that_falls_between_the_pixels_of_a_coarser_grid_is_as_good_as_nothing() -> None:
    annotation = discs()
    annotated = np.zeros(annotation.labels.shape, bool)
    annotated[0, 0] = True
    speck = Annotation(annotation.image, annotation.labels, annotated, pixel_size_nm=1.0)
    with pytest.raises(InputError, match="Nothing is annotated"):
        fine_tune(new_model(TINY, pixel_size_nm=10.0), speck, QUICK)


def gradients(
    monkeypatch: pytest.MonkeyPatch, annotation: Annotation, settings: TrainSettings
) -> list[torch.Tensor]:
    """Of every weight at every step of a training, as they come out of the loss."""
    clip = torch.nn.utils.clip_grad_norm_
    kept: list[torch.Tensor] = []

    def keeping(parameters: Any, norm: float) -> torch.Tensor:
        parameters = list(parameters)
        kept.extend(parameter.grad.clone() for parameter in parameters)
        return clip(parameters, norm)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", keeping)
        fine_tune(new_model(TINY, seed=0), annotation, settings)
    return kept


@pytest.mark.parametrize("loss", list(LOSSES))
@pytest.mark.parametrize("weights", ["border only", "paper", "fiji"])
def test_pixels_that_are_not_annotated_change_no_gradient(
    monkeypatch: pytest.MonkeyPatch, loss: Any, weights: str
) -> None:
    """Whatever the labels say there: bitwise, for all gradients of several varied batches."""
    annotation = discs()
    annotated = np.zeros(annotation.labels.shape, bool)
    annotated[8:60, 5:70] = True
    annotated[20:30, 20:40] = False
    junk = np.random.default_rng(3).integers(0, 2**20, annotation.labels.shape)
    settings = replace(
        QUICK,
        steps=3,
        loss=loss,
        weights={
            "border only": QUICK.weights,
            "paper": TrainSettings.paper().weights,
            "fiji": replace(TrainSettings.paper().weights, preset="fiji"),
        }[weights],
        augmentation=AugmentSettings.default(),
    )
    plain, scrambled = (
        gradients(monkeypatch, Annotation(annotation.image, labels, annotated), settings)
        for labels in (annotation.labels, np.where(annotated, annotation.labels, junk))
    )
    assert any(bool(gradient.any()) for gradient in plain)
    assert all(torch.equal(one, other) for one, other in zip(plain, scrambled, strict=True))


def test_pixels_that_are_annotated_change_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    annotation = discs()
    other = np.where(annotation.labels == 2, 0, annotation.labels)
    settings = replace(QUICK, steps=1, validation_fraction=0.0)
    plain, changed = (
        gradients(monkeypatch, Annotation.dense(annotation.image, labels), settings)
        for labels in (annotation.labels, other)
    )
    assert not all(torch.equal(one, other) for one, other in zip(plain, changed, strict=True))
