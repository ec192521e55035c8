"""The demo as a person starts it: with and without a display, to its end, interrupted, on unusable input."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unet_seg import _private_display
from napari_unet_seg._demo import run_demo, sample, subject_of
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import look_at, write_labels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="private displays and Ctrl-C as on Linux")

FILES = {"probabilities.ome.tif", "labels.ome.tif", "screenshot.png"}
LONGEST_S = 240
MODEL = "em-boundaries"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Two planes of noise, of unknown pixel size."""
    path = tmp_path / "noise.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 60), np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "napari_unet_seg", "demo", *map(str, arguments)]


def without_display() -> dict[str, str]:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    return {name: value for name, value in os.environ.items() if name not in hidden}


@contextmanager
def private_display(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The display of the test run, or one of its own."""
    if not _private_display.has_display():
        monkeypatch.setenv("DISPLAY", "")
        _private_display.start_private_display()
    yield


@contextmanager
def running(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(start):
            return
    raise AssertionError(f"'{start}' was never said, but: {''.join(seen)}")


def wait_until_gone(process: int) -> None:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 30)[0], "the private display goes on"
    finally:
        os.close(handle)


def test_without_a_display_it_writes_its_files_replaces_old_ones_and_returns(
    image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "labels.ome.tif").write_text("of an earlier run")
    (out / "mine.txt").write_text("not of the demo")
    ran = subprocess.run(
        command(image, "--out", out),
        env=without_display(),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    assert {path.name for path in out.iterdir()} == FILES | {"mine.txt"}
    assert look_at(out / "labels.ome.tif").shape == (2, 40, 60)
    probabilities = look_at(out / "probabilities.ome.tif")
    assert (probabilities.axes, probabilities.shape) == ("CZYX", (2, 2, 40, 60))
    window = np.asarray(Image.open(out / "screenshot.png"))
    assert window.shape == (900, 1400, 3)
    assert np.ptp(window[300:600, 500:800], axis=(0, 1)).min() > 60, "the canvas is empty"
    assert "pixel size" in ran.stderr, "zoom 1 for want of a pixel size is not said"
    assert ran.stderr.rstrip().splitlines()[-1].endswith(f"are in '{out}'.")


def test_with_a_display_the_window_stays_open_until_it_is_ended(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with private_display(monkeypatch), running(image, "--out", out) as process:
        wait_for_line(process, "Close the window")
        assert process.poll() is None
        assert {path.name for path in out.iterdir()} == FILES
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST_S) == 0


def test_ctrl_c_while_it_segments_ends_with_130_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = tmp_path / "big.tif"
    tifffile.imwrite(big, np.zeros((40, 600, 600), np.uint8), photometric="minisblack")
    out = tmp_path / "out"
    with private_display(monkeypatch), running(big, "--out", out) as process:
        wait_for_line(process, "Segmenting")
        process.send_signal(signal.SIGINT)
        assert process.wait(LONGEST_S) == 130
        assert process.stderr is not None
        assert process.stderr.read().rstrip().endswith("Cancelled: nothing was written.")
    assert not list(out.iterdir())


def test_a_private_display_ends_with_the_process_that_started_it() -> None:
    script = (
        "import os; from napari_unet_seg import _private_display as display; display.start_private_display();"
        "children = open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read();"
        "print(os.environ['DISPLAY'], children)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], env=without_display(), capture_output=True, text=True, check=True
    )
    number, server = ran.stdout.split()
    assert number.startswith(":")
    wait_until_gone(int(server))


def test_without_display_and_xvfb_it_says_what_to_install(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_private_display.shutil, "which", lambda _name: None)
    with pytest.raises(InputError, match=r"no display, and Xvfb.*apt-get install xvfb"):
        run_demo(image, model=MODEL, out=tmp_path / "out")


def test_labels_and_impossible_numbers_are_refused_before_a_window_opens(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "labels.tif", np.zeros((4, 5), np.uint8), axes="YX")
    with pytest.raises(InputError, match="holds labels, not an image"):
        run_demo(labels, model=MODEL, out=tmp_path / "out")
    with pytest.raises(InputError, match="zoom is -1"):
        run_demo(None, model=MODEL, zoom=-1, out=tmp_path / "out")
    with pytest.raises(InputError, match="zoom would be 1000"):
        run_demo(None, model=MODEL, zoom=1000, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_given_pixel_size_beats_the_one_of_the_image() -> None:
    (image, options, kind), truth = sample(5.0).layers
    assert (image.shape, kind) == ((5, 256, 256), "image")
    assert options["scale"] == (40, 5, 5)
    assert truth[1]["scale"] == (40, 5, 5)


def test_of_several_channels_the_first_is_taken_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two.tif"
    tifffile.imwrite(path, np.zeros((2, 8, 9), np.uint16), imagej=True, metadata={"axes": "CYX"})
    assert len(subject_of(path).layers) == 2
    assert "2 channels: the first one, 'two · channel 0', is segmented." in capsys.readouterr().err
