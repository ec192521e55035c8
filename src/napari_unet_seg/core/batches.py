"""Batches as the network takes them; batch number n is a function of the seed and n alone.

So a resumed run sees what an uninterrupted one would, and threads may prepare batches ahead.
"""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.sampling import PatchSampler
from napari_unet_seg.core.training_data import TrainingData, class_indices


@dataclass(frozen=True, eq=False)
class Batch:
    """Image (N, C, Y', X') float32, true classes (N, Y, X) int64, weights (N, Y, X) float32, 0 = ignored."""

    image: NDArray[np.float32]
    classes: NDArray[np.int64]
    weights: NDArray[np.float32]


class BatchSource:
    """Makes batches by their number, ahead of time in threads when `n_workers` is not 0."""

    def __init__(
        self,
        data: TrainingData,
        batch_size: int,
        augmentation: AugmentSettings,
        seed: int,
        *,
        n_workers: int = 0,
    ) -> None:
        self._sampler = PatchSampler(
            data.samples,
            (data.output_px, data.output_px),
            image_shape=(data.input_px, data.input_px),
            augmentation=augmentation,
        )
        self._task = data.task
        self._batch_size = batch_size
        self._seed = seed
        self._n_ahead = 2 * n_workers
        self._pool = ThreadPoolExecutor(n_workers, "batches") if n_workers else None
        self._ahead: OrderedDict[int, Future[Batch]] = OrderedDict()

    def batch(self, number: int) -> Batch:
        """Return batch `number`."""
        if self._pool is None:
            return self._make(number)
        for ahead in range(number, number + self._n_ahead):
            if ahead not in self._ahead:
                self._ahead[ahead] = self._pool.submit(self._make, ahead)
        return self._ahead.pop(number).result()

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _make(self, number: int) -> Batch:
        patches = self._sampler.draw_batch(self._batch_size, np.random.default_rng([self._seed, number]))
        weights = (
            patches.annotated.astype(np.float32)
            if patches.weights is None
            else patches.weights * patches.annotated
        )
        return Batch(patches.image, class_indices(patches.labels, self._task), weights)
