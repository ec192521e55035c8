"""Nothing is lost: what is painted is written within seconds, and comes back as it was."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from numpy.typing import NDArray
from pytestqt.qtbot import QtBot

from napari_unet_seg._annotate.layer import adopt, coding_of, image_layer_of, regions_layer_of
from napari_unet_seg._annotate.new_layers import correction_layer, new_annotation_layer, new_regions_layer
from napari_unet_seg._annotate.what_counts import annotated_planes, read_plane
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._layers import METADATA
from napari_unet_seg._opening import OpenRequest, layers_for
from napari_unet_seg._recover import recovery as _recovery
from napari_unet_seg._recover.recoverable import read_recovery
from napari_unet_seg._recover.recovery import Recorder, discard, recorder_of, recoverable, restore
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.image_files import look_at
from napari_unet_seg.core.journal import Journal
from napari_unet_seg.core.models import list_models, load_model, new_model
from napari_unet_seg.core.project import annotations_in, recovery_folder, trainings_in
from napari_unet_seg.core.training_messages import TrainStep, ValidationStep
from napari_unet_seg.core.validation import Score

SHAPE = (3, 40, 60)
RECTANGLE = np.array([(1, 5, 5), (1, 5, 20), (1, 15, 20), (1, 15, 5)], float)
LONG_MS = 20_000


class Session:
    """A viewer with a recorder, as one program has them."""

    def __init__(self, folder: Path | None = None) -> None:
        self.viewer = ViewerModel()
        self.image = add_em(self.viewer)
        self.recorder = Recorder(self.viewer, folder)

    def annotate(self, coding: Any = "scribbles") -> Any:
        """An annotation with two objects on plane 1."""
        layer = new_annotation_layer(self.viewer, self.image, coding=coding)
        self.viewer.dims.set_point(0, 40)
        layer.paint((1, 10, 10), 2)
        layer.paint((1, 20, 30), 3)
        return layer

    def die(self) -> None:
        """End as a kill does: what is not on the disk is gone."""
        self.recorder._timer.stop()
        self.recorder._is_open = False
        _recovery._recorders.discard(self.recorder)
        self.recorder._writer.close()
        for project in (self.recorder._session, self.recorder._project):
            if project is not None:
                project.close()


def add_em(viewer: ViewerModel, name: str = "em", **changes: Any) -> Any:
    where = {"scale": (40, 4, 4), "units": ("nm",) * 3, "axis_labels": ("z", "y", "x")}
    return viewer.add_image(np.zeros(SHAPE, np.uint8), name=name, **(where | changes))


@pytest.fixture
def sessions(qtbot: QtBot) -> Iterator[Callable[..., Session]]:
    made: list[Session] = []

    def make(folder: Path | None = None) -> Session:
        made.append(Session(folder))
        return made[-1]

    yield make
    for session in made:
        session.recorder.close()


@pytest.fixture
def session(sessions: Callable[..., Session]) -> Session:
    return sessions()


def the_recovery() -> Any:
    (found,) = recoverable()
    return found


def saved_labels(recorder: Recorder) -> NDArray[Any]:
    """What is on the disk of the only annotation."""
    (saved,) = annotations_in(recorder._home().path)
    found = saved.read_labels()
    return np.stack([found.plane((z,)) for z in range(SHAPE[0])])


# It is written by itself


def test_strokes_are_on_the_disk_within_two_seconds(session: Session, qtbot: QtBot) -> None:
    layer = session.annotate()
    qtbot.waitUntil(lambda: session.recorder.seconds_since_saved is not None, timeout=LONG_MS)
    layer.paint((2, 5, 5), 4)
    painted_s = time.monotonic()
    qtbot.waitUntil(lambda: np.array_equal(saved_labels(session.recorder), layer.data), timeout=LONG_MS)
    assert _recovery.EVERY_MS <= 1000
    assert time.monotonic() - painted_s < LONG_MS / 1000
    assert session.recorder.problem == ""


def test_only_changed_boxes_are_appended(session: Session) -> None:
    layer = session.annotate()
    session.recorder.flush()
    (file,) = recovery_folder().rglob("journal-*.bin")
    before = file.stat().st_size
    layer.paint((1, 30, 30), 5)
    session.recorder.flush()
    assert file.stat().st_size - before < 300
    session.recorder.flush()
    after = file.stat().st_size
    session.recorder.flush()
    assert file.stat().st_size == after, "what did not change is not written again"


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.undo(),
        lambda layer: layer.fill((0, 0, 0), 9),
        lambda layer: layer.data_setitem((np.array([0, 2]), np.array([1, 2]), np.array([3, 4])), 8),
        lambda layer: layer.paint_polygon([(1, 1, 1), (1, 1, 9), (1, 9, 9)], 4),
        lambda layer: setattr(layer, "data", np.ones(SHAPE, np.uint16)),
        lambda layer: setattr(layer, "data", layer.data.astype(np.int32) * 100_000),
        lambda layer: [layer.undo(), layer.undo(), layer.redo()],
    ],
    ids=["undo", "fill", "setitem", "polygon", "replace", "wider", "redo"],
)
def test_every_way_to_change_labels_is_recorded(session: Session, change: Callable[[Any], Any]) -> None:
    layer = session.annotate()
    session.recorder.flush()
    change(layer)
    assert session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


def test_random_painting_comes_back(session: Session, sessions: Callable[..., Session]) -> None:
    layer = session.annotate()
    rng = np.random.default_rng(0)
    for number in range(60):
        session.viewer.dims.set_point(0, 40 * rng.integers(3))
        plane = int(session.viewer.dims.current_step[0])
        kind = rng.integers(5)
        layer.brush_size = int(rng.integers(1, 12))
        place = (plane, int(rng.integers(40)), int(rng.integers(60)))
        if kind < 3:
            layer.paint(place, int(rng.integers(0, 9)))
        elif kind == 3:
            layer.undo()
        else:
            layer.redo()
        if number % 7 == 0:
            assert session.recorder.flush()
            np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)
    session.recorder.flush()
    expected = layer.data.copy()
    session.die()
    (back,) = restore(sessions().viewer, the_recovery()).layers
    np.testing.assert_array_equal(back.data, expected)


def test_what_a_script_wrote_without_telling_is_there_in_the_end(
    session: Session, sessions: Callable[..., Session]
) -> None:
    layer = session.annotate()
    session.recorder.flush()
    layer.data[2, 5:9] = 7
    session.recorder.close()
    (back,) = restore(sessions().viewer, the_recovery()).layers
    np.testing.assert_array_equal(back.data, layer.data)


def test_a_viewer_without_annotations_leaves_no_folder(session: Session) -> None:
    session.recorder.flush()
    session.viewer.add_labels(np.ones(SHAPE, int), name="no annotation")
    session.recorder.flush()
    assert not recovery_folder().exists()
    assert session.recorder.seconds_since_saved is None


def test_labels_that_become_an_annotation_are_recorded_as_they_are(session: Session) -> None:
    layer = session.viewer.add_labels(np.arange(np.prod(SHAPE)).reshape(SHAPE) % 7)
    session.recorder.flush()
    adopt(layer, "dense")
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


def test_a_recorder_that_comes_late_records_what_is_there(qtbot: QtBot) -> None:
    viewer = ViewerModel()
    layer = new_annotation_layer(viewer, add_em(viewer))
    layer.paint((1, 10, 10), 2)
    recorder = recorder_of(viewer)
    assert recorder_of(viewer) is recorder
    recorder.flush()
    np.testing.assert_array_equal(saved_labels(recorder), layer.data)
    recorder.close()
    assert recorder_of(viewer) is not recorder
    recorder_of(viewer).close()


def test_an_annotation_larger_than_memory_is_not_looked_through(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = (5000, 2000, 3000)

    def refuse(shape: Any, dtype: Any = float) -> Any:
        if np.prod(shape) > 2**30:
            raise MemoryError
        return np.full(shape, 0, dtype)

    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux gives memory that is not there")
    monkeypatch.setattr("napari_unet_seg._annotate.new_layers.np.zeros", refuse)
    huge = session.viewer.add_image(np.broadcast_to(np.uint8(0), shape), name="huge", contrast_limits=(0, 9))
    layer = new_annotation_layer(session.viewer, huge)
    layer.paint((3, 1000, 2000), 2)
    assert session.recorder.flush()
    assert sum(path.stat().st_size for path in recovery_folder().rglob("journal-*.bin")) < 10_000
    layer.paint((4000, 1, 1), 3)
    session.recorder.flush()
    session.die()
    monkeypatch.setattr("napari_unet_seg._annotate.new_layers.np.zeros", refuse)
    viewer = ViewerModel()
    (back,) = restore(viewer, the_recovery()).layers
    assert back.data[3, 1000, 2000] == 2
    assert back.data[4000, 1, 1] == 3
    recorder_of(viewer).flush()
    recorder_of(viewer).close()


# It comes back


def test_an_annotation_comes_back_as_it_was(session: Session, sessions: Callable[..., Session]) -> None:
    layer = session.annotate()
    layer.name = "my cells"
    layer.metadata[METADATA]["planes"] = [2]
    layer.selected_label = 7
    regions = new_regions_layer(session.viewer, layer)
    regions.add_rectangles(RECTANGLE)
    regions.name = "boxes"
    session.recorder.flush()
    expected = layer.data.copy()
    session.die()

    found = the_recovery()
    assert found.annotations[0].image_name == "em"
    assert found.annotations[0].extent.n_objects == 2
    new = sessions()
    restored = restore(new.viewer, found)
    (back,) = restored.layers
    assert restored.problems == ()
    np.testing.assert_array_equal(back.data, expected)
    assert (back.name, coding_of(back), back.selected_label, back.data.dtype) == (
        "my cells", "scribbles", 7, np.uint16,
    )  # fmt: skip
    assert back.metadata[METADATA]["planes"] == [2]
    np.testing.assert_allclose(back.scale, (40, 4, 4))
    assert new.viewer.dims.point[0] == 40, "where it was painted last"
    assert back.units == layer.units
    assert image_layer_of(new.viewer.layers, back) is new.image
    shapes = regions_layer_of(new.viewer.layers, back)
    assert shapes.name == "boxes"
    np.testing.assert_allclose(shapes.data[0], regions.data[0])
    assert recoverable() == [], "it is offered once"


def test_a_correction_comes_back_with_what_was_touched(
    session: Session, sessions: Callable[..., Session]
) -> None:
    predicted = np.zeros(SHAPE, np.int32)
    predicted[1, 4:8, 4:8], predicted[1, 20:24, 20:24] = 1, 2
    result = session.viewer.add_labels(predicted, metadata={METADATA: {"classes": ("none", "a", "b")}})
    layer = correction_layer(session.viewer, result, session.image)
    assert recoverable() == []
    session.viewer.dims.set_point(0, 40)
    layer.paint((1, 30, 50), 3)
    layer.fill((1, 5, 5), 0)
    layer.metadata[METADATA]["checked"].add(2)
    touched = np.zeros(SHAPE[1:], bool)
    touched[0, :4] = True
    layer.metadata[METADATA]["touched"][(0,)] = touched
    session.recorder.flush()
    before = {plane: read_plane(layer, plane).annotated for plane in annotated_planes(layer)}
    session.die()
    (back,) = restore(sessions().viewer, the_recovery()).layers
    after = {plane: read_plane(back, plane).annotated for plane in annotated_planes(back)}
    assert before.keys() == after.keys()
    for plane, annotated in before.items():
        np.testing.assert_array_equal(after[plane], annotated)
    np.testing.assert_array_equal(back.metadata[METADATA]["predicted"], predicted)
    assert back.metadata[METADATA]["classes"] == ("none", "a", "b")


def test_a_correction_in_which_nothing_was_done_is_not_offered(session: Session) -> None:
    predicted = session.viewer.add_labels(np.ones(SHAPE, int))
    correction_layer(session.viewer, predicted, session.image)
    session.recorder.flush()
    session.die()
    assert recoverable() == []
    assert not any(recovery_folder().iterdir()), "what holds nothing is removed"


def test_a_correction_of_an_empty_prediction_still_counts_when_it_comes_back(
    session: Session, sessions: Callable[..., Session]
) -> None:
    empty = session.viewer.add_labels(np.zeros(SHAPE, np.uint16))
    layer = correction_layer(session.viewer, empty, session.image)
    session.viewer.dims.set_point(0, 40)
    layer.paint((1, 30, 50), 3)
    session.recorder.flush()
    n_pixels = int(read_plane(layer, (1,)).annotated.sum())
    session.die()
    (back,) = restore(sessions().viewer, the_recovery()).layers
    assert int(read_plane(back, (1,)).annotated.sum()) == n_pixels > 0


def test_what_began_while_it_was_looked_is_neither_offered_nor_restored_nor_deleted(session: Session) -> None:
    """Two that write to one folder would cut each other off."""
    deleted = session.annotate()
    session.viewer.layers.remove(deleted)
    session.recorder.flush()
    (found,) = run(session.recorder.finding_steps())
    (back,) = session.recorder.show(read_recovery(found)).layers
    assert session.recorder.show(read_recovery(found)).layers == ()
    session.recorder.discard(found)
    assert found.annotations[0].saved.folder.is_dir()
    back.paint((2, 30, 30), 9)
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), back.data)


def test_where_the_image_is_there_another_of_its_name_is_not_taken(
    session: Session, em_file: Path, qtbot: QtBot, tmp_path: Path
) -> None:
    expected = annotated_part(session, em_file)
    (tmp_path / "b").mkdir()
    elsewhere = tmp_path / "b" / em_file.name
    tifffile.imwrite(elsewhere, np.zeros((4, 40, 60), np.uint16), photometric="minisblack")
    viewer = ViewerModel()
    other = open_part(viewer, elsewhere)
    (back,) = restore(viewer, the_recovery()).layers
    image = image_layer_of(viewer.layers, back)
    assert image is not other
    np.testing.assert_array_equal(np.asarray(image.data[:]), expected)
    recorder_of(viewer).close()


def test_where_work_went_on_is_known_until_it_is_settled_there(
    session: Session, sessions: Callable[..., Session], tmp_path: Path
) -> None:
    session.viewer.layers.remove(session.annotate())
    session.recorder.flush()
    session.recorder.use_folder(tmp_path / "project")
    session.annotate()
    session.recorder.flush()
    session.die()
    (own,) = [found for found in recoverable() if not found.is_in_project]
    sessions().recorder.discard(own)
    assert [found.folder for found in recoverable()] == [tmp_path / "project"]


def test_work_goes_on_in_what_was_restored_and_survives_again(
    session: Session, sessions: Callable[..., Session]
) -> None:
    session.annotate()
    session.recorder.flush()
    session.die()
    second = sessions()
    (back,) = restore(second.viewer, the_recovery()).layers
    back.paint((2, 30, 30), 9)
    back.metadata[METADATA]["planes"] = [0]
    second.recorder.flush()
    expected = back.data.copy()
    second.die()
    (again,) = restore(sessions().viewer, the_recovery()).layers
    np.testing.assert_array_equal(again.data, expected)
    assert again.metadata[METADATA]["planes"] == [0]


def test_closing_without_saving_is_no_loss_either(session: Session) -> None:
    session.annotate()
    session.viewer.layers.clear()
    session.recorder.close()
    assert the_recovery().annotations[0].notes.image.name == "em", "although it was removed first"


def test_rectangles_that_were_removed_with_the_viewer_come_back(
    session: Session, sessions: Callable[..., Session]
) -> None:
    layer = session.annotate("regions")
    new_regions_layer(session.viewer, layer).add_rectangles(RECTANGLE)
    session.recorder.flush()
    for name in [layer.name for layer in reversed(session.viewer.layers)]:
        session.viewer.layers.remove(name)
    session.recorder.close()
    new = sessions()
    (back,) = restore(new.viewer, the_recovery()).layers
    assert len(regions_layer_of(new.viewer.layers, back).data) == 1


def test_a_layer_that_was_deleted_can_be_brought_back(session: Session) -> None:
    layer = session.annotate()
    expected = layer.data.copy()
    session.viewer.layers.remove(layer)
    session.recorder.flush()
    found = run(session.recorder.finding_steps())
    assert len(found) == 1
    (back,) = session.recorder.show(_recovery.read_recovery(found[0])).layers
    np.testing.assert_array_equal(back.data, expected)
    assert run(session.recorder.finding_steps()) == []
    back.paint((0, 1, 1), 4)
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), back.data)


def test_a_layer_that_comes_back_by_itself_goes_on_in_its_folder(session: Session) -> None:
    layer = session.annotate()
    session.viewer.layers.remove(layer)
    session.recorder.flush()
    layer.data[0] = 5
    session.viewer.add_layer(layer)
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


def run(steps: Any) -> Any:
    """The result of a generator of no steps."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        return end.value


