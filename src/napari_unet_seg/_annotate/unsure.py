"""Goes to where a model is least sure of an image, one place after the other; the search is a job."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.what_counts import AnnotationView
from napari_unet_seg._jobs import Job, start
from napari_unet_seg._layers import Index, LayerImage, take
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.steps import Note

if TYPE_CHECKING:
    # They import PyTorch, which takes a second or more: that is done in the job's thread.
    from napari_unet_seg.core.predict_settings import PredictSettings
    from napari_unet_seg.core.uncertainty import Place, SearchStep

WINDOW_MODEL_PX = 64
"""Side of a place, in pixels of the model's grid: a few objects, which are painted in a minute."""
_ENOUGH = 0.5
"""A place of which more than this is annotated needs no more."""


@dataclass(frozen=True, eq=False)
class Question:
    """Which model is asked about which image.

    Attributes
    ----------
    settings
        How the model is to see the image; None: as the image says itself.
    """

    image: LayerImage
    info: ModelInfo
    settings: PredictSettings | None = None

    def is_same(self, other: Question) -> bool:
        """Whether the answer to the other one is that to this one, too."""
        return (
            self.image.data is other.image.data
            and self.image.axes == other.image.axes
            and (self.info, self.settings) == (other.info, other.settings)
        )


class NextUnsure(QObject):  # type: ignore[misc]
    """The places of one annotation in which a model is least sure, and which of them were seen.

    Painting makes no model surer: it only takes places out. So a search holds until its places have been
    seen, or another model is asked.

    Attributes
    ----------
    started
        Qt signal with the job of a search.
    said
        Qt signal with a sentence about the place that was gone to, or why there is none.
    failed
        Qt signal with the job that failed.
    """

    started = Signal(object)
    said = Signal(str)
    failed = Signal(object)

    def __init__(self, live: LiveAnnotation, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._live = live
        self._question: Question | None = None
        self._asked_at: float | None = None
        self._job: Job | None = None
        self._places: tuple[Place, ...] = ()
        self._seen: set[tuple[Index, tuple[int, int]]] = set()
        self._notes: list[str] = []
        self._is_waited_for = self._is_changed = False
        live.changed.connect(self._note_change)
        live.replaced.connect(self._note_change)

    @property
    def is_searching(self) -> bool:
        """Whether a search is under way."""
        return self._job is not None

    def go_on(self, question: Question, around: tuple[int, int]) -> None:
        """Go to the next place, if there is one; else search, and go there when it is found.

        Parameters
        ----------
        around
            Row and column that are looked at: a very large plane is searched around them.
        """
        if not self._is_answered(question):
            self._search(question, around)
        elif self._go_to_next():
            return
        elif self._job is not None:
            self._is_waited_for = True
        elif self._is_changed:
            self._search(question, around)
        else:
            self._seen.clear()
            if not self._go_to_next():
                self._say_none()

    def close(self) -> None:
        """Search no more."""
        self._live.changed.disconnect(self._note_change)
        self._live.replaced.disconnect(self._note_change)
        self._leave_job()

    def _is_answered(self, question: Question) -> bool:
        return (
            self._question is not None
            and question.is_same(self._question)
            and _changed_s(question.info) == self._asked_at
        )

    def _search(self, question: Question, around: tuple[int, int]) -> None:
        self._leave_job()
        self._question, self._asked_at = question, _changed_s(question.info)
        self._places, self._notes = (), []
        self._seen.clear()
        self._is_waited_for, self._is_changed = True, False
        steps = search_steps(question, self._live.view, self._live.plane, around)
        job = start(steps, f"Where {question.info.name} is unsure", window=self, shows_errors=False)
        job.stepped.connect(partial(self._take, job))
        job.finished.connect(partial(self._end, job))
        self._job = job
        self.started.emit(job)

    def _leave_job(self) -> None:
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def _take(self, job: Job, step: SearchStep) -> None:
        """Take in what was found on the planes that are done; the plane in view is the first."""
        from napari_unet_seg.core.uncertainty import Searched

        if job is not self._job:
            return
        if isinstance(step, Note):
            self._notes.append(step.message)
        elif isinstance(step, Searched):
            self._places = step.places
            if self._is_waited_for:
                self._go_to_next()

    def _end(self, job: Job) -> None:
        if job is not self._job:
            return
        self._job = None
        if job.error is not None:
            self._question = None
            self.failed.emit(job)
            return
        self._places = tuple(job.result or ())
        if job.is_cancelled:
            self._is_changed = True  # what is missing is searched when these places have been seen
        if self._is_waited_for and not (job.is_cancelled or self._go_to_next()):
            self._say_none()
        self._is_waited_for = False

    def _go_to_next(self) -> bool:
        for number, place in enumerate(self._places, 1):
            if (place.plane, place.center) not in self._seen and not self._is_annotated(place):
                self._go_to(place, number)
                return True
        return False

    def _go_to(self, place: Place, number: int) -> None:
        self._is_waited_for = False
        self._seen.add((place.plane, place.center))
        self._live.go_to(place.plane, place.center, place.box)
        name = "" if self._question is None else self._question.info.name
        so_far = " so far" if self.is_searching else ""
        sentence = (
            f"In the middle of the view '{name}' is unsure, {place.uncertainty:.0%} undecided: "
            f"place {number} of {len(self._places)}{so_far}."
        )
        self.said.emit(" ".join([sentence, *self._notes]))
        self._notes = []

    def _is_annotated(self, place: Place) -> bool:
        return bool(self._live.view.annotated(place.plane, place.box).mean() > _ENOUGH)

    def _say_none(self) -> None:
        name = "The model" if self._question is None else f"'{self._question.info.name}'"
        self.said.emit(" ".join([f"{name} is sure wherever nothing is annotated yet.", *self._notes]))

    def _note_change(self, _change: Any = None) -> None:
        self._is_changed = True


def search_steps(
    question: Question, said: AnnotationView, plane: Index, around: tuple[int, int]
) -> Generator[SearchStep, Any, list[Place]]:
    """Steps of `where_next_steps` for a stack; the plane in view is searched first."""
    from napari_unet_seg.core.auto_zoom import known_zoom_steps
    from napari_unet_seg.core.models import load_model
    from napari_unet_seg.core.predict_settings import zoom_choice
    from napari_unet_seg.core.uncertainty import where_next_steps

    image, model = question.image, load_model(str(question.info.path))
    data, axes = take(image, (slice(None),) * len(image.label_axes))
    settings = yield from known_zoom_steps(data, model, _settings(question, axes))
    if settings is None:
        return []
    choice = zoom_choice(model.info, settings)
    return (
        yield from where_next_steps(
            data,
            model,
            settings,
            said.annotated,
            window_px(choice.zoom, image.label_shape),
            plane_in_view=plane,
            around=around,
        )
    )


def _settings(question: Question, axes: str) -> PredictSettings:
    """As the Segment dock would see the image that it does not show."""
    from napari_unet_seg.core.predict_settings import PredictSettings

    image = question.image
    settings = question.settings or PredictSettings()
    channel = settings.channel
    if channel is None and image.n_channels > 1 and question.info.architecture.in_channels == 1:
        channel = "grey" if "S" in axes else 0
    pixel_size_nm = settings.pixel_size_nm or image.pixel_size_nm
    return replace(settings, axes=axes, pixel_size_nm=pixel_size_nm, channel=channel)


def window_px(zoom: tuple[float, float], shape: tuple[int, ...]) -> int:
    """Side of a place in pixels of the image; at most half of a small one."""
    side = round(WINDOW_MODEL_PX / float(np.sqrt(zoom[0] * zoom[1])))
    return max(1, min(side, min(shape[-2:]) // 2))


def _changed_s(info: ModelInfo) -> float | None:
    """When the model's file was written last; its name may be that of a new one now."""
    return info.path.stat().st_mtime if info.path is not None and info.path.is_file() else None
