"""`napari-unet-seg predict`: images to labels, probabilities and tables, one image or many."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_unet_seg._cli._console import print_json
from napari_unet_seg._cli._options import (
    AsJson,
    Device,
    Overwrite,
    ProbabilityDtype,
    parse_pixel_size,
    parse_zoom,
)
from napari_unet_seg._cli._predict_jobs import Outputs, made, plan
from napari_unet_seg.core.errors import InputError

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model
    from napari_unet_seg.core.objects import ObjectSettings


def predict(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of sections.")
    ],
    model: Annotated[str, typer.Option(help="Name or path of a model: see `models`.")],
    out: Annotated[Path, typer.Option(help="Labels to write (.ome.tif); with several images a folder.")],
    probabilities: Annotated[Path | None, typer.Option(help="Probabilities to write; as --out.")] = None,
    probability_dtype: Annotated[
        ProbabilityDtype, typer.Option(help="How probabilities are stored.")
    ] = ProbabilityDtype.float32,
    table: Annotated[Path | None, typer.Option(help="CSV to write, a row per object; as --out.")] = None,
    pixel_size: Annotated[
        str | None, typer.Option(metavar="NM", help="Of the image: one number, Y,X or Z,Y,X, in nm.")
    ] = None,
    zoom: Annotated[
        str | None,
        typer.Option(metavar="X|auto", help="Enlarge by X first, or find it; beats the pixel size."),
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Names of the image's axes, of T Z C Y X, such as TZYX.")
    ] = None,
    channel: Annotated[
        str | None,
        typer.Option(metavar="N|NAME|grey", help="One channel, from 0 or by name; grey: of a colour image."),
    ] = None,
    invert: Annotated[bool, typer.Option("--invert", help="Invert the contrast first.")] = False,
    device: Device = "auto",
    tile: Annotated[
        int | None, typer.Option(metavar="PX", help="Side of a tile; none: the fastest that fits.")
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over 8 flips and turns; 8 times slower.")
    ] = False,
    threshold: Annotated[
        float | None, typer.Option(help="Foreground is above this; none: as the model says.")
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            help="Smallest object in pixels of the image; none: as the model says.",
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Take the files of a folder as separate images.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Segment images with a model.

    Labels go to --out, probabilities to --probabilities, a table of the objects to --table.
    """
    started = time.perf_counter()
    size = parse_pixel_size(pixel_size)
    planned = plan(images, Outputs(out, probabilities, table), each=each, overwrite=overwrite)

    from napari_unet_seg._cli._predict_run import Batch, Wishes
    from napari_unet_seg.core.models import load_model
    from napari_unet_seg.core.predict_settings import PredictSettings

    loaded = load_model(model)
    if channel is not None and loaded.architecture.in_channels != 1:
        raise InputError(
            f"Model '{loaded.name}' sees {loaded.architecture.in_channels} channels at once: "
            "leave --channel out."
        )
    settings = PredictSettings(
        zoom=parse_zoom(zoom),
        invert=invert,
        device=device,
        tile_px=tile,
        tta=tta,
        objects=_object_settings(loaded, threshold, min_size),
    )
    batch = Batch(
        loaded, Wishes(settings, size, axes, channel, probability_dtype.value, overwrite), planned.jobs
    )
    with made(planned.folders):
        batch.run()
    if as_json:
        print_json(batch.as_json(time.perf_counter() - started))
    batch.conclude()


def _object_settings(model: Model, threshold: float | None, min_size_px: int | None) -> ObjectSettings:
    objects = model.objects.without_grid
    if threshold is not None:
        objects = replace(objects, threshold=threshold)
    if min_size_px is not None:
        objects = replace(objects, min_size_px=min_size_px, min_size_um2=None)
    return objects
