"""Ctrl-C: exit 130, a sentence, and nothing half-written."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.conftest import Run, bright_squares, run_and_press_ctrl_c, write

from napari_unet_seg._cli import _predict_run
from napari_unet_seg._cli._progress import first_interrupt_asks_to_stop


@pytest.mark.skipif(sys.platform == "win32", reason="a child process cannot be sent Ctrl-C alone there")
def test_ctrl_c_in_predict_leaves_nothing(model: Path, tmp_path: Path) -> None:
    stack = write(tmp_path / "stack.tif", np.stack([bright_squares()] * 3000), metadata={"axes": "ZYX"})
    arguments = ("--out", tmp_path / "o.tif", "--probabilities", tmp_path / "p.tif", "--tile", "2", "--tta")
    ran = run_and_press_ctrl_c(
        "predict", stack, "--model", model, *arguments, once=lambda line: "Running on" in line
    )
    assert (ran.code, ran.out) == (130, ""), ran.err
    assert ran.last_line == "Cancelled: nothing was written."
    assert [path.name for path in tmp_path.iterdir()] == ["stack.tif"]


def test_ctrl_c_in_a_batch_keeps_what_is_complete(
    run: Run, image: Path, labels: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels = _predict_run.write_labels

    def interrupted_at_the_second(path: Path, *rest: object, **options: object) -> Path:
        written = write_labels(path, *rest, **options)
        if path.name == "cells_labels.tif":
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(_predict_run, "write_labels", interrupted_at_the_second)
    ran = run("predict", image, labels, "--model", model, "--out", tmp_path / "out")
    assert (ran.code, ran.last_line) == (130, "Cancelled: 1 of 2 images are done.")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cells.tif"]


def test_ctrl_c_while_options_are_read_is_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_unet_seg.core.model_store.list_models", interrupted)
    ran = run("models")
    assert (ran.code, ran.out, ran.err) == (130, "", "Cancelled.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C alone there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_is_a_wish_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with first_interrupt_asks_to_stop() as wish:
        assert not wish.is_asked
        os.kill(os.getpid(), number)
        assert wish.is_asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
