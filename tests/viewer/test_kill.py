"""A program that annotates and trains is killed: it may lose its last seconds of painting, and no model."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot
from tests.viewer.killed_session import BRUSH_PX, SHAPE

from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._recover.recovery import recorder_of, recoverable, restore
from napari_unet_seg.core.models import load_model

PROGRAM = Path(__file__).with_name("killed_session.py")
TRAINING = Path(__file__).with_name("killed_training.py")
AT_MOST_LOST_S = 10.0
MODELS_WITHIN_S = 2.0
STARTS_WITHIN_S = 240.0
_LOG = logging.getLogger(__name__)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="only POSIX kills like this")


def killed(seed: int, after_s: float, *, slow: bool, tmp_path: Path) -> tuple[list[dict[str, Any]], float]:
    """What a session has said until it was killed, and when that was."""
    said = tmp_path / f"said-{seed}.jsonl"
    command = [sys.executable, str(PROGRAM), str(seed), *(["slow"] if slow else [])]
    with said.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, env={**os.environ, "QT_QPA_PLATFORM": "offscreen"})
        try:
            wait_for_line(said, child, b'"place"')
            time.sleep(after_s)
            assert child.poll() is None, "it ended by itself"
        finally:
            child.kill()
            killed_s = time.time()
            child.wait()
    lines = []
    for line in said.read_text().splitlines():
        with contextlib.suppress(ValueError):  # the last one may be cut off
            lines.append(json.loads(line))
    return lines, killed_s


def wait_for_line(path: Path, child: subprocess.Popen[bytes], with_what: bytes) -> None:
    until_s = time.monotonic() + STARTS_WITHIN_S
    while with_what not in path.read_bytes():
        assert child.poll() is None, "it ended by itself"
        assert time.monotonic() < until_s, "it did not start"
        time.sleep(0.05)


def newest_stroke_restored(lines: list[dict[str, Any]], restored: NDArray[Any]) -> int:
    """How many of the strokes are in what was restored: they are painted again and compared.

    Strokes are noticed a little apart, so each pixel may be of a moment of its own: the earliest counts.
    """
    viewer = ViewerModel()
    layer = new_annotation_layer(viewer, viewer.add_image(np.zeros(SHAPE, np.uint8)))
    layer.brush_size = BRUSH_PX
    newest = np.where(layer.data == restored, 0, -1)
    strokes = [line for line in lines if "place" in line or "undo" in line]
    for number, line in enumerate(strokes, 1):
        if "undo" in line:
            layer.undo()
        else:
            viewer.dims.set_point(0, line["place"][0])
            layer.paint(line["place"], line["label"])
        newest[layer.data == restored] = number
    assert newest.min() >= 0, "what was restored was never painted"
    return int(newest.min())


def check(lines: list[dict[str, Any]], killed_s: float) -> float:
    """Bring back what the session left, and return how many seconds of painting are lost."""
    (found,) = recoverable()
    viewer = ViewerModel()
    restored = restore(viewer, found)
    recorder_of(viewer).close()
    (layer,) = restored.layers
    n_kept = newest_stroke_restored(lines, layer.data)
    strokes = [line for line in lines if "place" in line or "undo" in line]
    lost_s = killed_s - strokes[n_kept]["time"] if n_kept < len(strokes) else 0.0
    assert lost_s <= AT_MOST_LOST_S
    bests = [line["best"] for line in lines if "best" in line and line["time"] < killed_s - MODELS_WITHIN_S]
    if bests:
        (name,) = restored.models
        assert load_model(name).history[-1]["number"] >= bests[-1]
    return lost_s


@pytest.mark.parametrize(("seed", "slow"), [(0, False), (1, True)])
def test_a_killed_session_loses_seconds_at_most(seed: int, slow: bool, tmp_path: Path, qtbot: QtBot) -> None:
    lines, killed_s = killed(seed, np.random.default_rng(seed).uniform(2, 5), slow=slow, tmp_path=tmp_path)
    check(lines, killed_s)


def test_a_killed_fine_tuning_leaves_its_best_model(tmp_path: Path, qtbot: QtBot) -> None:
    said = tmp_path / "said"
    with said.open("wb") as out:
        environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
        child = subprocess.Popen([sys.executable, str(TRAINING)], stdout=out, env=environment)
        try:
            wait_for_line(said, child, b"\n")
            best_step = int(said.read_text().split()[0])
            time.sleep(MODELS_WITHIN_S)
        finally:
            child.kill()
            child.wait()
    (found,) = recoverable()
    assert [training.name for training in found.trainings] == ["fresh, em"]
    assert len(found.trainings[0].saved.read_curve()) > best_step, "its losses and its scores"
    restored = restore(ViewerModel(), found)
    model = load_model(*restored.models)
    assert model.history[-1]["best_step"] >= best_step
    assert model.history[-1]["score"]["value"] >= model.history[-1]["score_before"]["value"]


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_twenty_killed_sessions_lose_ten_seconds_at_most(seed: int, tmp_path: Path, qtbot: QtBot) -> None:
    after_s = np.random.default_rng(100 + seed).uniform(11, 25)
    lines, killed_s = killed(100 + seed, after_s, slow=seed % 2 == 1, tmp_path=tmp_path)
    lost_s = check(lines, killed_s)
    _LOG.info("killed after %.1f s: lost %.2f s of painting", after_s, lost_s)
