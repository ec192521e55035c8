"""A project folder: what is saved comes back, to one program at a time, and nothing of others is touched."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet_seg.core import _folder_lock
from napari_unet_seg.core._folder_lock import LOCK_FILE, is_in_use
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.image_files import look_at
from napari_unet_seg.core.journal import patch_of
from napari_unet_seg.core.models import load_model, new_model
from napari_unet_seg.core.project import (
    Project,
    annotations_in,
    continued_in,
    is_project,
    remove,
    trainings_in,
)
from napari_unet_seg.core.saved_annotation import (
    ANNOTATION_FILE,
    PREDICTED,
    TIFF_FILE,
    TOUCHED,
    AnnotationNotes,
    ImageNotes,
    RegionNotes,
    SavedAnnotation,
)
from napari_unet_seg.core.saved_training import CURVES_FILE, CurvePoint, SavedTraining, TrainingNotes

NOTES = AnnotationNotes(
    "em › annotation",
    "scribbles",
    (2, 20, 30),
    selected_label=5,
    planes=(1,),
    checked=(3, 8),
    regions=RegionNotes("boxes", (((0.0, 1.5, 2.0), (0.0, 1.5, 9.0)),), ("rectangle",)),
    image=ImageNotes("em", "/data/em.tif", {"axes": "ZYX", "parts": {"Z": [2, 3]}}),
    axes="ZYX",
    voxel_size_nm={"Z": 40.0, "Y": 4.0, "X": 4.0},
    placement={"scale": [40.0, 4.0, 4.0], "units": ["nm", "nm", "nm"]},
    classes=("background", "myelin", "axon"),
)
PLAIN = AnnotationNotes("a", "scribbles", (2, 20, 30))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "my project")


def saved(project: Project, notes: AnnotationNotes = PLAIN, **parts: np.ndarray) -> SavedAnnotation:
    """An annotation on the disk, with the planes of its parts."""
    annotation = project.new_annotation(notes.name)
    annotation.write_notes(notes)
    patches = [
        patch
        for part, values in parts.items()
        for plane in np.ndindex(*values.shape[:-2])
        if (patch := patch_of(plane, values[plane], part))
    ]
    annotation.journal.rewrite(patches, notes.shape, np.uint16)
    return annotation


def painted(*places: tuple[int, int, int, int]) -> np.ndarray:
    """A stack of zeros with ids at some places: (plane, row, column, id)."""
    labels = np.zeros(PLAIN.shape, np.uint16)
    for plane, row, column, label in places:
        labels[plane, row, column] = label
    return labels


ONE = painted((0, 0, 0, 1))


# Annotations


def test_notes_come_back_as_they_were_written(project: Project) -> None:
    saved(project, NOTES)
    (found,) = annotations_in(project.path)
    assert found.read_notes() == NOTES
    assert found.folder.name.startswith("em-annotation-"), "a person recognises it"


def test_notes_of_a_later_version_may_say_more(project: Project) -> None:
    annotation = saved(project, NOTES)
    path = annotation.folder / ANNOTATION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "fine"}))
    assert annotation.read_notes() == NOTES


def test_labels_outlive_damaged_notes(project: Project) -> None:
    annotation = saved(project, NOTES, labels=painted((1, 2, 3, 4)))
    (annotation.folder / ANNOTATION_FILE).write_text("{")
    notes = annotation.read_notes()
    assert (notes.name, notes.coding, notes.shape) == (annotation.folder.name, "", NOTES.shape)
    assert annotation.extent().n_objects == 1
    empty = project.new_annotation("b")
    with pytest.raises(InputError, match="damaged"):
        empty.read_notes()


def test_it_says_how_much_was_done(project: Project) -> None:
    places = ((0, 1, 1, 1), (0, 5, 5, 2), (0, 6, 6, 3), (1, 2, 2, 3))
    scribbles = saved(project, PLAIN, labels=painted(*places)).extent()
    assert (scribbles.n_objects, scribbles.n_planes, scribbles.is_empty) == (2, 2, False)
    dense = saved(project, replace(PLAIN, coding="planes"), labels=painted(*places)).extent()
    assert dense.n_objects == 3


@pytest.mark.parametrize(
    ("notes", "parts", "is_empty"),
    [
        (PLAIN, {}, True),
        (replace(PLAIN, planes=(1,)), {}, False),
        (replace(PLAIN, checked=(1,)), {}, False),
        (replace(PLAIN, regions=RegionNotes("r")), {}, True),
        (replace(PLAIN, regions=NOTES.regions), {}, False),
        (PLAIN, {"labels": ONE}, False),
        (PLAIN, {"labels": ONE, PREDICTED: ONE}, True),
        (PLAIN, {"labels": 2 * ONE, PREDICTED: ONE}, False),
        (PLAIN, {"labels": 0 * ONE, PREDICTED: ONE}, False),
        (PLAIN, {"labels": ONE, PREDICTED: ONE, TOUCHED: painted((0, 1, 1, 1))}, False),
    ],
)
def test_it_is_empty_as_long_as_a_person_has_done_nothing(
    project: Project, notes: AnnotationNotes, parts: dict[str, np.ndarray], is_empty: bool
) -> None:
    assert saved(project, notes, **parts).extent().is_empty == is_empty


def test_the_labels_are_a_plain_tiff_too(project: Project) -> None:
    labels = painted((0, 1, 1, 1), (1, 19, 29, 7))
    annotation = saved(project, NOTES, labels=labels)
    annotation.write_tiff()
    path = annotation.folder / TIFF_FILE
    np.testing.assert_array_equal(tifffile.imread(path), labels)
    assert look_at(path).voxel_size_nm == {"Z": 40, "Y": 4, "X": 4}
    annotation.journal.append([patch_of((0,), np.eye(20, 30, dtype=np.uint16))])
    annotation.write_tiff()
    assert tifffile.imread(path)[0].sum() == 20


# Trainings


def test_curves_and_the_best_model_come_back(project: Project) -> None:
    training = project.new_training("my cells")
    notes = TrainingNotes("my cells", "2026-01-02T03:04:05", {"steps": 3, "weights": {"w0": 10.0}})
    training.write_notes(notes)
    points = [CurvePoint(0, score=0.25, is_best=True), CurvePoint(1, loss=0.5, learning_rate=1e-4)]
    training.append_curve(points)
    training.append_curve([CurvePoint(2, loss=0.25)])
    model = new_model(Architecture(base_channels=2, depth=1))
    training.save_best(model)
    (found,) = trainings_in(project.path)
    assert found.read_notes() == notes
    assert found.read_curve() == [*points, CurvePoint(2, loss=0.25)]
    assert (
        (found.folder / CURVES_FILE)
        .read_text()
        .startswith("step,loss,learning_rate,score,is_best\n0,,,0.25,True")
    )
    for key, weights in load_model(found.best_path).network.state_dict().items():
        np.testing.assert_array_equal(weights, model.network.state_dict()[key])


def test_a_curve_that_was_cut_off_is_read_up_to_there(project: Project) -> None:
    training = project.new_training("a")
    training.append_curve([CurvePoint(step, loss=0.5) for step in range(1, 4)])
    path = training.folder / CURVES_FILE
    whole = path.read_bytes()
    for n_cut in range(1, 14):
        path.write_bytes(whole[:-n_cut])
        assert [point.step for point in training.read_curve()] == ([1, 2] if n_cut < 10 else [1]), n_cut


def test_curves_that_went_away_are_begun_again(project: Project) -> None:
    training = project.new_training("a")
    training.append_curve([CurvePoint(1)])
    (training.folder / CURVES_FILE).unlink()
    training.append_curve([CurvePoint(2)])
    assert training.read_curve() == [CurvePoint(2)]


def test_damaged_notes_of_a_training_leave_its_model(project: Project) -> None:
    training = project.new_training("cells")
    training.write_notes(TrainingNotes("cells", "", {}))
    (training.folder / "training.json").write_text("[]")
    assert trainings_in(project.path)[0].read_notes().name == training.folder.name


# The folder


def test_a_folder_of_somebody_elses_files_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files: choose an empty one"):
        Project(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        Project(tmp_path / "thesis.docx")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "project.json").write_text('{"made_by": "another program"}')
    with pytest.raises(OutputError, match="holds other files"):
        Project(other)
    (other / "project.json").write_text('{"made_by": "napari-unet-seg", "format": 99}')
    with pytest.raises(InputError, match="newer napari-unet-seg"):
        Project(other)


def test_a_folder_is_for_one_at_a_time(project: Project) -> None:
    with pytest.raises(OutputError, match="in use by another window of this napari"):
        Project(project.path)
    assert is_in_use(project.path)
    project.close()
    assert not is_in_use(project.path)
    Project(project.path).close()


def test_a_folder_that_was_never_used_is_free(tmp_path: Path) -> None:
    assert not is_in_use(tmp_path)


def holding(folder: Path) -> subprocess.Popen[str]:
    """Another program that uses a folder until it is killed."""
    code = f"""
        import time
        from pathlib import Path
        from napari_unet_seg.core.project import Project
        project = Project(Path({str(folder)!r}))
        print("ready", flush=True)
        time.sleep(60)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", "\n".join(line.strip() for line in code.splitlines())],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def test_a_killed_program_lets_go_of_its_folder(tmp_path: Path) -> None:
    with holding(tmp_path / "a") as child:
        try:
            with pytest.raises(OutputError, match=rf"another napari \(process {child.pid}\)"):
                Project(tmp_path / "a")
            assert is_in_use(tmp_path / "a")
        finally:
            child.kill()
    assert not is_in_use(tmp_path / "a")
    Project(tmp_path / "a").close()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere every file system has locks")
