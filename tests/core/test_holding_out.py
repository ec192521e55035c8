"""What a training is scored on was never learned from, is honestly named, and can tell models apart."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.core.training_cases import QUICK, TINY, discs, scribbled, sending

from napari_unet_seg.core import _training_planes, training, training_data
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._holding_out import ENOUGH_OBJECTS, LEAST_PART
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.batches import BatchSource
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.steps import run_to_end
from napari_unet_seg.core.training import (
    NewAnnotations,
    TrainSettings,
    TrainStep,
    ValidationStep,
    fine_tune,
    training_steps,
)
from napari_unet_seg.core.training_data import TrainingData, TrainingSource, prepare
from napari_unet_seg.core.validation import Score, is_better, scoring_steps

INFO = new_model(TINY).info


def grid_of_discs(n: int = 5, spacing: int = 24) -> Annotation:
    """N × n discs of 6 px radius, everything annotated."""
    side = n * spacing
    y, x = np.mgrid[:side, :side]
    is_disc = (y % spacing - spacing // 2) ** 2 + (x % spacing - spacing // 2) ** 2 <= 36
    labels = np.where(is_disc, y // spacing * n + x // spacing + 1, 0).astype(np.int32)
    noise = np.random.default_rng(n).normal(0, 5, labels.shape)
    return Annotation.dense((40 + 120 * is_disc + noise).astype(np.float32), labels)


def source_of(*annotations: Annotation, settings: TrainSettings = QUICK) -> TrainingSource:
    return TrainingSource(annotations, [], INFO, settings)


def learned(data: TrainingData, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the only plane is learned from; small planes are not cut."""
    (sample,) = data.samples
    assert sample.shape == shape
    return sample.annotated


def n_scored(data: TrainingData) -> int:
    return sum(int(tile.annotated.sum()) for tile in data.validation_tiles)


def test_of_a_small_area_whole_objects_are_left_out_with_background_near_them() -> None:
    annotation = grid_of_discs()
    data = source_of(annotation).data
    assert data.scored_on == "5 left-out objects"
    is_learned = learned(data, annotation.labels.shape)
    assert is_learned.sum() + n_scored(data) == is_learned.size, "each pixel is learned from or scored on"
    left_out = np.unique(annotation.labels[~is_learned])
    assert left_out[0] == 0, "background is scored too"
    for number in left_out[1:]:
        assert not is_learned[annotation.labels == number].any(), f"object {number} is left out completely"
    assert 0.1 < (~is_learned).mean() < 0.3
    assert not data.scores_objects


def test_of_scribbles_some_are_left_out_both_of_objects_and_of_background() -> None:
    annotation = scribbled(grid_of_discs())
    data = source_of(annotation).data
    assert "left-out objects" in data.scored_on
    true = np.concatenate([tile.labels[tile.annotated] for tile in data.validation_tiles])
    assert (true > 0).any()
    assert (true == 0).any()
    assert learned(data, annotation.labels.shape).sum() + true.size == annotation.annotated_mask.sum()


@pytest.mark.parametrize("n", [5, 8, 12])
def test_of_many_strokes_eight_are_enough_where_they_are_half_of_the_wanted_part(n: int) -> None:
    data = source_of(scribbled(grid_of_discs(n))).data
    n_strokes = 2 * n * n  # of about the same length
    half = LEAST_PART / 2 * QUICK.validation_fraction * n_strokes
    assert data.scored_on == f"{max(ENOUGH_OBJECTS, ceil(half))} left-out objects"


@pytest.mark.parametrize("seed", range(5))
def test_filled_cells_among_strokes_are_learned_from_so_that_more_objects_are_scored_on(seed: int) -> None:
    whole = grid_of_discs()
    annotated = np.isin(whole.labels, (1, 2))
    annotated[:, 12::24] = True
    strokes = Annotation(whole.image, np.where(annotated, whole.labels, 0), annotated)
    data = source_of(strokes, settings=replace(QUICK, seed=seed)).data
    assert int(data.scored_on.split()[0]) >= 4


