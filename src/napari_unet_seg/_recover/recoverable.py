"""What earlier sessions left behind, found on the disk, read into memory, or discarded; no Qt.

Looking and reading take as long as the disk does: a job's thread is the place for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotate.new_layers import empty_labels
from napari_unet_seg._layers import Index
from napari_unet_seg.core._folder_lock import is_in_use
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.journal import LABELS, Recorded, patch_of
from napari_unet_seg.core.model_store import NOT_IN_NAMES, saved_path
from napari_unet_seg.core.project import (
    Project,
    annotations_in,
    continued_in,
    is_project,
    recovery_folder,
    remove,
    trainings_in,
)
from napari_unet_seg.core.saved_annotation import (
    PREDICTED,
    TOUCHED,
    AnnotationNotes,
    Extent,
    SavedAnnotation,
)
from napari_unet_seg.core.saved_training import SavedTraining

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class FoundAnnotation:
    """An annotation on the disk."""

    saved: SavedAnnotation
    notes: AnnotationNotes
    extent: Extent
    changed: datetime

    @property
    def image_name(self) -> str:
        """Of the image that it annotates, as far as is known."""
        return self.notes.name if self.notes.image is None else self.notes.image.name


@dataclass(frozen=True, eq=False)
class FoundTraining:
    """The best model of a training that was interrupted."""

    saved: SavedTraining
    name: str
    changed: datetime


@dataclass(frozen=True, eq=False)
class Recovery:
    """What can be brought back of one session.

    Attributes
    ----------
    folder
        Where it is.
    session
        The session's own folder: another one when the person had chosen a project folder.
    """

    folder: Path
    session: Path
    annotations: Sequence[FoundAnnotation] = ()
    trainings: Sequence[FoundTraining] = ()

    @property
    def changed(self) -> datetime:
        """When something of it was last written."""
        return max(found.changed for found in self.parts)

    @property
    def parts(self) -> list[FoundAnnotation | FoundTraining]:
        """All of it."""
        return [*self.annotations, *self.trainings]

    def without(self, folders: Collection[Path]) -> Recovery | None:
        """What of it lies in other folders than these; None when that is nothing."""
        annotations = [found for found in self.annotations if found.saved.folder not in folders]
        trainings = [found for found in self.trainings if found.saved.folder not in folders]
        rest = replace(self, annotations=annotations, trainings=trainings)
        return rest if rest.parts else None

    @property
    def is_in_project(self) -> bool:
        """Whether it lies in a folder that the person has chosen."""
        return self.folder != self.session


def recoverable() -> list[Recovery]:
    """What sessions that have ended left behind, the newest first; those that left nothing are removed."""
    found = [recovery for session in _ended_sessions() for recovery in _found_in(session)]
    return sorted(found, key=lambda recovery: recovery.changed, reverse=True)


def _ended_sessions() -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for folder in sorted(recovery_folder().iterdir()):
            if is_project(folder) and not is_in_use(folder):
                yield folder


def _found_in(session: Path) -> Iterator[Recovery]:
    """What lies in a session's own folder, and in the project folder that it went on in."""
    own, project = look_into(session, session), continued_in(session)
    if own is not None:
        yield own
    if project is None and own is None:
        _remove_session(session)
    if project is not None and is_project(project) and not is_in_use(project):
        elsewhere = look_into(project, session)
        if elsewhere is not None:
            yield elsewhere


def look_into(folder: Path, session: Path) -> Recovery | None:
    """What can be brought back from a folder; None when there is nothing."""
    annotations = [_annotation(saved) for saved in annotations_in(folder)]
    trainings = [_training(saved) for saved in trainings_in(folder)]
    recovery = Recovery(folder, session, _without_none(annotations), _without_none(trainings))
    return recovery if recovery.parts else None


def _without_none(found: Sequence[Found | None]) -> list[Found]:
    return [one for one in found if one is not None]


def _annotation(saved: SavedAnnotation) -> FoundAnnotation | None:
    """None for one in which nothing was done, or of which nothing can be read."""
    try:
        extent = saved.extent()
        return None if extent.is_empty else FoundAnnotation(saved, saved.read_notes(), extent, saved.changed)
    except InputError:
        return None


def _training(saved: SavedTraining) -> FoundTraining | None:
    notes = saved.read_notes()
    if notes.state == "settled" or not saved.best_path.is_file():
        return None
    changed = datetime.fromtimestamp(saved.best_path.stat().st_mtime, tz=UTC).astimezone()
    return FoundTraining(saved, notes.name, changed)


