"""The rival: a random forest that classifies pixels by multi-scale features, as ilastik does.

The features are those that ilastik offers, at its scales; smoothing the probabilities before they are cut
into objects is its habit too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.feature import hessian_matrix_eigvals, structure_tensor, structure_tensor_eigenvalues
from sklearn.ensemble import RandomForestClassifier

from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.normalisation import Normalisation, apply, plane_statistics

Floats = NDArray[np.float32]

SIGMAS_PX = (0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
FINEST_SIGMA_PX = 0.3  # smoothing only, as in ilastik
DOG_RATIO = 0.66
_TREES_AT_ONCE = 10
_MOST_PIXELS_PER_TREE = 65_536  # one region of the larger images; more would leave no time for enough trees
_PIXELS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class ForestSettings:
    """How a forest is grown, and how far its probabilities are smoothed."""

    n_trees: int = 100
    smallest_leaf: int = 1
    smoothing_px: float = 1.0


def features(image: NDArray[Any]) -> Floats:
    """Return (features, Y, X) of a plane (Y, X), which is first mapped to about 0..1."""
    plane = image[np.newaxis]
    grey = apply(plane, plane_statistics(plane, Normalisation()))[0]
    maps = [ndi.gaussian_filter(grey, FINEST_SIGMA_PX)]
    for sigma in SIGMAS_PX:
        maps += _features_at(grey, sigma)
    return np.stack(maps)


def _features_at(grey: Floats, sigma: float) -> list[Floats]:
    smooth = ndi.gaussian_filter(grey, sigma)
    hessian = [ndi.gaussian_filter(grey, sigma, order=order) for order in ((2, 0), (1, 1), (0, 2))]
    tensor = structure_tensor(smooth, sigma=sigma / 2)
    return [
        smooth,
        ndi.gaussian_laplace(grey, sigma),
        ndi.gaussian_gradient_magnitude(grey, sigma),
        smooth - ndi.gaussian_filter(grey, sigma * DOG_RATIO),
        *hessian_matrix_eigvals(hessian),
        *structure_tensor_eigenvalues(tensor),
    ]


class Forest:
    """A forest that learned from the annotated pixels.

    Parameters
    ----------
    annotation
        Of a stack (Z, Y, X).
    settings
        How it is grown.
    seed
        Of the choice of pixels and features.
    time_limit_s
        No more trees are begun later.
    n_jobs
        Cores.
    """

    def __init__(
        self, annotation: Annotation, settings: ForestSettings, seed: int, time_limit_s: float, n_jobs: int
    ) -> None:
        started = time.perf_counter()
        self._settings = settings
        values = np.concatenate(
            [
                features(image)[:, annotated].T
                for image, annotated in zip(annotation.image, annotation.annotated_mask, strict=True)
            ]
        )
        is_object = annotation.labels[annotation.annotated_mask] > 0
        self._forest = RandomForestClassifier(
            n_estimators=0,
            min_samples_leaf=settings.smallest_leaf,
            max_samples=min(len(values), _MOST_PIXELS_PER_TREE),
            warm_start=True,
            n_jobs=n_jobs,
            random_state=seed,
        )
        while self.n_trees < settings.n_trees:
            self._forest.n_estimators += _TREES_AT_ONCE
            self._forest.fit(values, is_object)
            if time.perf_counter() - started > time_limit_s:
                break
        self.seconds = time.perf_counter() - started

    @property
    def n_trees(self) -> int:
        """Trees so far."""
        return int(self._forest.n_estimators)

    def foreground(self, image: NDArray[Any]) -> Floats:
        """P(object) of a plane (Y, X), smoothed."""
        found = features(image)
        columns = found.reshape(len(found), -1).T
        parts = [
            self._forest.predict_proba(columns[start : start + _PIXELS_AT_ONCE])[:, 1]
            for start in range(0, len(columns), _PIXELS_AT_ONCE)
        ]
        probabilities = np.concatenate(parts).reshape(image.shape).astype(np.float32)
        return ndi.gaussian_filter(probabilities, self._settings.smoothing_px)