def test_what_was_discarded_is_gone(session: Session) -> None:
    session.annotate()
    session.recorder.flush()
    session.die()
    discard(the_recovery())
    assert recoverable() == []
    assert not any(recovery_folder().iterdir())


def test_a_deleted_layer_can_be_discarded(session: Session) -> None:
    layer = session.annotate()
    session.viewer.layers.remove(layer)
    session.recorder.flush()
    session.recorder.discard(run(session.recorder.finding_steps())[0])
    assert run(session.recorder.finding_steps()) == []


def test_several_annotations_come_back_together(session: Session, sessions: Callable[..., Session]) -> None:
    session.annotate()
    session.annotate("planes").data[0] = 3
    session.recorder.flush()
    session.die()
    new = sessions()
    layers = restore(new.viewer, the_recovery()).layers
    assert sorted(coding_of(layer) for layer in layers) == ["planes", "scribbles"]
    assert len(new.viewer.layers) == 3, "one image serves both"


# The image


@pytest.fixture
def em_file(tmp_path: Path) -> Path:
    path = tmp_path / "em.tif"
    tifffile.imwrite(
        path, np.arange(4 * 40 * 60).reshape(4, 40, 60).astype(np.uint16), photometric="minisblack"
    )
    return path


def open_part(viewer: ViewerModel, path: Path) -> Any:
    request = OpenRequest(
        look_at(path), "ZYX", None, {"Z": 40.0, "Y": 4.0, "X": 4.0}, {"Z": (1, 3), "Y": (10, 29)}
    )
    ((data, options, _),) = layers_for(request)
    return viewer.add_image(data, **options)


