"""Long work in the background of the viewer: a generator of steps runs in a thread, beside the main one.

Steps arrive on the main thread. Whatever goes wrong in the thread becomes a value: nothing is ever raised
into Qt's event loop.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from napari.qt import get_qapp
from napari.utils.notifications import show_error
from qtpy.QtCore import QEventLoop, QObject, QThread, QTimer, Signal
from qtpy.QtWidgets import QApplication, QWidget

from napari_unet_seg.core.errors import UNetSegError
from napari_unet_seg.core.steps import STOP

Steps: TypeAlias = Generator[Any, Any, Any]

_NICENESS = 10
"""How much less than the window a job weighs for Linux's scheduler (0 to 19)."""
_LONGEST_STEP_S = 30.0
"""How long the end of the program waits for a job to notice that it is to stop."""

_running: set[Job] = set()
"""Keeps jobs alive whose caller did not keep them, and is what the end of the program stops."""


@dataclass(frozen=True)
class _Outcome:
    """How a job ended; `details` is the traceback of an error."""

    result: Any = None
    error: Exception | None = None
    details: str = ""


def _failure(error: Exception) -> _Outcome:
    """Of the error being handled; without its frames, which would keep alive all that they worked on."""
    outcome = _Outcome(error=error, details=traceback.format_exc())
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return outcome


class Job(QObject):
    """Work under way in the background; made by `start` and `segment`.

    Attributes
    ----------
    stepped
        Qt signal, emitted on the main thread with each step.
    finished
        Qt signal, emitted on the main thread once, after the last step, however the job ended.
    description
        What it does, in the person's words.
    """

    stepped = Signal(object)
    finished = Signal()
    _over = Signal()  # as `finished`, but also when nobody is to hear of the job any more

    def __init__(
        self,
        steps: Steps,
        description: str,
        *,
        on_step: Callable[[Any], None] | None = None,
        on_end: Callable[[Job], None] | None = None,
        shows_errors: bool = True,
    ) -> None:
        super().__init__()
        self.description = description
        self._on_step, self._on_end, self._shows_errors = on_step, on_end, shows_errors
        self._outcome: _Outcome | None = None
        self._is_cancelled = self._is_abandoned = False
        self._ended = threading.Event()
        self._worker = _Worker(steps, description)
        self._worker.stepped.connect(self._take_step)
        self._worker.ended.connect(self._take_outcome)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to stop; its result then holds what was done so far."""
        return self._is_cancelled

    @property
    def result(self) -> Any:
        """What the steps returned; None while it runs, and after an error."""
        return None if self._outcome is None else self._outcome.result

    @property
    def error(self) -> Exception | None:
        """Why it failed; None while it runs, and after success or cancelling."""
        return None if self._outcome is None else self._outcome.error

    @property
    def details(self) -> str:
        """The traceback of the error, or empty."""
        return "" if self._outcome is None else self._outcome.details

    @property
    def is_paused(self) -> bool:
        """Whether it is to do nothing between two steps until `resume`; the step under way ends first."""
        return self.is_running and not self._worker.may_go_on.is_set()

    def send(self, message: Any) -> None:
        """Hand a value to the steps as the answer to one of their next, in the order sent; STOP overtakes."""
        self._worker.messages.append(message)

    def pause(self) -> None:
        """Do nothing after the current step, until `resume` or `cancel`."""
        if not self._is_cancelled:
            self._worker.may_go_on.clear()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._worker.may_go_on.set()

    def cancel(self) -> None:
        """Stop after the current step; the result is what was done so far."""
        self._is_cancelled = True
        self._worker.stop_wanted.set()
        self._worker.may_go_on.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, at most `timeout` seconds; returns whether it has ended.

        On the main thread the window stays alive meanwhile.
        """
        if QThread.currentThread() != self.thread():
            return self._ended.wait(timeout)
        if self.is_running:
            loop = QEventLoop()
            self._over.connect(loop.quit)
            if timeout is not None:
                QTimer.singleShot(round(timeout * 1000), loop.quit)
            loop.exec()
        return not self.is_running

    def abandon(self) -> None:
        """Stop, and let nobody hear of it any more: the window it belonged to is gone."""
        self._is_abandoned = True
        self._on_step = self._on_end = None
        self.cancel()

    def end_with_program(self) -> None:
        """Stop, and wait for it: Qt or the interpreter ends."""
        self.abandon()
        self._worker.thread_.join(_LONGEST_STEP_S)
        self._ended.set()

    def begin(self) -> None:
        """Start the thread; once."""
        _running.add(self)
        self._worker.thread_.start()

    def _take_step(self, step: Any) -> None:
        if self._is_abandoned:
            return
        if self._on_step is not None:
            try:
                self._on_step(step)
            except Exception as error:  # noqa: BLE001 - what went wrong in showing a step is the job's error too
                self._fail(error)
        self.stepped.emit(step)

    def _fail(self, error: Exception) -> None:
        """Remember the first error and stop; the outcome of the thread no longer counts."""
        if self._outcome is None:
            self._outcome = _failure(error)
        self.cancel()

    def _take_outcome(self, outcome: _Outcome) -> None:
        self._outcome = self._outcome or outcome
        if self._on_end is not None and not self._is_abandoned:
            try:
                self._on_end(self)
            except Exception as error:  # noqa: BLE001 - as in _take_step
                self._outcome = replace(_failure(error), result=self.result)
        self._ended.set()
        self._on_step = self._on_end = None
        _running.discard(self)
        self._over.emit()
        if self._is_abandoned:
            return
        if self.error is not None and self._shows_errors:
            show_error(sentence(self.error))
        self.finished.emit()


