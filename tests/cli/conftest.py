"""A way to run commands in this process, tiny images, and a model whose answer is known: bright is object."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_unet_seg._cli import exit_code

SQUARES = ((4, 4), (4, 20), (20, 4))
"""Top left corners of three bright 8 × 8 squares in a dark 32 × 40 plane."""


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.rstrip("\n").rpartition("\n")[2]

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def says(self, *parts: str) -> bool:
        """Whether the last line on stderr is a sentence with these parts, and nothing looks like a crash."""
        assert "Traceback" not in self.err
        assert "bug" not in self.last_line, self.err
        assert self.last_line.endswith("."), self.err
        missing = [part for part in parts if part not in self.last_line]
        assert not missing, f"{missing} not in: {self.last_line}"
        return True

    def refuses(self, *parts: str) -> bool:
        """Whether nothing was started, with a sentence that has these parts and nothing on stdout."""
        assert (self.code, self.out) == (2, ""), (self.code, self.out, self.err)
        return self.says(*parts)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def run_command(*arguments: object) -> Ran:
        capsys.readouterr()
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_command


def run_and_press_ctrl_c(*arguments: object, once: Callable[[str], bool]) -> Ran:
    """Run a command line in a process of its own and press Ctrl-C once stderr has said such a line."""
    child = subprocess.Popen(
        [sys.executable, "-m", "napari_unet_seg", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert child.stderr is not None
    said = next((line for line in child.stderr if once(line)), None)
    assert said is not None, "it ended before there was anything to interrupt"
    child.send_signal(signal.SIGINT)
    printed, complaints = child.communicate(timeout=120)
    return Ran(child.returncode, printed, complaints)


def squares() -> np.ndarray:
    """Labels (32, 40) of the three squares."""
    labels = np.zeros((32, 40), np.uint16)
    for number, (y, x) in enumerate(SQUARES, start=1):
        labels[y : y + 8, x : x + 8] = number
    return labels


def bright_squares(dtype: type = np.uint8) -> np.ndarray:
    """An image (32, 40) in which the three squares are bright."""
    return np.where(squares() > 0, 200, 10).astype(dtype)


def write(path: Path, data: np.ndarray, **options: Any) -> Path:
    """Write a TIFF that says no more than it must."""
    options.setdefault("photometric", "rgb" if data.shape[-1] == 3 else "minisblack")
    tifffile.imwrite(path, data, **options)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image file with three bright squares."""
    return write(tmp_path / "cells.tif", bright_squares())


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """The label file that belongs to `image`."""
    return write(tmp_path / "cells_labels.tif", squares())


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file: P(object) is near 1 where a plane is nearer its brightest than its darkest pixel."""
    return make_bright_model(tmp_path_factory.mktemp("model") / "bright.safetensors")


def make_bright_model(path: Path, **info: Any) -> Path:
    """A network of one level whose every convolution hands its first channel on."""
    import torch

    from napari_unet_seg.core.architecture import Architecture
    from napari_unet_seg.core.models import new_model
    from napari_unet_seg.core.normalisation import Normalisation

    architecture = Architecture(base_channels=2, depth=1, padding="same", dropout=0.0)
    made = new_model(architecture, normalisation=Normalisation(kind="min-max"), **info)
    with torch.no_grad():
        for parameter in made.network.parameters():
            parameter.zero_()
        for block in (made.network.down[0], made.network.merge[0]):
            for convolution in (block[0], block[2]):
                convolution.weight[0, 0, 1, 1] = 1
        made.network.head.weight[1, 0] = 20
        made.network.head.bias[1] = -10
    return made.save(path)


def write_corrupt_second_plane(path: Path) -> Path:
    """A stack of two compressed planes whose header is whole, while the second plane cannot be decoded."""
    tifffile.imwrite(path, np.stack([bright_squares()] * 2), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[1]
        at, length = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[at : at + length] = bytes(length)
    path.write_bytes(content)
    return path
