"""An annotation as lines of Python that read it from its layers again; no Qt."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_unet_seg._annotate.layer import coding_of
from napari_unet_seg._layers import METADATA, placement
from napari_unet_seg.core.weight_map import WeightSettings


def annotation_script(image: Any, labels: Any, regions: Any, weights: WeightSettings) -> str:
    """Lines for napari's console.

    Layers that are not in the viewer are added; labels then are empty, or of a correction a copy of the
    prediction, since what was painted is theirs.

    Parameters
    ----------
    image, labels, regions
        Layers; `regions` may be None.
    weights
        How the weight map is made.
    """
    return "\n".join(
        [
            "import napari",
            "import numpy as np",
            "import napari_unet_seg as nus",
            "",
            "viewer = napari.current_viewer()",
            f"image = viewer.layers[{str(image.name)!r}]",
            *_labels_lines(labels),
            *([] if regions is None else _region_lines(labels, regions)),
            f"annotation = nus.annotation_from_layers({_wish(labels, regions)})",
            f"settings = nus.{_settings(weights)}",
            "weights = nus.weight_map(annotation.labels, settings, annotated=annotation.annotated)",
            "",
        ]
    )


def _labels_lines(labels: Any) -> list[str]:
    """Find the labels, or add them empty; say what counts."""
    name, said = str(labels.name), labels.metadata[METADATA]
    marks = {"coding": coding_of(labels), "planes": list(said["planes"]), "checked": set(said["checked"])}
    return [
        f"if {name!r} not in viewer.layers:",
        *(f"    {line}" for line in _data_lines(labels)),
        f"    viewer.add_labels(data, name={name!r}, metadata=metadata, {_place(labels)})",
        f"labels = viewer.layers[{name!r}]",
        f"labels.metadata.setdefault({METADATA!r}, {{}}).update({_arguments(marks)})",
    ]


def _data_lines(labels: Any) -> list[str]:
    """What the labels were before anything was painted."""
    prediction = labels.metadata[METADATA].get("prediction")
    if coding_of(labels) == "corrections" and prediction is not None:
        return [
            f"data = viewer.layers[{prediction!r}].data.astype(np.{labels.data.dtype.name})",
            f"metadata = {{{METADATA!r}: dict(predicted=data.copy())}}",
        ]
    return [f"data = np.zeros({tuple(labels.data.shape)}, np.{labels.data.dtype.name})", "metadata = {}"]


def _region_lines(labels: Any, regions: Any) -> list[str]:
    name = str(regions.name)
    corners = [f"        {np.asarray(shape).round(3).tolist()}," for shape in regions.data]
    return [
        f"if {name!r} not in viewer.layers:",
        "    rectangles = [",
        *corners,
        "    ]",
        f"    shapes = viewer.add_shapes(ndim=labels.ndim, name={name!r}, {_place(labels)})",
        '    shapes.metadata["regions_of"] = str(labels.unique_id)',
        "    shapes.add_rectangles([np.array(corners) for corners in rectangles])",
    ]


def _wish(labels: Any, regions: Any) -> str:
    counted_in = f", regions=viewer.layers[{str(regions.name)!r}]" if regions is not None else ""
    return f"image, labels, coding={coding_of(labels)!r}{counted_in}"


def _place(layer: Any) -> str:
    """Where a layer lies, as keyword arguments; what is nothing special is left out."""
    axes = "".join(map(str, range(layer.ndim)))
    where = placement(layer, axes, axes)
    values: dict[str, Any] = {name: np.asarray(where[name]).tolist() for name in ("scale", "translate")}
    if not np.allclose(where["rotate"], np.eye(layer.ndim)):
        values["rotate"] = np.asarray(where["rotate"]).tolist()
    if np.any(where["shear"]):
        values["shear"] = np.asarray(where["shear"]).tolist()
    if not np.allclose(where["affine"], np.eye(layer.ndim + 1)):
        values["affine"] = np.asarray(where["affine"]).tolist()
    values["units"] = [str(unit) for unit in where["units"]]
    values["axis_labels"] = [str(label) for label in where["axis_labels"]]
    return _arguments(values)


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _settings(weights: WeightSettings) -> str:
    if weights.preset == "paper":
        return f"WeightSettings.paper(w0={weights.w0:g}, sigma_px={weights.sigma_px:g})"
    return (
        f"WeightSettings.fiji(w0={weights.w0:g}, sigma_px={weights.sigma_px:g}, "
        f"balance={weights.balance:g}, sigma1_px={weights.sigma1_px:g})"
    )