class TestWhereTheFileSystemHasNoLocks:
    @pytest.fixture(autouse=True)
    def no_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(_folder_lock.fcntl, "flock", refuse)

    def write(self, folder: Path, **holder: object) -> None:
        folder.mkdir(exist_ok=True)
        (folder / LOCK_FILE).write_text(json.dumps(_folder_lock._myself() | holder))

    def test_a_living_program_keeps_its_folder(self, tmp_path: Path) -> None:
        project = Project(tmp_path / "a")
        with pytest.raises(OutputError, match="in use"):
            Project(tmp_path / "a")
        project.close()
        Project(tmp_path / "a").close()

    def test_a_dead_one_does_not(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", ""]) as child:
            pass
        self.write(tmp_path / "a", pid=child.pid)
        assert not is_in_use(tmp_path / "a")

    def test_a_number_that_was_given_again_does_not(self, tmp_path: Path) -> None:
        if _folder_lock._started(os.getpid()) is None:
            pytest.skip("the system does not say when a program began")
        self.write(tmp_path / "a", started="1")
        assert not is_in_use(tmp_path / "a")

    def test_another_computer_keeps_its_folder(self, tmp_path: Path) -> None:
        self.write(tmp_path / "a", computer="elsewhere")
        with pytest.raises(OutputError, match="on elsewhere"):
            _folder_lock.FolderLock(tmp_path / "a")

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"computer": 3}'])
    def test_a_damaged_lock_holds_nobody_up(self, tmp_path: Path, text: str) -> None:
        (tmp_path / LOCK_FILE).write_text(text)
        assert not is_in_use(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Project(tmp_path / "file" / "inside")


def test_an_annotation_moves_to_another_project_whole(project: Project, tmp_path: Path) -> None:
    annotation = saved(project, NOTES, labels=painted((1, 2, 3, 4)))
    other = Project(tmp_path / "other")
    assert not other.holds(annotation)
    for _ in range(2):
        other.take_over(annotation)
        assert other.holds(annotation)
        assert annotations_in(project.path) == []
        assert annotation.read_notes() == NOTES
        assert annotation.extent().n_objects == 1
    annotation.journal.append([patch_of((0,), np.eye(20, 30, dtype=np.uint16) * 9)])
    assert annotation.extent().n_objects == 2, "it is gone on with there"


def test_it_moves_to_another_disk_by_copying(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotation = saved(project, NOTES, labels=painted((1, 2, 3, 4)))
    other = Project(tmp_path / "other")
    rename = Path.rename

    def refuse_other_disk(path: Path, target: Path) -> Path:
        if path.is_relative_to(project.path) and target.is_relative_to(other.path):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_other_disk)
    before = annotation.folder
    other.take_over(annotation)
    assert annotation.extent().n_objects == 1
    assert [path.name for path in (other.path / "annotations").iterdir()] == [before.name]
    assert not before.exists()


def test_half_a_move_is_no_annotation(project: Project, tmp_path: Path) -> None:
    annotation = saved(project, NOTES)
    (project.path / "annotations" / ".half.part").mkdir()
    (project.path / "annotations" / ".half.part" / ANNOTATION_FILE).write_text("{}")
    assert [one.folder for one in annotations_in(project.path)] == [annotation.folder]


def test_a_folder_of_nothing_goes_when_it_is_closed(project: Project) -> None:
    annotation = saved(project, NOTES)
    project.close_and_tidy()
    assert is_project(project.path), "an annotation is in it"
    again = Project(project.path)
    remove(annotation)
    remove(annotation)
    again.close_and_tidy()
    assert not project.path.exists()


def test_it_says_where_work_went_on(project: Project, tmp_path: Path) -> None:
    assert continued_in(project.path) is None
    project.continue_in(tmp_path)
    assert continued_in(project.path) == tmp_path
    project.continue_in(None)
    assert continued_in(project.path) is None
    assert continued_in(tmp_path) is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="only POSIX kills like this")
def test_a_kill_while_notes_are_written_leaves_notes(tmp_path: Path) -> None:
    """Notes of two kinds are written in turn by a program that is killed: one of both is there, whole."""
    code = f"""
import itertools
from pathlib import Path
from napari_unet_seg.core.project import Project
from napari_unet_seg.core.saved_annotation import AnnotationNotes
annotation = Project(Path({str(tmp_path / "a")!r})).new_annotation("a")
for number in itertools.count():
    checked = (number,) * (1 + 500 * (number % 2))
    annotation.write_notes(AnnotationNotes("a", "scribbles", (4, 4), checked=checked))
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(20):
            said = child.stdout.readline()
        child.kill()
    (annotation,) = annotations_in(tmp_path / "a")
    assert annotation.read_notes().checked[0] >= int(said)


def test_a_training_can_be_removed(project: Project) -> None:
    training = SavedTraining(project.new_training("a").folder)
    training.write_notes(TrainingNotes("a", ""))
    remove(training)
    assert trainings_in(project.path) == []
