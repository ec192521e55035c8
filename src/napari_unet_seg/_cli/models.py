"""`napari-unet-seg models`: what there is to predict with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet_seg._cli._console import print_json, print_table, say
from napari_unet_seg._cli._options import AsJson

if TYPE_CHECKING:
    from napari_unet_seg.core.model_store import ModelInfo


def models(as_json: AsJson = False) -> None:
    """List the bundled models and your own."""
    from napari_unet_seg.core.model_store import list_models, model_folder

    infos = list_models()
    if as_json:
        print_json({"models": [_as_json(info) for info in infos]})
        return
    if not infos:
        say(f"There are no models yet: train one, or put a model file into '{model_folder()}'.")
        return
    header = ("name", "where", "task", "classes", "pixel size", "objects", "licence")
    print_table([header, *(_row(info) for info in infos)])
    for info in infos:
        if info.description:
            print_table([("",), (f"{info.name}: {_short_card(info)}",)])


def _short_card(info: ModelInfo) -> str:
    """What it was trained for, and on whose data."""
    said = " ".join(info.description.split())
    return f"{said}. Data: {info.credit}" if info.credit else said


def _as_json(info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "where": info.source,
        "path": str(info.path),
        "task": info.task,
        "classes": list(info.class_names),
        "channels": info.architecture.in_channels,
        "pixel_size_nm": info.pixel_size_nm,
        "object_diameter_px": info.object_diameter_px,
        "licence": info.licence,
        "credit": info.credit,
        "description": info.description,
    }


def _row(info: ModelInfo) -> tuple[str, ...]:
    return (
        info.name,
        info.source,
        info.task,
        ", ".join(info.class_names),
        "-" if info.pixel_size_nm is None else f"{info.pixel_size_nm:g} nm",
        "-" if info.object_diameter_px is None else f"about {info.object_diameter_px:.0f} px",
        info.licence or "-",
    )
