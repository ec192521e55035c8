"""How good a network is on tiles: objects where whole areas are annotated, pixels elsewhere."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._matching import Matches, match_objects
from napari_unet_seg.core._memory import free, is_out_of_memory
from napari_unet_seg.core._validation_tiles import halves
from napari_unet_seg.core.errors import OutOfMemoryError
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.objects import objects_from_probabilities
from napari_unet_seg.core.patches import Patch
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.training_data import class_indices

LEAST_PROBABILITY: Final = 1e-3
"""A truth that is given less counts as this much: one wrong label is not to decide over a model."""


@dataclass(frozen=True)
class Score:
    """A figure between 0 and 1, higher is better, with what it is and what it was measured on.

    Attributes
    ----------
    likelihood
        Geometric mean of the probability given to the true class: each pixel counts by its weight in the
        loss, each class the same. It still tells two models apart where few objects are all found by both.
    resolution
        Values that differ by less say nothing: one object more or less.
    """

    value: float
    name: str
    measured_on: str
    likelihood: float = 0.0
    resolution: float = 1e-6


def is_better(score: Score, other: Score) -> bool:
    """Whether the first of two scores on the same tiles is the better one.

    By value, in steps of the resolution, and by likelihood on the same step: with a handful of objects to
    score on, the highest of many values is chance.
    """
    return _rank(score) > _rank(other)


def falls_short(score: Score, highest: Score) -> bool:
    """Whether a score is lower than the highest on the same tiles by more than the resolution."""
    return score.value < highest.value - highest.resolution


def _rank(score: Score) -> tuple[int, float]:
    return round(score.value / score.resolution), score.likelihood


def scoring_steps(
    engine: InferenceNetwork,
    tiles: Sequence[Patch],
    info: ModelInfo,
    measured_on: str,
    *,
    with_objects: bool,
    resolution: float = 1e-6,
) -> Generator[int, None, Score]:
    """Score a network; yields how many tiles are left, after each.

    Parameters
    ----------
    engine
        The network.
    tiles
        With the context that prediction reads.
    info
        Task and object settings.
    measured_on
        In the person's words, what the tiles are.
    with_objects
        Whether objects count besides pixels; for instances in tiles that are annotated for the most part.
    resolution
        Of the score.

    Returns
    -------
    Score
        With objects the mean over IoU 0.5 and 0.75 of the pooled object F1, averaged with the Dice of their
        pixels. Without, for instances the mean Dice of objects and background, else that of the classes but
        the background.

    Raises
    ------
    OutOfMemoryError
        Not even the smallest tile fits the memory.
    """
    tally = _Tally(info)
    waiting = deque(tiles)
    while waiting:
        probabilities = _probabilities(engine, waiting[0])
        if probabilities is None:
            waiting.extendleft(reversed(_smaller(waiting.popleft(), engine)))
            continue
        tally.add(probabilities, waiting.popleft(), with_objects=with_objects)
        yield len(waiting)
    return replace(tally.score(measured_on), resolution=resolution)


def _probabilities(engine: InferenceNetwork, tile: Patch) -> Floats | None:
    """(classes, Y, X) of the tile without its context; None when memory ran out."""
    try:
        found = engine(torch.from_numpy(tile.image)[None])[0].cpu().numpy()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    height, width = tile.labels.shape
    top, left = (found.shape[1] - height) // 2, (found.shape[2] - width) // 2
    inner: Floats = found[:, top : top + height, left : left + width]
    return inner


def _smaller(tile: Patch, engine: InferenceNetwork) -> tuple[Patch, Patch]:
    free(engine.device)
    parts = halves(tile, engine.architecture.depth)
    if parts is None:
        raise OutOfMemoryError(
            f"Not even a tile of {tile.labels.shape[0]} px fits the memory of {engine.device}: "
            "close other programs, or choose a narrower model or another device."
        )
    return parts


class _Tally:
    """Counts over tiles, from which the score follows."""

    def __init__(self, info: ModelInfo) -> None:
        n_classes = info.architecture.n_classes
        self._info = info
        self._overlap, self._total = np.zeros(n_classes), np.zeros(n_classes)
        self._log_likelihood, self._weight = np.zeros(n_classes), np.zeros(n_classes)
        self._matches: list[Matches] = []

    def add(self, probabilities: Floats, tile: Patch, *, with_objects: bool) -> None:
        """Count one tile."""
        self._add_pixels(probabilities[:, tile.annotated], tile)
        if with_objects and self._info.task == "instances" and tile.annotated.mean() > 0.5:
            foreground = np.where(tile.annotated, 1 - probabilities[0], 0)
            self._matches.append(
                match_objects(objects_from_probabilities(foreground, self._info.objects), tile.labels)
            )

    def score(self, measured_on: str) -> Score:
        """What was counted, as one figure."""
        dice = _ratio(2 * self._overlap, self._total)
        occurring = self._total > 0
        log_likelihood = _ratio(self._log_likelihood, self._weight)[self._weight > 0]
        likelihood = math.exp(_mean(log_likelihood, if_none=0.0))
        objects_dice = _mean(dice[1:][occurring[1:]], if_none=1.0)
        if self._matches:
            f1 = reduce(add, self._matches).f1()
            value = ((f1["0.5"] + f1["0.75"]) / 2 + objects_dice) / 2
            return Score(value, "mean of object F1 and Dice", measured_on, likelihood)
        if self._info.task == "instances":
            value = _mean(dice[occurring], if_none=1.0)
            return Score(value, "Dice of objects and background", measured_on, likelihood)
        return Score(objects_dice, "Dice", measured_on, likelihood)

    def _add_pixels(self, probabilities: Floats, tile: Patch) -> None:
        """Probabilities are (classes, pixels that count)."""
        predicted = probabilities.argmax(axis=0)
        true = class_indices(tile.labels[tile.annotated], self._info.task)
        weights = np.ones(true.shape) if tile.weights is None else tile.weights[tile.annotated]
        log_likelihood = weights * np.log(
            np.maximum(probabilities[true, np.arange(true.size)], LEAST_PROBABILITY)
        )
        n_classes = self._total.size
        self._overlap += np.bincount(true[predicted == true], minlength=n_classes)
        self._total += np.bincount(true, minlength=n_classes) + np.bincount(predicted, minlength=n_classes)
        self._log_likelihood += np.bincount(true, log_likelihood, n_classes)
        self._weight += np.bincount(true, weights, n_classes)


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where nothing was counted."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _mean(values: NDArray[np.float64], *, if_none: float) -> float:
    return float(values.mean()) if values.size else if_none
