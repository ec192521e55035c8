"""Which images a `predict` call reads and which files it writes: checked before the network is loaded."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from napari_unet_seg._cli._options import with_option
from napari_unet_seg._cli._outputs import check_new_folder, checked_output
from napari_unet_seg.core.errors import InputError, NotOneStackError, OutputError
from napari_unet_seg.core.image_files import image_stem, look_at, section_files


@dataclass(frozen=True)
class Outputs:
    """Where results go: files for one image, folders for several; None is not wanted."""

    labels: Path
    probabilities: Path | None = None
    table: Path | None = None

    @property
    def wanted(self) -> tuple[Path, ...]:
        """Those that are wanted, labels first."""
        return tuple(path for path in (self.labels, self.probabilities, self.table) if path is not None)

    def for_stem(self, stem: str) -> Outputs:
        """The files of one image, where self is folders."""
        return Outputs(
            self.labels / f"{stem}.tif",
            self.probabilities / f"{stem}.tif" if self.probabilities else None,
            self.table / f"{stem}.csv" if self.table else None,
        )


@dataclass(frozen=True)
class Job:
    """One image, or folder of sections, and the files that come of it."""

    image: Path
    outputs: Outputs


@dataclass(frozen=True)
class Plan:
    """All images of one call; `folders` are those that results go to when there are several."""

    jobs: tuple[Job, ...]
    folders: tuple[Path, ...] = ()


def plan(images: Sequence[Path], outputs: Outputs, *, each: bool, overwrite: bool) -> Plan:
    """Settle what is read and written.

    Raises
    ------
    InputError
        An image does not exist, or the only one cannot be read; two images have one stem.
    OutputError
        A result cannot be written, exists, would replace an input or another result.
    """
    paths = _expanded(images)
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise InputError(f"'{missing[0]}' does not exist: check the name.")
    if each:
        paths = [file for path in paths for file in (section_files(path) if path.is_dir() else [path])]
    _refuse_same_path(outputs)
    if each or len(paths) > 1:
        return _plan_many(paths, outputs, overwrite=overwrite)
    _check_files(outputs, paths, overwrite=overwrite)
    try:
        look_at(paths[0])
    except NotOneStackError as error:
        raise InputError(with_option(error)) from error
    return Plan((Job(paths[0], outputs),))


def _expanded(images: Sequence[Path]) -> list[Path]:
    """Patterns that the shell has left as they are, as Windows does, become files."""
    found: list[Path] = []
    for image in images:
        matches = [] if image.exists() else sorted(glob.glob(str(image)))  # noqa: PTH207 - may be absolute
        found += [Path(match) for match in matches] or [image]
    return found


def _plan_many(paths: Sequence[Path], folders: Outputs, *, overwrite: bool) -> Plan:
    for folder in folders.wanted:
        check_new_folder(folder)
    of_stem: dict[str, Path] = {}
    for path in paths:
        stem = image_stem(path.resolve())
        if stem in of_stem:
            raise InputError(
                f"'{of_stem[stem]}' and '{path}' would both become '{stem}.tif': "
                "rename one, or predict them apart."
            )
        of_stem[stem] = path
    jobs = tuple(Job(path, folders.for_stem(stem)) for stem, path in of_stem.items())
    for job in jobs:
        _refuse_existing(job.outputs, paths, overwrite=overwrite)
    return Plan(jobs, folders.wanted)


def _check_files(outputs: Outputs, inputs: Sequence[Path], *, overwrite: bool) -> None:
    for path in outputs.wanted:
        if path == outputs.table:
            checked_output(path, overwrite=overwrite, inputs=inputs, endings=(".csv",))
        else:
            checked_output(path, overwrite=overwrite, inputs=inputs)


def _refuse_existing(outputs: Outputs, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """As `_check_files` where the folders have been checked and may not be there yet."""
    for path in outputs.wanted:
        if path.parent.is_dir():
            endings = (".csv",) if path == outputs.table else (".tif",)
            checked_output(path, overwrite=overwrite, inputs=inputs, endings=endings)


def _refuse_same_path(outputs: Outputs) -> None:
    images = [path.resolve() for path in (outputs.labels, outputs.probabilities) if path is not None]
    if len(images) != len(set(images)):
        raise OutputError(f"--out and --probabilities are both '{outputs.labels}': choose two names.")


@contextmanager
def made(folders: Sequence[Path]) -> Iterator[None]:
    """Make the folders that are not there; those that stay empty are removed again."""
    new = [folder for folder in dict.fromkeys(folders) if not folder.exists()]
    for folder in new:
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(f"The folder '{folder}' cannot be made: {error.strerror}.") from error
    try:
        yield
    finally:
        for folder in new:
            if not any(folder.iterdir()):
                folder.rmdir()
