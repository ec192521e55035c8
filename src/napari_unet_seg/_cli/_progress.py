"""How far a long job is, as a bar in a terminal or a line now and then in a log; Ctrl-C as a wish to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_unet_seg._cli._console import say, stderr

_SECONDS_BETWEEN_LINES: Final = 30.0


class ProgressBar:
    """A bar with n of m and the time left; a context manager.

    Parameters
    ----------
    unit
        What is counted: "tiles", "steps".
    """

    def __init__(self, unit: str) -> None:
        console = stderr()
        self._unit, self._is_log, self._last_line = unit, not console.is_terminal, time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=self._is_log
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """Say how far it is."""
        self._bar.update(self._task, description=what, completed=done, total=total)
        now = time.monotonic()
        if self._is_log and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            say(f"{what}: {done} of {total} {self._unit}{self._time_left()}")

    def _time_left(self) -> str:
        left_s = self._bar.tasks[0].time_remaining
        return "" if left_s is None else f", {timedelta(seconds=round(left_s))} left"

    def note(self, sentence: str) -> None:
        """Say something above the bar."""
        self._bar.console.print(" ".join(sentence.split()))


@dataclass
class StopWish:
    """Whether the person has asked to stop."""

    is_asked: bool = False


@contextmanager
def first_interrupt_asks_to_stop() -> Iterator[StopWish]:
    """The first Ctrl-C sets a flag, as an exception would end a generator; the second interrupts.

    SIGTERM does the same: it is how a cluster ends a job whose time is over.
    """
    wish = StopWish()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if wish.is_asked:
            signal.default_int_handler(number, frame)
        wish.is_asked = True

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield wish
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
