"""The row that every long job has in its dock: what it is doing, time left, Cancel; the activity bar too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari.utils import progress
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QApplication,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QStatusBar,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._beat import Beat
from napari_unet_seg._jobs import Job
from napari_unet_seg._widgets.message import wrapped_label

_ACTIVITY_AFTER_S, _ACTIVITY_EVERY_S = 3.0, 1.0
"""When a job appears in napari's activity bar, and how often it moves: each time holds the window up."""


@dataclass(frozen=True)
class Progress:
    """How far a job is: `done` of `total` equal pieces of work, and what it is doing in words.

    Attributes
    ----------
    seconds_left
        Where the job knows it itself; None: guessed from its pace.
    beside
        What else is worth knowing, such as its memory.
    """

    what: str
    done: int
    total: int
    seconds_left: float | None = None
    beside: str = ""


class Pace:
    """Guesses the time that is left from the time that the work so far took."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None

    def seconds_left(self, now_s: float, done: int, total: int) -> float | None:
        """None until two different amounts of work were seen."""
        if self._first is None:
            self._first = (now_s, done)
        started_s, at_start = self._first
        if done <= at_start:
            return None
        return (now_s - started_s) / (done - at_start) * (total - done)


class JobRow(QWidget):
    """Shows one job at a time; only its last line stays when the job has ended.

    Parameters
    ----------
    cancel, cancel_tip
        What the button that ends the job is called, and what it does.
    can_pause
        Offer Pause and Resume, too.
    """

    def __init__(
        self,
        cancel: str = "Cancel",
        cancel_tip: str = "Stop now and keep what is done so far.",
        *,
        can_pause: bool = False,
    ) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setToolTip("How much of the work is done.")
        self.text = wrapped_label()
        self.cancel = QPushButton(cancel)
        self.cancel.setToolTip(cancel_tip)
        self.cancel.clicked.connect(self._cancel)
        self.pause = QPushButton("Pause")
        self.pause.setToolTip("Let the computer do something else for a while, then go on from here.")
        self.pause.clicked.connect(self._pause_or_resume)
        self._can_pause = can_pause
        self._job: Job | None = None
        self._describe: Callable[[Any], Progress | None] | None = None
        self._activity: progress | None = None
        # In a turn of its own: napari processes events with each update, so that in the middle of a step
        # the person's next click would have to wait for all that the step still draws.
        self._activity_turn = QTimer(self)
        self._activity_turn.setSingleShot(True)
        self._activity_turn.timeout.connect(self._show_activity)
        self._beat = Beat()
        self._lay_out()
        self._set_running(is_running=False)
        self.setVisible(False)

    def follow(self, job: Job, describe: Callable[[Any], Progress | None]) -> None:
        """Show a job until it ends.

        Parameters
        ----------
        describe
            How far a step means that the job is; None when it says nothing of that.
        """
        self.leave()
        self._job, self._describe = job, describe
        self._pace, self._started_s = Pace(), time.monotonic()
        self._activity_shown_s = -math.inf
        self._latest = Progress("Getting ready…", 0, 0)
        job.stepped.connect(self._take)
        job.finished.connect(self._end)
        self._set_running(is_running=True)
        self._show()

    def leave(self) -> None:
        """Show the job no longer; it goes on."""
        if self._job is not None:
            self._job.stepped.disconnect(self._take)
            self._job.finished.disconnect(self._end)
        self._end()

    def say(self, text: str) -> None:
        """Leave a last line, such as what came out."""
        self.text.setText(text)
        self.setVisible(bool(text))

    def _take(self, step: Any) -> None:
        found = self._describe(step) if self._describe else None
        if found is None:
            return
        self._latest = found
        is_stopping = self._job is not None and self._job.is_cancelled
        if self._beat.is_new() and not is_stopping:
            self._show()

    def _show(self) -> None:
        now_s = time.monotonic()
        latest = self._latest
        # An empty bar, not Qt's moving one: each of its frames would draw the whole window again.
        self.bar.setUpdatesEnabled(False)  # setValue would draw the whole window before it returns
        self.bar.setRange(0, max(1, latest.total))
        self.bar.setValue(latest.done)
        self.bar.setUpdatesEnabled(True)
        self.text.setText(" · ".join(filter(None, self._parts(latest, now_s))))
        if latest.total and not self._activity_turn.isActive():
            first_s = self._started_s + _ACTIVITY_AFTER_S
            next_s = max(first_s, self._activity_shown_s + _ACTIVITY_EVERY_S)
            self._activity_turn.start(round(max(0, next_s - now_s) * 1000))

    def _parts(self, latest: Progress, now_s: float) -> list[str]:
        left_s = latest.seconds_left
        if left_s is None and latest.total:
            left_s = self._pace.seconds_left(now_s, latest.done, latest.total)
        is_paused = self._job is not None and self._job.is_paused
        left = "" if left_s is None else f"{clock(left_s)} left"
        return ["Paused" if is_paused else "", latest.what, left, latest.beside]

    def _show_activity(self) -> None:
        """In napari's list of what goes on, too; it processes events: the job may end meanwhile."""
        job = self._job
        if job is None:
            return
        self._activity_shown_s = time.monotonic()
        if self._activity is None:
            activity = progress(total=self._latest.total, desc=job.description)
            if self._job is not job:
                activity.close()
                return
            self._activity = activity
            hold_wheels()
        self._activity.update(self._latest.done - self._activity.n)

    def _cancel(self) -> None:
        if self._job is not None:
            self._job.cancel()
            self.cancel.setEnabled(False)
            self.pause.setEnabled(False)
            self.text.setText("Stopping…")

    def _pause_or_resume(self) -> None:
        if self._job is None:
            return
        if self._job.is_paused:
            self._job.resume()
        else:
            self._job.pause()
        self.pause.setText("Resume" if self._job.is_paused else "Pause")
        self._show()

    def _end(self) -> None:
        self._job = self._describe = None
        self._activity_turn.stop()
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self._set_running(is_running=False)
        self.say("")

    def _set_running(self, *, is_running: bool) -> None:
        self.bar.setVisible(is_running)
        self.cancel.setVisible(is_running)
        self.cancel.setEnabled(is_running)
        self.pause.setVisible(is_running and self._can_pause)
        self.pause.setEnabled(is_running)
        self.pause.setText("Pause")
        self.setVisible(is_running)

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.bar, stretch=1)
        top.addWidget(self.pause)
        top.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(top)
        layout.addWidget(self.text)


def hold_wheels() -> None:
    """Let the wheel beside napari's activity button stand: without a GPU it takes half a core to turn it.

    Each of its frames draws the whole window again, and that time is missing to the job that it stands for.
    """
    for window in QApplication.topLevelWidgets():
        for bar in window.findChildren(QStatusBar):
            for wheel in filter(None, (label.movie() for label in bar.findChildren(QLabel))):
                wheel.setPaused(True)


def clock(seconds: float) -> str:
    """Minutes and seconds, 0:41, or hours, 1:02:03."""
    whole = max(0, round(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