def start(
    steps: Steps,
    description: str = "Working",
    *,
    on_step: Callable[[Any], None] | None = None,
    on_end: Callable[[Job], None] | None = None,
    window: QWidget | None = None,
    shows_errors: bool = True,
) -> Job:
    """Run a generator of steps in the background and return at once.

    Parameters
    ----------
    steps
        Such as `training_steps(...)` or `prediction_steps(...)`; not yet begun.
    description
        What it does, in the person's words.
    on_step
        Called on the main thread with each step, before `Job.stepped` is emitted.
    on_end
        Called on the main thread with the job when it has ended, before `Job.finished` is emitted.
    window
        When this widget is destroyed the job stops, unheard. None: it runs on until the application ends.
    shows_errors
        Show an error as a notification of napari; False when the caller shows it.
    """
    app = QApplication.instance() or get_qapp()  # which looks through napari's icons, even when there is one
    job = Job(steps, description, on_step=on_step, on_end=on_end, shows_errors=shows_errors)
    job.moveToThread(app.thread())
    if window is not None:
        window.destroyed.connect(job.abandon)
    app.aboutToQuit.connect(job.end_with_program)
    job.begin()
    return job


def sentence(error: Exception) -> str:
    """What to tell the person about an error: our own say it themselves, others are named."""
    if isinstance(error, UNetSegError):
        return str(error)
    return f"Something unexpected went wrong ({type(error).__name__}): {error}"


class _Worker(QObject):
    """Drives the steps in a thread of its own and says on the main thread what came.

    Not napari's generator worker: that one loses the result when it is told to quit, can lose a RuntimeError,
    replaces `warnings.showwarning` for the whole process, and makes the closing window ask.
    """

    stepped = Signal(object)
    ended = Signal(object)

    def __init__(self, steps: Steps, name: str) -> None:
        super().__init__()
        self._steps: Steps | None = steps
        self.stop_wanted = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.messages: deque[Any] = deque()
        self.thread_ = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        outcome = self._outcome()
        with contextlib.suppress(RuntimeError):  # Qt may be gone already when the program ends
            self.ended.emit(outcome)

    def _outcome(self) -> _Outcome:
        steps, self._steps = self._steps, None
        if steps is None or self.stop_wanted.is_set():
            return _Outcome()
        try:
            with _behind_the_window(), contextlib.closing(steps):
                return _Outcome(self._result_of(steps))
        except Exception as error:  # noqa: BLE001 - the border of the thread: every error becomes a value
            return _failure(error)

    def _result_of(self, steps: Steps) -> Any:
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value
            self.stepped.emit(step)
            del step  # it may be large, and a pause long
            self.may_go_on.wait()
            answer = self._answer()

    def _answer(self) -> Any:
        if self.stop_wanted.is_set():
            return STOP
        return self.messages.popleft() if self.messages else None


@contextlib.contextmanager
def _behind_the_window() -> Iterator[None]:
    """Keep the window fluid: on Linux by priority; elsewhere by one core less for PyTorch (process-wide)."""
    if platform.system() == "Linux":
        # Of this thread, and of those that it starts, such as PyTorch's.
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, os.getpid()) + _NICENESS)
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        yield
        return
    _LEAVING_A_CORE.begin()
    try:
        yield
    finally:
        _LEAVING_A_CORE.end()


class _LeavingACore:
    """PyTorch has one thread less while jobs run, however they overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_jobs = self._usual = 0

    def begin(self) -> None:
        """The first one takes it."""
        import torch

        with self._lock:
            if self._n_jobs == 0:
                self._usual = torch.get_num_threads()
            self._n_jobs += 1
            torch.set_num_threads(max(1, self._usual - 1))

    def end(self) -> None:
        """The last one gives it back."""
        import torch

        with self._lock:
            self._n_jobs -= 1
            if self._n_jobs == 0:
                torch.set_num_threads(self._usual)


_LEAVING_A_CORE = _LeavingACore()


@atexit.register
def _stop_all() -> None:
    """Stop what still runs and wait for it: the interpreter ends."""
    for job in list(_running):
        job.end_with_program()
