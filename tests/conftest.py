"""What every test stands on: isolated settings and model folder, one thread, hypothesis, the shared data.

This file is loaded in the environment without Qt and napari too, so it imports neither.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_REPOSITORY = Path(__file__).resolve().parents[1]

# Before torch, napari or Qt are imported: all three read these only once. Child processes inherit them.
_PRIVATE = Path(tempfile.mkdtemp(prefix="napari-unet-seg-tests-"))
atexit.register(shutil.rmtree, _PRIVATE, ignore_errors=True)
os.environ["NAPARI_CONFIG"] = str(_PRIVATE / "napari" / "settings.yaml")
os.environ["XDG_CONFIG_HOME"] = str(_PRIVATE / "config")
os.environ["XDG_DATA_HOME"] = str(_PRIVATE / "data")
os.environ["NAPARI_UNET_SEG_HOME"] = str(_PRIVATE / "models")
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Each process of pytest-xdist draws on a display of its own: windows on one would take each other's keys.
_is_core_only = os.environ.get("NAPARI_UNET_SEG_CORE_ONLY") == "1"
if "PYTEST_XDIST_WORKER" in os.environ and not _is_core_only and shutil.which("Xvfb"):
    from napari_unet_seg._private_display import start_private_display

    start_private_display(outlives_clients=True)

# A shell starts what it runs in the background with Ctrl-C ignored, and child processes would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def model_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of saved models, the test's own."""
    folder = tmp_path_factory.mktemp("models")
    monkeypatch.setenv("NAPARI_UNET_SEG_HOME", str(folder))
    return folder


def _data_folder() -> Path:
    return Path(os.environ.get("NAPARI_UNET_SEG_DATA", _REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real images with labels (see CONTRIBUTING.md); the test is skipped where they are absent."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(f"the shared data folder {folder} is absent; set NAPARI_UNET_SEG_DATA to where it is")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return _REPOSITORY


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs data that are absent, and soak tests unless they were asked for."""
    absent = pytest.mark.skip(reason=f"the shared data folder {_data_folder()} is absent")
    too_long = pytest.mark.skip(reason="soak tests run by `make soak`")
    for item in items:
        if "needs_data" in item.keywords and not _data_folder().is_dir():
            item.add_marker(absent)
        if "soak" in item.keywords and "soak" not in (config.option.markexpr or ""):
            item.add_marker(too_long)
