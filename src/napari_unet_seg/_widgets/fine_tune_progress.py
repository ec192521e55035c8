"""A fine-tuning's steps and its result in words for the person."""

from __future__ import annotations

from typing import Any

from napari_unet_seg._fine_tune.fine_tuning import FineTuning
from napari_unet_seg._fine_tune.request import ReadingStep
from napari_unet_seg._widgets.job_row import Progress
from napari_unet_seg.core.train_settings import TrainSettings
from napari_unet_seg.core.training_messages import TileStep, TrainStep, ValidationStep
from napari_unet_seg.core.validation import Score

_GB, _MB = 1e9, 1e6
_WHOLE = 1000
_TOO_CLOSE = (
    "So little cannot tell such values apart, but the new model gives the truth the higher probability: "
    "compare both on the canvas."
)


class Reporter:
    """Remembers what a training is about, to say how far it is."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self._latest: Progress | None = None

    def describe(self, step: Any) -> Progress | None:
        """How far a step means that the training is."""
        if isinstance(step, ReadingStep):
            return Progress("looking through the labels", step.planes_done, step.n_planes)
        if isinstance(step, TrainStep):
            self._latest = self._after(step)
            return self._latest
        if isinstance(step, TileStep) and step.of == "validation" and self._latest is None:
            return Progress("measuring how good the model is before", step.tiles_done, step.n_tiles)
        if isinstance(step, ValidationStep) and self._latest is None:
            return Progress("learning", 0, 1)
        return None

    def _after(self, step: TrainStep) -> Progress:
        share, what = step.step / step.n_steps, f"step {step.step} of {step.n_steps}"
        limit_s = self._settings.time_limit_s
        if limit_s is not None:
            share = max(share, 1 - step.seconds_left / limit_s)
            what = f"step {step.step}"
        memory = "" if step.memory_bytes is None else bytes_in_words(step.memory_bytes)
        return Progress(what, round(share * _WHOLE), _WHOLE, step.seconds_left, memory)


def bytes_in_words(n_bytes: int) -> str:
    """1.1 GB, 640 MB."""
    return f"{n_bytes / _GB:.1f} GB" if n_bytes >= _GB else f"{n_bytes / _MB:.0f} MB"


def verdict(fine_tuning: FineTuning) -> str:
    """Whether the new model is better, in the same words for before and after."""
    before, after, latest = fine_tuning.before, fine_tuning.after, fine_tuning.latest
    if before is None or after is None or latest is None:
        return "Stopped before anything could be measured: the old model stays."
    if fine_tuning.is_better:
        said = f"{_what(after)}: {_before_and_after(before, after)}."
        return said if after.value > before.value else f"{said} {_TOO_CLOSE}"
    if latest.value < before.value:
        return (
            f"It became worse, so the old model stays. {_what(before)}: {_before_and_after(before, latest)}. "
            "Paint more, or try a smaller learning rate."
        )
    return (
        f"Nothing better was found, so the old model stays. {_what(before)}: "
        f"{_before_and_after(before, latest)}. Paint where the old model is wrong, or train longer."
    )


def _what(score: Score) -> str:
    return f"{score.name[:1].upper()}{score.name[1:]}, measured on {score.measured_on}"


def _before_and_after(before: Score, after: Score) -> str:
    """With as many digits as it takes to see a difference, if there is one."""
    digits = next((n for n in (2, 3, 4) if round(before.value, n) != round(after.value, n)), 2)
    return f"{before.value:.{digits}f} before, {after.value:.{digits}f} after"
