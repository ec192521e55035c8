"""A segmentation or a fine-tuning as lines of Python that do the same again; no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from napari_unet_seg._layers import Region
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.train_settings import TrainSettings
from napari_unet_seg.core.weight_map import WeightSettings


@dataclass(frozen=True)
class AnnotationNames:
    """The layers of one annotation, by name, and how they are read.

    Attributes
    ----------
    regions
        The shapes layer with its rectangles, or None.
    channel, pixel_size_nm
        Of the image, where its layer does not say it.
    """

    image: str
    labels: str
    coding: str
    regions: str | None = None
    channel: int | Literal["grey"] | None = None
    pixel_size_nm: tuple[float, float] | None = None


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


def tuning_script(
    annotations: Sequence[AnnotationNames],
    model: str,
    preset: Literal["quick", "thorough", "paper"],
    settings: TrainSettings,
    *,
    save_as: str,
) -> str:
    """Lines for napari's console.

    Parameters
    ----------
    model
        Name or path of the one to start from.
    preset
        From which the settings differ by as much as is written down.
    save_as
        Name of the new model.
    """
    wishes = _arguments(settings, getattr(TrainSettings, preset)())
    return "\n".join(
        [
            "import napari",
            "import napari_unet_seg as nus",
            "",
            "viewer = napari.current_viewer()",
            "annotations = [",
            *(line for names in annotations for line in _annotation_lines(names)),
            "]",
            f"settings = nus.TrainSettings.{preset}({wishes})",
            f"steps = nus.training_steps({model!r}, annotations, settings)",
            'job = nus.start(steps, "Fine-tuning")',
            "job.wait()",
            f"job.result.save({save_as!r})",
            "",
        ]
    )


def _annotation_lines(names: AnnotationNames) -> list[str]:
    layers = f"viewer.layers[{names.image!r}], viewer.layers[{names.labels!r}]"
    wishes = [f"coding={names.coding!r}"]
    if names.regions is not None:
        wishes.append(f"regions=viewer.layers[{names.regions!r}]")
    if names.channel is not None:
        wishes.append(f"channel={names.channel!r}")
    if names.pixel_size_nm is not None:
        wishes.append(f"pixel_size_nm={names.pixel_size_nm!r}")
    return [
        "    nus.annotation_from_layers(",
        f"        {layers},",
        *(f"        {wish}," for wish in wishes),
        "    ),",
    ]


def _arguments(settings: object, default: object) -> str:
    """What differs from the default, as keyword arguments."""
    parts = []
    for field in fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        if value == getattr(default, field.name):
            continue
        parts.append(f"{field.name}={_value(value)}")
    return ", ".join(parts)


def _value(value: object) -> str:
    if isinstance(value, ObjectSettings):
        return f"ObjectSettings({_arguments(value, ObjectSettings())})"
    if isinstance(value, WeightSettings):
        return f"nus.WeightSettings({_arguments(value, WeightSettings())})"
    return repr(value)


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
