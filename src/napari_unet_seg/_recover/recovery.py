"""Nothing is lost: what a person paints and trains is written as it grows, and offered again after a crash.

A `Recorder` belongs to one viewer. It writes to a folder of its own among the person's data, or to the
project folder that the person has chosen.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.qt import get_qapp
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet_seg._annotate.layer import coding_of
from napari_unet_seg._annotate.new_layers import is_empty_map
from napari_unet_seg._annotate.notes import add_regions, find_or_open_image, labels_layer
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._layers import Index, behind_proxy
from napari_unet_seg._recover.background_writer import BackgroundWriter, Task
from napari_unet_seg._recover.recording import LayerRecording, TrainingRecording
from napari_unet_seg._recover.recoverable import (
    ReadAnnotation,
    ReadRecovery,
    Recovery,
    discard,
    ended_session,
    look_into,
    read_recovery,
    recoverable,
    remove_found,
)
from napari_unet_seg.core.errors import InputError, UNetSegError
from napari_unet_seg.core.project import Project, is_project, recovery_folder
from napari_unet_seg.core.saved_annotation import SavedAnnotation
from napari_unet_seg.core.saved_training import CurvePoint

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model
    from napari_unet_seg.core.training_messages import TrainStep, ValidationStep

__all__ = ["Recorder", "Recovery", "Restored", "discard", "recorder_of", "recoverable", "restore"]

EVERY_MS = 1000
"""Between two looks for what is to be written."""
RETRY_AFTER_S = 5.0
"""After a failure."""
_LONGEST_FLUSH_S = 30.0


@dataclass(frozen=True, eq=False)
class Restored:
    """What has come back.

    Attributes
    ----------
    layers
        Labels layers that are in the viewer again.
    models
        Names of models that were saved among the person's own.
    problems
        Sentences about what is missing.
    """

    layers: tuple[Any, ...]
    models: tuple[str, ...]
    problems: tuple[str, ...]


class Recorder(QObject):  # type: ignore[misc]
    """Writes down the annotations and trainings of one viewer, as long as that is open.

    Parameters
    ----------
    folder
        A project folder to write to; None: one of its own, made when there is something to write.

    Attributes
    ----------
    changed
        Qt signal: something was saved, could not be saved, or another folder was chosen.
    left
        Qt signal: an annotation layer was taken out of the viewer; it can be brought back.
    """

    changed = Signal()
    left = Signal()

    def __init__(self, viewer: Any, folder: Path | None = None, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = behind_proxy(viewer)
        self._session: Project | None = None
        self._project: Project | None = None
        self._recordings: dict[str, LayerRecording] = {}
        self._leaving: list[LayerRecording] = []
        self._known: dict[str, SavedAnnotation] = {}  # of layers that were or will be in the viewer
        self._restored: set[str] = set()  # of these, those that hold what is on the disk
        self._unwanted: set[Path] = set()
        self._training: TrainingRecording | None = None
        self._trainings: list[TrainingRecording] = []
        self._problem = ""
        self._saved_s: float | None = None
        self._retry_s = 0.0
        self._is_open = True
        self._writer = BackgroundWriter(self)
        self._timer = QTimer(self)
        self._connect()
        if folder is not None:
            self.use_folder(folder)
        self._find_layers()

    def _connect(self) -> None:
        self._writer.written.connect(self._take_result)
        self._timer.timeout.connect(self._look)
        self._timer.start(EVERY_MS)
        self._viewer.layers.events.inserted.connect(self._note_insertion)
        self._viewer.layers.events.removing.connect(self._note_removal)
        get_qapp().aboutToQuit.connect(self.close)
        _recorders.add(self)

    # What it says

    def serves(self, viewer: Any) -> bool:
        """Whether it writes for this viewer."""
        return self._is_open and self._viewer is viewer

    @property
    def folder(self) -> Path | None:
        """The project folder that was chosen; None: the person has chosen none."""
        return None if self._project is None else self._project.path

    @property
    def problem(self) -> str:
        """Why something could not be saved, in a sentence; empty when all is well."""
        return self._problem

    @property
    def seconds_since_saved(self) -> float | None:
        """How long ago something was saved last; None: never."""
        return None if self._saved_s is None else time.monotonic() - self._saved_s

    @property
    def is_leaving(self) -> bool:
        """Whether layers were removed that are not written down yet."""
        return bool(self._leaving)

    @property
    def has_unsaved(self) -> bool:
        """Whether it is writing."""
        return self._writer.is_busy

    # The folder

    def use_folder(self, path: Path) -> None:
        """Write to a project folder from now on; what this viewer holds goes there, too.

        Raises
        ------
        InputError
            It is no folder for that: it holds something else, or another program uses it.
        """
        path = path.absolute()
        if path == self.folder:
            return
        project, before = Project(path), self._project
        with contextlib.suppress(InputError):  # only so that it is offered after a crash
            self._own_session().continue_in(path)
        self._project = project
        if before is not None:
            for recording in self._recordings.values():
                recording.begin_anew(project.new_annotation(str(recording.layer.name)))
            before.close()
        self._write()
        self.changed.emit()

    def _home(self) -> Project:
        """Where to write to.

        Raises
        ------
        InputError
            It cannot be written to.
        """
        if self._project is None:
            return self._own_session()
        if not is_project(self._project.path):
            self._project = self._made_again(self._project)
        return self._project

    def _own_session(self) -> Project:
        if self._session is None:
            name = f"{datetime.now().astimezone():%Y-%m-%d %H-%M-%S} {os.getpid()}-{secrets.token_hex(3)}"
            self._session = Project(recovery_folder() / name)
        elif not is_project(self._session.path):
            self._session = self._made_again(self._session)
        return self._session

    def _made_again(self, project: Project) -> Project:
        """A folder that somebody has removed; all that is in memory goes there again."""
        project.close()
        project = Project(project.path)
        for recording in [*self._recordings.values(), *self._leaving]:
            recording.begin_anew(recording.saved)
        return project

    # Layers come and go

    def _note_insertion(self, event: Any) -> None:
        self._find_layers(inserted=event.value)

    def _find_layers(self, inserted: Any = None) -> None:
        """Watch annotations that are not watched yet; a layer may become one without telling."""
        for layer in self._viewer.layers:
            if str(layer.unique_id) not in self._recordings and _is_annotation(layer):
                self._watch(layer, is_new=layer is inserted)

    def _watch(self, layer: Any, *, is_new: bool) -> None:
        key = str(layer.unique_id)
        saved = self._known.get(key)
        is_empty = is_new and saved is None and is_empty_map(layer.data)
        try:
            saved = saved or self._home().new_annotation(str(layer.name))
        except InputError as error:
            self._say(str(error))
            return  # the next look tries again
        self._recordings[key] = LayerRecording(
            self._viewer, layer, saved, is_saved=key in self._restored, is_empty=is_empty, parent=self
        )
        self._restored.discard(key)
        self._known[key] = saved

    def _note_removal(self, event: Any) -> None:
        """Write down a layer's end while it is still in the viewer."""
        recording = self._recordings.pop(str(self._viewer.layers[event.index].unique_id), None)
        if recording is not None:
            recording.leave()
            self._leaving.append(recording)
            self._write()
            self.left.emit()

    # Writing

    def _look(self) -> None:
        self._find_layers()
        if not self._writer.is_busy and time.monotonic() >= self._retry_s:
            self._write()

    def _write(self, *, is_last: bool = False) -> None:
        """Hand to the writer what has changed."""
        if not (self._recordings or self._leaving or self._trainings):
            return
        try:
            tasks = list(self._tasks(self._home(), is_last=is_last))
        except InputError as error:
            self._say(str(error))
            return
        if tasks:
            self._writer.submit(tasks)

    def _tasks(self, home: Project, *, is_last: bool) -> Iterator[Task]:
        for recording in [*self._leaving, *self._recordings.values()]:
            tasks = recording.tasks(home, is_last=is_last)
            yield from tasks
            if self._project is not None and (is_last or not tasks):
                yield from recording.tiff_tasks(is_urgent=is_last)
        for training in self._trainings:
            yield from training.tasks(home)

    def _take_result(self) -> None:
        """A batch was written, or not."""
        if self._put_back_failures():
            return
        self._problem, self._saved_s = "", time.monotonic()
        self.changed.emit()

    def _put_back_failures(self) -> bool:
        """Whether there were any; forget what needs no more writing."""
        failures = self._writer.take_failures()
        for failure in failures:
            failure.task.put_back()
        if failures:
            self._say(_sentence(failures[0].error))
        if not self._writer.is_busy:
            self._leaving = [recording for recording in self._leaving if recording.is_unsaved]
            self._trainings = [one for one in self._trainings if one.is_unsaved or not one.is_settled]
        return bool(failures)

    def _say(self, problem: str) -> None:
        """Something could not be saved; it is tried again."""
        self._retry_s = time.monotonic() + RETRY_AFTER_S
        self._problem = problem
        self.changed.emit()

    def flush(self, *, is_last: bool = False) -> bool:
        """Wait until everything is written, and say whether it is."""
        until_s = time.monotonic() + _LONGEST_FLUSH_S
        self._writer.wait(_LONGEST_FLUSH_S)
        self._put_back_failures()
        self._problem = ""
        self._find_layers()
        for recording in self._recordings.values():
            recording.notice()
        self._write(is_last=is_last)
        is_written = self._writer.wait(max(0.0, until_s - time.monotonic()))
        return not self._put_back_failures() and is_written and not self._problem

    def close(self) -> None:
        """Write everything, and watch no longer."""
        if not self._is_open:
            return
        self._is_open = False
        self._timer.stop()
        self._viewer.layers.events.inserted.disconnect(self._note_insertion)
        self._viewer.layers.events.removing.disconnect(self._note_removal)
        _recorders.discard(self)
        self.flush(is_last=True)
        for recording in self._recordings.values():
            recording.close()
        self._writer.close()
        if self._project is not None:
            self._project.close()
        if self._session is not None:
            with contextlib.suppress(InputError):
                self._session.continue_in(None)
            self._session.close_and_tidy()

    # Trainings

    def begin_training(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        """A training begins, whose model would be called so."""
        try:
            saved = self._home().new_training(name)
        except InputError as error:
            self._say(str(error))
            return
        self._training = TrainingRecording(saved, name, dict(settings or {}))
        self._trainings.append(self._training)

    def record_training(self, step: TrainStep | ValidationStep) -> None:
        """A step of the training that began last; written within seconds."""
        if self._training is not None:
            self._training.add(_curve_point(step))

    def record_best(self, model: Model) -> None:
        """The best model so far, which nobody must change any more; written at once, in the background."""
        if self._training is not None:
            self._training.add_best(model)
            if not self._writer.is_busy:  # else with the next look, or a slow disk would be given ever more
                self._write()

    def settle_training(self) -> None:
        """The person has kept the model, or has given it up: it needs no recovery."""
        if self._training is not None:
            self._training.settle()
            self._training = None

    # What earlier sessions left

    def finding_steps(self) -> Generator[None, None, list[Recovery]]:
        """What can be brought back, the newest first; as a job of no steps, since it reads much."""
        project, session = self._project, self._session
        yield from ()
        found = recoverable()
        home = project or session
        if home is not None and is_project(home.path):
            here = look_into(home.path, home.path if session is None else session.path)
            busy = self._active() | self._unwanted  # now: some may have begun since
            here = None if here is None else here.without(busy)
            found += [] if here is None else [here]
        return sorted(found, key=lambda recovery: recovery.changed, reverse=True)

    def _active(self) -> set[Path]:
        """Folders that this viewer writes to."""
        annotations = {one.saved.folder for one in [*self._recordings.values(), *self._leaving]}
        return annotations | {one.saved.folder for one in self._trainings}

    def show(self, read: ReadRecovery) -> Restored:
        """Bring back what was read.

        Raises
        ------
        InputError
            Another program has it now, or nothing of it is left.
        """
        recovery = read.recovery
        self.flush()
        if recovery.is_in_project:
            self.use_folder(recovery.folder)
        problems = list(read.problems)
        with self._holding(recovery.session, is_in_project=recovery.is_in_project):
            active = self._active()  # two that write to one folder would cut each other off
            annotations = [one for one in read.annotations if one.found.saved.folder not in active]
            layers = [self._show_annotation(one, problems) for one in annotations]
            for training in recovery.trainings:
                with contextlib.suppress(InputError):  # its model is saved; the curves stay where they are
                    self._home().take_over(training.saved)
        for name in read.models:
            NEWS.changed.emit(name, None)
        return Restored(tuple(layers), tuple(read.models), tuple(problems))

    @contextlib.contextmanager
    def _holding(self, session: Path, *, is_in_project: bool) -> Iterator[None]:
        """Have a session to oneself; what is left of it in the end is removed if it is nothing."""
        if self._session is not None and session == self._session.path:
            yield
            return
        held = ended_session(session)
        try:
            yield
            if is_in_project:
                held.continue_in(None)
        finally:
            held.close_and_tidy()

    def _show_annotation(self, read: ReadAnnotation, problems: list[str]) -> Any:
        notes = read.found.notes
        image_layer = None
        try:
            image_layer = find_or_open_image(self._viewer, notes)
        except InputError as error:
            problems.append(str(error))
        layer = labels_layer(
            self._viewer,
            notes,
            read.labels,
            image_layer=image_layer,
            predicted=read.predicted,
            touched=read.touched,
        )
        self._expect(layer, read.found.saved)
        self._viewer.add_layer(layer)
        self._go_to(layer, notes.last_plane)
        if notes.regions is not None:
            add_regions(self._viewer, layer, notes.regions)
        return layer

    def _go_to(self, layer: Any, plane: Index) -> None:
        """Show where the person was at work."""
        dims = self._viewer.dims
        if len(plane) != layer.ndim - 2:
            return
        for axis, at in enumerate(layer.data_to_world((*plane, 0, 0))[:-2], dims.ndim - layer.ndim):
            dims.set_point(axis, float(at))

    def _expect(self, layer: Any, saved: SavedAnnotation) -> None:
        """Go on in its own folder when the layer comes; in a new one if that cannot be had."""
        try:
            self._home().take_over(saved)
        except InputError as error:
            self._say(str(error))
            return
        key = str(layer.unique_id)
        self._known = {other: one for other, one in self._known.items() if one.folder != saved.folder}
        self._known[key] = saved
        self._restored.add(key)

    def discard(self, recovery: Recovery) -> None:
        """Delete what can be brought back; what lies in a folder that the person has chosen stays there.

        Raises
        ------
        InputError
            Another program has it now, or it cannot be deleted.
        """
        own = [project.path for project in (self._project, self._session) if project is not None]
        wanted = recovery.without(self._active())
        if wanted is None:
            return
        recovery = wanted
        if recovery.folder not in own:
            discard(recovery)
        elif recovery.is_in_project:
            self._unwanted |= {found.saved.folder for found in recovery.parts}
        else:
            remove_found(recovery)


_recorders: set[Recorder] = set()
"""Those that are not closed yet: the end of the window or of the program closes them."""


def recorder_of(viewer: Any) -> Recorder:
    """The recorder of a viewer, made when it has none; the end of its window closes it."""
    viewer = behind_proxy(viewer)
    for recorder in _recorders:
        if recorder.serves(viewer):
            return recorder
    window = getattr(getattr(viewer, "window", None), "_qt_window", None)
    recorder = Recorder(viewer, parent=window)
    if window is not None:
        window.destroyed.connect(recorder.close)
    return recorder


def restore(viewer: Any, recovery: Recovery) -> Restored:
    """Bring a session back into a viewer; blocking.

    Raises
    ------
    InputError
        Another program has it now, or nothing of it is left.
    """
    return recorder_of(viewer).show(read_recovery(recovery))


def _is_annotation(layer: Any) -> bool:
    return getattr(layer, "_type_string", "") == "labels" and coding_of(layer) is not None


def _curve_point(step: TrainStep | ValidationStep) -> CurvePoint:
    from napari_unet_seg.core.training_messages import ValidationStep  # which takes a second to import

    if isinstance(step, ValidationStep):
        return CurvePoint(step.step, score=step.score.value, is_best=step.is_best)
    return CurvePoint(step.step, loss=step.loss, learning_rate=step.learning_rate)


def _sentence(error: Exception) -> str:
    if isinstance(error, UNetSegError):
        return str(error)
    return f"Something unexpected went wrong while saving ({type(error).__name__}): {error}"


@atexit.register
def _close_all() -> None:
    """Write what is unsaved: the interpreter ends."""
    for recorder in list(_recorders):
        recorder.close()
