"""The core stands alone: it needs neither napari, Qt nor magicgui, and knows nothing of a command line."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import napari_unet_seg.core

_PROBE = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(*sorted(m for m in sys.modules if m.split('.')[0] in {forbidden!r}))
"""
_FORBIDDEN = (
    "napari",
    "qtpy",
    "magicgui",
    "superqt",
    "pyqtgraph",
    "PyQt5",
    "PyQt6",
    "PySide6",
    "typer",
    "rich",
)


def test_core_modules_import_no_viewer() -> None:
    package = napari_unet_seg.core
    modules = [m.name for m in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    probe = _PROBE.format(modules=modules, forbidden=_FORBIDDEN)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "", f"importing the core also imported {done.stdout}"


def test_core_sentences_name_no_option_of_the_command_line() -> None:
    for path in Path(*napari_unet_seg.core.__path__).glob("*.py"):
        option = re.search(r"--[a-z][a-z-]+", path.read_text(encoding="utf-8"))
        assert option is None, f"{path.name} speaks of {option}"
