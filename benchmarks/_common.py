"""What every benchmark needs: machine, versions, medians of repeated runs, a place for its result."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
REPOSITORY = RESULTS.parents[1]
_PACKAGES = (
    "napari-unet-seg",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "napari",
    "zarr",
    "tifffile",
    "PyQt6",
    "monai",
)


def data_dir() -> Path:
    """The shared data folder (not part of the repository)."""
    return Path(os.environ.get("NAPARI_UNET_SEG_DATA", REPOSITORY.parent / "shared" / "data"))


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory, GPU, operating system."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "ram_gb": _ram_gb(),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Version of Python and of each package that matters and is installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def seconds(run: Callable[[], object]) -> float:
    """How long one call took, by the wall clock."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def median_seconds(*runs: Callable[[], object], repeats: int = 5, warm_up: int = 1) -> list[float]:
    """Median time of each of several calls.

    The calls take turns within every repeat, so that a disturbance of the machine falls on all of them and
    their ratio stays honest.
    """
    for run in runs * warm_up:
        run()
    taken = [[seconds(run) for run in runs] for _ in range(repeats)]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write `results/<name>.json` with the date, the machine and the versions, and show it.

    Keys that `scripts/benchmark_table.py` puts into the table of docs/benchmarks.md, all optional:
    `what` (one line), `value`, `unit`, `target` (as text, e.g. "≥ 0.85"), `met` (bool).
    """
    record = {
        "name": name,
        **result,
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps(record, indent=2, ensure_ascii=False, default=_plain)
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
    return path


def _plain(value: Any) -> Any:
    """Numpy scalars and paths as JSON knows them."""
    return value.item() if hasattr(value, "item") else str(value)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def _ram_gb() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def _gpu() -> str | None:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return "Apple MPS" if torch.backends.mps.is_available() else None
