"""How good a segmentation is: pixel, object, Rand, information and warping scores against the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_unet_seg.core._label_checks import by, check_labels
from napari_unet_seg.core._matching import IOU_THRESHOLDS, Matches, match_objects
from napari_unet_seg.core._rand import pieces, segment_agreement, thinned
from napari_unet_seg.core._warping import warping_error
from napari_unet_seg.core.errors import InputError

Task = Literal["instances", "classes"]
Labels = NDArray[np.integer[Any]]

# A probability map is cut above each of these; the first keeps all that is not certain background.
PROBABILITY_THRESHOLDS = tuple(i / 10 for i in range(10))
_MOST_CLASSES = 256
# These two mean little alone (all or nothing would win), so they are read where F1 is best.
_READ_AT_BEST_F1 = ("precision", "recall")


@dataclass(frozen=True)
class Scores:
    """Scores of one plane or many; what a class task does not have is None.

    pixel_accuracy, precision, recall, f1, iou
        Of foreground pixels (id > 0). In a class task the accuracy is that of the class map, the others are
        means over the classes but 0.
    pixel_error
        1 − F1 of a plane's pixels.
    rand_error
        1 − F-score of the Rand index on the truth's foreground, borders not thinned; a predicted 0 there is a
        segment of one pixel.
    v_rand, v_info
        Rand and information F-scores (1 is best) on the truth's foreground, after the predicted regions have
        grown until their borders have no width.
    warping_error
        Share of the pixels that disagree after topology-preserving warping, always plane by plane.
    f1_at, ap
        Of objects matched one to one at IoU ≥ "0.5" to "0.9": F1, and TP / (TP + FP + FN).
    """

    pixel_accuracy: float
    precision: float
    recall: float
    f1: float
    iou: float
    pixel_error: float
    rand_error: float | None
    v_rand: float | None
    v_info: float | None
    warping_error: float | None
    f1_at: dict[str, float] | None
    ap: dict[str, float] | None


@dataclass(frozen=True)
class PlaneScores(Scores):
    """Scores of one plane: `plane` counts from 0 within its image, None for a 2D image or a whole volume."""

    image: int
    plane: int | None


@dataclass(frozen=True)
class ClassScores:
    """Pixel scores of one class of a class task; f1 is the Dice coefficient."""

    class_id: int
    precision: float
    recall: float
    f1: float
    iou: float


@dataclass(frozen=True)
class Evaluation(Scores):
    """Scores over all planes and images: F1 pooled, everything else the mean over planes.

    `thresholds` tells for a probability map where each score was best; it is empty for labels.
    """

    per_class: tuple[ClassScores, ...]
    per_plane: tuple[PlaneScores, ...]
    thresholds: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers."""
        as_dict = asdict(self)
        return {**as_dict, "per_class": list(as_dict["per_class"]), "per_plane": list(as_dict["per_plane"])}


def evaluate(
    prediction: NDArray[Any], truth: Labels, *, task: Task = "instances", volume: bool = False
) -> Evaluation:
    """Score a prediction against the truth, plane by plane.

    Parameters
    ----------
    prediction
        Integer labels of the shape of `truth`, or a boolean mask, which is one object; or floats: a
        probability map with the classes first (C, ..., Y, X), whose foreground 1 − P(class 0) is cut at 10
        thresholds into 4-connected segments; each score keeps its best (the ISBI 2012 protocol). In a class
        task the likeliest class counts.
    truth
        Integer labels (Y, X) or (..., Y, X): 0 background, ids of objects, or class ids; or a boolean mask.
    task
        What the ids mean.
    volume
        Score the objects of a stack (Z, Y, X) in 3D instead of those of its planes. The warping error stays
        a mean over planes.

    Notes
    -----
    For the Rand and information scores prediction and truth are first split into the 4-connected pieces of
    each id and plane (not with `volume`). Nothing against nothing is 1 (an error of 0), something against
    nothing is 0.

    Raises
    ------
    InputError
        When the shapes do not fit together, an id is negative, or labels are neither integers nor a mask.
    """
    return evaluate_many([(prediction, truth)], task=task, volume=volume)


