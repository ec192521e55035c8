"""Which predicted objects are which true ones, at several overlaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

if TYPE_CHECKING:
    from numpy.typing import NDArray

IOU_THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


@dataclass(frozen=True)
class Matches:
    """How many objects there are on both sides, and how many were matched at each of `IOU_THRESHOLDS`."""

    n_predicted: int
    n_true: int
    n_matched: tuple[int, ...]

    def __add__(self, other: Matches) -> Matches:
        """Counts of both pictures together."""
        return Matches(
            self.n_predicted + other.n_predicted,
            self.n_true + other.n_true,
            tuple(a + b for a, b in zip(self.n_matched, other.n_matched, strict=True)),
        )

    def f1(self) -> dict[str, float]:
        """2·TP / (2·TP + FP + FN) at each overlap; nothing against nothing is 1."""
        n_objects = self.n_predicted + self.n_true
        return self._by_threshold([2 * tp / n_objects if n_objects else 1.0 for tp in self.n_matched])

    def average_precision(self) -> dict[str, float]:
        """TP / (TP + FP + FN) per overlap, as in the Data Science Bowl 2018; 1 where both sides are empty."""
        n_objects = self.n_predicted + self.n_true
        return self._by_threshold([tp / (n_objects - tp) if n_objects else 1.0 for tp in self.n_matched])

    @staticmethod
    def _by_threshold(values: list[float]) -> dict[str, float]:
        return {str(iou): value for iou, value in zip(IOU_THRESHOLDS, values, strict=True)}


def match_objects(prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]) -> Matches:
    """Match objects one to one, as many as possible, where their IoU is at least the threshold."""
    predicted_ids, predicted, predicted_sizes = _objects(prediction)
    true_ids, true, true_sizes = _objects(truth)
    both = (predicted >= 0) & (true >= 0)
    pairs, overlap = np.unique(predicted[both] * len(true_ids) + true[both], return_counts=True)
    i, j = np.divmod(pairs, max(len(true_ids), 1))
    iou = overlap / (predicted_sizes[i] + true_sizes[j] - overlap)
    shape = (len(predicted_ids), len(true_ids))
    n_matched = (_n_matched(i[iou >= t], j[iou >= t], shape) for t in IOU_THRESHOLDS)
    return Matches(len(predicted_ids), len(true_ids), tuple(n_matched))


def _objects(
    labels: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.integer[Any]], NDArray[np.intp], NDArray[np.intp]]:
    """Ids of the objects, the place of each pixel's id among them (background: −1), and their sizes."""
    ids, places, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    n_background = int((ids == 0).sum())
    return ids[n_background:], places.ravel() - n_background, sizes[n_background:]


def _n_matched(i: NDArray[np.intp], j: NDArray[np.intp], shape: tuple[int, int]) -> int:
    """Size of the largest one-to-one matching among the pairs (i, j)."""
    if not i.size:
        return 0
    may_match = sparse.csr_array((np.ones(len(i), bool), (i, j)), shape=shape)
    return int((maximum_bipartite_matching(may_match, perm_type="column") >= 0).sum())
