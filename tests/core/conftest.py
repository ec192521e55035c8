"""The core's tests run where neither napari nor any Qt binding is installed, and this file makes sure of it.

`make test` sets NAPARI_UNET_SEG_CORE_ONLY=1 in that environment; elsewhere these tests run too, unguarded.
"""

from __future__ import annotations

import importlib.util
import os

import pytest

VIEWER_PACKAGES = (
    "napari",
    "qtpy",
    "magicgui",
    "superqt",
    "pyqtgraph",
    "PyQt5",
    "PyQt6",
    "PySide2",
    "PySide6",
)


def pytest_sessionstart() -> None:
    """Refuse to prove "runs without a viewer" where a viewer is installed."""
    if os.environ.get("NAPARI_UNET_SEG_CORE_ONLY") != "1":
        return
    installed = [name for name in VIEWER_PACKAGES if importlib.util.find_spec(name) is not None]
    if installed:
        pytest.exit(f"the environment of the core's tests must not have {', '.join(installed)}", returncode=3)
