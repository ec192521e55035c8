"""How long work talks to its caller: a generator of typed steps, stopped by a value sent in."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

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
