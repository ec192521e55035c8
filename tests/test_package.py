"""The package's front door: light to import, every promised name behind it, one version."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import napari_unet_seg

HEAVY = ("torch", "napari", "qtpy", "skimage", "scipy", "numpy", "zarr", "typer")


def test_importing_the_package_imports_nothing_heavy() -> None:
    probe = f"import sys, napari_unet_seg; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "", f"import napari_unet_seg also imported {done.stdout}"


@pytest.mark.parametrize("name", napari_unet_seg.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(napari_unet_seg, name).__name__ == name
    assert name in dir(napari_unet_seg)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segmnet'"):
        _ = napari_unet_seg.segmnet


def test_the_version_is_the_installed_one() -> None:
    assert napari_unet_seg.__version__ == importlib.metadata.version("napari-unet-seg")


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "napari_unet_seg", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout
