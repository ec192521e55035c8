"""`napari-unet-seg evaluate`: predictions against the truth, as scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_unet_seg._cli._console import print_json, print_table
from napari_unet_seg._cli._options import AsJson, TaskChoice, Volume
from napari_unet_seg.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet_seg.core.metrics import Evaluation


def evaluate(
    prediction: Annotated[
        Path, typer.Argument(metavar="PRED", help="Labels or probabilities, or a folder of them.")
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="True labels, or a folder with the same names.")
    ],
    task: Annotated[TaskChoice, typer.Option(help="What the labels mean.")] = TaskChoice.instances,
    volume: Volume = False,
    as_json: AsJson = False,
) -> None:
    """Score predictions against the truth.

    By pixels, objects, Rand, information and warping. A float PRED is probabilities as `predict` writes them.
    """
    from napari_unet_seg.core.image_files import pair_by_name
    from napari_unet_seg.core.metrics import evaluate_many

    pairs = pair_by_name(prediction, truth, may_be_same=True)
    arrays = [(_prediction(predicted), _labels(true)) for predicted, true in pairs]
    try:
        result = evaluate_many(arrays, task=task.value, volume=volume)
    except InputError as error:
        raise InputError(f"'{prediction}' against '{truth}': {error}") from error
    if as_json:
        files = [{"prediction": str(predicted), "truth": str(true)} for predicted, true in pairs]
        print_json({**result.to_json(), "images": files})
    else:
        _print(result)


def _prediction(path: Path) -> NDArray[Any]:
    """Labels, or probabilities (C, ..., Y, X) from 0 to 1."""
    import numpy as np

    from napari_unet_seg.core.image_files import open_image, read_provenance

    opened = open_image(path)
    values = np.asarray(opened.data[...])
    if "C" not in opened.axes:
        return values
    values = np.moveaxis(values, opened.axes.index("C"), 0)
    scale = read_provenance(path).get("probability_scale")
    return values if scale is None else values.astype(np.float32) / np.float32(scale)


def _labels(path: Path) -> NDArray[Any]:
    import numpy as np

    from napari_unet_seg.core.image_files import open_image

    return np.asarray(open_image(path).data[...])


def _print(result: Evaluation) -> None:
    scores = result.to_json()
    listed = ("per_class", "per_plane", "thresholds")
    rows = [
        (name.replace("_", " "), f"{value:.4f}", _threshold(result, name))
        for name, value in scores.items()
        if name not in listed and isinstance(value, float)
    ]
    has_thresholds = bool(result.thresholds)
    header = ("score", "value", "at threshold")
    print_table([row if has_thresholds else row[:2] for row in (header, *rows)])
    if result.f1_at is not None and result.ap is not None:
        print_table([("", "", ""), ("objects at IoU", "F1", "AP")])
        print_table([(iou, f"{f1:.4f}", f"{result.ap[iou]:.4f}") for iou, f1 in result.f1_at.items()])
    if result.per_class:
        cells = [
            (str(c.class_id), f"{c.precision:.4f}", f"{c.recall:.4f}", f"{c.f1:.4f}", f"{c.iou:.4f}")
            for c in result.per_class
        ]
        print_table([("",) * 5, ("class", "precision", "recall", "f1", "iou"), *cells])


def _threshold(result: Evaluation, name: str) -> str:
    return f"{result.thresholds[name]:.1f}" if name in result.thresholds else ""