def test_the_seed_chooses_what_is_left_out() -> None:
    annotation = grid_of_discs()
    first, same, other = (
        learned(source_of(annotation, settings=replace(QUICK, seed=seed)).data, annotation.labels.shape)
        for seed in (0, 0, 1)
    )
    assert (first == same).all()
    assert not (first == other).all()


def test_pieces_of_one_id_count_as_objects_of_their_own() -> None:
    annotation = grid_of_discs()
    painted_with_one_id = replace(annotation, labels=np.minimum(annotation.labels, 1))
    assert source_of(painted_with_one_id).data.scored_on == "5 left-out objects"


def test_of_too_few_objects_none_is_left_out_and_varied_copies_are_scored() -> None:
    annotation = grid_of_discs()
    few = replace(annotation, labels=np.where(annotation.labels <= 3, annotation.labels, 0))
    data = source_of(few).data
    assert data.scored_on == "varied copies of the training area (too small to hold a part out)"
    assert learned(data, annotation.labels.shape).all()
    again = source_of(few).data
    assert data.tiles_identity == again.tiles_identity


def test_what_is_held_out_is_never_learned_from_whatever_is_painted_later() -> None:
    annotation = grid_of_discs()
    source = source_of(scribbled(annotation))
    was_scored = ~learned(source.data, annotation.labels.shape) & scribbled(annotation).annotated_mask
    was_learned = learned(source.data, annotation.labels.shape)
    for every_px in (7, 5, 3, 2, 1):
        more = scribbled(annotation, every_px)
        data = source.renewed([more])
        now_learned = learned(data, annotation.labels.shape)
        assert not (now_learned & was_scored).any()
        is_scored = more.annotated_mask & ~now_learned
        assert not (is_scored & was_learned).any(), "what was learned from tells nothing any more"
        was_scored |= is_scored
        was_learned |= now_learned


def test_of_what_is_annotated_later_a_part_is_held_out_too() -> None:
    annotation = grid_of_discs()
    few = np.where(annotation.labels <= 3, annotation.labels, 0)
    rows = np.zeros(annotation.labels.shape, bool)
    rows[:24] = True
    source = source_of(Annotation(annotation.image, few, rows))
    assert "varied copies" in source.data.scored_on
    data = source.renewed([annotation])
    assert "left-out objects" in data.scored_on
    assert learned(data, annotation.labels.shape)[rows].all(), "what was learned from is learned from still"


def test_what_is_no_longer_annotated_is_no_longer_scored() -> None:
    annotation = grid_of_discs()
    source = source_of(annotation)
    is_learned = learned(source.data, annotation.labels.shape)
    rows, columns = np.nonzero(~is_learned)
    kept = np.ones(annotation.labels.shape, bool)
    kept[rows.min() : rows.max() + 1, columns.min() : columns.mean().astype(int)] = False
    data = source.renewed([Annotation(annotation.image, annotation.labels, kept)])
    assert n_scored(data) == np.count_nonzero(kept & ~is_learned)


def test_when_nothing_of_what_was_held_out_is_left_copies_are_scored() -> None:
    annotation = grid_of_discs()
    source = source_of(annotation)
    is_learned = learned(source.data, annotation.labels.shape)
    data = source.renewed([Annotation(annotation.image, annotation.labels, is_learned)])
    assert "varied copies" in data.scored_on
    assert n_scored(data) > 0


def test_of_four_planes_one_is_held_out_with_both_classes() -> None:
    planes = [discs(seed) for seed in range(3)]
    empty = Annotation.dense(discs(7).image, np.zeros((96, 96), np.int32), may_be_empty=True)
    data = source_of(*planes, empty, settings=replace(QUICK, validation_fraction=0.5)).data
    assert data.scored_on == "held-out planes"
    assert data.scores_objects
    assert len(data.samples) == 2
    assert any(tile.labels.any() for tile in data.validation_tiles)


