"""Takes the pictures of the README and the documentation from the real window (make screenshots)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from qtpy.QtWidgets import QWidget

from napari_unet_seg._demo import (
    DemoWindow,
    open_window,
    picture,
    png,
    sample,
    segment_all,
    settle,
    show_result,
)
from napari_unet_seg.core.atomic import write_atomically
from napari_unet_seg.core.synthetic import synthetic_em

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
MARGIN_PX = 12


def main() -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    window = open_window(sample())
    segment_all(window, "em-boundaries")
    show_result(window)
    keep("demo.png", png(picture(window)))
    keep_dock("segment.png", window.segment_dock)
    with tempfile.TemporaryDirectory() as folder:
        show_open_dock(window, Path(folder))
        keep_dock("open.png", window.open_dock)
    window.viewer.close()


def show_open_dock(window: DemoWindow, folder: Path) -> None:
    """Fill in the Open dock with a file whose path is short."""
    made = synthetic_em()
    os.chdir(folder)
    sizes = {f"PhysicalSize{axis}": size for axis, size in made.voxel_size_nm.items()}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in made.voxel_size_nm}
    tifffile.imwrite("em-stack.ome.tif", made.image, metadata={"axes": "ZYX", **sizes, **units})
    dock: Any = window.open_dock
    dock.parent().raise_()
    dock.look("em-stack.ome.tif")
    settle(1500)
    dock.part.some_button.click()
    dock.part.planes.last.setValue(2)
    settle()


def keep_dock(name: str, dock: QWidget) -> None:
    """The dock without the empty part below its rows."""
    path = IMAGES / name
    dock.grab().save(str(path))
    pixels = np.asarray(Image.open(path).convert("RGB"))
    rows = np.flatnonzero(np.ptp(pixels[:-MARGIN_PX, MARGIN_PX:-MARGIN_PX], axis=1).any(axis=1))
    keep(name, png(pixels[: rows.max() + MARGIN_PX]))


def keep(name: str, content: bytes) -> None:
    write_atomically(IMAGES / name, content)
    print(IMAGES / name)


if __name__ == "__main__":
    main()
