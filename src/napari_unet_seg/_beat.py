"""The beat in which what shows a job is drawn: all of it together, as each drawing is of the whole window."""

from __future__ import annotations

import time

BEAT_S = 0.25


class Beat:
    """Says once per beat that it is time to draw; all that exist say it at the same time."""

    def __init__(self) -> None:
        self._latest = _count()

    def is_new(self) -> bool:
        """Whether a beat has begun since this was asked last."""
        before, self._latest = self._latest, _count()
        return self._latest != before


def _count() -> int:
    return int(time.monotonic() / BEAT_S)
