"""`napari-unet-seg demo`: the main job, shown in napari."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_unet_seg.core.errors import OutputError


def demo(
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", help="Image file or folder of sections; none: the EM sample."),
    ] = None,
    model: Annotated[str, typer.Option(help="Name or path of a model.")] = "em-boundaries",
    pixel_size: Annotated[float | None, typer.Option(help="Pixel size of the image in nm.")] = None,
    zoom: Annotated[
        float | None, typer.Option(help="Model-grid pixels per image pixel; beats the pixel size.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the results; its own three files are replaced.")
    ] = Path("demo-output"),
) -> None:
    """Segment a sample, or IMAGE, and show it in napari.

    Without a display, only the files are written.
    """
    from napari_unet_seg.core.image_files import look_at
    from napari_unet_seg.core.model_store import find_model

    if image is not None:
        look_at(image)
    find_model(model)
    if out.exists() and not out.is_dir():
        raise OutputError(f"'{out}' is a file: choose a folder for the results of the demo.")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"The folder '{out.absolute().parent}' does not exist: create it first.")

    from napari_unet_seg._demo import run_demo

    code = run_demo(image, model=model, pixel_size_nm=pixel_size, zoom=zoom, out=out)
    if code:
        raise typer.Exit(code)
