"""`napari-unet-seg weight-map`: how much each pixel of an annotation counts in the loss."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_unet_seg._cli._console import say
from napari_unet_seg._cli._options import Coding, CodingOption, Overwrite, Volume
from napari_unet_seg._cli._outputs import checked_output
from napari_unet_seg.core.errors import InputError

if TYPE_CHECKING:
    from napari_unet_seg.core.weight_map import WeightSettings


class WeightPreset(StrEnum):
    """Which formula, with its own constants."""

    paper = "paper"
    fiji = "fiji"


def weight_map(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Label image, or folder of sections.")],
    out: Annotated[Path, typer.Option(help="Map to write (.tif), float32.")],
    preset: Annotated[
        WeightPreset, typer.Option(help="U-Net paper of 2015, or Fiji plugin.")
    ] = WeightPreset.paper,
    w0: Annotated[float | None, typer.Option(help="Height of the border term; none: the preset's.")] = None,
    sigma: Annotated[
        float | None, typer.Option(help="Width of the border term in pixels; none: the preset's.")
    ] = None,
    coding: CodingOption = Coding.dense,
    annotated: Annotated[Path | None, typer.Option(help="Mask: labels count where it is not 0.")] = None,
    volume: Volume = False,
    overwrite: Overwrite = False,
) -> None:
    """Write the weight map of an annotation."""
    from napari_unet_seg._cli._annotations import read_annotation
    from napari_unet_seg.core.image_files import open_image, write_float_map
    from napari_unet_seg.core.weight_map import weight_map as compute

    inputs = [labels] if annotated is None else [labels, annotated]
    checked_output(out, overwrite=overwrite, inputs=inputs)
    settings = _settings(preset, w0, sigma)
    opened = open_image(labels)
    if "C" in opened.axes:
        raise InputError(f"'{labels}' has channels: labels are one number per pixel.")
    annotation = read_annotation(labels, labels, annotated, coding, None)
    sizes = opened.voxel_size_nm or {}
    measured = "ZYX" if volume else "YX"
    spacing = [sizes[axis] for axis in measured] if set(measured) <= set(sizes) else None
    values = compute(
        annotation.labels, settings, annotated=annotation.annotated, spacing=spacing, volume=volume
    )
    write_float_map(
        out,
        values,
        axes=opened.axes,
        voxel_size_nm=opened.voxel_size_nm,
        metadata={
            "labels": labels.name,
            "preset": settings.preset,
            "w0": settings.w0,
            "sigma_px": settings.sigma_px,
        },
        overwrite=overwrite,
    )
    say(f"Weight map of '{labels}' saved in '{out}'.")


def _settings(preset: WeightPreset, w0: float | None, sigma_px: float | None) -> WeightSettings:
    from dataclasses import replace

    from napari_unet_seg.core.weight_map import WeightSettings

    settings = WeightSettings.paper() if preset is WeightPreset.paper else WeightSettings.fiji()
    if w0 is not None:
        settings = replace(settings, w0=w0)
    return settings if sigma_px is None else replace(settings, sigma_px=sigma_px)
