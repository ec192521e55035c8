"""The row of a long job, and its entry in napari's activity bar."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
from napari.utils import progress
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QTimer

from napari_unet_seg._beat import Beat
from napari_unet_seg._jobs import start
from napari_unet_seg._widgets import job_row
from napari_unet_seg._widgets.job_row import JobRow, Progress
from napari_unet_seg.core.steps import STOP

NAME = "Counting sheep"


@pytest.fixture
def row(qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, make_napari_viewer: Callable[..., Any]) -> JobRow:
    make_napari_viewer()
    monkeypatch.setattr(job_row, "_ACTIVITY_AFTER_S", 0.0)
    monkeypatch.setattr(Beat, "is_new", lambda _: True)
    row = JobRow()
    qtbot.addWidget(row)
    return row


def entries() -> list[tuple[str, int]]:
    """What napari's activity bar shows of ours: how far it is."""
    return [(one.desc, int(one.n)) for one in progress._all_instances if one.desc.startswith(NAME)]


def held(step_wanted: threading.Semaphore) -> Generator[int, Any, None]:
    for number in range(1, 10):
        step_wanted.acquire()
        if (yield number) is STOP:
            return


def test_a_long_job_appears_in_the_activity_bar_and_leaves_it(qtbot: QtBot, row: JobRow) -> None:
    step_wanted = threading.Semaphore(2)
    job = start(held(step_wanted), NAME)
    row.follow(job, lambda number: Progress("counting", number, 9))
    qtbot.waitUntil(lambda: [n for _, n in entries()] == [2], timeout=5000)
    job.cancel()
    step_wanted.release()
    qtbot.waitUntil(lambda: not job.is_running, timeout=5000)
    assert entries() == []
    assert not row.cancel.isVisible()


def test_showing_a_step_lets_nothing_else_happen_in_between(qtbot: QtBot, row: JobRow) -> None:
    happened, seen = [], []
    step_wanted = threading.Semaphore(0)
    job = start(held(step_wanted), NAME)

    def describe(number: int) -> Progress:
        QTimer.singleShot(0, lambda: happened.append(number))
        return Progress("counting", number, 9)

    row.follow(job, describe)
    job.stepped.connect(lambda _step: seen.append(list(happened)))  # called after the row has shown the step
    step_wanted.release()
    qtbot.waitUntil(lambda: len(happened) == 1, timeout=5000)
    assert seen == [[]]
    job.cancel()
    step_wanted.release()
    qtbot.waitUntil(lambda: not job.is_running, timeout=5000)


def test_a_job_that_ends_while_its_entry_is_made_leaves_none(
    qtbot: QtBot, row: JobRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_wanted = threading.Semaphore(1)
    job = start(held(step_wanted), NAME)
    made = []

    def slow(**options: Any) -> Any:
        made.append(options["desc"])
        row.leave()  # as when napari processes events meanwhile
        return progress(**options)

    monkeypatch.setattr(job_row, "progress", slow)
    row.follow(job, lambda number: Progress("counting", number, 9))
    qtbot.waitUntil(lambda: bool(made), timeout=5000)
    assert entries() == []
    job.cancel()
    step_wanted.release()
    qtbot.waitUntil(lambda: not job.is_running, timeout=5000)
