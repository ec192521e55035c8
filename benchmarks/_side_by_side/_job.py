"""What every runner shares: the job, the clock, the peak memory, the report.

A runner is executed by its tool's own interpreter: `python run_TOOL.py train|predict JOB.json`. Nothing here
may import napari_unet_seg; numpy and tifffile are in every environment.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Image = NDArray[Any]
Found = tuple[NDArray[Any], NDArray[Any] | None]
"""Labels (Y, X), and P(object) (Y, X) in 0..1 of tools that classify pixels."""


@dataclass(frozen=True)
class Job:
    """What a tool is given; images are (Y, X), uint8; labels hold an id per object, 0 is background.

    Attributes
    ----------
    train_images, train_labels, test_images
        Folders of TIFF files; an image and its labels have the same name.
    folder
        Where the tool keeps its model.
    labels_out, foreground_out
        Where predictions go, by the names of the images.
    seconds
        Wall time for training.
    threads
        Cores.
    seed
        Of whatever is drawn.
    """

    train_images: Path
    train_labels: Path
    test_images: Path
    folder: Path
    labels_out: Path
    foreground_out: Path
    seconds: float
    threads: int
    seed: int

    @classmethod
    def read(cls, path: Path) -> Job:
        """Of a JSON file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        paths = {name: Path(value) for name, value in values.items() if isinstance(value, str)}
        return cls(**{**values, **paths})

    def train_files(self) -> list[tuple[Path, Path]]:
        """Images with their labels, in an order drawn by the seed."""
        images = sorted(self.train_images.glob("*.tif"))
        order = np.random.default_rng(self.seed).permutation(len(images))
        return [(images[i], self.train_labels / images[i].name) for i in order]


class Clock:
    """Time since training began."""

    def __init__(self, limit_s: float) -> None:
        self._begin, self.limit_s = time.perf_counter(), limit_s

    @property
    def seconds(self) -> float:
        """So far."""
        return time.perf_counter() - self._begin

    @property
    def left_s(self) -> float:
        """Until the limit; below 0 after it."""
        return self.limit_s - self.seconds


def run(
    train: Callable[[Job, Clock], dict[str, Any]],
    load: Callable[[Job], Any],
    predict: Callable[[Any, Image], Found],
    packages: Sequence[str],
) -> None:
    """Do what the command line asks for and write `train.json` or `predict.json` into the job's folder.

    Parameters
    ----------
    train
        Trains and saves; returns what it tells about it. Reading the files counts, imports do not.
    load
        Makes ready what `train` saved; not counted.
    predict
        Segments one image (Y, X); counted, and reading and writing files is not.
    packages
        Whose versions are told.
    """
    phase, job = sys.argv[1], Job.read(Path(sys.argv[2]))
    job.folder.mkdir(parents=True, exist_ok=True)
    if phase == "train":
        clock = Clock(job.seconds)
        report = train(job, clock)
        report["seconds"] = round(clock.seconds, 2)
        report["cpu_seconds"] = round(time.process_time(), 1)
    else:
        report = _predict_all(job, load(job), predict)
    report["peak_memory_mb"] = round(peak_memory_mb())
    report["versions"] = {name: importlib.metadata.version(name) for name in packages}
    (job.folder / f"{phase}.json").write_text(json.dumps(report), encoding="utf-8")


def _predict_all(job: Job, model: Any, predict: Callable[[Any, Image], Found]) -> dict[str, Any]:
    for folder in (job.labels_out, job.foreground_out):
        folder.mkdir(parents=True, exist_ok=True)
    seconds: list[float] = []
    cpu_before = time.process_time()
    pixels = 0
    for path in sorted(job.test_images.glob("*.tif")):
        image = tifffile.imread(path)
        begin = time.perf_counter()
        labels, foreground = predict(model, image)
        seconds.append(time.perf_counter() - begin)
        pixels += image.size
        tifffile.imwrite(job.labels_out / path.name, np.asarray(labels, np.int32), compression="zlib")
        if foreground is not None:
            tifffile.imwrite(job.foreground_out / path.name, np.asarray(foreground, np.float32))
    return {
        "seconds": round(sum(seconds), 3),
        "cpu_seconds": round(time.process_time() - cpu_before, 1),
        "first_image_seconds": round(seconds[0], 3),
        "images": len(seconds),
        "megapixels": round(pixels / 1e6, 3),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB of 10⁶ bytes.

    Linux counts it since the program began; `getrusage` would count that of the process that started it too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
