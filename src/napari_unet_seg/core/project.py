"""A project folder: annotations and trainings as they grow, of which a crash at any moment costs seconds.

```text
project.json        what this is
in-use.json         locked by the program that writes here
annotations/<id>/   see `saved_annotation`
trainings/<id>/     see `saved_training`
```
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from pathlib import Path

from napari_unet_seg.core._folder_lock import LOCK_FILE, FolderLock
from napari_unet_seg.core._plain_files import read_json, write_json
from napari_unet_seg.core.atomic import make_folder
from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.model_store import model_folder
from napari_unet_seg.core.saved_annotation import ANNOTATION_FILE, SavedAnnotation
from napari_unet_seg.core.saved_training import TRAINING_FILE, SavedTraining

_PROJECT_FILE = "project.json"
_MADE_BY = "napari-unet-seg"
_NAME_LENGTH = 40


def recovery_folder() -> Path:
    """Return the folder of what was not saved anywhere else: beside that of the person's models."""
    models = model_folder()
    is_chosen = bool(os.environ.get("NAPARI_UNET_SEG_HOME"))
    return models.with_name(f"{models.name}-recovery" if is_chosen else "recovery")


class Project:
    """A project folder in use by this program, until `close`.

    Parameters
    ----------
    path
        A project, an empty folder, or one that does not exist yet.

    Raises
    ------
    InputError
        It holds something else, another program uses it, or it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_ours(path)
        make_folder(path)
        self._lock = FolderLock(path)
        if not is_project(path):
            try:
                self.continue_in(None)
            except OutputError:
                self._lock.release()
                raise

    def new_annotation(self, name: str) -> SavedAnnotation:
        """An empty one; nothing is written yet."""
        return SavedAnnotation(_unused(self.path / "annotations", name))

    def new_training(self, name: str) -> SavedTraining:
        """An empty one; nothing is written yet."""
        return SavedTraining(_unused(self.path / "trainings", name))

    def take_over(self, saved: SavedAnnotation | SavedTraining) -> None:
        """Move an annotation or training of another project here, whole or not at all.

        Raises
        ------
        OutputError
            It cannot be moved; it is where it was.
        """
        target = self.path / saved.folder.parent.name / saved.folder.name
        if target == saved.folder:
            return
        if target.exists():
            target = _unused(target.parent, saved.folder.name)
        make_folder(target.parent)
        try:
            _move(saved.folder, target)
        except OSError as error:
            raise OutputError(
                f"'{saved.folder}' cannot be moved to '{target}': {error.strerror or error}."
            ) from error
        saved.note_move(target)

    def holds(self, saved: SavedAnnotation | SavedTraining) -> bool:
        """Whether something is kept here."""
        return saved.folder.parent.parent == self.path

    def continue_in(self, other: Path | None) -> None:
        """Note that another folder is written to instead; None: none is.

        Raises
        ------
        OutputError
            It cannot be noted.
        """
        said = {} if other is None else {"continued_in": str(other)}
        write_json(self.path / _PROJECT_FILE, {"made_by": _MADE_BY} | said)

    def close(self) -> None:
        """Let other programs use it."""
        self._lock.release()

    def close_and_tidy(self) -> None:
        """Close it, and remove the folder when it holds nothing, and does not say where work went on."""
        self.close()
        for leftover in _found(self.path, "*/.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for name in ("annotations", "trainings"):
            with contextlib.suppress(OSError):  # it is not empty, or not there
                (self.path / name).rmdir()
        if continued_in(self.path) is not None:
            return
        if {path.name for path in _found(self.path, "*")} <= {_PROJECT_FILE, LOCK_FILE}:
            shutil.rmtree(self.path, ignore_errors=True)


def is_project(path: Path) -> bool:
    """Whether a folder is a project of ours."""
    return (path / _PROJECT_FILE).is_file()


def continued_in(path: Path) -> Path | None:
    """The folder that was written to instead of a project; None when it was the project itself."""
    try:
        other = read_json(path / _PROJECT_FILE).get("continued_in")
    except InputError:
        return None
    return Path(other) if isinstance(other, str) else None


def annotations_in(path: Path) -> list[SavedAnnotation]:
    """Every annotation of a project."""
    return [SavedAnnotation(file.parent) for file in _found(path, f"annotations/[!.]*/{ANNOTATION_FILE}")]


def trainings_in(path: Path) -> list[SavedTraining]:
    """Every training of a project."""
    return [SavedTraining(file.parent) for file in _found(path, f"trainings/[!.]*/{TRAINING_FILE}")]


def remove(saved: SavedAnnotation | SavedTraining) -> None:
    """Delete an annotation or a training.

    Raises
    ------
    OutputError
        Something of it is still there.
    """
    leaving = saved.folder.with_name(f".{saved.folder.name}.gone")
    try:
        saved.folder.rename(leaving)  # at once, so that no half of it is found
        shutil.rmtree(leaving)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"'{saved.folder}' cannot be removed: {error.strerror or error}.") from error


def _check_ours(path: Path) -> None:
    """Refuse a file, and a folder that holds something else."""
    if path.exists() and not path.is_dir():
        raise OutputError(f"'{path}' is a file: choose a folder.")
    is_other = bool({inside.name for inside in _found(path, "*")} - {LOCK_FILE})
    if is_project(path):
        is_other = read_json(path / _PROJECT_FILE).get("made_by") != _MADE_BY
    if is_other:
        raise OutputError(f"The folder '{path}' holds other files: choose an empty one, or a new name.")


def _unused(parent: Path, name: str) -> Path:
    """A folder that does not exist yet, with a name that a person recognises."""
    plain = re.sub(r"[^\w-]+", "-", name).strip("-_")[:_NAME_LENGTH] or "unnamed"
    while (path := parent / f"{plain}-{secrets.token_hex(3)}").exists():
        pass
    return path


def _move(folder: Path, target: Path) -> None:
    """Rename, or copy to another disk under a name that does not count until all is there."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    partial.rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def _found(folder: Path, pattern: str) -> list[Path]:
    """Files that match, in order; none where the folder is missing or cannot be read."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
