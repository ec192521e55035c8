"""Jobs: a generator in a thread whose every ending becomes a value on the main thread."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Generator
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QWidget

from napari_unet_seg import _jobs
from napari_unet_seg._jobs import sentence, start
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.steps import STOP


def count(n: int) -> Generator[int, Any, int]:
    for number in range(n):
        if (yield number) is STOP:
            return -number
    return n


def endless(pause_s: float = 0.005) -> Generator[int, Any, str]:
    number = 0
    while (yield number) is not STOP:
        number += 1
        time.sleep(pause_s)
    return "best so far"


def failing(error: BaseException) -> Generator[int, Any, None]:
    yield 1
    raise error


def test_a_job_hands_on_all_steps_in_order_and_the_result(qtbot: QtBot) -> None:
    seen: list[int] = []
    job = start(count(5), on_step=seen.append)
    assert job.is_running
    assert job.wait(10)
    assert (seen, job.result, job.error, job.is_running) == ([0, 1, 2, 3, 4], 5, None, False)


def test_steps_arrive_on_the_main_thread_and_run_on_another(qtbot: QtBot) -> None:
    def where() -> Generator[int, Any, None]:
        yield threading.get_ident()

    places: list[tuple[int, int]] = []
    start(where(), on_step=lambda ran_on: places.append((ran_on, threading.get_ident()))).wait(10)
    ((ran_on, arrived_on),) = places
    assert ran_on != arrived_on == threading.main_thread().ident


def test_cancel_keeps_the_result_so_far_and_answers_within_a_second(qtbot: QtBot) -> None:
    job = start(endless())
    with qtbot.waitSignal(job.stepped, timeout=5000):
        pass
    started = time.monotonic()
    job.cancel()
    assert job.wait(5)
    assert time.monotonic() - started < 1
    assert (job.result, job.is_cancelled, job.error) == ("best so far", True, None)


@pytest.mark.parametrize("error", [ValueError("a"), RuntimeError("b"), StopIteration("c"), MemoryError("d")])
def test_every_exception_becomes_a_value(qtbot: QtBot, error: Exception) -> None:
    job = start(failing(error), shows_errors=False)
    assert job.wait(10)
    assert job.result is None
    assert job.error is not None
    assert str(error) in job.details
    assert "failing" in job.details


def test_an_error_while_a_step_is_shown_ends_the_job_with_that_error(qtbot: QtBot) -> None:
    def broken(_: int) -> None:
        raise InputError("cannot be shown")

    job = start(endless(), on_step=broken, shows_errors=False)
    assert job.wait(10)
    assert str(job.error) == "cannot be shown"


def test_wait_gives_up_after_its_timeout(qtbot: QtBot) -> None:
    job = start(endless())
    assert not job.wait(0.05)
    job.cancel()
    assert job.wait(10)


def test_another_thread_can_wait_too(qtbot: QtBot) -> None:
    job = start(count(3))
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(job.wait(10)))
    waiter.start()
    qtbot.waitUntil(lambda: bool(answers), timeout=10_000)
    waiter.join()
    assert answers == [True]


def echo() -> Generator[Any, Any, list[Any]]:
    """Hand back what is sent in, until STOP."""
    got: list[Any] = []
    answer = None
    while True:
        answer = yield answer
        if answer is STOP:
            return got
        if answer is not None:
            got.append(answer)
        time.sleep(0.002)


def test_what_is_sent_reaches_the_steps_in_order_and_once(qtbot: QtBot) -> None:
    job = start(echo())
    for message in ("a", "b", "c"):
        job.send(message)
    seen: list[Any] = []
    job.stepped.connect(lambda step: seen.append(step) if step is not None else None)
    qtbot.waitUntil(lambda: len(seen) == 3, timeout=5000)
    job.cancel()
    assert job.wait(10)
    assert job.result == seen == ["a", "b", "c"]


def test_stopping_comes_before_what_was_sent(qtbot: QtBot) -> None:
    job = start(echo())
    job.pause()
    for message in range(1000):
        job.send(message)
    job.cancel()
    assert job.wait(10)
    assert len(job.result) < 1000


def test_nothing_runs_while_a_job_is_paused_and_it_goes_on_after(qtbot: QtBot) -> None:
    seen: list[int] = []
    job = start(endless(), on_step=seen.append)
    qtbot.waitUntil(lambda: len(seen) > 3, timeout=5000)
    job.pause()
    assert job.is_paused
    qtbot.wait(100)
    n_seen = len(seen)
    qtbot.wait(150)
    assert len(seen) == n_seen
    assert job.is_running
    job.resume()
    assert not job.is_paused
    qtbot.waitUntil(lambda: len(seen) > n_seen + 3, timeout=5000)
    job.cancel()
    assert job.wait(10)
    assert seen == list(range(len(seen)))


def test_a_paused_job_can_be_cancelled_and_is_no_longer_paused(qtbot: QtBot) -> None:
    job = start(endless())
    job.pause()
    assert not job.wait(0.1)
    job.cancel()
    assert job.wait(5)
    assert (job.result, job.is_paused) == ("best so far", False)
    job.pause()
    assert not job.is_paused


def test_a_paused_job_ends_with_its_window(qtbot: QtBot, no_thread_left: Any) -> None:
    window = QWidget()
    job = start(endless(), window=window)
    job.pause()
    window.deleteLater()
    qtbot.waitUntil(lambda: not job.is_running, timeout=5000)
    qtbot.waitUntil(no_thread_left, timeout=5000)


class Data:
    """Something large that a job works on."""


def holding(data: Data, *, fails: bool) -> Generator[int, Any, None]:
    yield 1
    if fails:
        raise InputError(f"{type(data).__name__} cannot be used.")


@pytest.mark.parametrize("fails", [True, False])
def test_an_ended_job_keeps_nothing_of_what_it_worked_on(qtbot: QtBot, fails: bool) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    data = Data()
    gone = weakref.ref(data)
    job = start(holding(data, fails=fails), window=window, shows_errors=False)
    del data
    assert job.wait(10)
    qtbot.waitUntil(lambda: gone() is None, timeout=5000)
    assert isinstance(job.error, InputError) is fails


def test_an_ended_job_that_nobody_keeps_is_gone(qtbot: QtBot) -> None:
    window = QWidget()
    qtbot.addWidget(window)
    result = Data()
    gone = weakref.ref(result)

    def returning(what: list[Data]) -> Generator[int, Any, Data]:
        yield 1
        return what.pop()

    job = start(returning([result]), window=window, on_end=lambda _: None)
    del result
    assert job.wait(10)
    del job
    gc.collect()
    assert gone() is None


def test_the_end_of_the_window_ends_its_jobs_unheard(qtbot: QtBot, no_thread_left: Any) -> None:
    window = QWidget()
    heard: list[str] = []
    job = start(endless(), window=window, on_end=lambda _: heard.append("end"))
    job.finished.connect(lambda: heard.append("finished"))
    window.deleteLater()
    qtbot.waitUntil(lambda: not job.is_running, timeout=5000)
    qtbot.waitUntil(no_thread_left, timeout=5000)
    assert not heard


def test_our_errors_speak_for_themselves_and_others_are_named() -> None:
    assert sentence(InputError("Choose a layer.")) == "Choose a layer."
    assert sentence(ValueError("odd")) == "Something unexpected went wrong (ValueError): odd"


def test_jobs_that_overlap_give_the_core_back_that_they_left() -> None:
    import torch

    usual = torch.get_num_threads()
    leaving = _jobs._LeavingACore()
    leaving.begin()
    leaving.begin()
    leaving.end()
    assert torch.get_num_threads() == max(1, usual - 1)
    leaving.end()
    assert torch.get_num_threads() == usual
