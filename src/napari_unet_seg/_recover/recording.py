"""What is to be written of one annotation, or of one training, since it was written last."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject

from napari_unet_seg._annotate.label_watcher import Change, LabelWatcher
from napari_unet_seg._annotate.notes import look_of_regions, notes_of, regions_of
from napari_unet_seg._layers import METADATA, Index
from napari_unet_seg._recover.background_writer import Task
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.journal import LABELS, Box, Patch, patch_of
from napari_unet_seg.core.project import Project
from napari_unet_seg.core.saved_annotation import PREDICTED, TOUCHED, RegionNotes, SavedAnnotation
from napari_unet_seg.core.saved_training import CurvePoint, SavedTraining, TrainingNotes

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model

_MOST_BOXES = 64
"""More of them on a plane are one."""
_CHECKED_BYTES = 1 << 28
"""Labels up to this size are looked through once more in the end."""
_TIFF_AFTER_S = 10.0
"""Pause in painting after which the TIFF is renewed."""


class LayerRecording(QObject):  # type: ignore[misc]
    """Watches one annotation layer.

    Boxes are copied on the main thread. A whole stack is read by the writer, of an array that may be painted
    in meanwhile: what that changes is written after it.

    Parameters
    ----------
    saved
        Where it is kept.
    is_saved
        All that the layer holds is there already.
    is_empty
        The layer holds nothing: there is no need to look through a stack that is larger than the memory.
    """

    def __init__(
        self,
        viewer: Any,
        layer: Any,
        saved: SavedAnnotation,
        *,
        is_saved: bool = False,
        is_empty: bool = False,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.layer, self.saved = layer, saved
        self._viewer = viewer
        self._notes = saved.read_notes() if is_saved else None
        self._are_notes_saved = is_saved
        self._last_plane = () if self._notes is None else self._notes.last_plane
        self._regions: RegionNotes | None = None
        self._regions_look: object = None
        self._boxes: dict[Index, list[Box]] = {}
        self._wants_all, self._is_empty = not is_saved, is_empty
        self._tiff_is_old = True
        self._changed_s = time.monotonic()
        self._has_left = self._wants_check = False
        self._watcher = LabelWatcher(layer, viewer, self)
        self._watcher.changed.connect(self._note_change)
        self._watcher.replaced.connect(self._note_all)

    @property
    def is_unsaved(self) -> bool:
        """Whether something is to be written that is known of."""
        return self._wants_all or bool(self._boxes) or not self._are_notes_saved

    def close(self) -> None:
        """Watch no longer."""
        self._watcher.close()

    def leave(self) -> None:
        """The layer is about to be taken out of the viewer: watch no longer, and remember how it was."""
        self.notice()
        self.close()
        self._take_notes(keep_regions=True)  # which are removed first when the viewer is closed
        self._has_left = self._wants_check = True

    def begin_anew(self, saved: SavedAnnotation) -> None:
        """Write all of it again, to another place or to one that was removed."""
        self.saved = saved
        self._are_notes_saved = False
        self._note_all()

    def notice(self) -> None:
        """Take notice of everything that has happened until now."""
        self._watcher.flush()

    def tasks(self, project: Project, *, is_last: bool = False) -> list[Task]:
        """What is to be written now, so that all is in the project."""
        self._wants_check |= is_last
        return [*self._move(project), *self._write_notes(), *self._write_labels()]

    def tiff_tasks(self, *, is_urgent: bool) -> list[Task]:
        """What is to be written so that the TIFF is up to date; urgent: even while a person paints."""
        is_quiet = time.monotonic() - self._changed_s > _TIFF_AFTER_S
        if not self._tiff_is_old or not (is_quiet or is_urgent):
            return []
        self._tiff_is_old = False
        return [Task(self.saved.write_tiff, self._note_old_tiff)]

    def _move(self, project: Project) -> Iterator[Task]:
        if not project.holds(self.saved):
            yield Task(partial(_take_over, project, self.saved), _nothing)  # it is asked for again

    def _write_notes(self) -> Iterator[Task]:
        if not self._has_left:
            self._take_notes()
        if not self._are_notes_saved and self._notes is not None:
            self._are_notes_saved = True
            yield Task(partial(self.saved.write_notes, self._notes), self._note_unsaved_notes)

    def _take_notes(self, *, keep_regions: bool = False) -> None:
        look = look_of_regions(self._viewer.layers, self.layer)
        if look != self._regions_look and not (look is None and keep_regions):
            self._regions, self._regions_look = regions_of(self._viewer.layers, self.layer), look
        notes = notes_of(self._viewer.layers, self.layer, self._regions, self._notes)
        notes = replace(notes, last_plane=self._last_plane)
        if notes != self._notes:
            self._notes, self._are_notes_saved = notes, False

    def _write_labels(self) -> Iterator[Task]:
        boxes, self._boxes = self._boxes, {}
        if self._wants_all:
            parts = {} if self._is_empty else _parts_of(self.layer)
            boxes = boxes if self._is_empty else {}
            self._wants_all = self._is_empty = False
            data = self.layer.data
            yield Task(partial(_write_all, self.saved, parts, data.shape, data.dtype), self._note_all)
        if boxes:
            patches = [patch for plane in boxes for box in boxes[plane] for patch in self._copies(plane, box)]
            yield Task(partial(_append, self.saved, patches), partial(self._put_back, boxes))
        if self._wants_check and self.layer.data.nbytes <= _CHECKED_BYTES:
            self._wants_check = False
            yield Task(partial(_check, self.saved, self.layer.data), self._note_all)

    def _copies(self, plane: Index, box: Box) -> Iterator[Patch]:
        yield Patch(plane, box, np.array(self.layer.data[(*plane, *box)]))
        touched = _entry(self.layer).get("touched", {})
        if plane in touched:
            yield Patch(plane, box, touched[plane][box].astype(np.uint8), TOUCHED)

    def _note_change(self, change: Change) -> None:
        self._last_plane = change.plane
        boxes = self._boxes.setdefault(change.plane, [])
        if change.box not in boxes:
            boxes.append(change.box)
        if len(boxes) > _MOST_BOXES:
            boxes[:] = [_hull(boxes)]
        self._note_old_tiff()

    def _note_all(self) -> None:
        self._boxes.clear()
        self._wants_all = True
        self._note_old_tiff()

    def _put_back(self, boxes: dict[Index, list[Box]]) -> None:
        if not self._is_journal_there:
            self._note_all()
            self._are_notes_saved = False
        for plane, some in boxes.items():
            for box in some:
                self._note_change(Change(plane, box))

    @property
    def _is_journal_there(self) -> bool:
        """Whether what was written before is still on the disk."""
        try:
            return self.saved.journal.is_begun
        except InputError:
            return False

    def _note_unsaved_notes(self) -> None:
        self._are_notes_saved = False

    def _note_old_tiff(self) -> None:
        self._tiff_is_old, self._changed_s = True, time.monotonic()


def _parts_of(layer: Any) -> dict[str, Any]:
    """What is recorded of a layer, by part: arrays, or planes of them by index."""
    said = _entry(layer)
    found: dict[str, Any] = {LABELS: layer.data}
    if said.get("predicted") is not None:
        found[PREDICTED] = said["predicted"]
    if said.get("touched"):
        found[TOUCHED] = dict(said["touched"])
    return found


def _entry(layer: Any) -> dict[str, Any]:
    said = layer.metadata.get(METADATA)
    return said if isinstance(said, dict) else {}


def _hull(boxes: list[Box]) -> Box:
    """The smallest box around all."""
    rows, columns = (
        slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1)
    )
    return rows, columns


# In the writer's thread


def _take_over(project: Project, saved: SavedAnnotation | SavedTraining) -> None:
    if saved.folder.exists():
        project.take_over(saved)
    else:
        saved.note_move(project.path / saved.folder.parent.name / saved.folder.name)


def _write_all(saved: SavedAnnotation, parts: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> None:
    saved.journal.rewrite(_patches_of(parts, shape), shape, dtype)


def _patches_of(parts: Mapping[str, Any], shape: tuple[int, ...]) -> Iterator[Patch]:
    for part, planes in parts.items():
        for plane in planes if isinstance(planes, dict) else np.ndindex(*shape[:-2]):
            values = np.asarray(planes[plane])
            patch = patch_of(plane, values.astype(np.uint8) if values.dtype == np.bool_ else values, part)
            if patch is not None:
                yield patch


def _append(saved: SavedAnnotation, patches: list[Patch]) -> None:
    saved.journal.append(patches)
    if saved.journal.is_grown:
        with contextlib.suppress(InputError):  # it holds everything as it is, too
            saved.journal.compact()


def _check(saved: SavedAnnotation, data: Any) -> None:
    """Write what a script has changed without telling: compare all that is there with what was written."""
    found = saved.read_labels()
    if found is None:
        return
    changed = [
        Patch(plane, (slice(0, data.shape[-2]), slice(0, data.shape[-1])), np.array(data[plane]))
        for plane in np.ndindex(*data.shape[:-2])
        if not np.array_equal(data[plane], found.plane(plane))
    ]
    if changed:
        saved.journal.append(changed)


def _nothing() -> None:
    pass


# Trainings


class TrainingRecording:
    """What is known of a training and not yet written."""

    def __init__(self, saved: SavedTraining, name: str, settings: Mapping[str, Any]) -> None:
        self.saved = saved
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        self._notes = TrainingNotes(name, started, settings)
        self._are_notes_saved = False
        self._points: list[CurvePoint] = []
        self._best: Model | None = None
        self.last_step = 0

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to recover of it."""
        return self._notes.state == "settled"

    @property
    def is_unsaved(self) -> bool:
        """Whether something is to be written."""
        return bool(self._points) or self._best is not None or not self._are_notes_saved

    def add(self, point: CurvePoint) -> None:
        """Another point of the curves."""
        self._points.append(point)
        self.last_step = point.step

    def add_best(self, model: Model) -> None:
        """A model that is better than all before; it must not be changed any more."""
        self._best = model

    def settle(self) -> None:
        """Its model was kept or given up."""
        self._notes, self._are_notes_saved = replace(self._notes, state="settled"), False

    def tasks(self, project: Project) -> Iterator[Task]:
        """What is to be written now."""
        if not project.holds(self.saved):
            yield Task(partial(_take_over, project, self.saved), _nothing)
        if not self._are_notes_saved:
            self._are_notes_saved = True
            yield Task(partial(self.saved.write_notes, self._notes), self._note_unsaved_notes)
        if self._points:
            points, self._points = self._points, []
            yield Task(partial(self.saved.append_curve, points), partial(self._put_points_back, points))
        if self._best is not None:
            best, self._best = self._best, None
            yield Task(partial(self.saved.save_best, best), partial(self._put_best_back, best))

    def _note_unsaved_notes(self) -> None:
        self._are_notes_saved = False

    def _put_points_back(self, points: list[CurvePoint]) -> None:
        self._points[:0] = points

    def _put_best_back(self, best: Model) -> None:
        self._best = self._best or best
