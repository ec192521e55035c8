"""A region of a plane is segmented as part of the plane."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import new_model
from napari_unet_seg.core.prediction import PredictSettings, TileDone, predict, prediction_steps
from napari_unet_seg.core.steps import run_to_end

MODEL = new_model(Architecture(base_channels=2, depth=2, padding="same"), pixel_size_nm=8.0)
IMAGE = np.random.default_rng(0).integers(0, 255, (2, 9, 11), np.uint8).repeat(10, 1).repeat(10, 2)


@pytest.mark.parametrize("zoom", [1.0, 0.7])
def test_a_region_gets_the_probabilities_that_it_has_in_the_whole_plane(zoom: float) -> None:
    settings = PredictSettings(zoom=zoom, tile_px=32)
    region = (slice(30, 70), slice(20, 41))
    part = run_to_end(prediction_steps(IMAGE, MODEL, settings, region=region))
    whole = predict(IMAGE, MODEL, settings)
    np.testing.assert_array_equal(
        part.probabilities[:, :, 30:70, 20:41], whole.probabilities[:, :, 30:70, 20:41]
    )


def test_only_the_tiles_that_reach_the_region_run_and_labels_are_zero_outside() -> None:
    steps = prediction_steps(
        IMAGE, MODEL, PredictSettings(zoom=1, tile_px=32), region=(slice(0, 10), slice(0, 10))
    )
    tiles = 0
    while True:
        try:
            tiles += isinstance(next(steps), TileDone)
        except StopIteration as end:
            labels = end.value.labels
            break
    assert tiles == 2
    assert not labels[:, 10:].any()
    assert not labels[:, :, 10:].any()


def test_a_region_without_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="holds no pixel"):
        next(prediction_steps(IMAGE, MODEL, region=(slice(95, 100), slice(0, 10))))
