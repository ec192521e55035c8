"""A network in training, and everything that changes from one step to the next; `training` drives it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from napari_unet_seg.core._averaging import MovingAverage
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._memory import free, is_out_of_memory, used_bytes
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.batches import Batch, BatchSource
from napari_unet_seg.core.checkpoint import Checkpoint
from napari_unet_seg.core.devices import choose_device
from napari_unet_seg.core.errors import InputError, TrainingDivergedError, TrainingOutOfMemoryError
from napari_unet_seg.core.losses import LOSSES
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.network import UNet
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.steps import Note, Stopwatch
from napari_unet_seg.core.train_settings import TrainSettings, learning_rate, weights_name
from napari_unet_seg.core.training_data import TrainingSource
from napari_unet_seg.core.training_messages import TrainStep, ValidationStep
from napari_unet_seg.core.validation import Score, falls_short, is_better

Weights = dict[str, Tensor]

_LARGEST_GRADIENT_NORM = 10.0
_WIDE_CHANNELS: Final = 32
"""Networks this wide learn faster on a CPU with the channels first: the paper's in 10.5 s a step, not 19."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Weights that may be kept, on the CPU, with the step and the score that they reached."""

    weights: Weights
    step: int
    score: Score | None = None
    tiles: str = ""
    """Identity of the tiles that it was scored on."""


