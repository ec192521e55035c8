"""How a network is trained, as a value, with its presets, and the learning rate that follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.losses import LOSSES, LossName
from napari_unet_seg.core.rescaling import choose_zoom
from napari_unet_seg.core.weight_map import WeightSettings

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["cosine", "plateau", "constant"]


def weights_name(settings: WeightSettings) -> str:
    """What a weight map is called in a model's history."""
    named = {
        "border only": WeightSettings.border_only(),
        "paper": WeightSettings.paper(),
        "fiji": WeightSettings.fiji(),
    }
    return next((name for name, known in named.items() if known == settings), f"{settings.preset}, changed")


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
        Steps over which the learning rate rises linearly from 0; a tenth of `steps` at most.
    momentum, weight_decay
        For SGD; for AdamW.
    averaging
        Decay per step of the moving average of the weights, which is what is scored, shown and kept; 0: none.
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
    time_limit_s
        Wall time after which training ends, validations included and pauses not; `steps` stays the limit when
        it is reached earlier. The learning rate then falls with time or steps, whichever is further, so that
        no two runs are quite the same.
    zoom
        Pixels of the model's grid per pixel of images of which the pixel sizes do not tell it, because the
        image or the model knows none; 2 enlarges. None: as the model learned last from such images, else 1.
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
    averaging: float = 0.0
    weights: WeightSettings = field(default_factory=WeightSettings.border_only)
    augmentation: AugmentSettings = field(default_factory=AugmentSettings.default)
    validation_fraction: float = 0.2
    validate_every: int = 100
    patience: int | None = None
    time_limit_s: float | None = None
    zoom: float | None = None
    device: str = "auto"
    mixed_precision: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_names()
        for name in ("steps", "batch_size", "patch_px", "validate_every"):
            if getattr(self, name) < 1:
                raise InputError(f"Training needs {name} of at least 1, not {getattr(self, name)!r}.")
        for name in ("validation_fraction", "averaging"):
            if not 0 <= getattr(self, name) < 1:
                words = name.replace("_", " ")
                raise InputError(f"The {words} must be from 0 to below 1, not {getattr(self, name)!r}.")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"The learning rate must be a positive number, not {self.learning_rate!r}.")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise InputError(f"The time limit must be above 0 seconds, not {self.time_limit_s!r}.")
        if self.zoom is not None:
            choose_zoom(self.zoom, None, None, None)  # refuses impossible numbers

    def _check_names(self) -> None:
        if self.loss not in LOSSES:
            raise InputError(f"Loss '{self.loss}' is unknown: choose one of {', '.join(LOSSES)}.")
        if self.optimizer not in ("sgd", "adam", "adamw"):
            raise InputError(f"Optimizer '{self.optimizer}' is unknown: choose sgd, adam or adamw.")
        if self.schedule not in ("cosine", "plateau", "constant"):
            raise InputError(f"Schedule '{self.schedule}' is unknown: choose cosine, plateau or constant.")

    @classmethod
    def quick(cls, **changes: Any) -> TrainSettings:
        """About a minute on two cores: many steps of few, small patches, whose weights are averaged."""
        settings = cls(
            steps=600,
            batch_size=2,
            patch_px=96,
            learning_rate=1e-3,
            validate_every=100,
            warmup_steps=10,
            averaging=0.98,
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
            averaging=0.998,
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


def learning_rate(step: int, settings: TrainSettings, *, time_share: float = 0.0) -> float:
    """Return the learning rate before plateaus: linear warm-up, then half a cosine, or constant.

    Parameters
    ----------
    step
        Steps learned so far.
    settings
        Of the training.
    time_share
        How much of `settings.time_limit_s` is over, from 0 to 1.
    """
    warmup_steps = min(settings.warmup_steps, settings.steps // 10)  # a short training is not all warm-up
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / (warmup_steps + 1)
    if settings.schedule != "cosine":
        return settings.learning_rate
    progress = (step - warmup_steps) / max(1, settings.steps - warmup_steps)
    progress = min(1.0, max(progress, time_share))
    final = min(settings.final_learning_rate, settings.learning_rate)
    return final + (settings.learning_rate - final) * 0.5 * (1 + math.cos(math.pi * progress))
