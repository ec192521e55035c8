"""Images that show nothing have no objects, and of those in the wrong contrast it is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet_seg.core import _blank_planes, _plane_checks, prediction
from napari_unet_seg.core._blank_planes import is_blank
from napari_unet_seg.core.auto_zoom import find_zoom
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.prediction import PredictSettings, predict, prediction_steps
from napari_unet_seg.core.steps import STOP, Note
from napari_unet_seg.core.synthetic import synthetic_nuclei
from napari_unet_seg.core.zoom_trials import ZoomTrial, is_surer

CPU = PredictSettings(device="cpu")
SHAPE = (200, 216)
NOTHING = "nothing but noise, or one grey value"


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def disc(shape: tuple[int, int], radius: float, center: tuple[int, int]) -> NDArray[np.bool_]:
    y, x = np.indices(shape)
    return np.hypot(y - center[0], x - center[1]) <= radius


def illumination(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Brightest in the middle, three quarters of it at the middle of a side."""
    y, x = (np.linspace(-1, 1, length) for length in shape)
    falling: NDArray[np.float64] = 1 - 0.25 * (y[:, None] ** 2 + x[None] ** 2)
    return falling


BLANK = {
    "black": np.zeros(SHAPE, np.uint8),
    "saturated": np.full(SHAPE, 65535, np.uint16),
    "one value that is no sum of powers of two": np.full(SHAPE, 0.1, np.float32),
    "photons": rng().poisson(100, SHAPE).astype(np.uint16),
    "few photons": rng().poisson(1, SHAPE).astype(np.uint8),
    "less than a grey value of noise": rng().normal(10.3, 0.3, SHAPE).round().astype(np.uint8),
    "unevenly lit": rng().poisson(100 * illumination(SHAPE)).astype(np.uint16),
    "slightly blurred": ndimage.gaussian_filter(rng().normal(0, 1, SHAPE), 0.4),
    "hot pixels": np.where(rng().random(SHAPE) < 1e-4, 4000, rng().normal(400, 12, SHAPE)).astype(np.uint16),
    "missing pixels": np.where(disc(SHAPE, 30, (60, 60)), np.nan, rng().normal(0, 1, SHAPE)),
}


@pytest.mark.parametrize("name", BLANK)
def test_a_field_of_noise_or_of_one_value_is_blank(name: str) -> None:
    assert is_blank(BLANK[name][np.newaxis])


SHOWS = {
    "nuclei": synthetic_nuclei(SHAPE).image,
    "nuclei in twice as much noise": synthetic_nuclei(SHAPE).image
    + rng().normal(0, 2 * synthetic_nuclei(SHAPE).image.std(), SHAPE),
    "one dim nucleus": rng().poisson(100 + 12 * disc(SHAPE, 10, (90, 100))).astype(np.uint16),
    "one small bright spot": rng().poisson(100 + 80 * disc(SHAPE, 2, (90, 100))).astype(np.uint16),
    "one object nearly as large as the field": rng().poisson(10 + 90 * disc(SHAPE, 90, (100, 108))),
    "a dark object": rng().poisson(100 - 20 * disc(SHAPE, 15, (90, 100))).astype(np.uint16),
    "one spot on black": np.where(disc(SHAPE, 3, (90, 100)), 200, 0).astype(np.uint8),
    "an edge": np.where(np.arange(216) > 100, 9, 7) * np.ones(SHAPE, np.uint8),
}


@pytest.mark.parametrize("name", SHOWS)
def test_whatever_is_larger_than_a_pixel_is_not_blank(name: str) -> None:
    assert not is_blank(SHOWS[name][np.newaxis])


def test_a_tiny_image_is_never_called_blank() -> None:
    for shape in ((1, 1), (7, 900), (32, 32)):
        assert not is_blank(rng().normal(0, 1, (1, *shape)))


def test_a_plane_is_blank_where_all_of_its_channels_are() -> None:
    noise, nuclei = BLANK["photons"], SHOWS["nuclei"]
    assert is_blank(np.stack([noise, noise]))
    assert not is_blank(np.stack([noise, nuclei]))