def discard(recovery: Recovery) -> None:
    """Delete what was found of a session; of a folder that the person has chosen, only forget its session.

    Raises
    ------
    OutputError
        Something of it is still there, or another program uses it.
    """
    session = ended_session(recovery.session)
    try:
        if recovery.is_in_project:
            session.continue_in(None)
        else:
            remove_found(recovery)
    finally:
        session.close()
    if look_into(recovery.session, recovery.session) is None:
        _remove_session(recovery.session)


def ended_session(folder: Path) -> Project:
    """Have the folder of a session to oneself.

    Raises
    ------
    InputError
        Another program has restored or discarded it, or is about to.
    """
    if not is_project(folder):
        raise InputError("This work is not there any more: another window has restored or discarded it.")
    return Project(folder)


def remove_found(recovery: Recovery) -> None:
    """Delete what was found, in a folder that this program uses.

    Raises
    ------
    OutputError
        Something of it is still there.
    """
    for annotation in recovery.annotations:
        remove(annotation.saved)
    for training in recovery.trainings:
        remove(training.saved)


def _remove_session(folder: Path) -> None:
    """Remove a session in which there is nothing that a person has done."""
    with contextlib.suppress(InputError):
        session = Project(folder)
        for annotation in annotations_in(folder):
            if annotation.is_certainly_empty:
                remove(annotation)
        for training in trainings_in(folder):
            if _training(training) is None:
                remove(training)
        session.close_and_tidy()


# Back into memory


@dataclass(frozen=True, eq=False)
class ReadAnnotation:
    """An annotation in memory.

    Attributes
    ----------
    predicted
        The prediction that it is a correction of, if it is one.
    touched
        By plane, (Y, X): where a person has painted.
    """

    found: FoundAnnotation
    labels: NDArray[Any]
    predicted: NDArray[Any] | None = None
    touched: Mapping[Index, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReadRecovery:
    """A recovery in memory; its models are among the person's own already.

    Attributes
    ----------
    models
        Their names.
    problems
        Sentences about what could not be read.
    """

    recovery: Recovery
    annotations: Sequence[ReadAnnotation]
    models: Sequence[str]
    problems: Sequence[str]


def read_recovery(recovery: Recovery) -> ReadRecovery:
    """Read everything; what cannot be read is left where it is."""
    annotations, models, problems = [], [], []
    for annotation in recovery.annotations:
        try:
            annotations.append(read_annotation(annotation))
        except InputError as error:
            problems.append(str(error))
    for training in recovery.trainings:
        try:
            models.append(recover_model(training))
        except InputError as error:
            problems.append(str(error))
    return ReadRecovery(recovery, annotations, models, problems)


def read_annotation(found: FoundAnnotation) -> ReadAnnotation:
    """Read all that was recorded of an annotation.

    Raises
    ------
    InputError
        It cannot be read any more, or there is not enough memory.
    """
    recorded = found.saved.read_labels()
    is_correction = found.notes.coding == "corrections"
    if recorded is None:
        labels, predicted = (empty_labels(found.notes.shape, found.notes.name) for _ in range(2))
        return ReadAnnotation(found, labels, predicted if is_correction else None)
    # Of a prediction only planes with objects are written; one without any has left nothing.
    has_prediction = PREDICTED in recorded.parts or (is_correction and TOUCHED not in recorded.parts)
    return ReadAnnotation(
        found,
        _array(recorded, LABELS, found.notes.name),
        _array(recorded, PREDICTED, found.notes.name) if has_prediction else None,
        {plane: recorded.plane(plane, TOUCHED).astype(bool) for plane in recorded.planes(TOUCHED)},
    )


def _array(recorded: Recorded, part: str, name: str) -> NDArray[Any]:
    planes = recorded.planes(part)
    dtype = recorded.plane(planes[0], part).dtype if planes else recorded.dtype
    array = empty_labels(recorded.shape, name, dtype)
    for plane in planes:
        patch = patch_of(plane, recorded.plane(plane, part))
        if patch is not None:  # only where something is does it take memory
            array[plane][patch.box] = patch.values
    return array


def recover_model(found: FoundTraining) -> str:
    """Save the best model of a training among the person's own; returns its name.

    Raises
    ------
    InputError
        It cannot be read, or not be saved.
    """
    from napari_unet_seg.core.models import load_model  # which takes a second to import

    model = load_model(found.saved.best_path)
    plain = "".join(character for character in found.name if character not in NOT_IN_NAMES).strip(" .")
    base = f"{plain or 'model'} (recovered)"
    number, name = 1, base
    while saved_path(name).exists():
        number += 1
        name = f"{base} {number}"
    model.save(name)
    found.saved.write_notes(replace(found.saved.read_notes(), state="settled"))
    return name