def annotated_part(session: Session, path: Path) -> NDArray[Any]:
    """A part of a file, annotated by a session that then died; returns what the part looks like."""
    image = open_part(session.viewer, path)
    layer = new_annotation_layer(session.viewer, image)
    layer.paint((1, 5, 5), 2)
    session.recorder.flush()
    session.die()
    return np.asarray(image.data[:])


def test_an_image_is_opened_again_as_it_was_opened(session: Session, em_file: Path, qtbot: QtBot) -> None:
    expected = annotated_part(session, em_file)
    viewer = ViewerModel()
    restored = restore(viewer, the_recovery())
    assert restored.problems == ()
    image = image_layer_of(viewer.layers, restored.layers[0])
    np.testing.assert_array_equal(np.asarray(image.data[:]), expected)
    np.testing.assert_allclose(image.translate, (40, 40, 0))
    np.testing.assert_allclose(restored.layers[0].translate, (40, 40, 0))
    recorder_of(viewer).close()


def test_an_image_that_is_open_serves(session: Session, em_file: Path, qtbot: QtBot) -> None:
    annotated_part(session, em_file)
    viewer = ViewerModel()
    image = open_part(viewer, em_file)
    restored = restore(viewer, the_recovery())
    assert image_layer_of(viewer.layers, restored.layers[0]) is image
    assert len(viewer.layers) == 2
    recorder_of(viewer).close()


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda path: path.unlink(), "is not there any more. Open it from where it is now"),
        (lambda path: path.write_bytes(b"gone"), "is not an image that can be read"),
        (lambda path: tifffile.imwrite(path, np.zeros((9, 9), np.uint8)), "could not be opened again"),
        (
            lambda path: tifffile.imwrite(path, np.zeros((4, 50, 70), np.uint16), photometric="minisblack"),
            "is not what it was: its annotation is 3×20×60",
        ),
    ],
    ids=["missing", "unreadable", "flat", "other size"],
)
def test_without_its_image_the_annotation_comes_back_all_the_same(
    session: Session, em_file: Path, qtbot: QtBot, harm: Callable[[Path], Any], sentence: str
) -> None:
    annotated_part(session, em_file)
    harm(em_file)
    viewer = ViewerModel()
    restored = restore(viewer, the_recovery())
    assert any(sentence in problem for problem in restored.problems), restored.problems
    assert restored.layers[0].data[1, 5, 5] == 2
    recorder_of(viewer).close()


