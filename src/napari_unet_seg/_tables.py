"""The region table of a labels layer as a CSV file, made in a job's thread; no Qt."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._layers import Part
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.regions import region_table_steps, write_csv
from napari_unet_seg.core.steps import STOP, Stop

if TYPE_CHECKING:
    from napari_unet_seg._segment.request import Request  # imports PyTorch


@dataclass(frozen=True, eq=False)
class TableRequest:
    """What to measure.

    Attributes
    ----------
    labels
        Of the whole layer.
    image
        Whose grey values are measured too; None: none.
    """

    labels: NDArray[Any]
    image: Part | None
    pixel_size_nm: tuple[float, float] | None
    path: Path


def table_request(labels: NDArray[Any], request: Request, path: Path) -> TableRequest:
    """Freeze a wish; the labels are copied. Colours have no single grey value and are left out.

    Parameters
    ----------
    labels
        Of the whole layer.
    request
        Of the segmentation that they come from: its image, channel and pixel size count.
    path
        Of the CSV file.

    Raises
    ------
    InputError
        There is no memory for the copy.
    """
    image, channel = request.image, request.settings.channel
    region: dict[str, int | slice] = {"C": channel} if isinstance(channel, int) else {}
    has_grey = "S" not in image.axes and ("C" not in image.axes or "C" in region)
    part = Part(image.data, image.axes, region) if has_grey else None
    try:
        copied = np.array(labels)
    except MemoryError as error:
        raise InputError(
            "There is no memory for a copy of the labels: close other programs, or measure fewer planes."
        ) from error
    return TableRequest(copied, part, request.settings.pixel_size_yx_nm, path)


def table_steps(request: TableRequest) -> Generator[str, Stop | None, int | None]:
    """Measure and write; returns the number of rows, None when it was stopped.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    if (yield "Measuring") is STOP:
        return None
    known = request.pixel_size_nm is not None
    table = yield from region_table_steps(
        request.labels, request.image, spacing=request.pixel_size_nm, unit="nm" if known else "pixel"
    )
    if table is None or (yield "Writing") is STOP:
        return None
    write_csv(table, request.path)
    return len(table)