def evaluate_many(
    pairs: Sequence[tuple[NDArray[Any], Labels]], *, task: Task = "instances", volume: bool = False
) -> Evaluation:
    """Score several (prediction, truth) together: F1 pooled over planes and images, the rest plane means.

    Every pair is as in `evaluate`; probability maps and labels cannot be mixed.

    Raises
    ------
    InputError
        When there is no pair, or a pair cannot be compared; of several the message names the number.
    """
    checked = [_checked_pair(*pair, volume=volume, name=_name(i, len(pairs))) for i, pair in enumerate(pairs)]
    if not checked:
        raise InputError("There is nothing to evaluate: give at least one prediction with its truth.")
    are_maps = {_is_map(prediction) for prediction, _ in checked}
    if len(are_maps) > 1:
        raise InputError("Some predictions are probability maps and some are labels: evaluate them apart.")
    if task == "classes":
        return _class_evaluation(checked, volume=volume)
    if are_maps == {True}:
        return _best_of_thresholds(checked, volume=volume)
    return _evaluation(_object_counts(checked, volume=volume))


@dataclass(frozen=True)
class PixelCounts:
    """True positive, false positive and false negative pixels of one class."""

    tp: int
    fp: int
    fn: int

    @classmethod
    def of(cls, prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> PixelCounts:
        """Count the pixels of two masks."""
        tp = int(np.count_nonzero(prediction & truth))
        return cls(tp, int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(truth)) - tp)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return self._share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return self._share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2·TP / (2·TP + FP + FN), the Dice coefficient."""
        return self._share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN)."""
        return self._share(self.tp, self.tp + self.fp + self.fn)

    def _share(self, part: int, whole: int) -> float:
        return part / whole if whole else float(self.fp == self.fn == 0)


@dataclass(frozen=True)
class _Segments:
    """What only objects have."""

    matches: Matches
    rand_error: float
    v_rand: float
    v_info: float
    warping_error: float


@dataclass(frozen=True)
class _Counts:
    """What is counted on one plane, or on one volume: some of it is pooled, the rest averaged."""

    image: int
    plane: int | None
    pixel_accuracy: float
    classes: tuple[PixelCounts, ...]
    segments: _Segments | None


def _name(i: int, n: int) -> str:
    return f" {i + 1} of {n}" if n > 1 else ""


def _is_map(prediction: NDArray[Any]) -> bool:
    return bool(np.issubdtype(prediction.dtype, np.floating))


def _checked_pair(
    prediction: NDArray[Any], truth: NDArray[Any], *, volume: bool, name: str
) -> tuple[NDArray[Any], Labels]:
    """The pair as arrays that fit together, (Y, X) or (planes, Y, X), a map with its classes before that."""
    prediction, truth = _mask_as_labels(prediction), _mask_as_labels(truth)
    check_labels(truth)
    is_map = _is_map(prediction)
    if is_map:
        _check_map(prediction)
    else:
        check_labels(prediction)
    if prediction.shape[is_map:] != truth.shape or prediction.ndim - is_map != truth.ndim:
        wanted = f"C×{by(truth.shape)}" if is_map else by(truth.shape)
        raise InputError(
            f"Prediction{name} is {by(prediction.shape)} but its truth is {by(truth.shape)}: "
            f"give a prediction of {wanted}."
        )
    if truth.ndim < 2 or (volume and truth.ndim != 3):
        needed = "a volume (Z, Y, X)" if volume else "an image (Y, X) or a stack of them"
        raise InputError(f"Truth{name} is {by(truth.shape)}: give {needed}.")
    planes = (-1, *truth.shape[-2:]) if truth.ndim > 2 else truth.shape
    return prediction.reshape(*prediction.shape[:is_map], *planes), truth.reshape(planes)


def _mask_as_labels(labels: NDArray[Any]) -> NDArray[Any]:
    """True is the object, or class, 1."""
    labels = np.asarray(labels)
    return labels.view(np.uint8) if labels.dtype == np.bool_ else labels