def test_an_image_without_a_file_is_named(session: Session, qtbot: QtBot) -> None:
    session.annotate()
    session.recorder.flush()
    session.die()
    viewer = ViewerModel()
    restored = restore(viewer, the_recovery())
    assert restored.problems == (
        "Image 'em' could not be opened again: it had no file. Open it, and choose it in the dock.",
    )
    recorder_of(viewer).close()


# Two at once, and faults


def test_a_living_session_is_not_offered(session: Session) -> None:
    session.annotate()
    session.recorder.flush()
    assert recoverable() == []
    session.die()
    assert len(recoverable()) == 1


def test_two_viewers_record_side_by_side(sessions: Callable[..., Session]) -> None:
    one, other = sessions(), sessions()
    one.annotate()
    other.annotate().paint((0, 3, 3), 9)
    assert one.recorder.flush()
    assert other.recorder.flush()
    assert 9 in saved_labels(other.recorder)
    assert 9 not in saved_labels(one.recorder)
    one.die()
    other.die()
    assert len(recoverable()) == 2


def test_what_another_window_restores_cannot_be_restored_twice(
    session: Session, sessions: Callable[..., Session]
) -> None:
    session.annotate()
    session.recorder.flush()
    session.die()
    found = the_recovery()
    restore(sessions().viewer, found)
    with pytest.raises(InputError):
        restore(sessions().viewer, found)


