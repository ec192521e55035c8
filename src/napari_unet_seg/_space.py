"""Voxel sizes in nm as the scale, units and axis labels of a napari layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_EM_BELOW_NM = 100.0


def layer_space(axes: str, voxel_size_nm: Mapping[str, float] | None) -> dict[str, Any]:
    """Keyword arguments scale, units and axis_labels for a layer whose axes are `axes` (without channels).

    Units are nm where the pixels are those of an electron microscope (< 100 nm), µm above, and "pixel" for
    axes of unknown size and for time.
    """
    sizes = voxel_size_nm or {}
    smallest = min(sizes.values(), default=0.0)
    unit, nm = ("nm", 1.0) if smallest < _EM_BELOW_NM else ("µm", 1e3)
    return {
        "scale": tuple(sizes[axis] / nm if axis in sizes else 1.0 for axis in axes),
        "units": tuple(unit if axis in sizes else "pixel" for axis in axes),
        "axis_labels": tuple(axis.lower() for axis in axes),
    }