def _check_map(prediction: NDArray[Any]) -> None:
    if np.isnan(prediction).any() or prediction.min(initial=0) < 0 or prediction.max(initial=0) > 1:
        raise InputError(
            f"The prediction is {prediction.dtype} but not a probability map (0 to 1 everywhere): "
            "give integer labels, or probabilities as `predict` writes them."
        )


def _object_counts(pairs: Sequence[tuple[Labels, Labels]], *, volume: bool) -> list[_Counts]:
    counts = []
    for image, plane, prediction, truth in _parts(pairs, volume=volume):
        prediction, truth = _small_ids(prediction), _small_ids(truth)
        foreground = PixelCounts.of(prediction > 0, truth > 0)
        accuracy = 1 - (foreground.fp + foreground.fn) / truth.size
        counts.append(_Counts(image, plane, accuracy, (foreground,), _segments(prediction, truth)))
    return counts


def _small_ids(labels: Labels) -> Labels:
    """The same objects under ids that are no more than there are pixels."""
    if labels.max() <= labels.size:
        return labels
    ids, places = np.unique(labels, return_inverse=True)
    return np.asarray(places.reshape(labels.shape) + int(ids[0] != 0))


def _parts(
    pairs: Sequence[tuple[NDArray[Any], Labels]], *, volume: bool
) -> Iterator[tuple[int, int | None, NDArray[Any], Labels]]:
    """Image number, plane number, prediction and truth of everything that is scored by itself."""
    for image, (prediction, truth) in enumerate(pairs):
        if volume or truth.ndim == 2:
            yield image, None, prediction, truth
        else:
            for plane in range(len(truth)):
                yield image, plane, prediction[plane], truth[plane]


def _segments(prediction: Labels, truth: Labels) -> _Segments:
    if truth.ndim == 2:
        predicted, true = pieces(prediction), pieces(truth)
        warping = warping_error(prediction, truth)
    else:
        predicted, true = prediction, truth
        warping = float(np.mean([warping_error(p, t) for p, t in zip(prediction, truth, strict=True)]))
    after_thinning = segment_agreement(thinned(predicted), true)
    return _Segments(
        matches=match_objects(prediction, truth),
        rand_error=1 - segment_agreement(predicted, true).rand,
        v_rand=after_thinning.rand,
        v_info=after_thinning.information,
        warping_error=warping,
    )


def _class_evaluation(pairs: Sequence[tuple[NDArray[Any], Labels]], *, volume: bool) -> Evaluation:
    maps = [(p.argmax(axis=0) if _is_map(p) else p, truth) for p, truth in pairs]
    n_classes = 1 + max(int(max(prediction.max(), truth.max())) for prediction, truth in maps)
    if n_classes > _MOST_CLASSES:
        raise InputError(
            f"Class {n_classes - 1} is no likely class id: evaluate objects with task 'instances'."
        )
    counts = []
    for image, plane, prediction, truth in _parts(maps, volume=volume):
        classes = tuple(PixelCounts.of(prediction == k, truth == k) for k in range(n_classes))
        counts.append(_Counts(image, plane, float((prediction == truth).mean()), classes, None))
    return _evaluation(counts)


def _best_of_thresholds(pairs: Sequence[tuple[NDArray[Any], Labels]], *, volume: bool) -> Evaluation:
    """Each score at the threshold where it is best over all planes and images together."""
    counts = []
    for threshold in PROBABILITY_THRESHOLDS:
        cut = [(_components(1 - p[0] > threshold, volume=volume), truth) for p, truth in pairs]
        counts.append(_object_counts(cut, volume=volume))
    pooled = [_flat_scores(planes) for planes in counts]
    best = {name: _best([scores[name] for scores in pooled], name) for name in pooled[0]}
    best |= dict.fromkeys(_READ_AT_BEST_F1, best["f1"])
    per_plane = [[_flat_scores([plane]) for plane in planes] for planes in counts]
    return Evaluation(
        **_nested({name: pooled[i][name] for name, i in best.items()}),
        per_class=(),
        per_plane=tuple(
            PlaneScores(
                **_nested({name: per_plane[i][n][name] for name, i in best.items()}),
                image=counts[0][n].image,
                plane=counts[0][n].plane,
            )
            for n in range(len(counts[0]))
        ),
        thresholds={name: PROBABILITY_THRESHOLDS[i] for name, i in best.items()},
    )


