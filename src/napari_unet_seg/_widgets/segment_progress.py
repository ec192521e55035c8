"""A segmentation's steps and its result in words for the person."""

from __future__ import annotations

from typing import Any

from napari_unet_seg._segment.request import Piece, PlaneLabels
from napari_unet_seg._segment.segmenting import Segmentation
from napari_unet_seg._widgets.job_row import Progress
from napari_unet_seg.core.prediction import PredictionStarted, ZoomTrial


class Reporter:
    """Remembers what a run is about, to say how far it is."""

    def __init__(self) -> None:
        self._device, self._n_planes, self._planes_done = "", 1, 0
        self._tiles_done = self._n_tiles = 0

    def describe(self, step: Any) -> Progress | None:
        """How far a step means that the run is."""
        if isinstance(step, ZoomTrial):
            return Progress(f"trying zoom {step.zoom:.3g}×", 0, 0)
        if isinstance(step, PredictionStarted):
            self._device = "CPU" if step.device == "cpu" else "GPU"
            self._n_planes, self._n_tiles = step.n_planes, step.n_tiles
        elif isinstance(step, Piece):
            self._tiles_done, self._n_tiles = step.tiles_done, step.n_tiles
        elif isinstance(step, PlaneLabels):
            self._planes_done = step.planes_done
        else:
            return None
        return Progress(f"{self._position()} · {self._device}", self._tiles_done, self._n_tiles)

    def _position(self) -> str:
        if self._n_planes > 1:
            return f"plane {min(self._planes_done + 1, self._n_planes)} of {self._n_planes}"
        return f"tile {min(self._tiles_done + 1, self._n_tiles)} of {self._n_tiles}"


def describe_planes(step: Any) -> Progress | None:
    """How far a relabelling is."""
    if not isinstance(step, PlaneLabels):
        return None
    return Progress(
        f"objects of plane {step.planes_done} of {step.n_planes}", step.planes_done, step.n_planes
    )


def result_in_words(segmentation: Segmentation) -> str:
    """What came out, in a line."""
    prediction = segmentation.prediction
    if prediction is None:
        return ""
    n_planes = segmentation.request.n_planes
    extent = f"{n_planes} planes" if n_planes > 1 else "1 plane"
    device = "CPU" if prediction.device == "cpu" else "GPU"
    state = "Done" if prediction.complete else "Stopped; what was done is kept"
    return f"{state}: {extent} in {prediction.seconds:.1f} s on {device}, zoom {prediction.zoom[0]:.3g}×."
