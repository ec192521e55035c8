"""The training loop, one for training from scratch and for fine-tuning: a generator of typed steps.

It knows when to learn, to score, to answer and to stop. It does not know windows, how a batch is learned
(`_trainer`), how annotations become samples (`training_data`) or how tiles are scored (`validation`).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from napari_unet_seg.core._memory import empty_cache
from napari_unet_seg.core._trainer import Candidate, Trainer
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.checkpoint import load_checkpoint, save_checkpoint
from napari_unet_seg.core.devices import choose_device, is_lost
from napari_unet_seg.core.errors import DeviceLostError, InputError, OutputError, UNetSegError
from napari_unet_seg.core.models import Model, ModelLike, as_model
from napari_unet_seg.core.prediction import TileDone, prediction_steps
from napari_unet_seg.core.steps import Note, Stopwatch, run_to_end, timed
from napari_unet_seg.core.train_settings import TrainSettings, learning_rate
from napari_unet_seg.core.training_messages import (
    AnnotationsTaken,
    Answer,
    AnyStep,
    Inbox,
    NewAnnotations,
    PreviewDone,
    PreviewFailed,
    PreviewRequest,
    TileStep,
    TrainStep,
    ValidationStep,
)
from napari_unet_seg.core.validation import Score, scoring_steps

__all__ = [
    "AnnotationsTaken",
    "AnyStep",
    "NewAnnotations",
    "PreviewDone",
    "PreviewFailed",
    "PreviewRequest",
    "TileStep",
    "TrainSettings",
    "TrainStep",
    "ValidationStep",
    "fine_tune",
    "learning_rate",
    "training_steps",
]

Steps: TypeAlias = Generator[AnyStep, Answer, None]

_LONGEST_GOODBYE_S = 1.0
"""A validation that is expected to need longer than this is left undone when the person stops."""
_LONGEST_UNSAVED_S = 600.0
"""A training whose validations are farther apart is saved between them."""


def fine_tune(
    model: ModelLike,
    annotations: Annotation | Sequence[Annotation],
    settings: TrainSettings | None = None,
    *,
    validation: Annotation | Sequence[Annotation] = (),
) -> Model:
    """Train a copy of the model and return the best one; blocking. See `training_steps`."""
    return run_to_end(training_steps(model, annotations, settings, validation=validation))


def training_steps(
    model: ModelLike,
    annotations: Annotation | Sequence[Annotation],
    settings: TrainSettings | None = None,
    *,
    validation: Annotation | Sequence[Annotation] = (),
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Generator[AnyStep, Answer, Model]:
    """Train a copy of the model; the generator's return value is the best model met.

    Parameters
    ----------
    model
        Where to start: `new_model(...)`, a trained one, or the name or path of one. It is not changed.
    annotations
        What to learn from; any number of images and planes.
    settings
        Defaults to `TrainSettings()`.
    validation
        Held-out annotations; without any, `settings.validation_fraction` of `annotations` is held out.
    checkpoint
        File to which everything needed to go on is written at each validation, and where those are far apart
        every ten minutes, atomically.
    resume
        Go on from `checkpoint` when it exists. On the CPU with the same number of threads, the result is
        bitwise that of an uninterrupted run, unless there is a time limit.

    Yields
    ------
    TrainStep, ValidationStep, TileStep, PreviewDone, PreviewFailed, AnnotationsTaken or Note
        Send `STOP` to end after the current step and get the best model so far, `NewAnnotations` to go on
        with other annotations, a `PreviewRequest` to see a prediction by the weights of now. The starting
        model is scored first and is kept unless something scores better.

    Raises
    ------
    InputError
        Nothing is annotated, or the annotations do not fit the model.
    TrainingDivergedError
        A loss or gradient is not finite; its `best` is the best model until then.
    TrainingOutOfMemoryError
        Not even one of the smallest patches fits the memory; it has a `best` too.
    DeviceLostError
        The GPU stopped working; it has a `best` too.
    """
    settings, stopwatch = settings or TrainSettings(), Stopwatch()
    device = choose_device(settings.device).device
    steps = _all_steps(
        as_model(model),
        _as_sequence(annotations),
        _as_sequence(validation),
        settings,
        _CheckpointFile(checkpoint, resume=resume),
        stopwatch,
    )
    try:
        return (yield from timed(steps, stopwatch))
    finally:
        with suppress(RuntimeError):  # of a GPU that is gone
            empty_cache(device)


def _as_sequence(annotations: Annotation | Sequence[Annotation]) -> Sequence[Annotation]:
    return [annotations] if isinstance(annotations, Annotation) else annotations


class _CheckpointFile:
    """Where a training is kept while it runs, if anywhere; one that cannot be written does not end it."""

    def __init__(self, path: Path | None, *, resume: bool) -> None:
        self._path, self._resume = path, resume
        self._has_failed = False
        self._saved_at = time.monotonic()

    @property
    def is_overdue(self) -> bool:
        """Whether much would be lost if the program ended now."""
        return time.monotonic() - self._saved_at > _LONGEST_UNSAVED_S

    def load_into(self, trainer: Trainer) -> None:
        """Go on from what is there, when that is wanted."""
        if self._resume and self._path is not None and self._path.exists():
            trainer.restore(load_checkpoint(self._path))

    def saving(self, trainer: Trainer, inbox: Inbox) -> Steps:
        """Write everything needed to go on; the first failure is said."""
        if self._path is None:
            return
        self._saved_at = time.monotonic()
        try:
            save_checkpoint(self._path, trainer.checkpoint())
        except OutputError as error:
            if not self._has_failed:
                self._has_failed = True
                inbox.take((yield Note(f"{error} Training goes on, but could not be resumed.")))


def _all_steps(
    model: Model,
    annotations: Sequence[Annotation],
    validation: Sequence[Annotation],
    settings: TrainSettings,
    file: _CheckpointFile,
    stopwatch: Stopwatch,
) -> Generator[AnyStep, Answer, Model]:
    trainer = Trainer(model, annotations, validation, settings, stopwatch)
    inbox = Inbox()
    with closing(trainer):
        file.load_into(trainer)
        for message in trainer.data.notes:
            inbox.take((yield Note(message)))
        try:
            yield from _loop(trainer, inbox, file)
        except RuntimeError as error:
            if not is_lost(error, trainer.device):
                raise
            raise DeviceLostError(
                f"The GPU ({trainer.device}) stopped working at step {trainer.step + 1}; the best weights "
                "until then were kept. Restart the program to use it again, or choose the CPU.",
                best=trainer.best_model(),
            ) from error
        for message in _last_words(trainer, inbox):
            yield Note(message)
        return trainer.best_model()


def _loop(trainer: Trainer, inbox: Inbox, file: _CheckpointFile) -> Steps:
    """Learn, score and answer until all is learned or the person stops."""
    while not inbox.is_stopped():
        if trainer.owes_validation:
            yield from _validate(trainer, inbox)
            if trainer.step and not inbox.is_stopped():
                yield from file.saving(trainer, inbox)
        elif file.is_overdue:
            yield from file.saving(trainer, inbox)
        if inbox.is_stopped() or trainer.is_over:
            break
        yield from _answer(trainer, inbox)
        if not inbox.is_stopped():
            yield from _learn(trainer, inbox)
    if inbox.is_stopped():
        yield from file.saving(trainer, inbox)  # before an unplanned validation, which must not change it
        if trainer.validated_at not in (None, trainer.step) and trainer.validation_s <= _LONGEST_GOODBYE_S:
            yield from _validate(trainer, inbox)


def _learn(trainer: Trainer, inbox: Inbox) -> Steps:
    """One batch; where memory runs out, a smaller one."""
    while (step := trainer.learn_one_batch()) is None:
        inbox.take((yield trainer.shrink()))
    inbox.take((yield step))


def _validate(trainer: Trainer, inbox: Inbox) -> Steps:
    """Score the weights of now, and before those whose score is of other tiles."""
    for candidate in trainer.not_comparable():
        score = yield from _score(trainer, inbox, candidate)
        if score is None:
            return
        trainer.take_new_score(candidate, score)
    started = time.perf_counter()
    score = yield from _score(trainer, inbox)
    if score is not None:
        trainer.validation_s = time.perf_counter() - started
        inbox.take((yield trainer.take_score(score)))


def _score(
    trainer: Trainer, inbox: Inbox, candidate: Candidate | None = None
) -> Generator[AnyStep, Answer, Score | None]:
    """Tile by tile; None when the person stopped and the end was not near."""
    started, n_done, data = time.perf_counter(), 0, trainer.data
    scoring = scoring_steps(
        trainer.engine_of(candidate),
        data.validation_tiles,
        trainer.model.info,
        data.scored_on,
        with_objects=data.scores_objects,
        resolution=data.score_resolution,
    )
    while True:
        try:
            n_left = next(scoring)
        except StopIteration as end:
            score: Score = end.value
            return score
        n_done += 1
        inbox.take((yield TileStep("validation", n_done, n_done + n_left)))
        expected_s = (time.perf_counter() - started) / n_done * n_left
        if inbox.is_stopped() and expected_s > _LONGEST_GOODBYE_S:
            return None


def _answer(trainer: Trainer, inbox: Inbox) -> Steps:
    """Deal with what was sent in, between two batches."""
    if inbox.annotations is not None:
        annotations, inbox.annotations = inbox.annotations.annotations, None
        try:
            trainer.renew(annotations)
        except InputError as error:
            inbox.take((yield Note(f"{error} Training goes on with what was annotated before.")))
        else:
            data = trainer.data
            taken = AnnotationsTaken(trainer.step, data.n_objects, len(data.samples), data.scored_on)
            inbox.take((yield taken))
    while inbox.previews and not inbox.is_stopped():
        yield from _preview(trainer, inbox, inbox.previews.popleft())


def _preview(trainer: Trainer, inbox: Inbox, request: PreviewRequest) -> Steps:
    settings = replace(request.settings, device=str(trainer.device))
    steps = prediction_steps(request.image, trainer.model_of_now(), settings, region=request.region)
    answer: AnyStep | None = None
    with closing(steps):
        while answer is None:
            try:
                step = next(steps)
            except StopIteration as end:
                answer = PreviewDone(request.token, end.value, trainer.step)
            except UNetSegError as error:
                answer = PreviewFailed(request.token, error)
            else:
                if isinstance(step, TileDone):
                    inbox.take((yield TileStep("preview", step.tiles_done, step.n_tiles)))
                if inbox.is_stopped():
                    return
    inbox.take((yield answer))


def _last_words(trainer: Trainer, inbox: Inbox) -> list[str]:
    """What the person should know of how it ended."""
    words = []
    if trainer.is_exhausted and not inbox.is_stopped():
        words.append(
            f"Stopped early at step {trainer.step}: "
            f"{trainer.settings.patience} validations brought nothing better."
        )
    if trainer.step and trainer.best.step == 0 and trainer.start.score is not None:
        words.append(
            f"No step scored better than the starting model ({trainer.start.score.value:.2f} on "
            f"{trainer.start.score.measured_on}): the starting model was kept."
        )
    return words
