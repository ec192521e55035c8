"""The training loop, one for training from scratch and for fine-tuning: a generator of typed steps.

It knows batches, a loss, an optimiser and a learning rate. It does not know files, windows, how annotations
become samples (`training_data`), how a batch is drawn (`batches`) or how tiles are scored (`validation`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.batches import Batch, BatchSource
from napari_unet_seg.core.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from napari_unet_seg.core.devices import choose_device
from napari_unet_seg.core.errors import InputError, OutOfMemoryError, TrainingDivergedError
from napari_unet_seg.core.losses import LOSSES, LossName
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.network import UNet
from napari_unet_seg.core.steps import STOP, Note, Stop, run_to_end
from napari_unet_seg.core.training_data import TrainingData, prepare
from napari_unet_seg.core.validation import Score, score_tiles
from napari_unet_seg.core.weight_map import WeightSettings

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "plateau", "constant"]

_LARGEST_GRADIENT_NORM = 10.0
_CHANNELS_LAST: dict[str, Any] = {"memory_format": torch.channels_last}  # missing in torch's stubs


def _border_only() -> WeightSettings:
    """Weight 1 everywhere plus the separation border; balancing the classes too makes objects too large."""
    return WeightSettings.fiji(w0=10.0, sigma_px=5.0, balance=1.0)


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained; the defaults fine-tune.

    Parameters
    ----------
    steps
        Batches to train on.
    batch_size
        Patches per batch.
    patch_px
        Side of a patch of the network's *output*; rounded up to what the network can make.
    loss, optimizer, schedule
        By name. The learning rate goes from `learning_rate` to `final_learning_rate`: along half a cosine, by
        halving whenever `patience // 2` validations brought nothing ("plateau"), or not at all.
    warmup_steps
        Steps over which the learning rate rises linearly from 0.
    momentum, weight_decay
        For SGD; for AdamW.
    weights
        The separation-border weight map.
    augmentation
        How patches vary.
    validation_fraction
        Part of the annotation that is held out, when no validation annotation is given; 0 holds out nothing.
    validate_every
        Steps between validations.
    patience
        Validations without a better score after which training stops early; None never does.
    device
        "auto", "cpu", "cuda" or "mps".
    mixed_precision
        bfloat16 arithmetic on CUDA; elsewhere it is slower and never used.
    seed
        The same seed, data, device and number of threads give the same weights.
    """

    steps: int = 1000
    batch_size: int = 4
    patch_px: int = 256
    loss: LossName = "weighted-cross-entropy"
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-4
    final_learning_rate: float = 1e-6
    schedule: ScheduleName = "cosine"
    warmup_steps: int = 0
    momentum: float = 0.99
    weight_decay: float = 1e-4
    weights: WeightSettings = field(default_factory=_border_only)
    augmentation: AugmentSettings = field(default_factory=AugmentSettings.default)
    validation_fraction: float = 0.2
    validate_every: int = 100
    patience: int | None = None
    device: str = "auto"
    mixed_precision: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "patch_px", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"Training needs {name} of at least 1, not {getattr(self, name)!r}.")
        if self.loss not in LOSSES:
            raise InputError(f"Loss '{self.loss}' is unknown: choose one of {', '.join(LOSSES)}.")
        if self.optimizer not in ("sgd", "adam", "adamw"):
            raise InputError(f"Optimizer '{self.optimizer}' is unknown: choose sgd, adam or adamw.")
        if self.schedule not in ("cosine", "plateau", "constant"):
            raise InputError(f"Schedule '{self.schedule}' is unknown: choose cosine, plateau or constant.")
        if not 0 <= self.validation_fraction < 1:
            raise InputError(
                f"The validation fraction must be from 0 to below 1, not {self.validation_fraction!r}."
            )
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"The learning rate must be a positive number, not {self.learning_rate!r}.")

    @classmethod
    def quick(cls, **changes: Any) -> TrainSettings:
        """About a minute on two cores with a 16-channel network."""
        settings = cls(
            steps=120, batch_size=4, patch_px=128, learning_rate=5e-4, validate_every=30, warmup_steps=10
        )
        return replace(settings, **changes)

    @classmethod
    def thorough(cls, **changes: Any) -> TrainSettings:
        """From scratch, or fine-tuning when quality counts more than minutes."""
        settings = cls(
            steps=3000,
            patch_px=192,
            learning_rate=1e-3,
            validate_every=200,
            warmup_steps=100,
            augmentation=replace(AugmentSettings.default(), scale_range=(0.65, 1.6)),
        )
        return replace(settings, **changes)

    @classmethod
    def paper(cls, **changes: Any) -> TrainSettings:
        """Train as the paper: SGD with momentum 0.99, one tile of 388² out of 572², its augmentation."""
        settings = cls(
            steps=20000,
            batch_size=1,
            patch_px=388,
            optimizer="sgd",
            learning_rate=1e-4,
            schedule="constant",
            weight_decay=0.0,
            weights=WeightSettings.paper(),
            augmentation=AugmentSettings.paper(),
            validate_every=500,
        )
        return replace(settings, **changes)


