"""Random-forest pixel classifier: scikit-image's trainable segmentation, with scikit-learn's forest.

Features, and fitting on labelled pixels, as in scikit-image's example "Trainable segmentation using local
features and random forests"; 100 trees, as in ilastik. All pixels of 382 images would not fit the memory of a
small computer, so that `PIXELS_PER_IMAGE` are drawn of each.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import tifffile
from _job import Clock, Found, Image, Job, run
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

TREES, TREES_AT_ONCE = 100, 10
PIXELS_PER_IMAGE = 1000
FEATURES_SHARE = 0.5
"""Of the time: images whose features are not made by then are left out."""


def features(image: Image) -> NDArray[np.float32]:
    """Return (Y, X, features), the image's grey values first mapped to 0..1."""
    grey = image.astype(np.float32)
    grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    made: NDArray[np.float32] = multiscale_basic_features(grey, sigma_min=1, sigma_max=16)
    return made


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Draw pixels of every image, grow the forest."""
    rng = np.random.default_rng(job.seed)
    values, is_object = [], []
    for image, labels in job.train_files():
        drawn = np.unravel_index(
            rng.integers(0, (shown := tifffile.imread(image)).size, PIXELS_PER_IMAGE), shown.shape
        )
        values.append(features(shown)[drawn])
        is_object.append(tifffile.imread(labels)[drawn] > 0)
        if clock.seconds > FEATURES_SHARE * clock.limit_s:
            break
    forest = RandomForestClassifier(
        n_estimators=0, warm_start=True, n_jobs=job.threads, random_state=job.seed, min_samples_leaf=5
    )
    x, y = np.concatenate(values), np.concatenate(is_object)
    while forest.n_estimators < TREES and clock.left_s > 0:
        forest.n_estimators += TREES_AT_ONCE
        forest.fit(x, y)
    (job.folder / "model.pickle").write_bytes(pickle.dumps(forest))
    return {"images_used": len(values), "pixels": len(y), "trees": forest.n_estimators}


def load(job: Job) -> RandomForestClassifier:
    """The forest, which this benchmark has written."""
    forest: RandomForestClassifier = pickle.loads((job.folder / "model.pickle").read_bytes())  # noqa: S301
    return forest


def predict(forest: RandomForestClassifier, image: Image) -> Found:
    """Threshold 0.5, connected components."""
    columns = features(image).reshape(image.size, -1)
    foreground = forest.predict_proba(columns)[:, 1].reshape(image.shape)
    return ndi.label(foreground > 0.5)[0], foreground


if __name__ == "__main__":
    run(train, load, predict, ("scikit-learn", "scikit-image", "numpy", "scipy"))
