"""One fine-tuning on layers of the viewer: what the Fine-tune button does, and what becomes of its result.

Layers are read and written on the main thread; reading images, training and previews run in a job's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_unet_seg._annotate.layer import image_layer_of
from napari_unet_seg._canvas import window_of
from napari_unet_seg._current_view import AnnotatedImage
from napari_unet_seg._fine_tune.comparison import Comparison
from napari_unet_seg._fine_tune.live_preview import LivePreview
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._fine_tune.painting import Painting
from napari_unet_seg._fine_tune.request import Painted, TrainingRequest, Tuned, training_job_steps
from napari_unet_seg._jobs import Job, Steps, start
from napari_unet_seg._layers import behind_proxy
from napari_unet_seg._recover.recovery import Recorder
from napari_unet_seg.core.atomic import write_atomically
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import NOT_IN_NAMES, SUFFIX, ModelInfo, list_models, saved_path
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.steps import Note
from napari_unet_seg.core.training_messages import PreviewDone, PreviewFailed, TrainStep, ValidationStep
from napari_unet_seg.core.validation import Score


class FineTuning(QObject):  # type: ignore[misc]
    """A fine-tuning, under way or ended; its jobs tell it what to show.

    Attributes
    ----------
    request
        What was asked for.
    before, after
        Scores of the starting model and of the best one on the same held-out part; None before the first.
    tuned
        The result; None before the end, and when it failed.
    saved
        Name under which the result was kept, or None.
    comparison
        Old and new model on the current view; None before the end.
    noted
        Qt signal with a sentence for the person.
    kept
        Qt signal with the name of the model that was saved.
    reverted
        Qt signal: the old model is used again.
    failed
        Qt signal with a job of these that failed.
    """

    noted = Signal(str)
    kept = Signal(str)
    reverted = Signal()
    failed = Signal(object)

    def __init__(
        self,
        request: TrainingRequest,
        labels_layers: Sequence[Any],
        viewer: Any,
        recorder: Recorder | None = None,
    ) -> None:
        super().__init__()
        self.request, self.viewer, self._recorder = request, behind_proxy(viewer), recorder
        self.before: Score | None = None
        self.after: Score | None = None
        self.latest: Score | None = None
        self.tuned: Tuned | None = None
        self.saved: str | None = None
        self.comparison: Comparison | None = None
        self._labels_layers = [behind_proxy(layer) for layer in labels_layers]
        self._subjects = [
            AnnotatedImage(image_layer_of(self.viewer.layers, layer), source.image, layer)
            for layer, source in zip(self._labels_layers, request.sources, strict=True)
        ]
        self._best: Model | None = None
        self._job: Job | None = None
        self._painting: Painting | None = None
        self._preview: LivePreview | None = None
        self._replaced: dict[Path, bytes] = {}

    # The run

    def run(self, *, previews: bool = True, shows_errors: bool = False) -> Job:
        """Start training.

        Parameters
        ----------
        previews
            Show the current view while it trains; `show_preview` changes it.
        """
        if self._recorder is not None:
            self._recorder.begin_training(self.name, asdict(self.request.settings))
        self._job = start(
            training_job_steps(self.request),
            f"Fine-tuning {self.request.info.name}",
            on_step=self._take_step,
            on_end=self._end,
            window=window_of(self.viewer),
            shows_errors=shows_errors,
        )
        self._painting = Painting(self._labels_layers, self.viewer, self)
        self._painting.painted.connect(self._hand_on)
        self._painting.removed.connect(self._note_removal)
        self.show_preview(is_shown=previews)
        return self._job

    def show_preview(self, *, is_shown: bool) -> None:
        """Show the current view while it trains, or do not; nothing happens when it does not train."""
        if self._job is None or not self._job.is_running:
            return
        if self._preview is None and is_shown:
            subject = self._subject_in_view()
            self._preview = LivePreview(self.request, subject, self.viewer, self._job.send, parent=self)
        if self._preview is not None:
            self._preview.switch(is_on=is_shown)

    @property
    def name(self) -> str:
        """What the new model is called unless the person says otherwise."""
        return name_for(self.request.info, [source.image.name for source in self.request.sources])

    @property
    def preview_layer(self) -> Any:
        """The image layer of the live preview; None when there is none."""
        return None if self._preview is None else self._preview.layer

    def leave(self) -> None:
        """Stop, and take out what was only there to look at; a model that was not kept is given up."""
        if self._job is not None:
            is_running = self._job.is_running
            self._job.abandon()
            if not is_running:
                self._settle()
        self._stop_watching()
        self._close_comparison()

    def _subject_in_view(self) -> AnnotatedImage:
        """The image that the person is busy with, of those that are trained on."""
        active = self.viewer.layers.selection.active
        return min(
            self._subjects,
            key=lambda one: (active not in (one.layer, one.labels_layer), not one.layer.visible),
        )

    def _take_step(self, step: Any) -> None:
        if self._recorder is not None and isinstance(step, TrainStep | ValidationStep):
            self._recorder.record_training(step)
        if isinstance(step, ValidationStep):
            self._take_score(step)
        elif isinstance(step, PreviewDone | PreviewFailed) and self._preview is not None:
            self._preview.take(step)
        elif isinstance(step, Note):
            self.noted.emit(step.message)

    def _take_score(self, step: ValidationStep) -> None:
        self.before, self.latest = step.before, step.score
        if step.is_best:
            self.after, self._best = step.score, step.best
        if step.best is not None and self._recorder is not None:
            self._recorder.record_best(step.best)

    def _hand_on(self, painted: Painted) -> None:
        if self._job is not None:
            self._job.send(painted)

    def _note_removal(self, name: str) -> None:
        self.noted.emit(f"'{name}' was removed: training goes on with what it said last.")

    def _end(self, job: Job) -> None:
        self._stop_watching()
        if isinstance(job.result, Tuned):
            self.tuned = job.result
        elif self._best is not None:  # the GPU is gone, say: what was found before is not
            self.tuned = Tuned(self.request.model, self._best)
        if not self.is_better:
            self._settle()

    def _stop_watching(self) -> None:
        if self._painting is not None:
            self._painting.close()
            self._painting = None
        if self._preview is not None:
            self._preview.close()
            self._preview = None

    # Better?

    @property
    def is_better(self) -> bool:
        """Whether a step scored better than the starting model."""
        return self.tuned is not None and self.tuned.is_better

    def compare(self) -> Comparison | None:
        """Show old and new model on the current view; None when there is nothing new."""
        if self.tuned is not None and self.is_better and self.comparison is None:
            subject = self._subject_in_view()
            self.comparison = Comparison(self.request, self.tuned, subject, self.viewer, parent=self)
            self.comparison.failed.connect(self.failed)
        return self.comparison

    def keep(self, name: str, *, overwrite: bool = False) -> Job:
        """Save the new model; every list of models then has it, and the docks of this viewer choose it.

        The job fails with an `OutputError` where the file cannot be written, or exists and `overwrite` is
        False.
        """
        if self.tuned is None:
            raise InputError("There is no new model to keep: fine-tune first.")
        steps = _saving_steps(self.tuned.after, name, overwrite=overwrite)
        return self._start_short(steps, f"Saving {name}", self._note_saved)

    def revert(self) -> Job:
        """Go back to the model that it started from; a file that was replaced gets its old content again."""
        self._close_comparison()
        name = f"Going back to {self.request.info.name}"
        return self._start_short(_restoring_steps(dict(self._replaced)), name, self._note_reverted)

    def _start_short(self, steps: Steps, name: str, on_end: Callable[[Job], None]) -> Job:
        return start(steps, name, on_end=on_end, window=window_of(self.viewer), shows_errors=False)

    def _note_saved(self, job: Job) -> None:
        if isinstance(job.result, _Saved):
            self.saved = job.result.path.name.removesuffix(SUFFIX)
            if job.result.replaced is not None:
                self._replaced.setdefault(job.result.path, job.result.replaced)
            self._settle()
            NEWS.changed.emit(self.saved, self.viewer)
            self.kept.emit(self.saved)
        else:
            self.failed.emit(job)

    def _note_reverted(self, job: Job) -> None:
        if job.error is not None:
            self.failed.emit(job)
            return
        self._replaced.clear()
        self.saved = None
        self._settle()
        NEWS.changed.emit(self.request.info.name, self.viewer)
        self.reverted.emit()

    def _settle(self) -> None:
        """Nothing needs to be brought back after a crash any more."""
        if self._recorder is not None:
            self._recorder.settle_training()

    def _close_comparison(self) -> None:
        if self.comparison is not None:
            self.comparison.close()
            self.comparison = None


@dataclass(frozen=True)
class _Saved:
    """Where a model was written, and what was in that file before; None: there was none."""

    path: Path
    replaced: bytes | None


def _saving_steps(model: Model, name: str, *, overwrite: bool) -> Generator[str, Any, _Saved]:
    path = saved_path(name)
    replaced = path.read_bytes() if overwrite and path.is_file() else None
    yield f"Saving {name}"
    return _Saved(model.save(name, overwrite=overwrite), replaced)


def _restoring_steps(replaced: dict[Path, bytes]) -> Generator[str, Any, None]:
    yield "Going back"
    for path, content in replaced.items():
        write_atomically(path, content)


def name_for(info: ModelInfo, image_names: Sequence[str]) -> str:
    """What a fine-tuned model is called unless the person says otherwise: a name that is still free."""
    base = f"{info.name}, {' and '.join(dict.fromkeys(image_names))}"
    base = "".join(character for character in base if character not in NOT_IN_NAMES).strip()
    taken = {other.name for other in list_models()}
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base} {number}"
    return name