def _components(mask: NDArray[np.bool_], *, volume: bool) -> Labels:
    """Connected components (through sides) of a plane, of each plane of a stack, or of a volume."""
    structure = ndi.generate_binary_structure(mask.ndim, 1)
    if mask.ndim == 3 and not volume:
        structure[[0, 2]] = False
    labels = np.zeros(mask.shape, np.int32)
    ndi.label(mask, structure=structure, output=labels)
    return labels


def _best(values: list[float], name: str) -> int:
    return int(np.argmin(values) if name.endswith("_error") else np.argmax(values))


def _evaluation(counts: Sequence[_Counts]) -> Evaluation:
    pooled = _pooled_classes(counts)
    means = _class_means(counts)
    per_class = tuple(
        ClassScores(k, **(means[k] | {"f1": pooled[k].f1})) for k in range(len(pooled)) if len(pooled) > 1
    )
    return Evaluation(
        **_nested(_flat_scores(counts)),
        per_class=per_class,
        per_plane=tuple(
            PlaneScores(**_nested(_flat_scores([c])), image=c.image, plane=c.plane) for c in counts
        ),
        thresholds={},
    )


def _pooled_classes(counts: Sequence[_Counts]) -> tuple[PixelCounts, ...]:
    return tuple(reduce(add, of_class) for of_class in zip(*(c.classes for c in counts), strict=True))


def _class_means(counts: Sequence[_Counts]) -> list[dict[str, float]]:
    """Mean over planes of each class's scores."""
    names = ("precision", "recall", "iou", "f1")
    return [
        {name: float(np.mean([getattr(c, name) for c in of_class])) for name in names}
        for of_class in zip(*(c.classes for c in counts), strict=True)
    ]


def _flat_scores(counts: Sequence[_Counts]) -> dict[str, float]:
    """Every score by name, those at an IoU threshold as "ap 0.5": F1 pooled, the rest means."""
    # Class 0 of a class task is background; where there is only one class, it is the foreground.
    pooled, means = _pooled_classes(counts), _class_means(counts)
    scored = range(1, len(pooled)) if len(pooled) > 1 else range(1)
    scores = {"pixel_accuracy": float(np.mean([c.pixel_accuracy for c in counts]))}
    for name in ("precision", "recall", "iou"):
        scores[name] = float(np.mean([means[k][name] for k in scored]))
    scores["f1"] = float(np.mean([pooled[k].f1 for k in scored]))
    scores["pixel_error"] = 1 - float(np.mean([means[k]["f1"] for k in scored]))
    segments = [c.segments for c in counts if c.segments is not None]
    return scores | (_flat_segment_scores(segments) if segments else {})


def _flat_segment_scores(segments: Sequence[_Segments]) -> dict[str, float]:
    scores = {
        name: float(np.mean([getattr(s, name) for s in segments]))
        for name in ("rand_error", "v_rand", "v_info", "warping_error")
    }
    pooled = reduce(add, (s.matches for s in segments))
    for iou, f1 in pooled.f1().items():
        scores[f"f1_at {iou}"] = f1
    for iou in map(str, IOU_THRESHOLDS):
        scores[f"ap {iou}"] = float(np.mean([s.matches.average_precision()[iou] for s in segments]))
    return scores


def _nested(flat: dict[str, float]) -> dict[str, Any]:
    """Fields of `Scores` from names like "ap 0.5"."""
    fields: dict[str, Any] = dict.fromkeys(Scores.__dataclass_fields__)
    for name, value in flat.items():
        field, _, iou = name.partition(" ")
        if iou:
            fields[field] = {**(fields[field] or {}), iou: value}
        else:
            fields[field] = value
    return fields