class LazyPlane:
    """A duck array that remembers how many pixels were asked for at once, and in all."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.most_read = self.all_read = 0

    def __getitem__(self, key: Any) -> NDArray[Any]:
        part: NDArray[Any] = self.values[key]
        self.most_read = max(self.most_read, part.size)
        self.all_read += part.size
        return part


def test_a_large_plane_is_read_in_bands_and_no_further_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blank_planes, "BAND_PX", 32 * SHAPE[1])
    noise, nuclei = (LazyPlane(of[np.newaxis]) for of in (BLANK["photons"], SHOWS["nuclei"]))
    assert is_blank(noise)
    assert noise.most_read == 32 * SHAPE[1]
    assert not is_blank(nuclei)
    assert nuclei.all_read == 32 * SHAPE[1]


def test_bands_of_different_greys_are_no_blank_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blank_planes, "BAND_PX", 32 * SHAPE[1])
    assert not is_blank(np.where(np.arange(200)[:, None] < 64, 3, 4)[np.newaxis] * np.ones((1, *SHAPE)))


@pytest.fixture(scope="module", params=["nuclei-fluorescence", "em-boundaries"])
def model(request: Any) -> Model:
    return load_model(request.param)


@pytest.mark.parametrize("name", ["photons", "black", "hot pixels"])
@pytest.mark.parametrize("zoom", [1.0, "auto"])
def test_an_empty_field_has_no_objects_and_that_is_said(name: str, zoom: Any, model: Model) -> None:
    result = predict(BLANK[name], model, PredictSettings(zoom=zoom, device="cpu"))
    assert not result.labels.any()
    np.testing.assert_array_equal(result.probabilities[0], 1)
    np.testing.assert_array_equal(result.probabilities[1:], 0)
    assert [note for note in result.notes if NOTHING in note] == [
        "The image shows nothing but noise, or one grey value: that is taken as background, without objects."
    ]


def test_of_a_stack_the_blank_planes_have_no_objects_and_that_is_said_once() -> None:
    nuclei = synthetic_nuclei(SHAPE).image.astype(np.uint16)
    black, noise = np.zeros_like(nuclei), rng().poisson(100, SHAPE).astype(np.uint16)
    wishes = PredictSettings(zoom=1, device="cpu", tile_px=128)
    stack = np.stack([black, nuclei, noise])
    seen = list(prediction_steps(stack, load_model("nuclei-fluorescence"), wishes))
    result = predict(stack, "nuclei-fluorescence", wishes)
    assert [bool(plane.any()) for plane in result.labels] == [False, True, False]
    assert set(result.statistics) == {(1,)}
    assert [step.message for step in seen if isinstance(step, Note)] == [
        "Some planes show nothing but noise, or one grey value: that is taken as background, without objects."
    ]
    np.testing.assert_array_equal(
        result.labels[1], predict(nuclei, "nuclei-fluorescence", wishes).labels, "as if it were alone"
    )


def test_a_blank_plane_is_blank_at_any_tile_size_and_where_it_is_lazy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "LARGEST_WHOLE_PLANE_PX", 1000)
    for tile_px in (32, 200):
        wishes = PredictSettings(zoom=1, device="cpu", tile_px=tile_px)
        assert not predict(BLANK["photons"], "em-boundaries", wishes).labels.any()


def test_the_zoom_is_looked_for_in_a_plane_that_shows_something() -> None:
    nuclei = synthetic_nuclei(SHAPE).image.astype(np.uint16)
    noise = rng().poisson(100, SHAPE).astype(np.uint16)
    alone = find_zoom(nuclei, "nuclei-fluorescence", CPU)
    assert find_zoom(np.stack([nuclei, noise, noise]), "nuclei-fluorescence", CPU) == alone
    assert not find_zoom(noise, "nuclei-fluorescence", CPU).trials


# Exposure

OVEREXPOSED = "overexposed"


@pytest.mark.parametrize(("percentile", "is_said"), [(70, True), (90, True), (99, False)])
def test_of_an_overexposed_image_it_is_said(percentile: float, is_said: bool) -> None:
    nuclei = synthetic_nuclei(SHAPE).image
    clipped = np.minimum(nuclei, np.percentile(nuclei, percentile)).astype(nuclei.dtype)
    notes = predict(clipped, "nuclei-fluorescence", PredictSettings(zoom=1, device="cpu")).notes
    assert any(OVEREXPOSED in note for note in notes) is is_said


def test_a_drawing_of_few_grey_values_is_not_called_overexposed() -> None:
    image = np.where(disc(SHAPE, 60, (100, 100)), 200, 10).astype(np.uint8)
    notes = predict(image, "nuclei-fluorescence", PredictSettings(zoom=1, device="cpu")).notes
    assert not any(OVEREXPOSED in note for note in notes)


# Contrast


def trial(n_objects: int = 9, confidence: float = 0.9, zoom: float = 1.0) -> ZoomTrial:
    return ZoomTrial(zoom, n_objects, 20.0, confidence)


@pytest.mark.parametrize(
    ("inverted", "as_it_is", "expected"),
    [
        ([trial(confidence=0.9)], [trial(confidence=0.8)], True),
        ([trial(confidence=0.9)], [trial(confidence=0.88)], False),
        ([trial(confidence=0.9)], [trial(n_objects=0, confidence=0.0)], True),
        ([trial(n_objects=2, confidence=0.9)], [trial(confidence=0.7)], False),
        ([trial(confidence=0.6)], [trial(confidence=0.5)], False),
        ([trial(confidence=0.7, zoom=2), trial(confidence=0.9)], [trial(confidence=0.8)], True),
        ([], [], False),
        ([trial()], [], True),
    ],
)
def test_a_contrast_is_surer_where_it_is_clearly_so_and_shows_several_objects(
    inverted: list[ZoomTrial], as_it_is: list[ZoomTrial], expected: bool
) -> None:
    info = load_model("nuclei-fluorescence").info
    assert is_surer(inverted, as_it_is, info) is expected


INVERTED = "surer of this image"


@pytest.mark.parametrize("zoom", [1.0, "auto"])
def test_of_an_image_in_the_contrast_of_the_model_nothing_is_said(zoom: Any) -> None:
    wishes = PredictSettings(zoom=zoom, device="cpu")
    result = predict(synthetic_nuclei((256, 256)).image, "nuclei-fluorescence", wishes)
    assert not [note for note in result.notes if INVERTED in note]


def test_a_model_that_cannot_see_inverted_nuclei_says_so() -> None:
    nuclei = synthetic_nuclei((256, 256))
    inverted = nuclei.image.max() - nuclei.image
    result = predict(inverted, "nuclei-fluorescence", PredictSettings(zoom=1, device="cpu"))
    n_true = nuclei.truth.max()
    sees_them = 0.7 * n_true <= result.labels.max() <= 1.3 * n_true and (result.labels > 0).mean() < 0.5
    assert sees_them or [note for note in result.notes if INVERTED in note] == [
        "The model is surer of this image in inverted contrast: try the setting 'invert'."
    ]


@pytest.fixture
def n_asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that the other contrast is tried; the answer is always that it is better."""
    asked: list[int] = []

    def answer(*_: Any) -> Iterator[Any]:
        asked.append(1)
        yield from ()
        return True

    monkeypatch.setattr(_plane_checks, "inversion_steps", answer)
    return asked


