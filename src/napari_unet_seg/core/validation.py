"""How good a network is on held-out tiles: objects where a tile is fully annotated, pixels elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet_seg.core._matching import match_objects
from napari_unet_seg.core.augmentation import Patch
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.network import UNet, class_probabilities
from napari_unet_seg.core.objects import objects_from_probabilities
from napari_unet_seg.core.training_data import class_indices

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """A figure between 0 and 1, higher is better, with what it is and what it was measured on."""

    value: float
    name: str
    measured_on: str


def scoring_steps(
    network: UNet, tiles: Sequence[Patch], info: ModelInfo, measured_on: str, device: torch.device
) -> Generator[int, None, Score]:
    """Score a network in eval mode; yields how many tiles are done, after each.

    Returns
    -------
    Score
        For instances on densely annotated tiles the mean over IoU 0.5 and 0.75 of the pooled object F1,
        averaged with the Dice of the pixels; else the mean Dice of the classes but the background.
    """
    probabilities = []
    for tile in tiles:
        probabilities.append(_probabilities(network, tile, device))
        yield len(probabilities)
    dice = _mean_dice(probabilities, tiles, info)
    dense = [(p, tile) for p, tile in zip(probabilities, tiles, strict=True) if tile.annotated.mean() > 0.5]
    if info.task == "classes" or not dense:
        return Score(dice, "Dice", measured_on)
    pairs = [
        (objects_from_probabilities(np.where(tile.annotated, 1 - p[0], 0), info.objects), tile.labels)
        for p, tile in dense
    ]
    matches = reduce(add, (match_objects(predicted, true) for predicted, true in pairs)).f1()
    f1 = (matches["0.5"] + matches["0.75"]) / 2
    return Score((f1 + dice) / 2, "mean of object F1 and Dice", measured_on)


def _probabilities(network: UNet, tile: Patch, device: torch.device) -> Floats:
    with torch.inference_mode():
        image = torch.from_numpy(tile.image)[None].to(device, memory_format=torch.channels_last)
        result: Floats = class_probabilities(network(image).float())[0].cpu().numpy()
    return result


def _mean_dice(probabilities: Sequence[Floats], tiles: Sequence[Patch], info: ModelInfo) -> float:
    """Return 2·|P∩T| / (|P| + |T|) of each class but 0, over all annotated pixels, averaged."""
    overlap = np.zeros(info.architecture.n_classes)
    total = np.zeros(info.architecture.n_classes)
    for p, tile in zip(probabilities, tiles, strict=True):
        predicted = p.argmax(axis=0)[tile.annotated]
        true = class_indices(tile.labels, info.task)[tile.annotated]
        for number in range(1, overlap.size):
            overlap[number] += np.count_nonzero((predicted == number) & (true == number))
            total[number] += np.count_nonzero(predicted == number) + np.count_nonzero(true == number)
    occurring = total > 0
    return float(np.mean(2 * overlap[occurring] / total[occurring])) if occurring.any() else 1.0
