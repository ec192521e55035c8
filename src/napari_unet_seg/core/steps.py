"""How long work talks to its caller: a generator of typed steps, stopped by a value sent in."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, TypeVar

Step = TypeVar("Step")
Sent = TypeVar("Sent")
Result = TypeVar("Result")


class Stop:
    """The type of `STOP`, which a caller sends to end a generator early with its best result so far."""

    def __repr__(self) -> str:
        return "STOP"


STOP: Final = Stop()


@dataclass(frozen=True)
class Note:
    """A sentence for the person about something that the work decided by itself."""

    message: str


def run_to_end(steps: Generator[Any, Any, Result]) -> Result:
    """Run a generator of steps to its end and return its result, ignoring the steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Stopwatch:
    """Seconds of wall time that were spent in `timed` steps, not those between them, such as a pause.

    Parameters
    ----------
    seconds
        Where it starts, for work that was interrupted.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What it shows now."""
        return self._before + (0.0 if self._since is None else time.perf_counter() - self._since)

    def add(self, seconds: float) -> None:
        """Count what was spent in an earlier run of the same work."""
        self._before += seconds

    def start(self) -> None:
        """Let it run."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Hold it."""
        self._before, self._since = self.seconds, None


def timed(
    steps: Generator[Step, Sent | None, Result], stopwatch: Stopwatch
) -> Generator[Step, Sent | None, Result]:
    """The same steps; the stopwatch runs only while they are made."""
    answer: Sent | None = None
    with closing(steps):
        while True:
            stopwatch.start()
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                stopwatch.stop()
            answer = yield step