@pytest.fixture
def small_files() -> Iterator[Callable[[int | None], None]]:
    """Lets no file grow beyond so many bytes: a full disk, as far as writing is concerned."""
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(
        resource.RLIMIT_FSIZE, (before[0] if n_bytes is None else n_bytes, before[1])
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_and_nothing_is_lost(
    session: Session, small_files: Callable[[int | None], None], sessions: Callable[..., Session]
) -> None:
    layer = session.annotate()
    session.recorder.flush()
    before = saved_labels(session.recorder)
    small_files(50)
    layer.paint((2, 30, 30), 9)
    layer.metadata[METADATA]["planes"] = [1]
    assert not session.recorder.flush()
    assert "cannot be written" in session.recorder.problem
    layer.paint((0, 20, 20), 8)
    assert not session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), before)
    small_files(None)
    assert session.recorder.flush()
    assert session.recorder.problem == ""
    expected = layer.data.copy()
    session.die()
    (back,) = restore(sessions().viewer, the_recovery()).layers
    np.testing.assert_array_equal(back.data, expected)
    assert back.metadata[METADATA]["planes"] == [1]


def test_a_layer_that_leaves_while_the_disk_is_full_is_written_later(
    session: Session, small_files: Callable[[int | None], None], qtbot: QtBot
) -> None:
    layer = session.annotate()
    session.recorder.flush()
    small_files(50)
    layer.paint((2, 30, 30), 9)
    session.viewer.layers.remove(layer)
    assert not session.recorder.flush()
    small_files(None)
    assert session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)
    qtbot.waitUntil(lambda: not session.recorder._leaving, timeout=LONG_MS)


