"""Fine-tuning on layers: it learns, listens, shows, stops, and what becomes of its result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from tests.viewer.conftest import add_stack

from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._fine_tune import fine_tuning
from napari_unet_seg._fine_tune.comparison import with_ids_of
from napari_unet_seg._fine_tune.fine_tuning import FineTuning, name_for
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._fine_tune.request import training_request
from napari_unet_seg._jobs import Job
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.model_store import list_models, read_info
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.train_settings import TrainSettings
from napari_unet_seg.core.training_messages import AnnotationsTaken, PreviewDone, TrainStep, ValidationStep

LONG_MS = 120_000
PREVIEW = "em › preview"


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer()


@pytest.fixture
def em(viewer: Any, squares: Any) -> Any:
    return add_stack(viewer, squares)


@pytest.fixture
def painted(viewer: Any, em: Any) -> Any:
    return paint(viewer, em)


@pytest.fixture
def fresh_model() -> Model:
    """A saved model named "fresh" that knows nothing yet."""
    architecture = Architecture(base_channels=4, depth=1, padding="same", dropout=0.0, batch_norm=True)
    model = new_model(architecture, name="fresh", pixel_size_nm=10.0, seed=1)
    model.save("fresh")
    return model


def paint(viewer: Any, em: Any) -> Any:
    """Scribbles on both squares of plane 1, and between and below them."""
    layer = new_annotation_layer(viewer, em)
    layer.data[1, 24:28, 7:15] = 2
    layer.data[1, 24:28, 32:40] = 3
    layer.data[1, 14:40, 22:25] = 1
    layer.data[1, 40:44, 5:50] = 1
    layer.refresh()
    return layer


def settings(**changes: Any) -> TrainSettings:
    wishes = {"steps": 40, "patch_px": 32, "batch_size": 2, "learning_rate": 1e-2, "validate_every": 10}
    return TrainSettings(**{**wishes, "device": "cpu", **changes})


def endless(**changes: Any) -> TrainSettings:
    return settings(steps=1_000_000, validate_every=50, **changes)


def tuning(viewer: Any, layers: Any, model: Any = "fresh", wishes: TrainSettings | None = None) -> FineTuning:
    layers = layers if isinstance(layers, list) else [layers]
    request = training_request(layers, viewer.layers, model, wishes or settings())
    return FineTuning(request, layers, viewer)


def run(one: FineTuning) -> Job:
    job = one.run(previews=False)
    assert job.wait(120)
    assert job.error is None, job.details
    return job


def wait_for_step(qtbot: QtBot, job: Job, kind: type, which: Callable[[Any], bool] = lambda _: True) -> Any:
    found: list[Any] = []

    def take(step: Any) -> None:
        if isinstance(step, kind) and which(step):
            found.append(step)

    job.stepped.connect(take)
    qtbot.waitUntil(lambda: bool(found), timeout=LONG_MS)
    job.stepped.disconnect(take)
    return found[0]


def test_it_learns_what_was_painted_and_says_how_good_it_was_before_and_is_after(
    viewer: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=settings(steps=80))
    run(one)
    assert one.is_better
    assert one.before is not None
    assert one.after is not None
    assert one.after.value > max(0.8, one.before.value)
    assert (one.after.name, one.after.measured_on) == (one.before.name, one.before.measured_on)
    assert one.tuned is not None
    assert one.tuned.after.history[-1]["from"] == "fresh"


def test_it_learns_from_several_images_of_different_sizes(
    viewer: Any, em: Any, painted: Any, squares: Any, fresh_model: Model
) -> None:
    other = viewer.add_image(squares[2, :50, :60], name="other")
    labels = new_annotation_layer(viewer, other)
    labels.data[20:32, 5:17] = 2
    labels.data[36:40, 5:50] = 1
    one = tuning(viewer, [painted, labels])
    run(one)
    assert one.tuned is not None
    assert one.tuned.after.history[-1]["planes"] == 2
    assert one.tuned.after.history[-1]["objects"] == 3


def test_pausing_holds_it_between_two_steps_and_resuming_goes_on(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    job = tuning(viewer, painted, wishes=endless()).run(previews=False)
    steps: list[int] = []
    job.stepped.connect(lambda step: steps.append(step.step) if isinstance(step, TrainStep) else None)
    wait_for_step(qtbot, job, TrainStep)
    job.pause()

    def is_quiet() -> bool:
        before = len(steps)
        qtbot.wait(500)
        return len(steps) == before

    qtbot.waitUntil(is_quiet, timeout=LONG_MS)  # the step under way ends first
    assert is_quiet()
    job.resume()
    wait_for_step(qtbot, job, TrainStep)
    assert steps == list(range(1, len(steps) + 1))
    job.cancel()
    assert job.wait(120)


def test_stopping_keeps_the_best(qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model) -> None:
    one = tuning(viewer, painted, wishes=endless())
    job = one.run(previews=False)
    wait_for_step(qtbot, job, ValidationStep, lambda step: step.is_best and step.step > 0)
    job.cancel()
    assert job.wait(30)
    assert one.is_better


def test_stopping_at_once_leaves_nothing_and_no_error(viewer: Any, painted: Any, fresh_model: Model) -> None:
    one = tuning(viewer, painted)
    job = one.run()
    job.cancel()
    assert job.wait(120)
    assert job.error is None
    assert not one.is_better
    assert PREVIEW not in viewer.layers


def test_the_current_view_is_previewed_where_it_lies_and_what_is_selected_stays_so(
    qtbot: QtBot, viewer: Any, em: Any, painted: Any, fresh_model: Model
) -> None:
    painted.mode = "paint"
    one = tuning(viewer, painted, wishes=endless())
    job = one.run()
    answer = wait_for_step(qtbot, job, PreviewDone)
    layer = one.preview_layer
    assert layer.name == PREVIEW
    assert viewer.layers.selection.active is painted
    assert painted.mode == "paint"
    assert viewer.layers.index(layer) == viewer.layers.index(painted) - 1
    view = answer.token.view
    expected = 1 - answer.prediction.probabilities[0][view.box]
    np.testing.assert_array_equal(layer.data[0], expected)
    first = (*view.plane, *(part.start for part in view.box))
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), em.data_to_world(first))
    assert layer.units == em.units
    job.cancel()
    assert job.wait(30)
    assert layer not in viewer.layers, "it was there only to look at while it trained"


def test_the_preview_follows_to_another_plane(
    qtbot: QtBot, viewer: Any, em: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=endless())
    job = one.run()
    wait_for_step(qtbot, job, PreviewDone)
    viewer.dims.set_current_step(0, 2)
    wait_for_step(qtbot, job, PreviewDone, lambda answer: answer.token.view.plane == (2,))
    np.testing.assert_allclose(one.preview_layer.data_to_world((0, 0, 0))[0], em.data_to_world((2, 0, 0))[0])
    job.cancel()
    assert job.wait(30)


def test_a_preview_that_was_removed_does_not_come_back_unasked(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=endless())
    job = one.run()
    wait_for_step(qtbot, job, PreviewDone)
    viewer.layers.remove(PREVIEW)
    one.show_preview(is_shown=True)
    wait_for_step(qtbot, job, PreviewDone)
    assert PREVIEW in viewer.layers, "asked for"
    one.show_preview(is_shown=False)
    assert not one.preview_layer.visible
    job.cancel()
    assert job.wait(30)


def test_painting_while_it_trains_is_learned(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=endless())
    job = one.run(previews=False)
    wait_for_step(qtbot, job, TrainStep)
    viewer.dims.set_current_step(0, 2)
    painted.selected_label = 9
    painted.paint((2, 26, 11), 9)
    taken = wait_for_step(qtbot, job, AnnotationsTaken)
    assert (taken.n_planes, taken.n_objects) == (2, 3)
    job.cancel()
    assert job.wait(30)


def test_undoing_while_it_trains_is_learned_too(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    painted.paint((2, 26, 11), 9)
    job = tuning(viewer, painted, wishes=endless()).run(previews=False)
    wait_for_step(qtbot, job, TrainStep)
    viewer.dims.set_current_step(0, 2)
    painted.undo()
    taken = wait_for_step(qtbot, job, AnnotationsTaken)
    assert taken.n_planes == 1
    job.cancel()
    assert job.wait(30)


def test_saying_that_a_plane_is_complete_is_learned_too(
    qtbot: QtBot, viewer: Any, em: Any, squares: Any, fresh_model: Model
) -> None:
    layer = new_annotation_layer(viewer, em, coding="planes")
    layer.data[:] = squares > 100
    layer.metadata["napari-unet-seg"]["planes"] = [1]
    job = tuning(viewer, layer, wishes=endless()).run(previews=False)
    wait_for_step(qtbot, job, TrainStep)
    layer.metadata["napari-unet-seg"]["planes"] = [1, 2]
    taken = wait_for_step(qtbot, job, AnnotationsTaken)
    assert taken.n_planes == 2
    job.cancel()
    assert job.wait(30)


def test_erasing_everything_is_said_and_training_goes_on(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=endless())
    notes: list[str] = []
    one.noted.connect(notes.append)
    job = one.run(previews=False)
    wait_for_step(qtbot, job, TrainStep)
    painted.data = np.zeros_like(painted.data)
    qtbot.waitUntil(lambda: any("Nothing is annotated" in note for note in notes), timeout=LONG_MS)
    wait_for_step(qtbot, job, TrainStep)
    job.cancel()
    assert job.wait(30)
    assert job.error is None


def test_removing_or_renaming_the_labels_is_said_and_training_goes_on(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=endless())
    notes: list[str] = []
    one.noted.connect(notes.append)
    job = one.run(previews=False)
    wait_for_step(qtbot, job, TrainStep)
    painted.name = "mine"
    viewer.layers.remove(painted)
    assert notes[-1] == "'mine' was removed: training goes on with what it said last."
    wait_for_step(qtbot, job, TrainStep)
    job.cancel()
    assert job.wait(30)
    assert job.error is None


def test_removing_the_image_ends_the_preview_only(
    qtbot: QtBot, viewer: Any, em: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=settings(steps=60))
    job = one.run()
    wait_for_step(qtbot, job, PreviewDone)
    viewer.layers.remove(em)
    assert job.wait(120)
    assert job.error is None
    assert one.tuned is not None
    one.compare()


def test_old_and_new_model_are_shown_on_the_current_view(
    qtbot: QtBot, viewer: Any, em: Any, painted: Any, fresh_model: Model
) -> None:
    one = tuning(viewer, painted, wishes=settings(steps=80))
    run(one)
    comparison = one.compare()
    assert comparison is not None
    qtbot.waitUntil(lambda: comparison.layer("after") is not None, timeout=LONG_MS)
    before, after = comparison.layer("before"), comparison.layer("after")
    assert (before.visible, after.visible) == (False, True)
    comparison.show("before")
    assert (before.visible, after.visible) == (True, False)
    assert viewer.layers.selection.active is painted
    np.testing.assert_allclose(after.data_to_world((0, 0, 0)), em.data_to_world((1, 0, 0)))
    assert after.data[0, 26, 11] > 0
    viewer.dims.set_current_step(0, 2)
    qtbot.waitUntil(
        lambda: after.data_to_world((0, 0, 0))[0] == em.data_to_world((2, 0, 0))[0], timeout=LONG_MS
    )
    comparison.close()
    assert before not in viewer.layers


def test_keeping_puts_the_model_into_every_list_and_reverting_goes_back(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model
) -> None:
    news: list[Any] = []
    NEWS.changed.connect(lambda name, of: news.append((name, of)))
    one = tuning(viewer, painted)
    run(one)
    assert one.keep("fresh, em").wait(30)
    assert news == [("fresh, em", viewer)]
    assert one.saved == "fresh, em"
    assert {info.name for info in list_models() if info.source == "saved"} == {"fresh", "fresh, em"}
    assert one.revert().wait(30)
    assert news[-1] == ("fresh", viewer)


def test_a_saved_model_is_never_overwritten_silently_and_a_replaced_one_comes_back(
    viewer: Any, painted: Any, fresh_model: Model, model_folder: Path
) -> None:
    path = model_folder / "fresh.safetensors"
    before = path.read_bytes()
    one = tuning(viewer, painted)
    run(one)
    refused = one.keep("fresh")
    assert refused.wait(30)
    assert isinstance(refused.error, OutputError)
    assert path.read_bytes() == before
    assert one.keep("fresh", overwrite=True).wait(30)
    assert len(read_info(path).history) == 1
    assert one.revert().wait(30)
    assert path.read_bytes() == before


def test_a_replaced_model_comes_back_after_others_were_kept_too(
    viewer: Any, painted: Any, fresh_model: Model, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model_folder / "fresh.safetensors"
    before = path.read_bytes()
    one = tuning(viewer, painted)
    run(one)
    for name in ("fresh", "fresh", "another"):
        assert one.keep(name, overwrite=True).wait(30)

    def fail(*_: Any) -> None:
        raise OutputError("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(fine_tuning, "write_atomically", fail)
        assert one.revert().wait(30)
    assert path.read_bytes() != before
    assert one.revert().wait(30)
    assert path.read_bytes() == before


def test_the_name_of_a_kept_model_is_free_and_can_be_a_file(fresh_model: Model) -> None:
    assert name_for(fresh_model.info, ["a/b: c", "a/b: c", "d"]) == "fresh, ab c and d"
    fresh_model.save("fresh, em")
    assert name_for(fresh_model.info, ["em"]) == "fresh, em 2"


def test_what_did_not_become_better_is_not_offered(viewer: Any, painted: Any, bright_model: Model) -> None:
    one = tuning(viewer, painted, bright_model, settings(steps=10, learning_rate=0.5))
    run(one)
    assert one.before is not None
    assert one.latest is not None
    assert one.latest.value < one.before.value
    assert not one.is_better
    assert one.compare() is None


def test_when_the_gpu_fails_the_best_model_so_far_is_there_to_be_kept(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet_seg.core._trainer import Trainer

    learn = Trainer.learn_one_batch

    def fail_later(trainer: Trainer) -> TrainStep:
        if trainer.step == 25:
            raise RuntimeError("CUDA error: device lost")
        return learn(trainer)

    monkeypatch.setattr(Trainer, "learn_one_batch", fail_later)
    one = tuning(viewer, painted)
    job = one.run(previews=False)
    assert job.wait(120)
    assert "device lost" in str(job.error)
    assert one.is_better
    assert one.keep("rescued").wait(30)
    assert load_model("rescued").history[-1]["best_step"] in (10, 20)


def test_closing_the_window_leaves_no_thread_and_no_error(
    qtbot: QtBot, viewer: Any, painted: Any, fresh_model: Model, no_thread_left: Any, capfd: Any
) -> None:
    job = tuning(viewer, painted, wishes=endless()).run()
    wait_for_step(qtbot, job, PreviewDone)
    viewer.close()
    qtbot.waitUntil(lambda: not job.is_running, timeout=LONG_MS)
    qtbot.waitUntil(no_thread_left, timeout=LONG_MS)
    assert job.error is None
    assert "Traceback" not in capfd.readouterr().err


def test_two_windows_do_not_meddle(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], squares: Any, fresh_model: Model
) -> None:
    one, other = make_napari_viewer(), make_napari_viewer()
    first = tuning(one, paint(one, add_stack(one, squares)), wishes=endless())
    second = tuning(other, paint(other, add_stack(other, squares)))
    job = first.run()
    wait_for_step(qtbot, job, PreviewDone)
    run(second)
    assert second.is_better
    assert PREVIEW not in other.layers
    one.close()
    qtbot.waitUntil(lambda: not job.is_running, timeout=LONG_MS)


def test_without_a_layer_or_an_image_it_says_what_to_do(
    viewer: Any, squares: Any, fresh_model: Model
) -> None:
    with pytest.raises(InputError, match="Choose a layer to learn from"):
        training_request([], viewer.layers, "fresh")
    em = viewer.add_image(squares[0], name="small")
    layer = new_annotation_layer(viewer, em)
    layer.data = np.zeros((70, 90), np.uint16)
    with pytest.raises(InputError, match="is 70×90 but image 'small' is 64×80"):
        training_request([layer], viewer.layers, "fresh")
    viewer.layers.remove(em)
    with pytest.raises(InputError, match="No image in the viewer fits labels 'small › annotation'"):
        training_request([layer], viewer.layers, "fresh")


def test_channels_that_do_not_fit_are_said_and_colours_become_grey(
    viewer: Any, squares: Any, fresh_model: Model
) -> None:
    colour = viewer.add_image(np.stack([squares[0]] * 3, axis=-1), rgb=True, name="rgb")
    layer = new_annotation_layer(viewer, colour)
    layer.data[20:32, 5:17] = 2
    layer.data[40:44, 5:50] = 1
    one = tuning(viewer, layer)
    run(one)
    assert one.tuned is not None
    two = viewer.add_image(squares[:2], name="two", axis_labels=("c", "y", "x"))
    other = new_annotation_layer(viewer, two)
    with pytest.raises(InputError, match=r"has 2 channel.* takes 1: choose one of its channels"):
        training_request([other], viewer.layers, "fresh")
    assert training_request([other], viewer.layers, "fresh", channel=1).channel == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [({}, "Nothing is annotated"), ({1: 1}, "No object"), ({1: 2}, "paint some background")],
)
def test_what_nothing_can_be_learned_from_is_a_sentence(
    viewer: Any, em: Any, fresh_model: Model, values: dict[int, int], said: str
) -> None:
    layer = new_annotation_layer(viewer, em)
    for plane, value in values.items():
        layer.data[plane, 20:32, 5:17] = value
    job = tuning(viewer, layer).run(previews=False)
    assert job.wait(120)
    assert isinstance(job.error, InputError)
    assert said in str(job.error)


def test_one_object_is_enough_and_it_is_said_what_it_was_scored_on(
    viewer: Any, em: Any, fresh_model: Model
) -> None:
    layer = new_annotation_layer(viewer, em)
    layer.data[1, 24:28, 7:15] = 2
    layer.data[1, 40:44, 5:50] = 1
    one = tuning(viewer, layer)
    notes: list[str] = []
    one.noted.connect(notes.append)
    run(one)
    assert "Learning from 1 object on 1 plane" in notes[0]
    assert one.after is not None
    assert one.after.measured_on in notes[0]


def test_pixels_that_are_not_finite_are_said_and_replaced(
    viewer: Any, squares: Any, fresh_model: Model
) -> None:
    holed = squares.astype(np.float32)
    holed[1, :5] = np.nan
    em = viewer.add_image(holed, name="em", contrast_limits=(0, 255))
    one = tuning(viewer, paint(viewer, em))
    notes: list[str] = []
    one.noted.connect(notes.append)
    run(one)
    assert any("NaN" in note for note in notes)


def test_objects_that_both_models_found_keep_their_ids() -> None:
    before = np.zeros((10, 20), np.int32)
    before[2:8, 2:8], before[2:8, 12:18] = 1, 2
    after = np.zeros((10, 20), np.int32)
    after[2:8, 12:18], after[3:8, 2:8], after[0, 0:3] = 1, 2, 3
    matched = with_ids_of(before, after)
    assert matched[5, 15] == 2
    assert matched[5, 5] == 1
    assert matched[0, 1] > 2
    assert not matched[after == 0].any()
