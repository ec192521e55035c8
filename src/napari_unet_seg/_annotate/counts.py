"""How much is annotated, what of, and what is wrong with it: counted in the background, plane by plane."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._annotate.label_watcher import Change
from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.what_counts import AnnotationView, IntArray
from napari_unet_seg._jobs import Job, start
from napari_unet_seg._layers import Index
from napari_unet_seg.core.annotation_problems import Problem, find_problems, summarise
from napari_unet_seg.core.steps import STOP, Stop

SETTLED_MS = 300
"""Pause in painting after which is counted."""
_PLANES_PER_STEP = 64
_BINCOUNT_IDS = 1 << 24
"""Up to this id, counting all ids is quicker than sorting them."""


@dataclass(frozen=True, eq=False)
class PlaneTally:
    """What one plane holds.

    Attributes
    ----------
    ids
        Of the objects that count.
    largest_id
        Of all that is painted on it, as the layer numbers them.
    """

    plane: Index
    n_annotated_px: int
    n_background_px: int
    ids: NDArray[np.int64]
    largest_id: int
    problems: tuple[Problem, ...]


@dataclass(frozen=True, eq=False)
class Totals:
    """What all planes hold.

    Attributes
    ----------
    share
        Of all pixels, how much is annotated.
    """

    n_objects: int = 0
    n_planes: int = 0
    share: float = 0.0
    has_background: bool = False
    problems: tuple[Problem, ...] = ()

    def in_words(self, *, has_classes: bool = False) -> str:
        """As in "37 objects on 2 planes · 3.1 % annotated"; of classes there are always the same."""
        planes = "1 plane" if self.n_planes == 1 else f"{self.n_planes:,} planes"
        share = f"{percent_in_words(self.share)} annotated"
        if has_classes:
            return f"{planes} · {share}"
        objects = "1 object" if self.n_objects == 1 else f"{self.n_objects:,} objects"
        return f"{objects} on {planes} · {share}"


class AnnotationCounts(QObject):  # type: ignore[misc]
    """Keeps the totals of one annotation up to date, off the brush.

    Attributes
    ----------
    changed
        Qt signal: there are other totals.
    """

    changed = Signal()

    def __init__(self, live: LiveAnnotation, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._live = live
        self._tallies: dict[Index, PlaneTally] = {}
        self._waiting: set[Index] = set()
        self._all_wait = True
        self._job: Job | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(SETTLED_MS)
        self._timer.timeout.connect(self._count)
        live.changed.connect(self._note_change)
        live.replaced.connect(self.count_all)
        self._timer.start()

    @property
    def is_settled(self) -> bool:
        """Whether the totals are those of now."""
        return self._job is None and not self._timer.isActive()

    def totals(self) -> Totals:
        """What has been counted."""
        tallies = [self._tallies[plane] for plane in sorted(self._tallies)]
        annotated = [tally for tally in tallies if tally.n_annotated_px]
        ids = [tally.ids for tally in annotated]
        return Totals(
            len(np.unique(np.concatenate(ids))) if ids else 0,
            len(annotated),
            sum(tally.n_annotated_px for tally in annotated) / max(1, self._live.layer.data.size),
            any(tally.n_background_px for tally in annotated),
            tuple(summarise(tally.problems for tally in tallies if tally.n_annotated_px or tally.problems)),
        )

    def count_all(self) -> None:
        """Count all planes anew, when the person pauses."""
        self._all_wait = True
        self._timer.start()

    def close(self) -> None:
        """Count no more."""
        self._timer.stop()
        if self._job is not None:
            self._job.abandon()
            self._job = None

    def _note_change(self, change: Change) -> None:
        self._waiting.add(change.plane)
        self._timer.start()

    def _count(self) -> None:
        if self._job is not None:
            self._timer.start()
            return
        planes = None if self._all_wait else sorted(self._waiting)
        if planes is None:
            self._tallies.clear()
        self._all_wait = False
        self._waiting.clear()
        self._job = start(
            tally_steps(self._live.view, planes),
            "Counting what is annotated",
            on_step=self._take,
            window=self,
            shows_errors=False,
        )
        self._job.finished.connect(partial(self._end, self._job))

    def _take(self, step: PlaneTally | None) -> None:
        if step is not None:
            self._tallies[step.plane] = step
            self._live.note_largest(step.largest_id)

    def _end(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            self.changed.emit()


def tally_steps(
    view: AnnotationView, planes: Sequence[Index] | None
) -> Generator[PlaneTally | None, Stop | None, None]:
    """Count planes, or all that hold anything; None now and then where nothing is."""
    every = list(np.ndindex(*view.data.shape[:-2])) if planes is None else planes
    for number, plane in enumerate(every):
        tally = tally_of(view, plane) if planes is not None or _holds_anything(view, plane) else None
        if (tally is not None or number % _PLANES_PER_STEP == 0) and (yield tally) is STOP:
            return


def _holds_anything(view: AnnotationView, plane: Index) -> bool:
    """Something that counts, or that was painted as if it did."""
    return view.reaches(plane) or (
        view.coding in ("regions", "planes") and bool(np.asarray(view.data[plane]).max(initial=0) > 0)
    )


def tally_of(view: AnnotationView, plane: Index) -> PlaneTally:
    """Count one plane."""
    said = view.read(plane)
    counted = said.labels[said.annotated]
    ids = _distinct(counted)
    problems: Sequence[Problem] = ()
    if not view.class_names:  # whose ids are in many pieces, and touch
        problems = find_problems(
            said.labels,
            said.annotated,
            plane,
            coding=view.coding,
            regions=tuple(view.regions.get(plane, ())),
        )
    return PlaneTally(
        plane,
        counted.size,
        int(np.count_nonzero(counted == 0)),
        ids[ids > 0],
        int(np.asarray(view.data[plane]).max(initial=0)),
        tuple(problems),
    )


def _distinct(values: IntArray) -> NDArray[np.int64]:
    if values.size and int(values.max()) > _BINCOUNT_IDS:
        return np.unique(values).astype(np.int64)
    return np.flatnonzero(np.bincount(values)) if values.size else np.zeros(0, np.int64)


def percent_in_words(share: float) -> str:
    """Short, but never 0 % of something."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"