def test_after_a_failure_it_tries_again_by_itself(
    session: Session, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery, "RETRY_AFTER_S", 0.1)
    failing = [True]
    append = Journal.append

    def fail_first(journal: Journal, patches: Any) -> None:
        if failing:
            raise OutputError("The disk is full.")
        append(journal, patches)

    layer = session.annotate()
    session.recorder.flush()
    monkeypatch.setattr(Journal, "append", fail_first)
    layer.paint((2, 30, 30), 9)
    qtbot.waitUntil(lambda: session.recorder.problem == "The disk is full.", timeout=LONG_MS)
    failing.clear()
    qtbot.waitUntil(lambda: np.array_equal(saved_labels(session.recorder), layer.data), timeout=LONG_MS)
    qtbot.waitUntil(lambda: session.recorder.problem == "", timeout=LONG_MS)


def test_an_unexpected_error_is_a_sentence_too(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("by zero")

    layer = session.annotate()
    session.recorder.flush()
    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", fail)
        layer.paint((2, 30, 30), 9)
        assert not session.recorder.flush()
        assert session.recorder.problem.startswith(
            "Something unexpected went wrong while saving (ZeroDivision"
        )
    assert session.recorder.flush()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_is_read_only_is_said(session: Session) -> None:
    folder = recovery_folder()
    folder.mkdir()
    folder.chmod(0o500)
    session.annotate()
    assert not session.recorder.flush()
    assert "cannot be made" in session.recorder.problem
    folder.chmod(0o700)
    assert session.recorder.flush()


def test_a_place_where_no_folder_can_be_is_said(session: Session) -> None:
    recovery_folder().write_text("a file where the folder would be")
    layer = session.annotate()
    assert not session.recorder.flush()
    assert "cannot be made" in session.recorder.problem
    recovery_folder().unlink()
    assert session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


def test_a_folder_that_is_removed_meanwhile_is_made_again(session: Session) -> None:
    layer = session.annotate()
    session.recorder.flush()
    shutil.rmtree(recovery_folder())
    layer.paint((2, 30, 30), 9)
    session.recorder.flush()
    assert session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)
    session.die()
    assert the_recovery().annotations[0].extent.n_objects == 3


def test_sessions_that_cannot_be_read_are_left_alone(session: Session) -> None:
    session.annotate()
    session.recorder.flush()
    session.die()
    (notes,) = recovery_folder().rglob("annotation.json")
    (labels,) = recovery_folder().rglob("journal-*.bin")
    notes.write_text(json.dumps(json.loads(notes.read_text()) | {"format": 99}))
    labels.write_bytes(b"from a later version")
    assert recoverable() == []
    assert notes.exists()
    assert labels.exists()