class Trainer:
    """A copy of a model in training.

    Parameters
    ----------
    model
        Where to start; it is not changed.
    annotations, validation
        What to learn from, and what to score on; without the latter a part is held out.
    settings
        How.
    stopwatch
        Shows the time that the training took so far.

    Raises
    ------
    InputError
        The annotations cannot be used with this model.
    """

    def __init__(
        self,
        model: Model,
        annotations: Sequence[Annotation],
        validation: Sequence[Annotation],
        settings: TrainSettings,
        stopwatch: Stopwatch,
    ) -> None:
        self.model = model.copy(objects=_objects_after(settings, model.info))
        self.settings = settings
        self.device = choose_device(settings.device).device
        self._source = TrainingSource(annotations, validation, model.info, settings)
        self.data = self._source.data
        self._layout = _fastest_layout(model.architecture, self.device)
        self.network = _moved(model.copy().network, self.device, self._layout)
        self._average = MovingAverage(self.network, settings.averaging) if settings.averaging else None
        self.step = 0
        self.start = Candidate(copy_of_weights(self.network), 0)
        self.best = self.start
        self._highest: Score | None = None
        self.batch_size = settings.batch_size
        self.validations_since_highest = 0
        self.validated_at: int | None = None
        self.validation_s = 0.0
        self.is_time_over = False
        self._optimizer = _optimizer(self.network, settings)
        self._rate_factor = 1.0
        self._stopwatch = stopwatch
        self._first_step, self._seconds_before = 0, 0.0
        self._batches = self._new_batches()

    @property
    def is_exhausted(self) -> bool:
        """Whether early stopping is due."""
        return self.settings.patience is not None and self.validations_since_highest >= self.settings.patience

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.step >= self.settings.steps or self.is_time_over or self.is_exhausted

    @property
    def owes_validation(self) -> bool:
        """Whether the weights of now are to be scored before anything else is done."""
        is_due = self.step % self.settings.validate_every == 0 or self.is_over
        return is_due and self.validated_at != self.step

    def close(self) -> None:
        """End what runs beside the training."""
        self._batches.close()

    def renew(self, annotations: Sequence[Annotation]) -> None:
        """Learn from these annotations from the next batch on.

        Raises
        ------
        InputError
            They cannot be used; nothing has changed.
        """
        self.data = self._source.renewed(annotations)
        self._restart_batches()

    def learn_one_batch(self) -> TrainStep | None:
        """Forward, backward, step; None when memory ran out, and nothing was learned.

        Raises
        ------
        TrainingDivergedError
            Something is not finite; it was not applied.
        """
        start = time.perf_counter()
        self.network.train()
        rate = self._set_learning_rate()
        try:
            value = self._descend(self._batches.batch(self.step))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        self.step += 1
        if self._average is not None:
            self._average.add(self.network, self.step)
        seconds = time.perf_counter() - start
        limit_s = self.settings.time_limit_s
        self.is_time_over = (
            limit_s is not None and self._stopwatch.seconds + seconds + self.validation_s >= limit_s
        )
        return TrainStep(
            self.step,
            self.settings.steps,
            value,
            rate,
            seconds,
            seconds_left=self._seconds_left(),
            memory_bytes=used_bytes(self.device),
        )

    def shrink(self) -> Note:
        """Free what was held and go on with half the batch, or half the patch.

        Raises
        ------
        TrainingOutOfMemoryError
            There is nothing left to halve.
        """
        self._optimizer.zero_grad(set_to_none=True)
        self._batches.close()
        free(self.device)
        if self.batch_size > 1:
            self.batch_size //= 2
        elif not self._source.shrink_patch():
            raise TrainingOutOfMemoryError(
                f"Not even one patch of {self.data.output_px} px fits the memory of {self.device}: close "
                "other programs, or choose a narrower model or another device.",
                best=self.best_model(),
            )
        self.data = self._source.data
        self._batches = self._new_batches()
        patches = "1 patch" if self.batch_size == 1 else f"{self.batch_size} patches"
        return Note(
            f"Memory ran out on {self.device}: going on with {patches} of {self.data.output_px} px a step."
        )

    def not_comparable(self) -> list[Candidate]:
        """Weights whose score is of other tiles than those of now: the starting ones, and the best."""
        scored = [self.start] if self.best.step == 0 else [self.start, self.best]
        return [each for each in scored if each.score is not None and each.tiles != self.data.tiles_identity]

    def take_new_score(self, candidate: Candidate, score: Score) -> None:
        """Replace the score of other weights; the starting ones win again where that makes them better."""
        rescored = replace(candidate, score=score, tiles=self.data.tiles_identity)
        if candidate is self.best or (candidate is self.start and self.best.step == 0):
            self.best = rescored
        if candidate is self.start:
            self.start = rescored
        if self.best.tiles != self.start.tiles:
            return  # not comparable before the best is scored too
        if self.best.score and self.start.score and not is_better(self.best.score, self.start.score):
            self.best = self.start
        self._highest = self.best.score

    def take_score(self, score: Score) -> ValidationStep:
        """Note the score of the weights of now, and keep them when they are the best.

        Of weights that score alike, those that learned longer are the best: the highest of the scores on a
        few objects is chance. Any that are kept are better than the starting ones.
        """
        self.validated_at = self.step
        tiles = self.data.tiles_identity
        if self.start.score is None:
            self.start = Candidate(self.start.weights, 0, score, tiles)
        highest, before = self._highest, self.start.score or score
        is_higher = highest is None or is_better(score, highest)
        if is_higher:
            self._highest, self.validations_since_highest = score, 0
        else:
            self.validations_since_highest += 1
            self._lower_the_plateau_rate()
        is_best = is_higher or (is_better(score, before) and not falls_short(score, highest or before))
        if is_best:
            self.best = Candidate(copy_of_weights(self._network_of_now), self.step, score, tiles)
        best_model = self.best_model() if is_best and self.step else None
        return ValidationStep(self.step, self.settings.steps, score, is_best, before, best_model)

    def model_of_now(self) -> Model:
        """The network as it is, to be used before the next step, with what is known of the model."""
        if self.device.type == "cpu":
            return Model(self.model.info, self._network_of_now)
        return self._model_with(self._network_of_now.state_dict())

    def engine_of(self, candidate: Candidate | None = None) -> InferenceNetwork:
        """The network of now, or with other weights, as prediction runs it."""
        model = self.model_of_now() if candidate is None else self._model_with(candidate.weights)
        return InferenceNetwork(model.network, self.device)

    def best_model(self) -> Model:
        """Return the best weights met, at first the starting ones, with this training in the history."""
        result = self.model.copy(
            history=(*self.model.history, self._history_entry()),
            description=self._description(),
            licence=self._licence(),
            object_diameter_px=self.model.object_diameter_px or self.data.object_diameter_px,
            pixel_size_nm=self.model.pixel_size_nm or self.data.pixel_size_nm,
            source="memory",
            path=None,
        )
        result.network.load_state_dict(self.best.weights)
        result.network.eval()
        return result

    def checkpoint(self) -> Checkpoint:
        """Return everything needed to go on from here."""
        return Checkpoint(
            weights=copy_of_weights(self.network),
            averaged_weights={} if self._average is None else copy_of_weights(self._average.network),
            best_weights=self.best.weights,
            optimizer=self._optimizer.state_dict(),
            progress={
                "step": self.step,
                "rate_factor": self._rate_factor,
                "validations_since_highest": self.validations_since_highest,
                "validated_at": self.validated_at,
                "validation_s": self.validation_s,
                "highest": None if self._highest is None else asdict(self._highest),
                "best": _plain(self.best),
                "start": _plain(self.start),
                "seconds": self._stopwatch.seconds,
                "seed": self.settings.seed,
                "optimizer": self.settings.optimizer,
                "averaging": self.settings.averaging,
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network.

        Raises
        ------
        InputError
            The checkpoint belongs to another network, or was made with another seed, optimiser or averaging.
        """
        progress = checkpoint.progress
        for name in ("seed", "optimizer", "averaging"):
            if progress[name] != getattr(self.settings, name):
                raise InputError(
                    f"The checkpoint was made with {name} {progress[name]}: give the same, or start without "
                    "resuming."
                )
        try:
            self.network.load_state_dict(checkpoint.weights)
            if self._average is not None:
                self._average.network.load_state_dict(checkpoint.averaged_weights)
            self._optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, ValueError) as error:
            raise InputError("The checkpoint belongs to another network: start without resuming.") from error
        self.step = self._first_step = progress["step"]
        self.best = _candidate(checkpoint.best_weights, progress["best"])
        self.start = _candidate(self.start.weights, progress["start"])
        self._highest = None if progress["highest"] is None else Score(**progress["highest"])
        self._rate_factor = progress["rate_factor"]
        self.validations_since_highest = progress["validations_since_highest"]
        self.validated_at = progress["validated_at"]
        self.validation_s = progress["validation_s"]
        self._seconds_before = progress["seconds"]
        self._stopwatch.add(self._seconds_before)

    def _restart_batches(self) -> None:
        self._batches.close()
        self._batches = self._new_batches()

    def _new_batches(self) -> BatchSource:
        n_workers = 8 if self._is_on_cuda else 0
        settings = self.settings
        return BatchSource(
            self.data, self.batch_size, settings.augmentation, settings.seed, n_workers=n_workers
        )

    def _descend(self, batch: Batch) -> float:
        """One step downhill; returns the loss before it."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT_NORM)
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise TrainingDivergedError(
                f"Training broke off at step {self.step + 1}: the loss is not a finite number any more; the "
                "best weights until then were kept. Try a smaller learning rate.",
                best=self.best_model(),
            )
        self._optimizer.step()
        return value

    @property
    def _network_of_now(self) -> UNet:
        """What is scored, shown and kept."""
        return self.network if self._average is None else self._average.network

    @property
    def _is_on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def _seconds_left(self) -> float:
        """At the pace of this run, or until the time limit."""
        spent = self._stopwatch.seconds
        per_step = (spent - self._seconds_before) / max(1, self.step - self._first_step)
        by_steps = per_step * (self.settings.steps - self.step)
        limit_s = math.inf if self.settings.time_limit_s is None else self.settings.time_limit_s
        return max(0.0, min(by_steps, limit_s - spent))

    def _model_with(self, weights: Weights) -> Model:
        """A model on the CPU, where its weights are prepared for prediction: not every GPU can in double."""
        model = self.model.copy()
        model.network.load_state_dict(weights)
        return model

    def _lower_the_plateau_rate(self) -> None:
        patience = max(1, (self.settings.patience or 6) // 2)
        if self.settings.schedule == "plateau" and self.validations_since_highest % patience == 0:
            self._rate_factor /= 2

    def _loss(self, batch: Batch) -> Tensor:
        image = torch.from_numpy(batch.image).to(self.device, memory_format=self._layout, non_blocking=True)
        classes = torch.from_numpy(batch.classes).to(self.device, non_blocking=True)
        weights = torch.from_numpy(batch.weights).to(self.device, non_blocking=True)
        with (
            torch.random.fork_rng(devices=[self.device] if self._is_on_cuda else []),
            torch.autocast(
                "cuda", dtype=torch.bfloat16, enabled=self._is_on_cuda and self.settings.mixed_precision
            ),
        ):
            torch.manual_seed(np.random.SeedSequence([self.settings.seed, self.step]).generate_state(1)[0])
            logits: Tensor = self.network(image)
        return LOSSES[self.settings.loss](logits.float(), classes, weights)

    def _set_learning_rate(self) -> float:
        settings = self.settings
        rate = learning_rate(self.step, settings, time_share=self._time_share()) * self._rate_factor
        if self._rate_factor < 1:
            rate = max(rate, min(settings.final_learning_rate, settings.learning_rate))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _time_share(self) -> float:
        """How much of the time there is for learning is over."""
        limit_s = self.settings.time_limit_s
        if limit_s is None:
            return 0.0
        return min(1.0, self._stopwatch.seconds / max(1e-3, limit_s - self.validation_s))

    def _licence(self) -> str:
        """That of the starting model, by name: what was painted since is not under it."""
        info = self.model.info
        if not info.licence or not info.history or info.licence.startswith("As that of"):
            return info.licence
        return f"As that of '{info.name}': {info.licence}"

    def _description(self) -> str:
        """What the model was made from."""
        data = self.data
        planes = f"{len(data.samples)} plane{'s' * (len(data.samples) != 1)}"
        seen = f"{data.n_objects} object{'s' * (data.n_objects != 1)}" if data.n_objects else planes
        made = f"Fine-tuned from '{self.model.name}'" if self.model.history else "Trained"
        return f"{made} on {seen}"

    def _history_entry(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "from": self.model.name,
            "steps": self.step,
            "best_step": self.best.step,
            "seconds": round(self._stopwatch.seconds, 1),
            "planes": len(self.data.samples),
            "objects": self.data.n_objects,
            "batch_size": self.batch_size,
            "patch_px": self.data.output_px,
            "loss": settings.loss,
            "optimizer": settings.optimizer,
            "learning_rate": settings.learning_rate,
            "averaging": settings.averaging,
            "weights": {"name": weights_name(settings.weights), **asdict(settings.weights)},
            "augmentation": asdict(settings.augmentation),
            "seed": settings.seed,
            "zoom": self.data.usual_zoom,
            "score": None if self.best.score is None else asdict(self.best.score),
            "score_before": None if self.start.score is None else asdict(self.start.score),
            "torch": torch.__version__,
        }


def copy_of_weights(network: UNet) -> Weights:
    """All weights of a network, on the CPU."""
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}


def _plain(candidate: Candidate) -> dict[str, Any]:
    """All but the weights, as plain values."""
    score = None if candidate.score is None else asdict(candidate.score)
    return {"step": candidate.step, "score": score, "tiles": candidate.tiles}


def _candidate(weights: Weights, fields: dict[str, Any]) -> Candidate:
    score = None if fields["score"] is None else Score(**fields["score"])
    return Candidate(weights, fields["step"], score, fields["tiles"])


def _objects_after(settings: TrainSettings, info: ModelInfo) -> ObjectSettings:
    """The model's settings; where they do not say of which separation border, of that it learns with now."""
    if info.task == "classes" or info.objects.border_w0 is not None:
        return info.objects
    weights = settings.weights
    w0 = weights.w0 if settings.loss == "weighted-cross-entropy" else 0.0
    return replace(info.objects, border_w0=w0, border_sigma_px=weights.sigma_px)


def _optimizer(network: UNet, settings: TrainSettings) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _fastest_layout(architecture: Architecture, device: torch.device) -> torch.memory_format:
    """How images and kernels lie in memory while learning; the numbers are the same."""
    is_wide_on_cpu = device.type == "cpu" and architecture.base_channels >= _WIDE_CHANNELS
    return torch.contiguous_format if is_wide_on_cpu else torch.channels_last


def _moved(network: UNet, device: torch.device, layout: torch.memory_format) -> UNet:
    options: dict[str, Any] = {"memory_format": layout}  # missing in torch's stubs
    return network.to(device).to(**options)