def test_planes_that_did_not_change_are_not_prepared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[tuple[int, ...]] = []
    plain = _training_planes.weight_parts

    def counting(labels: NDArray[np.int32], *args: object, **kwargs: object) -> object:
        prepared.append(labels.shape)
        return plain(labels, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(_training_planes, "weight_parts", counting)
    one, two = discs(0), discs(1)
    source = source_of(one, two)
    assert len(prepared) == 2
    copies = [replace(each, image=each.image.copy(), labels=each.labels.copy()) for each in (two, one)]
    source.renewed(copies)
    assert len(prepared) == 2, "the same content in another order"
    copies[0].labels[:3] = 9
    source.renewed(copies)
    assert len(prepared) == 3


def test_a_plane_that_is_painted_on_equals_one_that_is_prepared_anew() -> None:
    rng = np.random.default_rng(4)
    annotation = grid_of_discs()
    labels, annotated = annotation.labels.copy(), rng.random(annotation.labels.shape) < 0.9
    annotated[0, 0] = annotated[-1, -1] = True  # the box stays
    settings = replace(QUICK, validation_fraction=0.0)
    source = source_of(Annotation(annotation.image, labels, annotated), settings=settings)
    for _ in range(20):
        y, x = rng.integers(1, 110, 2)
        labels, annotated = labels.copy(), annotated.copy()
        labels[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = rng.integers(0, 30)
        annotated[x : x + 5, y : y + 5] = rng.random() < 0.5
        painted = Annotation(annotation.image, labels, annotated)
        (kept,) = source.renewed([painted]).samples
        (anew,) = source_of(painted, settings=settings).data.samples
        np.testing.assert_array_equal(kept.labels, anew.labels)
        np.testing.assert_array_equal(kept.annotated, anew.annotated)
        assert kept.weights is not None
        assert anew.weights is not None
        np.testing.assert_allclose(kept.weights, anew.weights, atol=5e-4 * settings.weights.w0)


def test_classes_are_counted_over_everything_that_is_annotated_also_what_is_held_out() -> None:
    annotation = grid_of_discs()
    settings = replace(QUICK, weights=TrainSettings.paper().weights)
    (held_out,) = source_of(annotation, settings=settings).data.samples
    (all_learned,) = source_of(annotation, settings=replace(settings, validation_fraction=0.0)).data.samples
    assert held_out.weights is not None
    assert all_learned.weights is not None
    np.testing.assert_array_equal(held_out.weights, all_learned.weights)


def test_a_large_plane_is_cut_to_what_patches_can_see_and_patches_stay_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = np.random.default_rng(0).normal(100, 20, (900, 900)).astype(np.float32)
    labels = np.zeros(image.shape, np.int32)
    labels[440:452, 440:452], labels[452:470, 440:460] = 1, 2
    annotated = np.zeros(image.shape, bool)
    annotated[430:480, 430:480] = True
    annotation = Annotation(image, labels, annotated)
    cut = prepare([annotation], [], INFO, QUICK)
    monkeypatch.setattr(training_data, "_reach_px", lambda *_: 900)
    whole = prepare([annotation], [], INFO, QUICK)
    assert whole.samples[0].shape == (900, 900)
    assert max(cut.samples[0].shape) < 400
    batches = [BatchSource(data, 4, QUICK.augmentation, seed=0) for data in (cut, whole)]
    for number in range(10):
        one, other = (source.batch(number) for source in batches)
        np.testing.assert_allclose(one.image, other.image, atol=1e-4)  # positions are rounded differently
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_allclose(one.weights, other.weights, atol=1e-3)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_score_is_that_of_the_prediction_a_person_would_get(padding: str) -> None:
    architecture = Architecture(base_channels=2, depth=2, padding=padding, dropout=0.0)  # type: ignore[arg-type]
    model = new_model(architecture, seed=3)
    annotation = scribbled(discs(2, size=150))
    settings = replace(QUICK, validation_fraction=0.0)
    data = prepare([annotation], [], model.info, settings)
    engine = InferenceNetwork(model.network, torch.device("cpu"))
    score = run_to_end(
        scoring_steps(engine, data.validation_tiles, model.info, data.scored_on, with_objects=False)
    )
    found = predict(annotation.image, model, PredictSettings(device="cpu")).probabilities.argmax(axis=0)
    where = annotation.annotated_mask
    true = annotation.labels[where] > 0
    dice = [
        2
        * np.count_nonzero((found[where] == n) & (true == n))
        / (np.count_nonzero(found[where] == n) + np.count_nonzero(true == n))
        for n in (0, 1)
    ]
    assert score.value == pytest.approx(np.mean(dice))


def constant(model: Model, object_probability: float) -> Model:
    """A network that says the same everywhere."""
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.head.bias[1] = float(np.log(object_probability / (1 - object_probability)))
    return model


def test_of_two_that_find_the_same_the_surer_one_is_better() -> None:
    data = source_of(scribbled(grid_of_discs())).data
    scores = [
        run_to_end(
            scoring_steps(
                InferenceNetwork(constant(new_model(TINY), p).network, torch.device("cpu")),
                data.validation_tiles,
                INFO,
                data.scored_on,
                with_objects=False,
            )
        )
        for p in (0.4, 0.05)
    ]
    assert scores[0].value == scores[1].value
    assert scores[0].likelihood == pytest.approx(np.sqrt(0.4 * 0.6), rel=1e-3)
    assert is_better(scores[0], scores[1])


def test_scores_on_other_tiles_are_taken_again_before_they_are_compared() -> None:
    few, all_of_it = scribbled(grid_of_discs(), 12), grid_of_discs()
    steps = training_steps(new_model(TINY, seed=0), few, replace(QUICK, steps=4, validate_every=2))
    seen, model = sending(
        steps,
        lambda step: NewAnnotations([all_of_it]) if isinstance(step, TrainStep) and step.step == 2 else None,
    )
    validations = [step for step in seen if isinstance(step, ValidationStep)]
    assert validations[-1].before != validations[0].before
    assert model.history[-1]["score_before"]["value"] == validations[-1].before.value


def test_what_differs_by_less_than_an_object_is_told_apart_by_likelihood() -> None:
    low, high = Score(0.90, "a", "b", 0.9, 0.05), Score(0.91, "a", "b", 0.1, 0.05)
    assert is_better(low, high)
    assert is_better(replace(high, value=0.96), low)
    assert is_better(replace(high, resolution=0.002), replace(low, resolution=0.002))


@pytest.mark.parametrize(("n_objects", "resolution"), [(4, 0.05), (25, 1 / 25), (900, 0.002)])
def test_the_resolution_of_a_score_is_one_object(n_objects: int, resolution: float) -> None:
    annotation = grid_of_discs(round(np.sqrt(n_objects)))
    settings = replace(QUICK, validation_fraction=0.0)
    assert source_of(annotation, settings=settings).data.score_resolution == resolution


@pytest.mark.parametrize(("after", "best_step"), [(0.84, 0), (0.89, 1)])
def test_of_scores_that_differ_by_less_than_an_object_the_likelier_is_kept_also_against_the_start(
    monkeypatch: pytest.MonkeyPatch, after: float, best_step: int
) -> None:
    scores = [Score(0.90, "a", "b", 0.1, 0.05), Score(after, "a", "b", 0.9, 0.05)]

    def scoring(*_: object, **__: object) -> Generator[int, None, Score]:
        yield 0
        return scores.pop(0)

    monkeypatch.setattr(training, "scoring_steps", scoring)
    model = fine_tune(new_model(TINY), discs(), replace(QUICK, steps=1))
    assert model.history[-1]["best_step"] == best_step
