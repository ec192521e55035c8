"""What a training and its caller say to each other: the steps that it yields, the values that it is sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import UNetSegError
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.normalisation import ArrayLike
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.prediction import Prediction
from napari_unet_seg.core.steps import STOP, Note, Stop
from napari_unet_seg.core.validation import Score


@dataclass(frozen=True)
class TrainStep:
    """One batch was learned.

    Attributes
    ----------
    seconds
        What this batch took.
    seconds_left
        Until the end, as far as can be told by now.
    memory_bytes
        What the training's GPU, or this process, holds; None where the system does not say.
    """

    step: int
    n_steps: int
    loss: float
    learning_rate: float
    seconds: float
    seconds_left: float
    memory_bytes: int | None


@dataclass(frozen=True)
class ValidationStep:
    """The held-out part was scored; first, at step 0, with the starting model.

    Attributes
    ----------
    is_best
        These weights are the ones to keep so far.
    before
        Score of the starting model on the same tiles, which can change when new annotations come in.
    best
        The model to keep so far, when it is a new one: a copy, for who wants to write it down.
    """

    step: int
    n_steps: int
    score: Score
    is_best: bool
    before: Score
    best: Model | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class TileStep:
    """One more tile of something that takes a moment: a validation or a preview."""

    of: Literal["validation", "preview"]
    tiles_done: int
    n_tiles: int


@dataclass(frozen=True, eq=False)
class PreviewDone:
    """The answer to a `PreviewRequest`: what the weights of step `step` make of it."""

    token: object
    prediction: Prediction
    step: int


@dataclass(frozen=True, eq=False)
class PreviewFailed:
    """The other answer to a `PreviewRequest`; training goes on."""

    token: object
    error: UNetSegError


@dataclass(frozen=True)
class AnnotationsTaken:
    """From the next batch on, training uses the `NewAnnotations` that were sent."""

    step: int
    n_objects: int
    n_planes: int
    scored_on: str


AnyStep: TypeAlias = (
    TrainStep | ValidationStep | TileStep | PreviewDone | PreviewFailed | AnnotationsTaken | Note
)


@dataclass(frozen=True, eq=False)
class NewAnnotations:
    """Sent in: learn from these instead, from the next batch on. Planes that did not change cost nothing."""

    annotations: Sequence[Annotation]


@dataclass(frozen=True, eq=False)
class PreviewRequest:
    """Sent in: predict this with the weights of now, on the device of the training.

    Attributes
    ----------
    image, settings, region
        As `prediction_steps` takes them.
    token
        Handed back with the answer, so that a late one can be told.
    """

    image: ArrayLike
    settings: PredictSettings = field(default_factory=PredictSettings)
    region: tuple[slice, slice] | None = None
    token: object = None


Answer: TypeAlias = Stop | NewAnnotations | PreviewRequest | None


@dataclass
class Inbox:
    """What was sent in and has not been dealt with yet."""

    annotations: NewAnnotations | None = None
    previews: deque[PreviewRequest] = field(default_factory=deque)
    _is_stopped: bool = False

    def is_stopped(self) -> bool:
        """Whether `STOP` was sent; to be asked again after each step."""
        return self._is_stopped

    def take(self, answer: Answer) -> None:
        """Keep an answer: of several annotations the last, of previews all."""
        if answer is STOP:
            self._is_stopped = True
        elif isinstance(answer, NewAnnotations):
            self.annotations = answer
        elif isinstance(answer, PreviewRequest):
            self.previews.append(answer)