def test_the_contrast_is_tried_once_in_a_run_and_not_for_a_part(
    n_asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_plane_checks, "USUAL_CONFIDENCE", 1.0)
    stack = np.stack([SHOWS["nuclei"]] * 2)[:, :96, :96]
    wishes = PredictSettings(zoom=1, device="cpu", invert=True)
    result = predict(stack, "nuclei-fluorescence", wishes)
    assert len(n_asked) == 1
    assert result.notes == ("The model is surer of this image without 'invert': try it.",)
    list(prediction_steps(stack, "nuclei-fluorescence", wishes, region=(slice(0, 40), slice(0, 40))))
    assert len(n_asked) == 1


def test_trying_the_contrast_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plane_checks, "USUAL_CONFIDENCE", 1.1)
    wishes = PredictSettings(zoom=1, device="cpu")
    steps = prediction_steps(SHOWS["nuclei"][:96, :96], "nuclei-fluorescence", wishes)
    while not isinstance(next(steps), ZoomTrial):
        pass
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    assert not end.value.value.complete


def test_the_contrast_is_not_tried_where_the_model_is_sure(n_asked: list[int]) -> None:
    predict(synthetic_nuclei((256, 256)).image, "nuclei-fluorescence", PredictSettings(zoom=1, device="cpu"))
    assert not n_asked


@pytest.mark.parametrize("period_px", [2, 3, 4, 6, 8])
def test_fine_regular_stripes_are_no_noise_though_all_blocks_are_alike(period_px: int) -> None:
    rng = np.random.default_rng(0)
    stripes = (np.arange(256) % period_px < period_px // 2).astype(np.float32)
    noisy = stripes + rng.normal(0, 0.3, (256, 256)).astype(np.float32)
    assert not is_blank(noisy[None])
    assert not is_blank(noisy.T[None])
