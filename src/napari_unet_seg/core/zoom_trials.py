"""What a model finds in an image at several zooms, or in either contrast, and which of them fits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._gaps import connected_objects
from napari_unet_seg.core._object_size import typical_diameter_px
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.objects import objects_from_probabilities, objects_of_class

_STEP = math.sqrt(2)
ZOOMS = tuple(_STEP**step for step in range(-6, 5))
"""Those that are tried, an eighth to fourfold."""
FEWEST_OBJECTS = 3
"""With fewer whole objects in sight, their size is chance; where no zoom shows as many, one has to do."""
LEAST_CONFIDENCE = 0.65
"""A model that is less sure at every zoom has not found what it knows."""
USUAL_CONFIDENCE = 0.86
"""What has less may be in the wrong contrast, so that the other one is tried."""
SURER = 0.03
"""By so much the confidence in the other contrast has to be higher. Of 52 predictions of training images of
nuclei and EM, zoom known or found, that was so in none, and in 43 where the images were inverted."""
_SIZE_COST = 0.1
"""What objects twice or half as large as those that the model knows cost of its confidence."""
_AS_GOOD = 0.04
"""Zoom 1 is kept where it scores at most so much less than the best: resampling costs sharp outlines, which
the confidence does not tell. Not by a model that knows one pixel size: it has met fewer scales, and its
confidence differs less between them."""


@dataclass(frozen=True)
class ZoomTrial:
    """What a model found at one zoom.

    Attributes
    ----------
    zoom
        Model-grid pixels per image pixel.
    n_objects
        That lie wholly in the part that was looked at.
    diameter_px
        Median of the diameters of discs of their areas, on the model's grid, without the smallest that cover
        a tenth of their area; 0 where there is none.
    confidence
        Mean probability of each class where it was decided for, averaged over the classes, all counting the
        same; 0 where only one class was found.
    """

    zoom: float
    n_objects: int
    diameter_px: float
    confidence: float


@dataclass(frozen=True)
class FoundZoom:
    """The outcome of a search.

    Attributes
    ----------
    zoom
        Model-grid pixels per image pixel; 1 where nothing told one zoom from another.
    is_sure
        Whether something did.
    trials
        What was found at each zoom, the smallest first.
    """

    zoom: float
    is_sure: bool
    trials: tuple[ZoomTrial, ...]


def tried(zoom: float, probabilities: NDArray[np.floating[Any]], info: ModelInfo) -> ZoomTrial:
    """What probabilities (classes, y, x) on the model's grid hold."""
    if info.task == "instances":
        areas = _whole_areas(objects_from_probabilities(1 - probabilities[0], info.objects))
    elif info.object_class_id is not None:
        classes = probabilities.argmax(axis=0)
        areas = _whole_areas(objects_of_class(classes, info.object_class_id, info.objects))
    else:
        areas = _whole_areas(connected_objects(probabilities.argmax(axis=0)))
    return ZoomTrial(
        zoom=zoom,
        n_objects=areas.size,
        diameter_px=typical_diameter_px(areas),
        confidence=confidence(probabilities, info),
    )


def confidence(probabilities: NDArray[np.floating[Any]], info: ModelInfo) -> float:
    """As of `ZoomTrial`, of probabilities (classes, y, x)."""
    if info.task == "classes":
        decided = probabilities.argmax(axis=0)
    else:
        foreground = 1 - probabilities[0]
        decided = (foreground > info.objects.threshold).astype(np.intp)
        probabilities = np.stack([probabilities[0], foreground])
    means = [
        float(of_class[decided == i].mean())
        for i, of_class in enumerate(probabilities)
        if (decided == i).any()
    ]
    return sum(means) / len(means) if len(means) > 1 else 0.0


def _whole_areas(labels: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Pixels of the objects that do not touch the rim."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    for rim in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        areas[rim] = 0
    return areas[areas > 0]


def best_zoom(trials: Sequence[ZoomTrial], info: ModelInfo) -> FoundZoom:
    """The zoom at which a model is surest and its objects are about as large as those that it knows.

    Zoom 1 stays where it is nearly as good, unless the model knows a pixel size. Between the zooms that were
    tried it is the top of the parabola through the best and its neighbours; where that is 1, it stays 1.
    """
    fewest = FEWEST_OBJECTS if any(trial.n_objects >= FEWEST_OBJECTS for trial in trials) else 1
    scores = [_score(trial, info, fewest) for trial in trials]
    best = max(range(len(trials)), key=lambda i: _rank(scores[i], trials[i].zoom), default=None)
    if best is None or trials[best].confidence < LEAST_CONFIDENCE or scores[best] == -math.inf:
        return FoundZoom(1.0, is_sure=False, trials=tuple(trials))
    at_one = next((score for trial, score in zip(trials, scores, strict=True) if trial.zoom == 1), -math.inf)
    if info.pixel_size_nm is None and at_one >= scores[best] - _AS_GOOD:
        return FoundZoom(1.0, is_sure=True, trials=tuple(trials))
    is_between = 0 < best < len(trials) - 1 and trials[best].zoom != 1
    steps = _top(scores[best - 1 : best + 2]) if is_between else 0.0
    return FoundZoom(_rounded(trials[best].zoom * _STEP**steps), is_sure=True, trials=tuple(trials))


def is_surer(trials: Sequence[ZoomTrial], than: Sequence[ZoomTrial], info: ModelInfo) -> bool:
    """Whether a model finds several objects in one contrast, and is clearly surer of them than in another."""
    best, other = (
        max(these, key=lambda trial: _score(trial, info, 1), default=None) for these in (trials, than)
    )
    if best is None or best.n_objects < FEWEST_OBJECTS or best.confidence < LEAST_CONFIDENCE:
        return False
    return other is None or best.confidence > other.confidence + SURER


def _score(trial: ZoomTrial, info: ModelInfo, fewest: int) -> float:
    if trial.n_objects < fewest or not trial.confidence:
        return -math.inf
    has_objects = info.task == "instances" or info.object_class
    if info.object_diameter_px is None or not has_objects:
        return trial.confidence
    octaves = math.log2(trial.diameter_px / info.object_diameter_px)
    return trial.confidence - _SIZE_COST * octaves**2


def _rank(score: float, zoom: float) -> tuple[float, float]:
    """Of scores that differ by rounding only, the zoom nearest to 1 leads."""
    return round(score, 3), -abs(math.log2(zoom))


def _top(scores: Sequence[float]) -> float:
    """Where a parabola through three scores is highest, in steps from the middle one, half a step at most."""
    before, middle, after = scores
    curvature = before - 2 * middle + after
    if not math.isfinite(curvature) or curvature >= 0:
        return 0.0
    return max(-0.5, min(0.5, (before - after) / (2 * curvature)))


def _rounded(zoom: float) -> float:
    """To two digits, which is finer than it can be told; so what is shown is what is used."""
    return float(f"{zoom:.2g}")
