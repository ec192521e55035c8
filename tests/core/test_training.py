"""One loop that learns, stops when told, resumes bitwise, and never loses good weights."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.core.training_cases import (
    QUICK,
    TINY,
    assert_same_weights,
    collect,
    discs,
    score_as,
    sending,
    weights_of,
)

from napari_unet_seg.core import _trainer, training
from napari_unet_seg.core._trainer import Trainer
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.augmentation import AugmentSettings
from napari_unet_seg.core.checkpoint import load_checkpoint
from napari_unet_seg.core.errors import InputError, ModelFileError, TrainingDivergedError
from napari_unet_seg.core.models import load_model, new_model
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.steps import STOP, Note, Stopwatch, run_to_end, timed
from napari_unet_seg.core.training import (
    AnnotationsTaken,
    NewAnnotations,
    PreviewDone,
    PreviewFailed,
    PreviewRequest,
    TileStep,
    TrainSettings,
    TrainStep,
    ValidationStep,
    fine_tune,
    learning_rate,
    training_steps,
)
from napari_unet_seg.core.training_data import prepare
from napari_unet_seg.core.validation import Score
from napari_unet_seg.core.weight_map import WeightSettings


def test_it_learns_to_segment_discs() -> None:
    annotations = [discs(seed) for seed in range(5)]
    start = new_model(TINY, seed=0)
    settings = replace(QUICK, steps=60, validate_every=20, augmentation=AugmentSettings.none())
    seen, model = collect(training_steps(start, annotations, settings))
    scores = [step.score.value for step in seen if isinstance(step, ValidationStep)]
    assert max(scores) > 0.8, f"scores were {scores}"
    losses = [step.loss for step in seen if isinstance(step, TrainStep)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert model.history[-1]["steps"] == 60
    assert model.object_diameter_px == pytest.approx(12, abs=1.5)


def test_the_starting_model_is_not_changed() -> None:
    start = new_model(TINY, seed=0)
    before = {key: tensor.clone() for key, tensor in weights_of(start).items()}
    fine_tune(start, [discs()], replace(QUICK, steps=2))
    assert all(torch.equal(before[key], tensor) for key, tensor in weights_of(start).items())


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = (fine_tune(new_model(TINY, seed=0), [discs()], QUICK) for _ in range(2))
    assert_same_weights(first, second)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize(("stop_after", "averaging"), [(3, 0.0), (4, 0.0), (3, 0.9)])
def test_a_stopped_and_resumed_run_ends_bitwise_like_an_uninterrupted_one(
    tmp_path: Path, optimizer: Any, stop_after: int, averaging: float
) -> None:
    architecture = replace(TINY, dropout=0.3)
    settings = replace(QUICK, optimizer=optimizer, learning_rate=1e-3, averaging=averaging)
    annotations = [discs(seed) for seed in range(4)]
    start = new_model(architecture, seed=0)
    whole = run_to_end(training_steps(start, annotations, settings))
    checkpoint = tmp_path / "run.checkpoint"
    collect(training_steps(start, annotations, settings, checkpoint=checkpoint), stop_after)
    assert load_checkpoint(checkpoint).progress["step"] == stop_after
    torch.manual_seed(99)  # the state of torch's global generator must not matter
    seen, resumed = collect(training_steps(start, annotations, settings, checkpoint=checkpoint, resume=True))
    assert sum(isinstance(step, TrainStep) for step in seen) == settings.steps - stop_after
    assert_same_weights(whole, resumed)


def test_a_long_way_between_validations_is_saved_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, annotations = replace(QUICK, steps=6, validate_every=6), [discs(seed) for seed in range(4)]
    start, checkpoint = new_model(TINY, seed=0), tmp_path / "run.checkpoint"
    whole = run_to_end(training_steps(start, annotations, settings))
    monkeypatch.setattr(training, "_LONGEST_UNSAVED_S", -1.0)
    with closing(training_steps(start, annotations, settings, checkpoint=checkpoint)) as steps:
        for step in steps:
            if isinstance(step, TrainStep) and step.step == 4:
                break  # as if the program was killed
    assert load_checkpoint(checkpoint).progress["step"] == 3
    resumed = run_to_end(
        training_steps(start, annotations, settings, checkpoint=checkpoint, resume=True),
    )
    assert_same_weights(whole, resumed)


def test_how_a_wide_network_lies_in_memory_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for narrowest in (TINY.base_channels, TINY.base_channels + 1):
        monkeypatch.setattr(_trainer, "_WIDE_CHANNELS", narrowest)
        seen, model = collect(training_steps(new_model(TINY, seed=0), [discs()], QUICK))
        losses.append([step.loss for step in seen if isinstance(step, TrainStep)])
        assert predict(discs().image, model).labels.shape == discs().image.shape
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.parametrize("shift", [-0.3, 0.15])
@pytest.mark.parametrize(
    ("at_100", "now", "kept_before", "kept_after"),
    [(0.4, 0.6, 0, 200), (0.7, 0.8, 100, 200), (0.7, 0.6, 100, 100), (0.4, 0.3, 0, 0)],
)
def test_scores_on_other_tiles_are_never_compared(
    shift: float, at_100: float, now: float, kept_before: int, kept_after: int
) -> None:
    """What is painted while training changes what is held out; all weights score higher or lower there."""
    scores = {0: 0.5, 100: at_100}
    trainer = Trainer(new_model(TINY), [discs()], [], QUICK, Stopwatch())
    for trainer.step, value in scores.items():
        trainer.take_score(Score(value, "made up", "nothing"))
    trainer.data = replace(trainer.data, tiles_identity="others")
    for candidate in trainer.not_comparable():
        trainer.take_new_score(candidate, Score(scores[candidate.step] + shift, "made up", "others"))
    assert trainer.best.step == kept_before
    trainer.step = 200
    step = trainer.take_score(Score(now + shift, "made up", "others"))
    assert (step.is_best, trainer.best.step) == (kept_after == 200, kept_after)
    assert trainer.not_comparable() == []
    trainer.close()


def test_the_starting_weights_win_again_where_they_are_better_on_other_tiles() -> None:
    trainer = Trainer(new_model(TINY), [discs()], [], QUICK, Stopwatch())
    for trainer.step, value in ((0, 0.5), (100, 0.7)):
        trainer.take_score(Score(value, "made up", "nothing"))
    trainer.data = replace(trainer.data, tiles_identity="others")
    for candidate in trainer.not_comparable():
        trainer.take_new_score(candidate, Score({0: 0.9, 100: 0.8}[candidate.step], "made up", "others"))
    assert trainer.best.step == 0
    trainer.close()


def test_averaging_keeps_the_moving_average_of_the_weights_of_all_steps() -> None:
    settings = replace(QUICK, steps=3, learning_rate=1e-2, validation_fraction=0, averaging=0.99)
    source = new_model(TINY, seed=0)
    trainer = Trainer(source, [discs()], [], settings, Stopwatch())
    expected = {key: tensor.clone() for key, tensor in weights_of(source).items()}
    for step in (1, 2, 3):
        trainer.learn_one_batch()
        share = step / (10 + step)
        for key, tensor in trainer.network.state_dict().items():
            expected[key] = expected[key] * share + tensor * (1 - share)
    trainer.close()
    shown = trainer.model_of_now().network.state_dict()
    for key, tensor in shown.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[key])


def test_stop_answers_within_one_step_with_the_best_model() -> None:
    seen, model = collect(training_steps(new_model(TINY), [discs()], QUICK), stop_after=2)
    assert sum(isinstance(step, TrainStep) for step in seen) == 2
    assert isinstance(seen[-1], ValidationStep), "what is kept has been scored"
    assert model.history[-1]["steps"] == 2


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fine_tune(new_model(replace(TINY, dropout=0.5)), [discs()], replace(QUICK, steps=2))
    assert torch.equal(torch.rand(3), expected)


def test_the_best_model_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.1, 0.2, 0.9, 0.1)
    seen, best = collect(training_steps(new_model(TINY), [discs()], QUICK))
    validations = [step for step in seen if isinstance(step, ValidationStep)]
    assert [step.step for step in validations] == [0, 3, 6, 8]
    assert [step.is_best for step in validations] == [True, True, True, False]
    assert {step.before.value for step in validations} == {0.1}
    entry = best.history[-1]
    assert (entry["score"]["value"], entry["score_before"]["value"], entry["best_step"]) == (0.9, 0.1, 6)


@pytest.mark.parametrize(
    ("values", "kept_step"),
    [
        ((0.1, 0.9, 0.87, 0.86), 8),  # all within one object of the highest
        ((0.1, 0.9, 0.87, 0.83), 6),  # the last fell short of the highest, though not of the one before
        ((0.1, 0.9, 0.7, 0.86), 8),
        ((0.9, 0.97, 0.86, 0.91), 3),  # the last is no better than the start
    ],
)
def test_of_scores_that_say_the_same_the_longest_trained_weights_are_kept(
    monkeypatch: pytest.MonkeyPatch, values: tuple[float, ...], kept_step: int
) -> None:
    score_as(monkeypatch, *values, resolution=0.05)
    kept = fine_tune(new_model(TINY), [discs()], QUICK)
    assert kept.history[-1]["best_step"] == kept_step


def test_a_resumed_training_still_knows_its_highest_score(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, start = tmp_path / "run.ckpt", new_model(TINY)
    score_as(monkeypatch, 0.1, 0.9, 0.86, resolution=0.05)
    first = replace(QUICK, steps=6, schedule="constant")
    run_to_end(training_steps(start, [discs()], first, checkpoint=file))
    score_as(monkeypatch, 0.82, resolution=0.05)  # within one object of 0.86, not of 0.9
    longer = replace(first, steps=9)
    kept = run_to_end(training_steps(start, [discs()], longer, checkpoint=file, resume=True))
    assert kept.history[-1]["best_step"] == 6


def test_early_stopping_counts_from_the_highest_score(monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.1, 0.9, 0.88, 0.87, resolution=0.05)
    settings = replace(QUICK, steps=50, validate_every=1, patience=2)
    seen, best = collect(training_steps(new_model(TINY), [discs()], settings))
    assert sum(isinstance(step, TrainStep) for step in seen) == 3
    assert best.history[-1]["best_step"] == 3


def test_a_model_that_became_worse_is_not_kept_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.8, 0.7)
    start = new_model(TINY, seed=0)
    seen, kept = collect(training_steps(start, [discs()], QUICK))
    assert_same_weights(start, kept)
    assert any(isinstance(step, Note) and "the starting model was kept" in step.message for step in seen)
    assert kept.history[-1]["score"] == kept.history[-1]["score_before"]


def test_early_stopping_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.5)
    settings = replace(QUICK, steps=50, validate_every=1, patience=2)
    seen, _ = collect(training_steps(new_model(TINY), [discs()], settings))
    assert sum(isinstance(step, TrainStep) for step in seen) == 2
    assert any(isinstance(step, Note) and "Stopped early" in step.message for step in seen)


def test_a_plateau_halves_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    score_as(monkeypatch, 0.5)
    settings = replace(QUICK, steps=6, validate_every=1, patience=8, schedule="plateau")
    seen, _ = collect(training_steps(new_model(TINY), [discs()], settings))
    rates = [step.learning_rate for step in seen if isinstance(step, TrainStep)]
    assert rates[0] == QUICK.learning_rate
    assert rates[-1] == QUICK.learning_rate / 2


def test_stop_ends_a_long_validation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_unet_seg.core import training

    monkeypatch.setattr(training, "_LONGEST_GOODBYE_S", 0.0)
    steps = training_steps(new_model(TINY), [discs(size=600)], replace(QUICK, validation_fraction=0.0))
    assert isinstance(next(steps), Note)
    assert isinstance(next(steps), TileStep)
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    assert end.value.value.history[-1]["steps"] == 0


def test_a_preview_shows_the_weights_of_now_and_changes_nothing() -> None:
    image = discs(9).image
    plain = run_to_end(training_steps(new_model(TINY, seed=0), [discs()], QUICK))
    steps = training_steps(new_model(TINY, seed=0), [discs()], QUICK)
    seen, model = sending(
        steps,
        lambda step: (
            PreviewRequest(image, token=7)
            if isinstance(step, TrainStep) and step.step == QUICK.steps - 1
            else None
        ),
    )
    assert_same_weights(plain, model)
    (done,) = [step for step in seen if isinstance(step, PreviewDone)]
    assert (done.token, done.step) == (7, QUICK.steps - 1)
    assert done.prediction.labels.shape == image.shape


def test_a_preview_of_something_impossible_does_not_end_the_training() -> None:
    steps = training_steps(new_model(TINY, seed=0), [discs()], QUICK)
    next(steps)
    seen = [steps.send(PreviewRequest(np.full((40, 40), np.nan, np.float32)))]
    seen += list(steps)
    assert [type(step) for step in seen if isinstance(step, PreviewDone | PreviewFailed)] == [PreviewFailed]
    assert sum(isinstance(step, TrainStep) for step in seen) == QUICK.steps


def test_new_annotations_are_learned_from_the_next_batch_on() -> None:
    steps = training_steps(new_model(TINY, seed=0), [discs()], QUICK)
    while not isinstance(next(steps), TrainStep):
        pass
    taken = steps.send(NewAnnotations([discs(), discs(1)]))
    assert isinstance(taken, AnnotationsTaken)
    assert (taken.step, taken.n_planes) == (1, 2)
    assert isinstance(next(steps), TrainStep)


def test_new_annotations_that_cannot_be_used_are_left_aside() -> None:
    steps = training_steps(new_model(TINY, seed=0), [discs()], QUICK)
    while not isinstance(next(steps), TrainStep):
        pass
    annotation = discs()
    two_channels = Annotation.dense(np.stack([annotation.image] * 2), annotation.labels, axes="CYX")
    note = steps.send(NewAnnotations([two_channels]))
    assert isinstance(note, Note)
    assert "goes on with what was annotated before" in note.message
    assert isinstance(next(steps), TrainStep)


def test_a_time_limit_ends_training_on_time_with_the_last_weights_scored() -> None:
    settings = replace(QUICK, steps=10**6, validate_every=10**6, time_limit_s=2.0)
    seen, model = collect(training_steps(new_model(TINY), [discs()], settings))
    assert 0 < model.history[-1]["steps"] < 10**6
    (before, after) = [step for step in seen if isinstance(step, ValidationStep)]
    assert (before.step, after.step) == (0, model.history[-1]["steps"])
    rates = [step.learning_rate for step in seen if isinstance(step, TrainStep)]
    assert rates[-1] < 0.5 * rates[0]


def test_time_between_the_steps_does_not_count() -> None:
    watch = Stopwatch()

    def working() -> Generator[int, None, str]:
        yield 1
        yield 2
        return "done"

    steps = timed(working(), watch)
    next(steps)
    shown = watch.seconds
    assert watch.seconds == shown
    assert run_to_end(steps) == "done"
    assert watch.seconds > shown


def test_cosine_goes_from_the_first_to_the_last_rate_after_a_warm_up() -> None:
    settings = TrainSettings(steps=110, warmup_steps=10, learning_rate=1e-3, final_learning_rate=1e-6)
    rates = [learning_rate(step, settings) for step in range(111)]
    assert learning_rate(20, settings, time_share=0.5) == learning_rate(60, settings)
    assert rates[0] == pytest.approx(1e-3 / 11)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[110] == pytest.approx(1e-6)
    assert rates[60] == pytest.approx(0.5e-3, rel=0.01)


def test_a_short_training_is_not_all_warm_up() -> None:
    settings = TrainSettings.thorough(steps=60)
    assert max(learning_rate(step, settings) for step in range(60)) == settings.learning_rate


def test_a_loss_gone_nan_stops_with_a_sentence_and_keeps_the_last_good_weights() -> None:
    settings = replace(QUICK, optimizer="sgd", learning_rate=1e30, steps=50, validate_every=100)
    with pytest.raises(TrainingDivergedError, match="smaller learning rate") as caught:
        fine_tune(new_model(TINY, seed=0), [discs()], settings)
    assert all(tensor.isfinite().all() for tensor in weights_of(caught.value.best).values())


def test_labels_that_are_not_annotated_change_nothing() -> None:
    annotation = discs()
    mask = np.zeros(annotation.labels.shape, bool)
    mask[:, :48] = True
    scrambled = annotation.labels.copy()
    scrambled[~mask] = np.random.default_rng(0).integers(0, 9, np.count_nonzero(~mask))
    models = [
        fine_tune(
            new_model(TINY, seed=0),
            [Annotation(annotation.image, labels, mask)],
            replace(QUICK, steps=3),
        )
        for labels in (annotation.labels, scrambled)
    ]
    assert_same_weights(*models)


def test_classes_are_learned_as_classes() -> None:
    annotation = discs()
    classes = np.where(annotation.labels > 3, 2, np.minimum(annotation.labels, 1)).astype(np.int32)
    start = new_model(replace(TINY, out_channels=3), task="classes")
    seen, model = collect(training_steps(start, [Annotation.dense(annotation.image, classes)], QUICK))
    assert model.task == "classes"
    assert {step.score.name for step in seen if isinstance(step, ValidationStep)} == {"Dice"}


def test_a_class_that_the_model_does_not_have_is_refused() -> None:
    annotation = discs()
    with pytest.raises(InputError, match="class 6"):
        fine_tune(new_model(TINY, task="classes"), [annotation], QUICK)


def test_channels_must_fit_the_model() -> None:
    annotation = discs()
    two_channels = Annotation.dense(np.stack([annotation.image] * 2), annotation.labels, axes="CYX")
    with pytest.raises(InputError, match="2 channel"):
        fine_tune(new_model(TINY), [two_channels], QUICK)


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        ([discs(seed) for seed in range(4)], "held-out planes"),
        ([discs(size=400)], "held-out strip"),
        ([discs(size=64)], "left-out object"),
    ],
)
def test_it_says_honestly_what_it_scores_on(annotations: list[Annotation], expected: str) -> None:
    data = prepare(annotations, [], new_model(TINY).info, QUICK)
    assert expected in data.scored_on
    assert data.validation_tiles


def test_a_held_out_strip_is_not_learned_from() -> None:
    data = prepare([discs(size=400)], [], new_model(TINY).info, QUICK)
    learned = data.samples[0].annotated
    n_held_out = sum(int(tile.annotated.sum()) for tile in data.validation_tiles)
    assert learned.sum() + n_held_out == learned.size


def enlarged(annotation: Annotation, factor: int) -> Annotation:
    """Each pixel so many times; nobody knows how large they are."""
    pixels = np.ones((factor, factor))
    return Annotation.dense(
        np.kron(annotation.image, pixels), np.kron(annotation.labels, pixels).astype(np.int32)
    )


def test_images_without_a_pixel_size_are_brought_to_the_zoom_that_was_asked_for() -> None:
    model = new_model(TINY, pixel_size_nm=10.0)
    plain = prepare([discs()], [], model.info, QUICK)
    data = prepare([enlarged(discs(), 2)], [], model.info, replace(QUICK, zoom=0.5))
    np.testing.assert_allclose(data.samples[0].image, plain.samples[0].image, atol=1e-3)
    np.testing.assert_array_equal(data.samples[0].labels, plain.samples[0].labels)


def test_a_zoom_does_not_overrule_pixel_sizes_that_are_known() -> None:
    annotation = replace(discs(), pixel_size_nm=5.0)
    data = prepare([annotation], [], new_model(TINY, pixel_size_nm=10.0).info, replace(QUICK, zoom=2.0))
    assert data.samples[0].image.shape == (1, 48, 48)
    assert data.usual_zoom is None


def test_a_model_without_a_pixel_size_learns_it_at_the_zoom_that_was_asked_for() -> None:
    annotation = replace(discs(), pixel_size_nm=5.0)
    data = prepare([annotation], [], new_model(TINY).info, replace(QUICK, zoom=0.5))
    assert data.pixel_size_nm == 10
    assert data.samples[0].image.shape == (1, 48, 48)


def test_the_model_remembers_the_zoom_for_images_like_those_it_learned_from(tmp_path: Path) -> None:
    annotation = enlarged(discs(), 2)
    tuned = fine_tune(new_model(TINY, pixel_size_nm=10.0), annotation, replace(QUICK, zoom=0.5))
    tuned.save(tmp_path / "tuned.safetensors")
    model = load_model(str(tmp_path / "tuned.safetensors"))
    found, expected = (
        predict(annotation.image, model),
        predict(annotation.image, model, PredictSettings(zoom=0.5)),
    )
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert any("Zoom 0.5" in note for note in found.notes)
    again = fine_tune(model, annotation, QUICK)
    assert again.info.usual_zoom == 0.5, "unless something else is asked for"


def test_an_impossible_zoom_is_refused() -> None:
    with pytest.raises(InputError, match="zoom"):
        TrainSettings(zoom=1000.0)


def test_images_are_brought_to_the_models_pixel_size() -> None:
    annotation = replace(discs(), pixel_size_nm=5.0)
    model = new_model(TINY, pixel_size_nm=10.0)
    data = prepare([annotation], [], model.info, QUICK)
    assert data.samples[0].shape == (48, 48)
    assert data.object_diameter_px == pytest.approx(6, abs=1)


def test_touching_objects_are_learned_with_a_gap_and_a_heavy_border() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[20:40, 10:30], labels[20:40, 30:50] = 1, 2
    annotation = Annotation.dense(np.zeros((64, 64), np.float32) + labels, labels)
    sample = prepare([annotation], [], new_model(TINY).info, QUICK).samples[0]
    assert sample.weights is not None
    assert not ((sample.labels[:, :-1] == 1) & (sample.labels[:, 1:] == 2)).any(), "nothing touches any more"
    gap = (labels > 0) & (sample.labels == 0)
    assert 20 <= gap.sum() < 40, "a gap of about one column"
    assert sample.weights[gap].min() > 5 * sample.weights[sample.labels > 0].max()


def test_a_whole_stack_counts_its_classes_once() -> None:
    sparse, dense = discs(0), discs(1)
    dense = replace(dense, labels=np.where(dense.image > 0, 1, 0).astype(np.int32))
    settings = replace(QUICK, weights=TrainSettings.paper().weights, validation_fraction=0.0)
    data = prepare([sparse, dense], [], new_model(TINY).info, settings)
    assert data.samples[0].weights is not None
    assert data.samples[1].weights is not None
    inside = [s.weights[s.labels > 0] for s in data.samples if s.weights is not None]
    assert inside[0].max() == pytest.approx(inside[1].max()), "w_c comes from all planes together"


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    collect(training_steps(new_model(TINY), [discs()], QUICK, checkpoint=checkpoint), stop_after=1)
    other = new_model(replace(TINY, base_channels=2))
    with pytest.raises(InputError, match="another network"):
        run_to_end(training_steps(other, [discs()], QUICK, checkpoint=checkpoint, resume=True))


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"optimizer": "sgd"}, "optimizer adamw"), ({"averaging": 0.9}, "averaging 0"), ({"seed": 1}, "seed 0")],
)
def test_a_checkpoint_made_in_another_way_is_refused(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    checkpoint, settings = tmp_path / "run.checkpoint", replace(QUICK, averaging=0.0)
    collect(training_steps(new_model(TINY), [discs()], settings, checkpoint=checkpoint), stop_after=1)
    changed = replace(settings, **changes)
    steps = training_steps(new_model(TINY), [discs()], changed, checkpoint=checkpoint, resume=True)
    with pytest.raises(InputError, match=named):
        run_to_end(steps)


def test_a_pixel_size_in_a_wrong_unit_is_said_before_anything_is_made() -> None:
    annotation = discs()
    wrong = Annotation.dense(annotation.image, annotation.labels, pixel_size_nm=4e6)
    with pytest.raises(InputError, match="its unit"):
        fine_tune(new_model(TINY, pixel_size_nm=4), [wrong], QUICK)


def test_a_boolean_image_is_learned_from() -> None:
    annotation = discs()
    is_bright = Annotation.dense(annotation.image > 100, annotation.labels)
    assert fine_tune(new_model(TINY), [is_bright], QUICK).history[-1]["steps"] == QUICK.steps


def test_a_path_is_a_model_too(tmp_path: Path) -> None:
    path = Path(new_model(TINY).save(tmp_path / "tiny.safetensors"))
    assert predict(discs().image, path).labels.shape == discs().image.shape
    assert fine_tune(path, [discs()], QUICK).history[-1]["steps"] == QUICK.steps


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run.checkpoint"
    checkpoint.write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="checkpoint"):
        run_to_end(training_steps(new_model(TINY), [discs()], QUICK, checkpoint=checkpoint, resume=True))


def test_the_paper_preset_is_the_papers() -> None:
    settings = TrainSettings.paper()
    assert (settings.optimizer, settings.momentum, settings.batch_size) == ("sgd", 0.99, 1)
    assert settings.loss == "weighted-cross-entropy"
    assert (settings.weights.preset, settings.weights.w0, settings.weights.sigma_px) == ("paper", 10, 5)
    data = prepare([discs(size=96)], [], new_model(Architecture(base_channels=1)).info, settings)
    assert (data.input_px, data.output_px) == (572, 388)


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": 0},
        {"loss": "luck"},
        {"optimizer": "hope"},
        {"schedule": "never"},
        {"validation_fraction": 1.0},
        {"learning_rate": -1.0},
        {"time_limit_s": 0.0},
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        TrainSettings(**fields)


def test_stop_ends_a_preview_too() -> None:
    steps = training_steps(new_model(TINY), [discs()], QUICK)
    while not isinstance(next(steps), TrainStep):
        pass
    large = np.zeros((600, 600), np.float32)
    large[::2] = 1
    step = steps.send(PreviewRequest(large, PredictSettings(tile_px=64)))
    assert step == TileStep("preview", 1, 100)
    seen = [steps.send(STOP)]
    seen += list(steps)
    assert not any(isinstance(step, PreviewDone) for step in seen)
    assert not any(isinstance(step, TileStep) and step.of == "preview" for step in seen)


def test_a_model_is_taken_by_its_name_and_one_annotation_by_itself() -> None:
    new_model(TINY).save("mine")
    model = fine_tune("mine", discs(), replace(QUICK, steps=1))
    assert model.history[-1]["from"] == "mine"


@pytest.mark.parametrize(
    ("changes", "border"),
    [
        ({"weights": WeightSettings.border_only(w0=7, sigma_px=3)}, (7, 3)),
        ({"loss": "bce", "weights": WeightSettings.border_only(w0=7, sigma_px=3)}, (0, 3)),
    ],
)
def test_a_model_knows_the_border_that_it_learned_with(
    changes: dict[str, Any], border: tuple[float, float]
) -> None:
    base = new_model(TINY, objects=ObjectSettings(threshold=0.4))
    objects = fine_tune(base, discs(), replace(QUICK, steps=1, **changes)).objects
    assert (objects.border_w0, objects.border_sigma_px, objects.threshold) == (*border, 0.4)
    assert base.objects.border_w0 is None, "the start is left as it is"
    says_it = new_model(TINY, objects=ObjectSettings(border_w0=0))
    assert fine_tune(says_it, discs(), replace(QUICK, steps=1, **changes)).objects == says_it.objects


def test_a_fine_tuned_model_says_what_it_was_made_from() -> None:
    info = {"description": "Nuclei", "licence": "CC0", "credit": "Somebody's data", "name": "nuclei"}
    base = new_model(TINY, history=({"steps": 1},), **info)
    model = fine_tune(base, discs(), replace(QUICK, steps=1))
    n_objects = len(np.unique(discs().labels)) - 1
    assert model.info.description == f"Fine-tuned from 'nuclei' on {n_objects} objects"
    assert model.info.licence == "As that of 'nuclei': CC0"
    assert model.info.credit == "Somebody's data"
    again = fine_tune(model, discs(), replace(QUICK, steps=1))
    assert again.info.licence == model.info.licence
    trained = fine_tune(new_model(TINY, **info), discs(), replace(QUICK, steps=1))
    assert (trained.info.description, trained.info.licence) == (f"Trained on {n_objects} objects", "CC0")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (TrainSettings(), "border only"),
        (TrainSettings.paper(), "paper"),
        (TrainSettings(weights=WeightSettings.fiji()), "fiji"),
        (TrainSettings(weights=WeightSettings.fiji(w0=7.0)), "fiji, changed"),
    ],
)
def test_the_history_calls_the_weight_map_what_it_is(settings: TrainSettings, name: str) -> None:
    small = replace(settings, steps=1, batch_size=1, patch_px=16, device="cpu")
    model = fine_tune(new_model(TINY), discs(), small)
    assert model.history[-1]["weights"]["name"] == name


def test_a_step_says_how_long_it_goes_on_and_how_much_memory_it_takes() -> None:
    seen, _ = collect(training_steps(new_model(TINY), discs(), QUICK))
    steps = [step for step in seen if isinstance(step, TrainStep)]
    assert steps[-1].seconds_left == 0 < steps[0].seconds_left
    assert steps[0].memory_bytes is None or steps[0].memory_bytes > 10**7
