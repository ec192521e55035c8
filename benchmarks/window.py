"""Whether the window stays fluid while a stack is segmented, and how fast Cancel answers; needs a display.

A precise timer ticks every 10 ms in the window's own event loop while a canvas of 1024² is redrawn several
times a second; a gap is the time between two ticks. Stretches without and with the job take turns: 5 × 1024²
pixels from the Segment dock, over and over, each time from the click into a new layer.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

CORES = 2
if hasattr(os, "sched_setaffinity"):  # before torch counts them
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])

import numpy as np  # noqa: E402
import torch  # noqa: E402
from qtpy.QtCore import QEventLoop, Qt, QTimer  # noqa: E402

from _common import write_result  # noqa: E402
from napari_unet_seg._demo import Subject, open_window  # noqa: E402
from napari_unet_seg._sample_data import em_stack  # noqa: E402

CANVAS_PX = 1024
TICK_MS = 10
REDRAW_MS = 300
STRETCH_S, N_STRETCHES = 30, 3
N_CANCELS = 5
MODEL = "em-boundaries"


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


class Bench:
    """The window, and what happens in it."""

    def __init__(self) -> None:
        self.window = open_window(large_subject())
        self.viewer, self.dock = self.window.viewer, self.window.segment_dock
        self.dock.model.choose(MODEL)
        self.dock.where.choose("stack")
        make_canvas(self.viewer, CANVAS_PX)
        wait_until(lambda: self.dock.button.isEnabled() and "Runs on" in self.dock.why.text())
        canvas = self.viewer.window._qt_viewer.canvas
        canvas._scene_canvas.events.draw.connect(self._count_redraw)
        self._redraw = QTimer()
        self._redraw.timeout.connect(canvas.native.update)
        self._redraw.start(REDRAW_MS)
        self._now: Ticks | None = None
        self._last = 0.0
        self.n_runs = 0

    def _count_redraw(self, _event: Any = None) -> None:
        if self._now is not None:
            self._now.n_redraws += 1

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

    def watch_while_segmenting(self, ticks: Ticks, seconds: float) -> None:
        """The same while the dock segments; it starts again whenever it is done."""
        again = QTimer()
        again.timeout.connect(self._segment_again)
        again.start(20)
        self.watch(ticks, seconds)
        again.stop()
        self.cancel()

    def _segment_again(self) -> None:
        if self.dock.button.isEnabled():
            self.remove_labels()
            self.dock.button.click()
            self.n_runs += 1

    def remove_labels(self) -> None:
        """Clear up after the last run; nobody segmenting would, so it counts for nothing."""
        begun = time.perf_counter()
        for layer in [layer for layer in self.viewer.layers if layer.name.endswith("labels")]:
            self.viewer.layers.remove(layer)
        self._last += time.perf_counter() - begun

    def cancel(self) -> float:
        """Press Cancel; the time until the dock can segment again."""
        pressed = time.perf_counter()
        self.dock.progress.cancel.click()
        wait_until(self.dock.button.isEnabled)
        return time.perf_counter() - pressed

    def cancel_times_s(self) -> list[float]:
        """How long Cancel takes at different moments of a run."""
        taken = []
        for number in range(N_CANCELS):
            self._segment_again()
            wait_until(lambda: self.dock.progress.bar.value() > 0)
            run_loop(0.13 * number)
            taken.append(self.cancel())
        return taken


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


def main() -> None:
    bench = Bench()
    first, idle, busy = Ticks(), Ticks(), Ticks()
    bench.watch_while_segmenting(first, 5)
    for _ in range(N_STRETCHES):
        bench.watch(idle, STRETCH_S)
        bench.watch_while_segmenting(busy, STRETCH_S)
    cancel_s = bench.cancel_times_s()
    without, during = idle.summary(), busy.summary()
    more_ms = during["p99_ms"] - without["p99_ms"]
    is_met = more_ms <= 25 and during["max_ms"] <= 250 and max(cancel_s) <= 1
    is_met &= min(without["redraws_per_s"], during["redraws_per_s"]) >= 2
    write_result(
        "window",
        {
            "what": "Window while it segments 5 × 1024²: p99 gap of a 10 ms timer, beyond rest (longest)",
            "value": f"{more_ms:.0f} ({during['max_ms']:.0f})",
            "unit": "ms",
            "target": "≤ 25 (≤ 250); Cancel ≤ 1 s",
            "met": is_met,
            "without_job": without,
            "during_job": during,
            "first_click": first.summary(),
            "runs_started": bench.n_runs,
            "cancel_s": [round(seconds, 3) for seconds in cancel_s],
            "canvas_px": CANVAS_PX,
            "model": MODEL,
            "threads": torch.get_num_threads(),
        },
    )
    bench.viewer.close()


if __name__ == "__main__":
    main()
