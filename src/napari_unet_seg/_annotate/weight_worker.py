"""The thread in which the weight map of the plane in view is made and kept up; no Qt, no layers.

It is told what a person looks at and what has changed, and says what is to be drawn. Of the plane in view it
gets copies; other planes, of which it only counts the classes, it reads as they are.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotate.what_counts import RIM_PX, AnnotationView, Box
from napari_unet_seg._layers import Index
from napari_unet_seg.core._gaps import Task
from napari_unet_seg.core.boxes import grown, relative
from napari_unet_seg.core.live_weight_map import LiveWeightMap, Redrawn, count_classes
from napari_unet_seg.core.weight_map import ClassCounts, WeightSettings

_STRIP_PX = 512
"""Rows of a plane that are counted at once."""
_LONGEST_STEP_S = 10.0
"""How long the end of the program waits for the step under way."""
_END = object()


class PlaneCopy:
    """A box of one plane, copied, in place of all labels: whatever is read of it has to lie inside."""

    def __init__(self, data: Any, plane: Index, box: Box) -> None:
        self.shape, self._box = data.shape, box
        self._values = np.array(data[(*plane, *box)])

    def __getitem__(self, key: Any) -> NDArray[Any]:
        *_, rows, columns = key
        values: NDArray[Any] = self._values[relative((rows, columns), self._box)]
        return values


def copied(view: AnnotationView, plane: Index, box: Box | None = None) -> AnnotationView:
    """The view with a copy of one plane, or of a box of it and what its labels can do to its surroundings."""
    shape = view.data.shape[-2:]
    box = (slice(0, shape[0]), slice(0, shape[1])) if box is None else grown(box, 2 * RIM_PX, shape)
    return replace(view, data=PlaneCopy(view.data, plane, box))


@dataclass(frozen=True, eq=False)
class Wish:
    """What is to be mapped from now on.

    Attributes
    ----------
    generation
        Comes back with everything that is drawn for it.
    labels
        The plane, copied; None when it is the one that is mapped, with other settings.
    stack
        All planes, as they are.
    in_view
        Rows and columns that are on the canvas: filled first.
    is_anew
        Whether any label of any plane may have changed since the last wish.
    """

    generation: int
    plane: Index
    labels: AnnotationView | None
    stack: AnnotationView
    settings: WeightSettings
    in_view: Box
    is_anew: bool


@dataclass(frozen=True, eq=False)
class Patch:
    """A box of the mapped plane in which labels or what counts of them are others, copied; see `copied`."""

    plane: Index
    box: Box
    labels: AnnotationView


@dataclass(frozen=True, eq=False)
class Drawn:
    """A part of the map of a plane.

    Attributes
    ----------
    is_block
        Whether it is one of many that follow each other at once.
    """

    generation: int
    plane: Index
    shape: tuple[int, ...]
    parts: tuple[Redrawn, ...]
    is_block: bool


@dataclass(frozen=True)
class Settled:
    """Nothing is left to be done of the first so many messages."""

    n_messages: int


@dataclass(frozen=True, eq=False)
class Failed:
    """The map cannot be made."""

    generation: int
    error: Exception


@dataclass(frozen=True, eq=False)
class _Mail:
    """What came since the last time: in this order."""

    wish: Wish | None
    patches: Sequence[Patch]
    planes: Collection[Index]
    n_messages: int


class WeightWorker:
    """A thread and its letter box.

    Parameters
    ----------
    say
        Called in the thread with `Drawn`, `Settled` and `Failed`.
    task, n_classes
        As in `weight_map`.
    """

    def __init__(
        self, say: Callable[[object], None], task: Task = "instances", n_classes: int | None = None
    ) -> None:
        self._say = say
        self._mapping = _Mapping(task, n_classes)
        self._news = threading.Condition()
        self._wish: Wish | None = None
        self._patches: list[Patch] = []
        self._planes: set[Index] = set()
        self._n_messages = 0
        self._is_paused = self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="weight map", daemon=True)

    @property
    def n_messages(self) -> int:
        """How many it was given."""
        return self._n_messages

    def wish(self, wish: Wish) -> None:
        """Map this from now on."""
        with self._news:
            if wish.labels is not None:
                self._planes.update(patch.plane for patch in self._patches)
                self._patches.clear()
            elif self._wish is not None:
                wish = replace(wish, labels=self._wish.labels)
            is_anew = wish.is_anew or (self._wish is not None and self._wish.is_anew)
            self._wish = replace(wish, is_anew=is_anew)
            self._post()
        if self._thread.ident is None and not self._is_ended:
            self._thread.start()

    def patch(self, patch: Patch) -> None:
        """The mapped plane was changed."""
        with self._news:
            self._patches.append(patch)
            self._post()

    def recount(self, plane: Index) -> None:
        """Another plane was changed."""
        with self._news:
            self._planes.add(plane)
            self._post()

    def pause(self, *, is_paused: bool) -> None:
        """Do nothing for now, or go on."""
        with self._news:
            self._is_paused = is_paused
            self._news.notify()

    def end(self, _event: Any = None) -> None:
        """Do nothing any more, and hold on to nothing; the step under way is not waited for."""
        with self._news:
            self._is_ended = True
            self._wish = None
            self._patches.clear()
            self._news.notify()

    def join(self) -> None:
        """End, and wait for it."""
        self.end()
        if self._thread.is_alive():
            self._thread.join(_LONGEST_STEP_S)

    def _post(self) -> None:
        self._n_messages += 1
        self._news.notify()

    def _run(self) -> None:
        is_idle = True
        while (mail := self._mail(waits=is_idle)) is not None:
            try:
                is_idle = self._work(mail)
            except Exception as error:  # noqa: BLE001 - the border of the thread: every error becomes a value
                is_idle = True
                self._say(Failed(self._mapping.generation, error))
                self._mapping.forget()
            if is_idle:
                self._say(Settled(mail.n_messages))
        self._mapping.forget()

    def _mail(self, *, waits: bool) -> _Mail | None:
        """What is there, or what comes next; None at the end."""
        with self._news:
            while not self._is_ended and (self._is_paused or (waits and not self._has_mail)):
                self._news.wait()
            if self._is_ended:
                return None
            mail = _Mail(self._wish, self._patches, self._planes, self._n_messages)
            self._wish, self._patches, self._planes = None, [], set()
            return mail

    @property
    def _has_mail(self) -> bool:
        return self._wish is not None or bool(self._patches) or bool(self._planes)

    def _work(self, mail: _Mail) -> bool:
        """Take the mail, and do a little; whether there was nothing left to do."""
        if mail.wish is not None:
            self._mapping.start(mail.wish)
        self._mapping.note(mail.patches, mail.planes)
        drawn = self._mapping.step()
        if drawn is not None:
            self._say(drawn)
        return drawn is None and not self._mapping.count_on()


class _Mapping:
    """The map of one plane, and the counts of all; used by the thread only."""

    def __init__(self, task: Task, n_classes: int | None) -> None:
        self._task, self._n_classes = task, n_classes
        self.forget()

    def forget(self) -> None:
        """Hold on to nothing."""
        self._wish: Wish | None = None
        self._map: LiveWeightMap | None = None
        self._patches: deque[Patch] = deque()
        self._counts: dict[Index, ClassCounts] = {}
        self._uncounted: set[Index] = set()
        self._counting: tuple[Index, Iterator[None]] | None = None

    @property
    def generation(self) -> int:
        """Of the wish."""
        return -1 if self._wish is None else self._wish.generation

    def start(self, wish: Wish) -> None:
        """Map another plane, or the same with other settings."""
        before, self._wish = self._wish, wish
        if before is None or wish.is_anew:
            self._counts.clear()
            self._uncounted = set(np.ndindex(wish.stack.data.shape[:-2]))
            self._counting = None
        elif before.plane != wish.plane:
            self._keep_count(before.plane)
        if wish.labels is not None:
            self._patches.clear()
            said = wish.labels.read(wish.plane)
            options: dict[str, Any] = {"task": self._task, "n_classes": self._n_classes}
            self._map = LiveWeightMap(
                said.labels, said.annotated, wish.settings, others=self._others, **options
            )
        elif self._map is not None:
            self._map = self._map.with_settings(wish.settings)
        if self._map is not None:
            self._map.look_at(wish.in_view)

    def note(self, patches: Sequence[Patch], planes: Collection[Index]) -> None:
        """Remember what changed."""
        for patch in patches:
            if self._wish is not None and patch.plane == self._wish.plane:
                self._patches.append(patch)
            else:
                self._uncounted.add(patch.plane)
        self._uncounted.update(planes)

    def step(self) -> Drawn | None:
        """Do what is most urgent for the plane in view; None when there is nothing."""
        if self._map is None or self._wish is None:
            return None
        parts: tuple[Redrawn, ...]
        is_block = False
        if self._patches:
            parts = (self._apply(self._patches.popleft(), self._map) or self._map.fill_block(),)
        elif self._map.is_stale:
            parts = self._map.redraw()
        elif not self._map.is_complete:
            parts, is_block = (self._map.fill_block(),), True
        else:
            return None
        return Drawn(self.generation, self._wish.plane, self._wish.stack.data.shape, parts, is_block)

    def _apply(self, patch: Patch, to: LiveWeightMap) -> Redrawn | None:
        """Take over a change; what counts may have changed beyond it, around checked objects."""
        box = grown(patch.box, RIM_PX, patch.labels.data.shape[-2:])
        said = patch.labels.read(patch.plane, box)
        return to.update(box, said.labels, said.annotated)

    def count_on(self) -> bool:
        """Count a little more of the other planes; whether there was something to count."""
        if self._map is None or self._wish is None or self._wish.settings.preset != "paper":
            return False  # the weights of the classes depend on counts in the preset of the paper only
        self._uncounted.discard(self._wish.plane)
        if self._counting is None:
            if not self._uncounted:
                return False
            plane = self._uncounted.pop()
            self._counting = plane, self._count(plane, self._wish.stack)
        if next(self._counting[1], _END) is _END:
            self._counting = None
        if self._counting is None and not self._uncounted:
            self._map.count_others(self._others)
        return True

    @property
    def _others(self) -> ClassCounts:
        """Of all planes but the one that is mapped, as far as they were counted."""
        plane = None if self._wish is None else self._wish.plane
        counts = (count for index, count in self._counts.items() if index != plane)
        return sum(counts, ClassCounts(()))

    def _keep_count(self, plane: Index) -> None:
        """Remember how much is annotated on the plane that is left."""
        if self._map is not None and self._map.is_complete and not self._patches:
            self._counts[plane] = self._map.counts
        else:
            self._uncounted.add(plane)
        if self._counting is not None:
            self._uncounted.add(self._counting[0])
            self._counting = None

    def _count(self, plane: Index, view: AnnotationView) -> Iterator[None]:
        """Count a plane in strips, with the line above that the carving of gaps looks at."""
        total = ClassCounts(())
        if view.reaches(plane):
            height, width = view.data.shape[-2:]
            step = _STRIP_PX if self._task == "instances" else height
            for top in range(0, height, step):
                bottom = min(height, top + step)
                said = view.read(plane, (slice(max(0, top - 1), bottom), slice(0, width)))
                total += count_classes(said.labels, said.annotated, task=self._task, skipped_rows=min(top, 1))
                yield
        self._counts[plane] = total
