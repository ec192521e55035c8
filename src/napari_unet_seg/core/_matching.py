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
    """Match objects one to one, as many as possible, where their IoU is at least the threshold.

    Memory goes with the largest ids, so they should be small.
    """
    n_predicted, n_true = int(prediction.max(initial=0)), int(truth.max(initial=0))
    predicted_sizes = np.bincount(prediction.ravel(), minlength=n_predicted + 1)
    true_sizes = np.bincount(truth.ravel(), minlength=n_true + 1)
    both = (prediction > 0) & (truth > 0)
    pairs, overlap = counted(prediction[both].astype(np.int64) * (n_true + 1) + truth[both])
    i, j = np.divmod(pairs, n_true + 1)
    iou = overlap / (predicted_sizes[i] + true_sizes[j] - overlap)
    shape = (n_predicted + 1, n_true + 1)
    return Matches(
        n_predicted=int(np.count_nonzero(predicted_sizes[1:])),
        n_true=int(np.count_nonzero(true_sizes[1:])),
        n_matched=tuple(_n_matched(i[iou >= t], j[iou >= t], shape) for t in IOU_THRESHOLDS),
    )


def counted(ids: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The different ids and how often each occurs: `np.unique`, but without sorting where ids are small."""
    if ids.max(initial=0) > 4 * ids.size:
        return np.unique(ids, return_counts=True)
    counts = np.bincount(ids)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _n_matched(i: NDArray[np.intp], j: NDArray[np.intp], shape: tuple[int, int]) -> int:
    """Size of the largest one-to-one matching among the pairs (i, j)."""
    if not i.size:
        return 0
    may_match = sparse.csr_array((np.ones(len(i), bool), (i, j)), shape=shape)
    return int((maximum_bipartite_matching(may_match, perm_type="column") >= 0).sum())
