"""A segmentation as lines of Python that do the same again; no Qt."""

from __future__ import annotations

from dataclasses import fields

from napari_unet_seg._layers import Region
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.predict_settings import PredictSettings


def script_of(layer_name: str, model: str, settings: PredictSettings, region: Region) -> str:
    """Lines for napari's console.

    Parameters
    ----------
    model
        Name or path of the model.
    region
        What was segmented.
    """
    wishes = _arguments(settings, PredictSettings())
    return "\n".join(
        [
            "import napari",
            "import napari_unet_seg as nus",
            "from napari_unet_seg.core.objects import ObjectSettings",
            "",
            "viewer = napari.current_viewer()",
            "job = nus.segment(",
            f"    viewer.layers[{layer_name!r}],",
            f"    {model!r},",
            f"    nus.PredictSettings({wishes}),",
            f"    where={_index(region)},",
            ")",
            "job.wait()",
            "prediction = job.result",
            "",
        ]
    )


def _arguments(settings: object, default: object) -> str:
    """What differs from the default, as keyword arguments."""
    parts = []
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if value == getattr(default, field.name):
            continue
        is_nested = isinstance(value, ObjectSettings)
        text = f"ObjectSettings({_arguments(value, ObjectSettings())})" if is_nested else repr(value)
        parts.append(f"{field.name}={text}")
    return ", ".join(parts)


def _index(region: Region) -> str:
    entries = []
    for entry in region:
        if not isinstance(entry, slice):
            entries.append(repr(entry))
        elif entry == slice(None):
            entries.append("slice(None)")
        else:
            entries.append(f"slice({entry.start}, {entry.stop})")
    return f"({', '.join(entries)})"
