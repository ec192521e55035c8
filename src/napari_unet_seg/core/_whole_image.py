"""Whole-image prediction as it is defined, for tests and benchmarks: one pass of the network as built."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_unet_seg.core.architecture import grid_px, margin_px
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.network import class_probabilities
from napari_unet_seg.core.normalisation import ArrayLike, apply, plane_statistics
from napari_unet_seg.core.rescaling import Floats, unzoom_into, zoomed_length, zoomed_region
from napari_unet_seg.core.tiling import Span, halo_px, mirrored_indices, round_up


@torch.inference_mode()
def whole_image_probabilities(
    plane: ArrayLike,
    model: Model,
    *,
    zoom: tuple[float, float] = (1.0, 1.0),
    invert: bool = False,
    tta: bool = False,
) -> Floats:
    """Probabilities of one plane by one pass over the whole of it, however much memory that takes.

    The plane is normalised, zoomed, mirrored by the network's margin on every side and on to the next
    multiple of the pooling grid at the bottom and right, predicted, cropped, and zoomed back.

    Parameters
    ----------
    plane
        (C, Y, X).

    Returns
    -------
    (classes, Y, X) float32, on the image's own grid.
    """
    values = np.asarray(plane[:, :, :])
    values = apply(values, plane_statistics(values, model.normalisation, invert=invert))
    height, width = values.shape[1:]
    shape = zoomed_length(height, zoom[0]), zoomed_length(width, zoom[1])
    zoomed = _zoomed(values, shape, zoom)
    padded = torch.from_numpy(
        zoomed[np.newaxis, :, _mirrored(shape[0], model)][..., _mirrored(shape[1], model)]
    )
    logits_to_probabilities = [
        _transformed(model, padded, *way) for way in (_EIGHT_WAYS if tta else _EIGHT_WAYS[:1])
    ]
    mean = torch.stack(logits_to_probabilities).mean(dim=0)[0].numpy()
    excess = (mean.shape[1] - round_up(shape[0], grid_px(model.architecture.depth))) // 2
    cropped = mean[:, excess : excess + shape[0], excess : excess + shape[1]]
    if zoom == (1.0, 1.0):
        return np.ascontiguousarray(cropped)
    out: Floats = np.empty((cropped.shape[0], height, width), np.float32)
    unzoom_into(out, cropped, (0, 0), (Span(0, height), Span(0, width)), shape, zoom)
    return out


_EIGHT_WAYS = tuple((turns, is_flipped) for turns in range(4) for is_flipped in (False, True))


def _zoomed(values: Floats, shape: tuple[int, int], zoom: tuple[float, float]) -> Floats:
    def read(rows: Span, columns: Span) -> Floats:
        return values[:, rows.start : rows.stop, columns.start : columns.stop]

    return zoomed_region(read, values.shape[1:], Span(0, shape[0]), Span(0, shape[1]), zoom)


def _mirrored(length: int, model: Model) -> npt.NDArray[np.intp]:
    """Indices of an axis with its margins; an unpadded network takes the central size that fits it."""
    depth = model.architecture.depth
    margin = margin_px(depth) if model.architecture.padding == "same" else halo_px(depth)
    return mirrored_indices(-margin, round_up(length, grid_px(depth)) + margin, length)


def _transformed(model: Model, padded: Tensor, turns: int, is_flipped: bool) -> Tensor:  # noqa: FBT001
    turned = torch.rot90(padded, turns, (2, 3))
    if not is_flipped:
        return torch.rot90(class_probabilities(model.network(turned)), -turns, (2, 3))
    return torch.rot90(class_probabilities(model.network(turned.flip(3))).flip(3), -turns, (2, 3))
