"""How well two ways to part the same pixels into segments agree: Rand and information scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage as ndi
from skimage.measure import label

from napari_unet_seg.core._matching import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SegmentAgreement:
    """F-scores of two partitions, 1 = the same, 0 = nothing in common."""

    rand: float
    information: float


def pieces(labels: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Labels in which every 4-connected piece of an id is a segment of its own; 0 stays 0."""
    return np.asarray(label(labels, background=0, connectivity=1))


def thinned(labels: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
    """Labels grown into the background until they meet: borders of no width.

    Every background pixel joins the segment nearest to it (a watershed of the distance to the segments).
    A picture without any segment stays as it is.
    """
    if not labels.any():
        return labels
    nearest = ndi.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    return np.asarray(labels[tuple(nearest)])


def segment_agreement(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]
) -> SegmentAgreement:
    """Foreground-restricted Rand and information F-scores.

    Only pixels with truth > 0 count; each predicted 0 among them is a segment of one pixel. Rand: pairs of
    different pixels, n·(n − 1), as `skimage.metrics.adapted_rand_error`; F = 2·Σ n_ij(n_ij − 1) /
    (Σ a_i(a_i − 1) + Σ b_j(b_j − 1)). Information: F = 2·I(P; T) / (H(P) + H(T)).
    Without truth both are 1 if nothing was predicted either, else 0.

    Source: Arganda-Carreras et al. 2015 (doi 10.3389/fnana.2015.00142), eqs. 3 and 7 with α = 1/2.
    """
    is_scored = truth > 0
    n_pixels = int(is_scored.sum())
    if n_pixels == 0:
        score = float(not prediction.any())
        return SegmentAgreement(score, score)
    joint, predicted, true, n_single = _segment_sizes(prediction[is_scored], truth[is_scored])
    pairs_kept, pairs = _n_pairs(joint), _n_pairs(predicted) + _n_pairs(true)
    joint_bits = _entropy(joint, n_single, n_pixels)
    bits = _entropy(predicted, n_single, n_pixels) + _entropy(true, 0, n_pixels)
    return SegmentAgreement(
        rand=2 * pairs_kept / pairs if pairs else 1.0,
        information=2 * (bits - joint_bits) / bits if bits else 1.0,
    )


def _segment_sizes(
    prediction: NDArray[np.integer[Any]], truth: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], int]:
    """Sizes of the overlaps, of the predicted and of the true segments; number of predicted 0."""
    is_segment = prediction > 0
    predicted = prediction[is_segment].astype(np.int64)
    joint = predicted * (int(truth.max()) + 1) + truth[is_segment]
    sizes = [counted(ids)[1] for ids in (joint, predicted, truth.astype(np.int64))]
    return sizes[0], sizes[1], sizes[2], int((~is_segment).sum())


def _n_pairs(sizes: NDArray[np.intp]) -> float:
    counts = sizes.astype(np.float64)
    return float((counts * (counts - 1)).sum())


def _entropy(sizes: NDArray[np.intp], n_single: int, n_pixels: int) -> float:
    """Entropy in bits of segments of these sizes plus `n_single` segments of one pixel."""
    share = sizes / n_pixels
    return float(-(share * np.log2(share)).sum() + n_single / n_pixels * np.log2(n_pixels))
