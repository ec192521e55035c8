"""Rows about what is kept: earlier work that can be brought back, and the folder that work is saved to."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._jobs import Job, sentence, start
from napari_unet_seg._recover.recoverable import ReadRecovery, Recovery, read_recovery
from napari_unet_seg._recover.recovery import Recorder, Restored, recorder_of
from napari_unet_seg._widgets.message import Message, wrapped_label
from napari_unet_seg.core.errors import InputError, UNetSegError

_MOST_SHOWN = 3
_CERTAIN_FOR_MS = 4000
"""How long a second click on Discard means it."""
_SHOW_EVERY_MS = 1000
_LOOK_AFTER_MS = 1500
"""Between the removal of a layer and the offer to bring it back."""


class RecoveryRow(QWidget):
    """Offers what earlier sessions left behind, and layers that were taken away; invisible without any.

    Parameters
    ----------
    viewer
        Into which it is brought back, and whose own work is recorded from now on.

    Attributes
    ----------
    restored
        Qt signal with what has come back, a `Restored`.
    """

    restored = Signal(object)

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.recorder: Recorder = recorder_of(viewer)
        self.offers: list[_Offer] = []
        self.message = Message()
        self.unsaved = wrapped_label()
        self._job: Job | None = None
        self._is_restoring = False
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.addWidget(self.unsaved)
        self._column.addWidget(self.message)
        self._later = QTimer(self)  # when what has left is written, and not when the window is closing
        self._later.setSingleShot(True)
        self._later.setInterval(_LOOK_AFTER_MS)
        self._later.timeout.connect(self.look)
        self.recorder.left.connect(self._later.start)
        self.recorder.changed.connect(self._show_state)
        self.look()

    @property
    def is_busy(self) -> bool:
        """Whether it is looking, or bringing something back."""
        return self._job is not None and self._job.is_running

    def look(self) -> None:
        """Offer what there is now, or when what has left is written and nothing is being brought back."""
        if self._is_restoring or self.recorder.is_leaving:
            self._later.start()
            return
        self._run(self.recorder.finding_steps(), "Looking for unsaved work", self._offer)

    def _offer(self, found: list[Recovery]) -> None:
        for offer in self.offers:
            offer.deleteLater()
        self.offers = [_Offer(recovery) for recovery in found[:_MOST_SHOWN]]
        for number, offer in enumerate(self.offers):
            self._column.insertWidget(number, offer)
            offer.restore_wanted.connect(partial(self._restore, offer))
            offer.discard_wanted.connect(partial(self._discard, offer))
        n_more = len(found) - len(self.offers)
        if n_more and self.offers:
            self.offers[-1].add(f"There is more from {n_more} earlier time{'s' if n_more > 1 else ''}.")
        self._show_state()

    def _restore(self, offer: _Offer) -> None:
        self._is_restoring = True
        self._run(_reading(offer.recovery), "Bringing work back", self._show_restored)

    def _show_restored(self, read: ReadRecovery) -> None:
        self._is_restoring = False
        restored = self.recorder.show(read)
        self.look()
        self._show_result(restored)
        self.restored.emit(restored)

    def _show_result(self, restored: Restored) -> None:
        if restored.problems:
            self.message.show_error(" ".join(restored.problems))
        elif restored.models:
            names = " and ".join(f"'{name}'" for name in restored.models)
            self.message.show_note(f"The best model of the interrupted training is saved as {names}.")
        self._show_state()

    def _discard(self, offer: _Offer) -> None:
        try:
            self.recorder.discard(offer.recovery)
        except UNetSegError as error:
            self.message.show_error(str(error))
        self.look()

    def _run(self, steps: Generator[Any, Any, Any], what: str, then: Any) -> None:
        """Work behind the window; an answer that comes after something newer was begun is dropped."""

        def take(job: Job) -> None:
            if job is self._job and job.error is None:
                then(job.result)

        def finish() -> None:
            if job is self._job:
                self._is_restoring = False
                if job.error is not None:
                    details = "" if isinstance(job.error, UNetSegError) else job.details
                    self.message.show_error(sentence(job.error), details)
            self._show_state()

        job = start(steps, what, on_end=take, window=self, shows_errors=False)
        job.finished.connect(finish)
        self._job = job
        self._show_state()

    def _show_state(self) -> None:
        for offer in self.offers:
            offer.setEnabled(not self.is_busy)
        has_problem = bool(self.recorder.problem)
        self.unsaved.setText(saved_in_words(self.recorder) if has_problem else "")
        self.unsaved.setVisible(has_problem)
        self.setVisible(bool(self.offers) or has_problem or not self.message.isHidden())


class _Offer(QWidget):
    """One session, in a sentence, with what can be done."""

    restore_wanted = Signal()
    discard_wanted = Signal()

    def __init__(self, recovery: Recovery) -> None:
        super().__init__()
        self.recovery = recovery
        self.text = wrapped_label(in_words(recovery, datetime.now().astimezone()))
        self.restore = QPushButton("Restore")
        self.restore.setToolTip("Bring it back into this viewer, with its image, and go on from there.")
        self.discard = QPushButton("Discard")
        self.discard.setToolTip(_DISCARD_TIP[recovery.is_in_project])
        self.restore.clicked.connect(self.restore_wanted)
        self.discard.clicked.connect(self._discard)
        self._is_certain = False
        self._doubt = QTimer(self)
        self._doubt.setSingleShot(True)
        self._doubt.timeout.connect(partial(self._set_certain, is_certain=False))
        buttons = QHBoxLayout()
        buttons.addWidget(self.restore)
        buttons.addWidget(self.discard)
        buttons.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.text)
        column.addLayout(buttons)

    def add(self, sentence: str) -> None:
        """Say something more."""
        self.text.setText(f"{self.text.text()} {sentence}")

    def _discard(self) -> None:
        """Only the second click deletes."""
        if self._is_certain:
            self.discard_wanted.emit()
            return
        self._set_certain(is_certain=True)
        self._doubt.start(_CERTAIN_FOR_MS)

    def _set_certain(self, *, is_certain: bool) -> None:
        self._is_certain = is_certain
        self.discard.setText("Discard for good" if is_certain else "Discard")


_DISCARD_TIP = {
    False: "Delete it for good; press twice.",
    True: "Do not offer it any more; it stays in its folder. Press twice.",
}


class ProjectRow(QWidget):
    """The folder that work is saved to, and how it stands.

    Parameters
    ----------
    viewer
        Whose work it is.
    """

    chosen = Signal()

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self.recorder: Recorder = recorder_of(viewer)
        self.line = QLineEdit()
        self.line.setPlaceholderText("kept for recovery only")
        self.line.setToolTip("Project folder: annotations and trainings are saved to it as you work.")
        self.browse = QToolButton()
        self.browse.setText("…")
        self.browse.setToolTip("Choose an empty folder, or a project that was saved before.")
        self.state = wrapped_label()
        self.message = Message()
        self._timer = QTimer(self)
        self._timer.setInterval(_SHOW_EVERY_MS)
        self._timer.timeout.connect(self._show_state)
        self._timer.start()
        self.line.returnPressed.connect(self._take_line)
        self.browse.clicked.connect(self._browse)
        self.recorder.changed.connect(self._show_state)
        self._lay_out()
        self._show_folder()

    def use(self, folder: Path) -> None:
        """Save to this folder from now on; says so where that cannot be."""
        self.message.clear()
        try:
            self.recorder.use_folder(folder)
        except InputError as error:
            self.message.show_error(str(error))
        else:
            self.chosen.emit()
        self._show_folder()

    def _take_line(self) -> None:
        if self.line.text().strip():
            self.use(Path(self.line.text().strip()).expanduser())

    def _browse(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Project folder", self.line.text())
        if folder:
            self.use(Path(folder))

    def _show_folder(self) -> None:
        folder = self.recorder.folder
        self.line.setText("" if folder is None else str(folder))
        self._show_state()

    def _show_state(self) -> None:
        self.state.setText(saved_in_words(self.recorder))

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        row.addWidget(self.line, stretch=1)
        row.addWidget(self.browse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addLayout(row)
        column.addWidget(self.state)
        column.addWidget(self.message)


def in_words(recovery: Recovery, now: datetime) -> str:
    """What can be brought back, in a sentence."""
    parts = []
    if recovery.annotations:
        n_objects = sum(found.extent.n_objects for found in recovery.annotations)
        kind = "annotation" if recovery.is_in_project else "unsaved annotation"
        plural = "s" if len(recovery.annotations) > 1 else ""
        names = _listed(found.image_name for found in recovery.annotations)
        parts.append(f"{kind}{plural} of {names} ({n_objects:,} object{'s' if n_objects != 1 else ''})")
    if recovery.trainings:
        names = _listed(found.name for found in recovery.trainings)
        parts.append(f"the best model of an interrupted training ({names})")
    where = f" in '{recovery.folder.name}'" if recovery.is_in_project else ""
    said = f"{' and '.join(parts)}{where}, from {_time_in_words(recovery.changed, now)}."
    return said[0].upper() + said[1:]


def _listed(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(f"'{name}'" for name in names))


def _time_in_words(when: datetime, now: datetime) -> str:
    if when.date() == now.date():
        return f"{when:%H:%M}"
    return f"{when:%d} {when:%B}, {when:%H:%M}" if when.year == now.year else f"{when:%Y-%m-%d}"


def saved_in_words(recorder: Recorder) -> str:
    """How saving stands."""
    if recorder.problem:
        return f"⚠ Not saved: {recorder.problem} It is tried again."
    seconds = recorder.seconds_since_saved
    if seconds is None:
        return "Nothing to save yet."
    if seconds < 60:
        return f"Saved {seconds:.0f} s ago."
    return f"Saved {seconds / 60:.0f} min ago; nothing has changed since."


def _reading(recovery: Recovery) -> Generator[None, None, ReadRecovery]:
    """`read_recovery` as a job of no steps."""
    yield from ()
    return read_recovery(recovery)
