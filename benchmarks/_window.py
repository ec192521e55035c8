"""What the benchmarks of the window share: ticks of its event loop, a canvas of known size, patience.

Import it before torch: it takes two cores for the process, and torch counts them when it is imported.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CORES = 2
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

import numpy as np  # noqa: E402
from qtpy.QtCore import QEventLoop, Qt, QTimer  # noqa: E402

from napari_unet_seg._demo import Subject  # noqa: E402
from napari_unet_seg._sample_data import em_stack  # noqa: E402

CANVAS_PX = 1024
TICK_MS = 10
REDRAW_MS = 300
MOST_BEYOND_REST_MS, MOST_MS, FEWEST_REDRAWS_PER_S = 25, 250, 2
"""What is asked of the window while something runs."""


@dataclass
class Ticks:
    """Gaps (ms) between the ticks of the timer, while it is wanted."""

    gaps_ms: list[float] = field(default_factory=list)
    n_redraws: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, float]:
        gaps = np.array(self.gaps_ms)
        return {
            "p50_ms": round(float(np.percentile(gaps, 50)), 1),
            "p99_ms": round(float(np.percentile(gaps, 99)), 1),
            "max_ms": round(float(gaps.max()), 1),
            "redraws_per_s": round(self.n_redraws / self.seconds, 1),
            "seconds": round(self.seconds, 1),
        }


class Watch:
    """A precise timer in the window's event loop, and a canvas that is redrawn several times a second."""

    def __init__(self, viewer: Any) -> None:
        make_canvas(viewer, CANVAS_PX)
        canvas = viewer.window._qt_viewer.canvas
        canvas._scene_canvas.events.draw.connect(self._count_redraw)
        self._redraw = QTimer()
        self._redraw.timeout.connect(canvas.native.update)
        self._redraw.start(REDRAW_MS)
        self._now: Ticks | None = None
        self._last = 0.0

    def watch(self, ticks: Ticks, seconds: float) -> None:
        """Let the loop run and note the gaps."""
        self._last = time.perf_counter()

        def tick() -> None:
            now = time.perf_counter()
            ticks.gaps_ms.append((now - self._last) * 1e3)
            self._last = now

        timer = QTimer()
        timer.setTimerType(Qt.TimerType.PreciseTimer)
        timer.timeout.connect(tick)
        timer.start(TICK_MS)
        self._now, ticks.seconds = ticks, ticks.seconds + seconds
        run_loop(seconds)
        self._now = None
        timer.stop()

    def leave_out(self, act: Callable[[], object]) -> None:
        """Do what only the benchmark does; its time counts for nothing."""
        begun = time.perf_counter()
        act()
        self._last += time.perf_counter() - begun

    def _count_redraw(self, _event: Any = None) -> None:
        if self._now is not None:
            self._now.n_redraws += 1


def large_subject() -> Subject:
    """5 × 1024² pixels of the sample, four by four times beside each other."""
    data, options, kind = em_stack()[0]
    return Subject("em", ((np.tile(data, (1, 4, 4)), {**options, "name": "em"}, kind),), {})


def make_canvas(viewer: Any, side_px: int) -> None:
    """Make the canvas a square of this side."""
    window, qt_viewer = viewer.window, viewer.window._qt_viewer
    qt_viewer.dockLayerList.hide()
    qt_viewer.dockLayerControls.hide()
    for _ in range(4):
        run_loop(0.3)
        size, native = window._qt_window.size(), qt_viewer.canvas.native.size()
        window.resize(size.width() + side_px - native.width(), size.height() + side_px - native.height())
    run_loop(0.5)
    viewer.reset_view()
    size = qt_viewer.canvas.native.size()
    if (size.width(), size.height()) != (side_px, side_px):
        sys.exit(
            f"the canvas is {size.width()} × {size.height()} px; the screen must be 1600 × 1200 at least"
        )


def run_loop(seconds: float) -> None:
    loop = QEventLoop()
    QTimer.singleShot(round(seconds * 1000), loop.quit)
    loop.exec()


def wait_until(is_so: Callable[[], bool], longest_s: float = 120) -> None:
    begun = time.perf_counter()
    while not is_so():
        if time.perf_counter() - begun > longest_s:
            sys.exit("the dock does not get on")
        run_loop(0.01)


def is_fluid(without: dict[str, float], during: dict[str, float]) -> bool:
    """Whether the window stays as fluid as it is held to."""
    return (
        during["p99_ms"] - without["p99_ms"] <= MOST_BEYOND_REST_MS
        and during["max_ms"] <= MOST_MS
        and min(without["redraws_per_s"], during["redraws_per_s"]) >= FEWEST_REDRAWS_PER_S
    )
