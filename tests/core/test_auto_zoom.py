"""The zoom that is found where nothing tells it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.transform import rescale

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.auto_zoom import find_zoom, known_zoom_steps, search_steps
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.prediction import (
    PlaneDone,
    PredictionStarted,
    PredictSettings,
    ZoomTrial,
    predict,
    prediction_steps,
)
from napari_unet_seg.core.steps import STOP, run_to_end
from napari_unet_seg.core.synthetic import synthetic_nuclei
from napari_unet_seg.core.uncertainty import Searched, where_next_steps
from napari_unet_seg.core.zoom_trials import ZOOMS, best_zoom, tried

CPU = PredictSettings(device="cpu")


@pytest.fixture(scope="module")
def nuclei() -> Model:
    return load_model("nuclei-fluorescence")


@pytest.fixture(scope="module")
def image() -> NDArray[np.float32]:
    return synthetic_nuclei((256, 256)).image.astype(np.float32)


def at_size(image: NDArray[Any], size: float) -> NDArray[np.float32]:
    return np.asarray(rescale(image, size, order=1, anti_aliasing=size < 1), np.float32)


# Which zoom


def trial(zoom: float, n_objects: int = 9, diameter_px: float = 20.0, confidence: float = 0.9) -> ZoomTrial:
    return ZoomTrial(zoom, n_objects, diameter_px, confidence)


@pytest.fixture
def info(nuclei: Model) -> Any:
    return replace(nuclei.info, object_diameter_px=20.0)


def test_the_surest_zoom_is_chosen_where_sizes_say_the_same(info: Any) -> None:
    found = best_zoom([trial(0.5, confidence=0.8), trial(1), trial(2, confidence=0.85)], info)
    assert found.is_sure
    assert 0.8 < found.zoom < 1.3


def test_the_zoom_lies_between_those_that_were_tried_where_two_are_nearly_as_good(info: Any) -> None:
    trials = [trial(ZOOMS[7], confidence=0.7), trial(ZOOMS[8]), trial(ZOOMS[9], confidence=0.9)]
    found = best_zoom(trials, info)
    assert found.zoom == pytest.approx(2**1.25, rel=0.05)


def test_an_image_is_not_resampled_for_less_than_half_a_step(info: Any) -> None:
    trials = [trial(ZOOMS[5], confidence=0.7), trial(ZOOMS[6]), trial(ZOOMS[7], confidence=0.89)]
    assert best_zoom(trials, info).zoom == 1


def test_an_image_stays_as_it_is_where_that_is_nearly_as_good(info: Any) -> None:
    trials = [trial(0.5, confidence=0.93), trial(1, confidence=0.9)]
    assert best_zoom(trials, info).zoom == 1
    assert best_zoom([trials[0], trial(1, confidence=0.85)], info).zoom == 0.5
    knows_one_scale = replace(info, pixel_size_nm=10.0)
    assert best_zoom(trials, knows_one_scale).zoom == 0.5, "there a little confidence says more"


def test_objects_of_the_size_that_the_model_knows_beat_a_little_confidence(info: Any) -> None:
    found = best_zoom([trial(0.25, diameter_px=5, confidence=0.95), trial(1, confidence=0.9)], info)
    assert found.zoom == 1


def test_a_model_without_a_size_goes_by_confidence(info: Any) -> None:
    trials = [trial(0.25, diameter_px=5, confidence=0.95), trial(1, confidence=0.9)]
    assert best_zoom(trials, replace(info, object_diameter_px=None)).zoom == 0.25


def test_of_zooms_that_are_equally_good_the_one_nearest_to_one_is_chosen(info: Any) -> None:
    assert best_zoom([trial(zoom) for zoom in ZOOMS], info).zoom == 1
    assert best_zoom([trial(zoom) for zoom in ZOOMS[:4]], info).zoom == pytest.approx(ZOOMS[3], rel=0.05)


def test_few_objects_count_only_where_there_are_no_more_at_any_zoom(info: Any) -> None:
    one, many = trial(2, n_objects=1, confidence=0.95), trial(1, n_objects=5)
    assert best_zoom([many, one], info).zoom == 1
    assert best_zoom([replace(many, n_objects=0), one], info).zoom == 2


@pytest.mark.parametrize("trials", [[], [trial(1, n_objects=0, diameter_px=0)], [trial(2, confidence=0.6)]])
def test_where_nothing_tells_it_the_zoom_is_one(trials: list[ZoomTrial], info: Any) -> None:
    found = best_zoom(trials, info)
    assert (found.zoom, found.is_sure) == (1, False)


def test_a_trial_measures_whole_objects_and_both_classes_alike(info: Any) -> None:
    foreground = np.full((40, 40), 0.1)
    foreground[4:12, 4:12] = foreground[20:30, 20:30] = 0.8
    foreground[0:6, 30:40] = 0.8  # touches the rim
    found = tried(1.0, np.stack([1 - foreground, foreground]), info)
    assert found.n_objects == 2
    assert found.diameter_px == pytest.approx(np.mean([np.sqrt(4 * area / np.pi) for area in (64, 100)]))
    assert found.confidence == pytest.approx((0.8 + 0.9) / 2)


def test_specks_do_not_make_objects_small(info: Any) -> None:
    foreground = np.full((60, 60), 0.1)
    for top in (5, 25, 45):
        foreground[top : top + 10, 5:15] = 0.9
    foreground[3:57:6, 20:56:12] = 0.9
    settings = replace(info.objects, min_size_px=1)
    found = tried(1.0, np.stack([1 - foreground, foreground]), replace(info, objects=settings))
    assert found.n_objects == 3 + 9 * 3
    assert found.diameter_px == pytest.approx(np.sqrt(4 * 100 / np.pi))


def test_a_trial_of_an_empty_field_has_no_confidence(info: Any) -> None:
    found = tried(1.0, np.stack([np.ones((40, 40)), np.zeros((40, 40))]), info)
    assert (found.n_objects, found.diameter_px, found.confidence) == (0, 0, 0)


def test_classes_are_judged_by_the_one_that_was_decided_for(info: Any) -> None:
    probabilities = np.full((3, 30, 30), 0.05)
    probabilities[0] = 0.9
    probabilities[:, 5:10, 5:10] = np.array([0.1, 0.7, 0.2])[:, None, None]
    probabilities[:, 15:25, 15:25] = np.array([0.1, 0.3, 0.6])[:, None, None]
    of_classes = replace(
        info,
        task="classes",
        class_names=("a", "b", "c"),
        architecture=replace(info.architecture, out_channels=3),
    )
    found = tried(1.0, probabilities, of_classes)
    assert found.n_objects == 2
    assert found.confidence == pytest.approx((0.9 + 0.7 + 0.6) / 3)
    with_objects = replace(of_classes, object_class="c")
    only_c = tried(1.0, probabilities, with_objects)
    assert (only_c.n_objects, only_c.confidence) == (1, found.confidence)
    assert only_c.diameter_px == pytest.approx(np.sqrt(4 * 100 / np.pi))
    sizes = [trial(0.25, diameter_px=80, confidence=0.95), trial(1, confidence=0.9)]
    assert best_zoom(sizes, of_classes).zoom == 0.25, "by confidence alone"
    assert best_zoom(sizes, with_objects).zoom == 1


# The search


@pytest.mark.parametrize("size", [0.5, 2, 3])
def test_the_zoom_follows_the_size_of_the_image(
    nuclei: Model, image: NDArray[np.float32], size: float
) -> None:
    known = find_zoom(image, nuclei, CPU)
    found = find_zoom(at_size(image, size), nuclei, CPU)
    assert known.is_sure
    assert found.is_sure
    assert found.zoom * size == pytest.approx(known.zoom, rel=0.35)


def test_tile_size_and_threads_do_not_matter(nuclei: Model, image: NDArray[np.float32]) -> None:
    import torch

    known = find_zoom(image, nuclei, CPU).zoom
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert find_zoom(image, nuclei, replace(CPU, tile_px=64)).zoom == known
    finally:
        torch.set_num_threads(n_threads)


def test_memory_that_runs_out_does_not_matter(
    nuclei: Model, image: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet_seg.core._engine import InferenceNetwork

    known = find_zoom(image, nuclei, CPU)
    original = InferenceNetwork.__call__

    def scarce(self: InferenceNetwork, images: Any) -> Any:
        if images.shape[-1] > 300:
            raise MemoryError
        return original(self, images)

    monkeypatch.setattr(InferenceNetwork, "__call__", scarce)
    found = find_zoom(image, nuclei, CPU)
    assert found.zoom == known.zoom
    assert [one.n_objects for one in found.trials] == [one.n_objects for one in known.trials]


def test_a_stack_is_looked_at_in_its_middle_or_where_it_has_pixels(
    nuclei: Model, image: NDArray[np.float32]
) -> None:
    empty = np.full_like(image, np.nan)
    known = find_zoom(image, nuclei, CPU).zoom
    assert find_zoom(np.stack([empty, image, empty]), nuclei, CPU).zoom == known
    assert find_zoom(np.stack([image, empty, empty]), nuclei, CPU).zoom == known


def test_an_image_of_nothing_has_zoom_one(nuclei: Model) -> None:
    for nothing in (np.zeros((200, 200), np.uint8), np.full((60, 60), np.nan, np.float32)):
        found = find_zoom(nothing, nuclei, CPU)
        assert (found.zoom, found.is_sure) == (1, False)


def test_a_search_can_be_given_up(nuclei: Model, image: NDArray[np.float32]) -> None:
    steps = search_steps(image, nuclei, CPU)
    assert isinstance(next(steps), ZoomTrial)
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    assert end.value.value is None


# In a prediction


def test_a_prediction_finds_the_zoom_first_and_says_so(nuclei: Model, image: NDArray[np.float32]) -> None:
    double = at_size(image, 2)
    steps = list(prediction_steps(double, nuclei, CPU))
    n_trials = sum(isinstance(step, ZoomTrial) for step in steps)
    assert isinstance(steps[n_trials], PredictionStarted)
    assert isinstance(steps[-1], PlaneDone)
    result = predict(double, nuclei, CPU)
    assert result.found_zoom is not None
    assert len(result.found_zoom.trials) == n_trials
    assert result.zoom == (result.found_zoom.zoom,) * 2
    assert any("found automatically" in note for note in result.notes)
    as_found = predict(double, nuclei, replace(CPU, zoom=result.zoom[0]))
    np.testing.assert_array_equal(as_found.labels, result.labels)
    assert as_found.found_zoom is None


def test_what_is_known_is_not_searched_for(nuclei: Model, image: NDArray[np.float32]) -> None:
    known = replace(CPU, pixel_size_nm=10)
    em = load_model("em-boundaries")
    assert isinstance(next(prediction_steps(image, em, known)), PredictionStarted)
    assert isinstance(next(prediction_steps(image, nuclei, replace(CPU, zoom=1))), PredictionStarted)
    assert isinstance(next(prediction_steps(image, em, replace(known, zoom="auto"))), ZoomTrial)
    assert isinstance(next(prediction_steps(image, nuclei, known)), ZoomTrial), "the model knows no size"


def test_a_model_keeps_to_the_zoom_that_it_was_adapted_at(image: NDArray[np.float32]) -> None:
    tiny = Architecture(base_channels=4, depth=2, batch_norm=True, padding="same", dropout=0.0)
    scratch = new_model(tiny).copy(object_diameter_px=20.0)
    first = scratch.copy(history=({"from": "new", "zoom": 1.0},))
    assert isinstance(next(prediction_steps(image, first, CPU)), ZoomTrial)
    for history in (({"zoom": 1.0}, {"zoom": 0.5}), ({"zoom": 0.5},), ({}, {"zoom": 1.0})):
        adapted = scratch.copy(history=history)
        started = next(prediction_steps(image, adapted, CPU))
        assert isinstance(started, PredictionStarted)
        assert started.zoom[0] == history[-1]["zoom"]


def test_a_prediction_can_be_stopped_while_it_searches(nuclei: Model, image: NDArray[np.float32]) -> None:
    steps = prediction_steps(image, nuclei, CPU)
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    assert not end.value.value.complete
    assert not end.value.value.labels.any()


def test_a_region_is_searched_where_it_is(nuclei: Model, image: NDArray[np.float32]) -> None:
    wide = np.zeros((256, 1200), np.float32)
    wide[:, 900:1156] = image
    region = (slice(0, 256), slice(900, 1156))
    found = run_to_end(search_steps(wide, nuclei, CPU, region=region))
    assert found is not None
    assert found.is_sure


def test_settings_that_know_the_zoom_stay_as_they_are(nuclei: Model, image: NDArray[np.float32]) -> None:
    known = replace(CPU, zoom=0.5)
    assert run_to_end(known_zoom_steps(image, nuclei, known)) is known
    found = run_to_end(known_zoom_steps(image, nuclei, CPU))
    assert found is not None
    assert found.zoom == find_zoom(image, nuclei, CPU).zoom


def test_where_next_searches_once(nuclei: Model, image: NDArray[np.float32]) -> None:
    stack = np.stack([image, image])
    nothing = np.zeros(image.shape, bool)
    steps = list(where_next_steps(stack, nuclei, CPU, lambda _: nothing, 32))
    assert sum(isinstance(step, ZoomTrial) for step in steps) == len(find_zoom(image, nuclei, CPU).trials)
    assert any(isinstance(step, Searched) for step in steps)


def test_a_zoom_in_other_words_is_refused() -> None:
    with pytest.raises(InputError, match="or 'auto'"):
        PredictSettings(zoom="best")  # type: ignore[arg-type]