def test_the_brush_never_waits_for_the_disk(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a write hangs, painting, looking and removing layers return at once; all is written after it."""
    hanging, goes_on = threading.Event(), threading.Event()
    append = Journal.append

    def hang(journal: Journal, patches: Any) -> None:
        hanging.set()
        assert goes_on.wait(20)
        append(journal, patches)

    layer = session.annotate()
    session.recorder.flush()
    monkeypatch.setattr(Journal, "append", hang)
    layer.paint((2, 30, 30), 9)
    session.recorder._recordings[str(layer.unique_id)].notice()
    session.recorder._look()
    assert hanging.wait(20)
    layer.paint((0, 30, 30), 8)
    session.recorder._look()
    session.viewer.layers.remove(layer)
    goes_on.set()
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


# Project folders


def test_a_project_folder_takes_what_is_there(session: Session, tmp_path: Path) -> None:
    layer = session.annotate()
    session.recorder.flush()
    session.recorder.use_folder(tmp_path / "project")
    assert session.recorder.folder == tmp_path / "project"
    layer.paint((2, 30, 30), 9)
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)
    assert not list(recovery_folder().rglob("annotation.json")), "it has moved"
    session.recorder.close()
    (tiff,) = (tmp_path / "project").rglob("labels.tif")
    np.testing.assert_array_equal(tifffile.imread(tiff), layer.data)
    assert look_at(tiff).voxel_size_nm == {"Z": 40, "Y": 4, "X": 4}
    assert not any(recovery_folder().iterdir())
    assert recoverable() == [], "it is saved where the person wanted it"


def test_a_project_is_offered_after_a_crash_and_never_deleted(
    session: Session, sessions: Callable[..., Session], tmp_path: Path
) -> None:
    session.recorder.use_folder(tmp_path / "project")
    layer = session.annotate()
    session.recorder.flush()
    session.die()
    found = the_recovery()
    assert found.is_in_project
    discard(found)
    assert recoverable() == []
    assert len(annotations_in(tmp_path / "project")) == 1
    new = sessions(tmp_path / "project")
    (here,) = run(new.recorder.finding_steps())
    (back,) = new.recorder.show(_recovery.read_recovery(here)).layers
    np.testing.assert_array_equal(back.data, layer.data)
    assert run(new.recorder.finding_steps()) == []


def test_restoring_a_project_goes_on_in_it(
    session: Session, sessions: Callable[..., Session], tmp_path: Path
) -> None:
    session.recorder.use_folder(tmp_path / "project")
    session.annotate()
    session.recorder.flush()
    session.die()
    new = sessions()
    (back,) = restore(new.viewer, the_recovery()).layers
    assert new.recorder.folder == tmp_path / "project"
    back.paint((2, 30, 30), 9)
    new.recorder.flush()
    np.testing.assert_array_equal(saved_labels(new.recorder), back.data)
    assert recoverable() == []


def test_earlier_work_in_a_project_can_be_left_alone(
    session: Session, sessions: Callable[..., Session], tmp_path: Path
) -> None:
    session.recorder.use_folder(tmp_path / "project")
    session.annotate()
    session.recorder.close()
    new = sessions(tmp_path / "project")
    (here,) = run(new.recorder.finding_steps())
    new.recorder.discard(here)
    assert run(new.recorder.finding_steps()) == []
    assert len(annotations_in(tmp_path / "project")) == 1, "it stays"


def test_another_project_folder_gets_a_copy(session: Session, tmp_path: Path) -> None:
    session.recorder.use_folder(tmp_path / "a")
    layer = session.annotate()
    session.recorder.flush()
    session.recorder.use_folder(tmp_path / "b")
    session.recorder.use_folder(tmp_path / "b")
    layer.paint((2, 30, 30), 9)
    session.recorder.flush()
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)
    (first,) = annotations_in(tmp_path / "a")
    assert 9 not in first.read_labels().plane((2,))


def test_a_folder_that_will_not_do_is_refused_and_nothing_changes(session: Session, tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(OutputError, match="holds other files"):
        session.recorder.use_folder(tmp_path)
    layer = session.annotate()
    session.recorder.flush()
    assert session.recorder.folder is None
    np.testing.assert_array_equal(saved_labels(session.recorder), layer.data)


def test_a_folder_in_use_by_another_viewer_is_refused(
    sessions: Callable[..., Session], tmp_path: Path
) -> None:
    sessions(tmp_path / "a")
    with pytest.raises(OutputError, match="in use by another window"):
        sessions().recorder.use_folder(tmp_path / "a")


def test_work_outlives_a_project_folder_that_is_not_there(session: Session, tmp_path: Path) -> None:
    session.recorder.use_folder(tmp_path / "project")
    session.annotate()
    session.recorder.flush()
    session.die()
    (tmp_path / "project").rename(tmp_path / "unplugged")
    assert recoverable() == []
    (tmp_path / "unplugged").rename(tmp_path / "project")
    assert the_recovery().is_in_project


# Trainings


def train_step(step: int, loss: float = 0.5) -> TrainStep:
    return TrainStep(step, 10, loss, 1e-4, 0.1, 1.0, None)


def validation(step: int, score: float, *, is_best: bool = True) -> ValidationStep:
    before, after = (Score(value, "F1 at 0.5", "held-out part") for value in (0.25, score))
    return ValidationStep(step, 10, after, is_best, before)


@pytest.fixture
def model() -> Any:
    return new_model(Architecture(base_channels=2, depth=1))


def test_curves_and_the_best_model_are_kept_while_it_trains(session: Session, model: Any) -> None:
    session.recorder.begin_training("em, mine", {"steps": 10})
    session.recorder.record_training(validation(0, 0.25))
    for step in range(1, 4):
        session.recorder.record_training(train_step(step))
    session.recorder.record_training(validation(3, 0.75))
    session.recorder.record_best(model)
    session.recorder.flush()
    (saved,) = trainings_in(session.recorder._home().path)
    assert [point.step for point in saved.read_curve()] == [0, 1, 2, 3, 3]
    assert saved.read_curve()[-1].score == 0.75
    assert saved.read_notes().settings == {"steps": 10}
    assert load_model(saved.best_path).architecture == model.architecture


def test_the_model_of_an_interrupted_training_is_saved_by_its_name(
    session: Session, sessions: Callable[..., Session], model: Any
) -> None:
    for _ in range(2):
        session.recorder.begin_training("em: mine", {})
        session.recorder.record_best(model)
    session.recorder.flush()
    session.die()
    found = the_recovery()
    assert [training.name for training in found.trainings] == ["em: mine"] * 2
    told: list[str] = []
    NEWS.changed.connect(lambda name, _viewer: told.append(name))
    restored = restore(sessions().viewer, found)
    assert told == list(restored.models), "every list of models has them at once"
    assert restored.models == ("em mine (recovered)", "em mine (recovered) 2")
    assert {info.name for info in list_models()} >= set(restored.models)
    assert recoverable() == []


def test_a_training_that_was_settled_is_not_offered(session: Session, model: Any) -> None:
    session.recorder.begin_training("mine", {})
    session.recorder.record_best(model)
    session.recorder.settle_training()
    session.recorder.record_training(train_step(9))
    session.recorder.record_best(model)
    session.recorder.flush()
    session.die()
    assert recoverable() == []
    assert not any(recovery_folder().iterdir())


def test_a_model_that_did_not_fit_the_disk_is_written_later(
    session: Session, model: Any, small_files: Callable[[int | None], None]
) -> None:
    session.recorder.begin_training("mine", {})
    session.recorder.flush()
    small_files(1000)
    session.recorder.record_training(train_step(1))
    session.recorder.record_best(model)
    assert not session.recorder.flush()
    session.recorder.record_training(train_step(2))
    small_files(None)
    assert session.recorder.flush()
    (saved,) = trainings_in(session.recorder._home().path)
    load_model(saved.best_path)
    assert [point.step for point in saved.read_curve()] == [1, 2]


def test_trainings_move_to_a_project_folder(session: Session, model: Any, tmp_path: Path) -> None:
    session.recorder.begin_training("mine", {})
    session.recorder.record_best(model)
    session.recorder.flush()
    session.recorder.use_folder(tmp_path / "a")
    session.recorder.record_training(train_step(1))
    session.recorder.flush()
    (saved,) = trainings_in(tmp_path / "a")
    assert saved.best_path.exists()
    assert saved.read_curve()[0].step == 1


# The end


def test_the_end_of_the_program_writes_what_is_unsaved(model_folder: Path) -> None:
    """A script that just ends, with a stroke of a moment ago."""
    code = """
import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication
app = QApplication([])
from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._recover.recovery import Recorder
viewer = ViewerModel()
recorder = Recorder(viewer)
layer = new_annotation_layer(viewer, viewer.add_image(np.zeros((40, 60)), name="em"))
layer.paint((10, 10), 2)
"""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)
    assert the_recovery().annotations[0].extent.n_objects == 1


def test_a_closed_recorder_leaves_no_thread_and_goes(qtbot: QtBot) -> None:
    session = Session()
    session.annotate()
    before = threading.active_count()
    session.recorder.flush()
    session.recorder.close()
    session.recorder.close()
    qtbot.waitUntil(lambda: threading.active_count() <= before, timeout=LONG_MS)
    is_alive = weakref.ref(session.recorder)
    del session
    gc.collect()
    assert is_alive() is None


def test_an_unreadable_recovery_folder_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Any:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert recoverable() == []
