"""StarDist 2D from scratch, as in its example notebooks "2D: data, training, prediction".

32 rays, grid (2, 2), patches of 256² in batches of 4, percentile normalisation, flips, quarter turns and grey
values varied; 15 % held out, by which it keeps its best weights and, at the end, chooses its two thresholds.
Learning ends by the clock, with a fifth of the budget left for the thresholds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tifffile
from _job import Clock, Found, Image, Job, run
from csbdeep.utils import normalize
from numpy.typing import NDArray
from stardist import fill_label_holes
from stardist.models import Config2D, StarDist2D

NAME = "nuclei"
THRESHOLDS_SHARE = 0.2
HELD_OUT_SHARE = 0.15
THRESHOLD_IMAGES = 10
"""Held-out images for the thresholds: all of them would take longer than the learning here."""
STEPS_PER_EPOCH = 25
RNG = np.random.default_rng(0)


class StopAtTime(tf.keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Ends learning by the clock, after a batch."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.limit_s, self.steps = clock, seconds, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count, and stop."""
        self.steps += 1
        self.model.stop_training = self.clock.seconds > self.limit_s


def normalized(image: Image) -> NDArray[np.float32]:
    """Grey values (Y, X) from the 1st to the 99.8th percentile to 0..1."""
    result: NDArray[np.float32] = normalize(image, 1, 99.8, axis=(0, 1))
    return result


def augmenter(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """As in the notebook: flips, quarter turns, brightness and noise."""
    turns, flips = RNG.integers(4), RNG.random(2) < 0.5
    for axis in np.flatnonzero(flips):
        x, y = np.flip(x, axis), np.flip(y, axis)
    x, y = np.rot90(x, turns), np.rot90(y, turns)
    x = x * RNG.uniform(0.6, 2) + RNG.uniform(-0.2, 0.2)
    sigma = 0.02 * RNG.uniform(0, 1)
    return x + sigma * RNG.normal(0, 1, x.shape), y


def limit_threads(threads: int) -> None:
    """Before TensorFlow does anything."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def train(job: Job, clock: Clock) -> dict[str, Any]:
    """Learn until the time is nearly over, then choose the thresholds."""
    limit_threads(job.threads)
    tf.random.set_seed(job.seed)
    files = job.train_files()
    x = [normalized(tifffile.imread(image)) for image, _ in files]
    y = [fill_label_holes(tifffile.imread(labels)) for _, labels in files]
    n_held_out = round(HELD_OUT_SHARE * len(files))
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=1,
        train_epochs=100_000,
        train_steps_per_epoch=STEPS_PER_EPOCH,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name=NAME, basedir=str(job.folder))
    model.prepare_for_training()
    stop = StopAtTime(clock, (1 - THRESHOLDS_SHARE) * clock.limit_s)
    model.callbacks.append(stop)
    held_out = (x[:n_held_out][:THRESHOLD_IMAGES], y[:n_held_out][:THRESHOLD_IMAGES])
    history = model.train(
        x[n_held_out:], y[n_held_out:], validation_data=held_out, augmenter=augmenter, seed=job.seed
    )
    thresholds = model.optimize_thresholds(*held_out)
    return {
        "epochs": len(history.history["loss"]),
        "steps": stop.steps,
        "thresholds": {name: round(float(value), 4) for name, value in thresholds.items()},
    }


def load(job: Job) -> StarDist2D:
    """The network with its best weights and its thresholds."""
    limit_threads(job.threads)
    return StarDist2D(None, name=NAME, basedir=str(job.folder))


def predict(model: StarDist2D, image: Image) -> Found:
    """Its own objects."""
    labels, _ = model.predict_instances(normalized(image), verbose=False)
    return labels, None


if __name__ == "__main__":
    run(train, load, predict, ("stardist", "tensorflow-cpu", "csbdeep", "numpy"))