@dataclass(frozen=True)
class TrainStep:
    """One batch was learned."""

    step: int
    n_steps: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class ValidationStep:
    """The held-out tiles were scored; `is_best` when these weights are the ones to keep so far."""

    step: int
    n_steps: int
    score: Score
    is_best: bool


AnyStep = TrainStep | ValidationStep | Note


def fine_tune(
    model: Model,
    annotations: Sequence[Annotation],
    settings: TrainSettings | None = None,
    *,
    validation: Sequence[Annotation] = (),
) -> Model:
    """Train a copy of the model and return the best one; blocking. See `training_steps`."""
    return run_to_end(training_steps(model, annotations, settings, validation=validation))


def training_steps(
    model: Model,
    annotations: Sequence[Annotation],
    settings: TrainSettings | None = None,
    *,
    validation: Sequence[Annotation] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Generator[AnyStep, Stop | None, Model]:
    """Train a copy of the model; the generator's return value is the best model met.

    Parameters
    ----------
    model
        Where to start: `new_model(...)` or a trained one. It is not changed.
    annotations
        What to learn from; any number of images and planes.
    settings
        Defaults to `TrainSettings()`.
    validation
        Held-out annotations; without any, `settings.validation_fraction` of `annotations` is held out.
    checkpoint
        File to which everything needed to go on is written at each validation, atomically.
    resume
        Go on from `checkpoint` when it exists. On the CPU with the same number of threads, the result is
        bitwise that of an uninterrupted run.

    Yields
    ------
    TrainStep, ValidationStep or Note
        Send `STOP` to end after the current step and get the best model so far.

    Raises
    ------
    InputError
        Nothing is annotated, or the annotations do not fit the model.
    TrainingDivergedError
        A loss or gradient is not finite; its `best` is the last good model.
    OutOfMemoryError
        A batch does not fit the memory.
    """
    settings = settings or TrainSettings()
    data = prepare(annotations, validation, model.info, settings)
    trainer = _Trainer(model, data, settings)
    if resume and checkpoint is not None and checkpoint.exists():
        trainer.restore(load_checkpoint(checkpoint))
    for message in data.notes:
        yield Note(message)
    try:
        return (yield from _loop(trainer, settings, checkpoint))
    finally:
        trainer.batches.close()


def _loop(
    trainer: _Trainer, settings: TrainSettings, checkpoint: Path | None
) -> Generator[AnyStep, Stop | None, Model]:
    stopped = False
    while trainer.step < settings.steps and not stopped and not trainer.is_exhausted:
        stopped = (yield trainer.learn_one_batch()) is STOP
        if is_due := trainer.step % settings.validate_every == 0 or trainer.step == settings.steps:
            stopped = ((yield trainer.validate()) is STOP) or stopped
        if checkpoint is not None and (is_due or stopped):
            save_checkpoint(checkpoint, trainer.checkpoint())
        if stopped and not is_due:  # after the checkpoint, which an unplanned validation must not change
            yield trainer.validate()
    if trainer.is_exhausted:
        yield Note(
            f"Stopped early at step {trainer.step}: {settings.patience} validations brought nothing better."
        )
    return trainer.best_model()


class _Trainer:
    """A network in training with everything that changes from step to step."""

    def __init__(self, model: Model, data: TrainingData, settings: TrainSettings) -> None:
        self.model = model
        self.data = data
        self.settings = settings
        self.device = choose_device(settings.device).device
        self.network = _on_device(model.copy().network, self.device)
        self.optimizer = _optimizer(self.network, settings)
        n_workers = 8 if self._on_cuda else 0
        self.batches = BatchSource(
            data, settings.batch_size, settings.augmentation, settings.seed, n_workers=n_workers
        )
        self.step = 0
        self.rate_factor = 1.0
        self.validations_since_best = 0
        self.best_score: Score | None = None
        self.best_weights = _copy_of_weights(self.network)

    @property
    def _on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def is_exhausted(self) -> bool:
        """Tell whether early stopping is due."""
        return self.settings.patience is not None and self.validations_since_best >= self.settings.patience

    def learn_one_batch(self) -> TrainStep:
        """Forward, backward, step; refuses to apply anything that is not finite."""
        start = time.perf_counter()
        self.network.train()
        rate = self._set_learning_rate()
        batch = self.batches.batch(self.step)
        try:
            loss = self._loss(batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise OutOfMemoryError(
                f"{self.settings.batch_size} patches of {self.settings.patch_px} px do not fit the memory of "
                f"{self.device}: choose smaller patches or batches."
            ) from error
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), _LARGEST_GRADIENT_NORM)
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise TrainingDivergedError(
                f"Training broke off at step {self.step + 1}: the loss is not a finite number any more; the "
                "last good weights were kept. Try a smaller learning rate.",
                best=self.best_model(),
            )
        self.optimizer.step()
        self.step += 1
        return TrainStep(self.step, self.settings.steps, value, rate, time.perf_counter() - start)

    def validate(self) -> ValidationStep:
        """Score the held-out tiles and keep the weights when they are the best so far."""
        self.network.eval()
        score = score_tiles(
            self.network, self.data.validation_tiles, self.model.info, self.data.scored_on, self.device
        )
        is_best = self.best_score is None or score.value > self.best_score.value
        if is_best:
            self.best_score, self.best_weights, self.validations_since_best = (
                score,
                _copy_of_weights(self.network),
                0,
            )
        else:
            self.validations_since_best += 1
            if (
                self.settings.schedule == "plateau"
                and self.validations_since_best % self._plateau_validations == 0
            ):
                self.rate_factor /= 2
        return ValidationStep(self.step, self.settings.steps, score, is_best)

    @property
    def _plateau_validations(self) -> int:
        return max(1, (self.settings.patience or 6) // 2)

    def best_model(self) -> Model:
        """Return the best weights met, at first the starting ones, with this training in the history."""
        result = self.model.copy(
            history=(*self.model.history, self._history_entry()),
            object_diameter_px=self.model.object_diameter_px or self.data.object_diameter_px,
            pixel_size_nm=self.model.pixel_size_nm or self.data.pixel_size_nm,
            source="memory",
            path=None,
        )
        result.network.load_state_dict(self.best_weights)
        result.network.eval()
        return result

    def checkpoint(self) -> Checkpoint:
        """Return everything needed to go on from here."""
        return Checkpoint(
            weights=_copy_of_weights(self.network),
            best_weights=self.best_weights,
            optimizer=self.optimizer.state_dict(),
            progress={
                "step": self.step,
                "rate_factor": self.rate_factor,
                "validations_since_best": self.validations_since_best,
                "best_score": None if self.best_score is None else asdict(self.best_score),
                "seed": self.settings.seed,
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same network.

        Raises
        ------
        InputError
            The checkpoint belongs to another network or another optimiser.
        """
        try:
            self.network.load_state_dict(checkpoint.weights)
            self.optimizer.load_state_dict(checkpoint.optimizer)
        except (RuntimeError, ValueError) as error:
            raise InputError(
                "The checkpoint belongs to another network or optimiser: start without --resume."
            ) from error
        progress = checkpoint.progress
        if progress["seed"] != self.settings.seed:
            raise InputError(f"The checkpoint was made with seed {progress['seed']}: give the same seed.")
        self.best_weights = checkpoint.best_weights
        self.step = progress["step"]
        self.rate_factor = progress["rate_factor"]
        self.validations_since_best = progress["validations_since_best"]
        self.best_score = None if progress["best_score"] is None else Score(**progress["best_score"])

    def _loss(self, batch: Batch) -> Tensor:
        image = torch.from_numpy(batch.image).to(
            self.device, memory_format=torch.channels_last, non_blocking=True
        )
        classes = torch.from_numpy(batch.classes).to(self.device, non_blocking=True)
        weights = torch.from_numpy(batch.weights).to(self.device, non_blocking=True)
        with (
            torch.random.fork_rng(devices=[self.device] if self._on_cuda else []),
            torch.autocast(
                "cuda", dtype=torch.bfloat16, enabled=self._on_cuda and self.settings.mixed_precision
            ),
        ):
            torch.manual_seed(np.random.SeedSequence([self.settings.seed, self.step]).generate_state(1)[0])
            logits: Tensor = self.network(image)
        return LOSSES[self.settings.loss](logits.float(), classes, weights)

    def _set_learning_rate(self) -> float:
        rate = learning_rate(self.step, self.settings) * self.rate_factor
        rate = max(
            rate,
            min(self.settings.final_learning_rate, self.settings.learning_rate)
            if self.rate_factor < 1
            else 0,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _history_entry(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "date": datetime.now(UTC).date().isoformat(),
            "from": self.model.name,
            "steps": self.step,
            "planes": len(self.data.samples),
            "objects": self.data.n_objects,
            "batch_size": settings.batch_size,
            "patch_px": self.data.output_px,
            "loss": settings.loss,
            "optimizer": settings.optimizer,
            "learning_rate": settings.learning_rate,
            "weights": asdict(settings.weights),
            "augmentation": asdict(settings.augmentation),
            "seed": settings.seed,
            "score": None if self.best_score is None else asdict(self.best_score),
            "torch": torch.__version__,
        }


def learning_rate(step: int, settings: TrainSettings) -> float:
    """Return the learning rate before plateaus: linear warm-up, then half a cosine, or constant."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule != "cosine":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    final = min(settings.final_learning_rate, settings.learning_rate)
    return final + (settings.learning_rate - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _optimizer(network: UNet, settings: TrainSettings) -> torch.optim.Optimizer:
    parameters = network.parameters()
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=settings.momentum)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.learning_rate)
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _on_device(network: UNet, device: torch.device) -> UNet:
    """Move a network, its weights channels last: the faster layout for convolutions."""
    return network.to(device).to(**_CHANNELS_LAST)


def _copy_of_weights(network: UNet) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().clone() for key, tensor in network.state_dict().items()}
