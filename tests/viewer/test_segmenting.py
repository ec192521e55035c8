"""`nus.segment` in a real window: results, places, cancelling, and everything that can go wrong meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytestqt.qtbot import QtBot
from scipy import ndimage as ndi
from tests.viewer.conftest import add_stack

import napari_unet_seg as nus
from napari_unet_seg._segment.request import Piece
from napari_unet_seg._segment.segmenting import segmentation_of
from napari_unet_seg.core.errors import InputError, ModelFileError
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.objects import ObjectSettings

LABELS = "em › bright › labels"
LONG_MS = 60_000


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    return make_napari_viewer()


@pytest.fixture
def em(viewer: Any, squares: Any) -> Any:
    return add_stack(viewer, squares)


def slow(**changes: Any) -> nus.PredictSettings:
    """So many tiles that there is time to do something meanwhile."""
    return nus.PredictSettings(tile_px=8, **changes)


def run_until_first_tile(qtbot: QtBot, em: Any, model: Any, **changes: Any) -> nus.Job:
    job = nus.segment(em, model, slow(), **changes)
    with qtbot.waitSignal(job.stepped, check_params_cb=lambda step: isinstance(step, Piece), timeout=LONG_MS):
        pass
    return job


def test_the_plane_in_view_is_segmented_as_predict_would(
    viewer: Any, em: Any, bright_model: Model, squares: Any
) -> None:
    job = nus.segment(em, "bright")
    assert job.is_running
    assert job.wait(120)
    expected = nus.predict(squares[1], bright_model, nus.PredictSettings(pixel_size_nm=10)).labels
    np.testing.assert_array_equal(job.result.labels, expected)
    labels = viewer.layers[LABELS]
    np.testing.assert_array_equal(labels.data[1], expected)
    assert expected.max() == 2
    assert not labels.data[[0, 2]].any()
    assert labels.data.dtype == np.uint16
    for name in ("scale", "translate"):
        np.testing.assert_allclose(getattr(labels, name), getattr(em, name))
    assert (labels.units, labels.axis_labels) == (em.units, em.axis_labels)


def test_the_stack_is_filled_plane_by_plane_with_ids_that_occur_once(
    viewer: Any, em: Any, bright_model: Model, squares: Any
) -> None:
    job = nus.segment(em, bright_model, where="stack")
    assert job.wait(120)
    labels = viewer.layers[LABELS].data
    np.testing.assert_array_equal(labels, job.result.labels)
    assert [len(np.unique(plane)) - 1 for plane in labels] == [1, 2, 3]
    assert labels.max() == 6


def test_planes_one_by_one_share_a_layer_and_no_ids(viewer: Any, em: Any, bright_model: Model) -> None:
    for z in (2, 0):
        viewer.dims.set_current_step(0, z)
        assert nus.segment(em, bright_model).wait(60)
    data = viewer.layers[LABELS].data
    assert len(viewer.layers) == 2
    assert set(np.unique(data[2])) == {0, 1, 2, 3}
    assert set(np.unique(data[0])) == {0, 4}


def test_while_the_stack_is_filled_only_the_plane_in_view_is_drawn_again(
    viewer: Any, em: Any, bright_model: Model
) -> None:
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    assert [segmentation._is_drawn((z,)) for z in range(3)] == [False, True, False]
    viewer.dims.order = (1, 0, 2)
    assert all(segmentation._is_drawn((z,)) for z in range(3)), "a cut through all planes is shown"


def test_a_rectangle_holds_what_the_whole_plane_holds_there(
    viewer: Any, em: Any, bright_model: Model
) -> None:
    assert nus.segment(em, bright_model, where=(slice(10, 50), slice(20, 60))).wait(60)
    data = viewer.layers[LABELS].data
    assert data[1, 20:32, 30:42].all()
    assert not data[1, :, :20].any()
    assert not data[[0, 2]].any()


def test_running_twice_leaves_the_first_result(viewer: Any, em: Any, bright_model: Model) -> None:
    first = nus.segment(em, bright_model)
    second = nus.segment(em, bright_model)
    assert first.wait(120)
    assert second.wait(120)
    assert [layer.name for layer in viewer.layers] == ["em", LABELS, f"{LABELS} #2"]
    np.testing.assert_array_equal(viewer.layers[1].data, viewer.layers[2].data)


def test_colours_are_segmented_by_their_grey(viewer: Any, bright_model: Model, squares: Any) -> None:
    colour = viewer.add_image(np.stack([squares[0]] * 3, axis=-1), rgb=True, name="rgb")
    job = nus.segment(colour, bright_model)
    assert job.wait(120)
    assert job.error is None
    assert viewer.layers["rgb › bright › labels"].data.max() == 1


def test_one_channel_is_segmented_and_the_result_has_no_channel_axis(
    viewer: Any, bright_model: Model, squares: Any
) -> None:
    em = viewer.add_image(squares, name="em", axis_labels=("c", "y", "x"))
    job = nus.segment(em, bright_model, nus.PredictSettings(channel=2, zoom=1))
    assert job.wait(120)
    assert viewer.layers[LABELS].data.shape == (64, 80)
    assert viewer.layers[LABELS].data.max() == 3


def test_a_pyramid_is_segmented_at_its_finest_level(viewer: Any, bright_model: Model, squares: Any) -> None:
    em = viewer.add_image([squares[0], squares[0, ::2, ::2]], multiscale=True, name="em")
    assert nus.segment(em, bright_model).wait(60)
    assert viewer.layers[LABELS].data.shape == (64, 80)


def test_cancelling_keeps_what_is_there_and_the_next_run_works(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model
) -> None:
    job = run_until_first_tile(qtbot, em, bright_model, where="stack")
    job.cancel()
    assert job.wait(10)
    assert job.error is None
    assert not job.result.complete
    assert nus.segment(em, bright_model).wait(60)
    assert viewer.layers[f"{LABELS} #2"].data.max() == 2


def test_cancelling_before_the_first_tile_leaves_no_empty_layer(
    viewer: Any, em: Any, bright_model: Model
) -> None:
    job = nus.segment(em, bright_model, slow(), where="stack")
    assert LABELS in viewer.layers
    job.cancel()
    assert job.wait(120)
    assert list(viewer.layers) == [em]


def test_removing_the_layer_ends_the_run(qtbot: QtBot, viewer: Any, em: Any, bright_model: Model) -> None:
    job = run_until_first_tile(qtbot, em, bright_model, where="stack")
    viewer.layers.remove(LABELS)
    assert job.wait(30)
    assert job.error is None
    assert list(viewer.layers) == [em]


def test_removing_the_image_does_not_disturb_the_run(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model
) -> None:
    job = run_until_first_tile(qtbot, em, bright_model)
    viewer.layers.remove(em)
    assert job.wait(120)
    assert viewer.layers[LABELS].data.max() == 2


def test_closing_the_window_leaves_no_thread_and_no_error(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model, no_thread_left: Any, capfd: Any
) -> None:
    job = run_until_first_tile(qtbot, em, bright_model, where="stack")
    viewer.close()
    qtbot.waitUntil(lambda: not job.is_running, timeout=LONG_MS)
    qtbot.waitUntil(no_thread_left, timeout=LONG_MS)
    assert job.error is None
    assert "Traceback" not in capfd.readouterr().err


def test_two_windows_do_not_meddle(
    qtbot: QtBot, make_napari_viewer: Callable[..., Any], bright_model: Model, squares: Any
) -> None:
    one, other = make_napari_viewer(), make_napari_viewer()
    first = run_until_first_tile(qtbot, add_stack(one, squares), bright_model, where="stack", viewer=one)
    second = nus.segment(add_stack(other, squares), bright_model, where="stack", viewer=other)
    one.close()
    qtbot.waitUntil(lambda: not first.is_running, timeout=LONG_MS)
    assert second.wait(120)
    assert other.layers[LABELS].data.max() == 6


def test_a_layer_of_another_viewer_is_refused(
    make_napari_viewer: Callable[..., Any], bright_model: Model, squares: Any
) -> None:
    one, other = make_napari_viewer(), make_napari_viewer()
    with pytest.raises(InputError, match="not in the viewer"):
        nus.segment(add_stack(one, squares), bright_model, viewer=other)


@pytest.mark.parametrize(
    "settings",
    [nus.PredictSettings(device="cuda:99"), nus.PredictSettings(channel=7)],
    ids=["device", "channel"],
)
def test_what_cannot_be_done_is_refused_at_once_and_nothing_is_added(
    viewer: Any, em: Any, bright_model: Model, settings: nus.PredictSettings
) -> None:
    with pytest.raises(InputError):
        nus.segment(em, bright_model, settings)
    assert list(viewer.layers) == [em]


def test_an_image_of_nothing_but_nan_is_an_error_in_words_and_the_next_run_works(
    viewer: Any, em: Any, bright_model: Model
) -> None:
    nan = viewer.add_image(np.full((64, 80), np.nan, np.float32), name="nan", contrast_limits=(0, 1))
    segmentation = segmentation_of(nan, bright_model, None, where="plane", viewer=viewer)
    job = segmentation.run(shows_errors=False)
    assert job.wait(120)
    assert "no finite pixel" in str(job.error)
    assert "nan › bright › labels" not in viewer.layers
    assert nus.segment(em, bright_model).wait(60)


def test_a_damaged_model_is_an_error_in_words(
    viewer: Any, em: Any, bright_model: Model, model_folder: Path
) -> None:
    path = model_folder / "bright.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    job = segmentation_of(em, "bright", None, where="plane", viewer=viewer).run(shows_errors=False)
    assert job.wait(120)
    assert isinstance(job.error, ModelFileError)
    assert list(viewer.layers) == [em]
    with pytest.raises(ModelFileError, match="no model 'absent'"):
        nus.segment(em, "absent")


def test_settings_act_afterwards_without_the_network(viewer: Any, em: Any, bright_model: Model) -> None:
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    assert segmentation.run(shows_errors=False).wait(60)
    assert segmentation.n_objects == 6
    job = segmentation.relabel(ObjectSettings(min_size_px=10_000))
    assert job is not None
    assert job.wait(120)
    assert segmentation.n_objects == 0
    assert not viewer.layers[LABELS].data.any()
    again = segmentation.relabel(ObjectSettings())
    assert again is not None
    assert again.wait(120)
    assert viewer.layers[LABELS].data.max() == 6


def test_settings_show_first_in_the_plane_in_view(viewer: Any, em: Any, bright_model: Model) -> None:
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    segmentation.run(shows_errors=False).wait(60)
    planes: list[Any] = []
    job = segmentation.relabel(ObjectSettings())
    assert job is not None
    job.stepped.connect(lambda step: planes.append(step.plane))
    job.wait(60)
    assert planes == [(1,), (0,), (1,), (2,)]


def test_what_was_asked_last_counts(viewer: Any, em: Any, bright_model: Model) -> None:
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    segmentation.run(shows_errors=False).wait(60)
    late = segmentation.relabel(ObjectSettings(min_size_px=10_000))
    last = segmentation.relabel(ObjectSettings())
    assert late is not None
    assert last is not None
    assert last.wait(120)
    assert late.wait(120)
    assert viewer.layers[LABELS].data.max() == 6


def test_settings_never_change_what_a_person_has_painted(viewer: Any, em: Any, bright_model: Model) -> None:
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    segmentation.run(shows_errors=False).wait(60)
    painted = viewer.layers[LABELS]
    painted.paint((1, 50, 50), 40)
    kept = painted.data.copy()
    job = segmentation.relabel(ObjectSettings(min_size_px=10_000))
    assert job is not None
    job.wait(60)
    np.testing.assert_array_equal(painted.data, kept)
    assert segmentation.layer.name == f"{LABELS} #2"


def test_a_stopped_stack_is_relabelled_where_it_is_complete_only(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model
) -> None:
    segmentation = segmentation_of(em, bright_model, slow(), where="stack", viewer=viewer)
    job = segmentation.run(shows_errors=False)
    job.stepped.connect(lambda step: job.cancel() if type(step).__name__ == "PlaneLabels" else None)
    assert job.wait(120)
    again = segmentation.relabel(ObjectSettings())
    assert again is not None
    assert again.wait(120)
    assert not viewer.layers[LABELS].data[2].any()


def test_probabilities_become_a_layer_at_their_place(viewer: Any, em: Any, bright_model: Model) -> None:
    segmentation = segmentation_of(
        em, bright_model, None, where=(slice(10, 50), slice(20, 60)), viewer=viewer
    )
    segmentation.run(shows_errors=False).wait(60)
    segmentation.add_probabilities()
    layer = viewer.layers["em › bright › P(object)"]
    assert layer.data.shape == (1, 40, 40)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0)), em.data_to_world((1, 10, 20)))


def test_labels_that_cannot_fit_the_memory_are_refused_beforehand(
    viewer: Any, em: Any, bright_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet_seg._segment.request.available_bytes", lambda _: 50_000.0)
    with pytest.raises(InputError, match="of memory are free"):
        nus.segment(em, bright_model, where="stack")
    assert list(viewer.layers) == [em]
    assert nus.segment(em, bright_model).wait(60), "a plane of it fits"


def test_where_probabilities_do_not_fit_the_labels_come_all_the_same(
    viewer: Any, em: Any, bright_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet_seg._segment.request.available_bytes", lambda _: 150_000.0)
    segmentation = segmentation_of(em, bright_model, None, where="stack", viewer=viewer)
    assert segmentation.run(shows_errors=False).wait(60)
    assert viewer.layers[LABELS].data.max() == 6
    assert not segmentation.can_relabel
    assert segmentation.relabel(ObjectSettings()) is None


def test_what_a_plane_shows_when_it_is_stopped_becomes_objects(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model
) -> None:
    assert nus.segment(em, bright_model, where=(slice(0, 1), slice(None), slice(None))).wait(60)
    viewer.dims.set_current_step(0, 2)
    job = nus.segment(em, bright_model, slow())
    data = viewer.layers[LABELS].data
    qtbot.waitUntil(lambda: bool(data[2].any()), timeout=LONG_MS)
    job.cancel()
    assert job.wait(30)
    data = viewer.layers[LABELS].data
    ids = set(np.unique(data[2])) - {0}
    assert len(ids) == ndi.label(data[2] > 0)[1] > 0
    assert not ids & set(np.unique(data[0])), "an id is used once in the layer"


def test_of_a_stopped_stack_only_complete_planes_stay(
    qtbot: QtBot, viewer: Any, em: Any, bright_model: Model
) -> None:
    segmentation = segmentation_of(em, bright_model, slow(), where="stack", viewer=viewer)
    job = segmentation.run(shows_errors=False)
    qtbot.waitUntil(
        lambda: segmentation.n_objects == 1 and bool(segmentation.layer.data[1].any()), timeout=LONG_MS
    )
    job.cancel()
    assert job.wait(30)
    n_in_planes = [len(np.unique(plane)) - 1 for plane in segmentation.layer.data]
    assert sum(n_in_planes) == segmentation.n_objects
    assert n_in_planes[2] == 0


def test_two_runs_beside_each_other_use_no_id_twice(viewer: Any, em: Any, bright_model: Model) -> None:
    everything = (slice(None), slice(None))
    first = nus.segment(em, bright_model, slow(), where=(slice(0, 2), *everything))
    second = nus.segment(em, bright_model, where=(slice(2, 3), *everything))
    assert first.wait(120)
    assert second.wait(120)
    data = viewer.layers[LABELS].data
    assert len(viewer.layers) == 2
    assert len(np.unique(data)) - 1 == 6
