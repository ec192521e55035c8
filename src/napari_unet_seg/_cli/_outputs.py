"""Files that a command is going to write: checked before work starts, put in place together at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from napari_unet_seg.core.errors import OutputError, UNetSegError
from napari_unet_seg.core.image_files import TIFF_ENDINGS, check_output

_HIDDEN = ".napari-unet-seg-"


def checked_output(
    path: Path, *, overwrite: bool, inputs: Iterable[Path] = (), endings: Sequence[str] = TIFF_ENDINGS
) -> Path:
    """Return `path` when it can be written.

    Raises
    ------
    OutputError
        Its ending is not among `endings`, its folder is missing or cannot be written to, it is an input, or
        it exists and `overwrite` is False.
    """
    refuse_zarr(path)
    try:
        check_output(path, overwrite=overwrite, inputs=inputs, endings=endings)
    except OutputError as error:
        raise OutputError(str(error).replace("allow overwriting", "give --overwrite")) from error
    check_writable(path.parent)
    return path


def refuse_zarr(path: Path) -> None:
    """Say that OME-Zarr cannot be written."""
    if path.name.lower().endswith(".zarr"):
        raise OutputError(
            f"The output '{path}' cannot be OME-Zarr yet, TIFF is supported for now: '{path.stem}.tif'."
        )


def check_writable(folder: Path) -> None:
    """Find out by trying: permission bits say nothing of read-only disks, or to the super-user."""
    try:
        Path(tempfile.mkdtemp(prefix=_HIDDEN, dir=folder)).rmdir()
    except OSError as error:
        raise OutputError(
            f"The folder '{folder}' cannot be written to ({error.strerror}): choose another."
        ) from error


def check_new_folder(folder: Path) -> Path:
    """Return a folder that exists and can be written to, or whose parent does.

    Raises
    ------
    OutputError
        It is a file, or neither it nor its parent can be used.
    """
    refuse_zarr(folder)
    if folder.is_dir():
        check_writable(folder)
        return folder
    if folder.exists():
        raise OutputError(f"'{folder}' is a file: with several images give a folder for the results.")
    if not folder.parent.is_dir():
        raise OutputError(f"The folder '{folder.parent}' for '{folder.name}' does not exist: make it first.")
    check_writable(folder.parent)
    return folder


@contextmanager
def staged(targets: Sequence[Path], *, overwrite: bool) -> Iterator[Mapping[Path, Path]]:
    """A temporary path for each target; all are moved into place when the block ends well, or none.

    Raises
    ------
    UNetSegError
        The disk is full or fails, or a target has appeared meanwhile.
    """
    with ExitStack() as folders:
        try:
            hidden = {
                parent: Path(folders.enter_context(_hidden_folder(parent)))
                for parent in {target.parent for target in targets}
            }
            temporary = {target: hidden[target.parent] / target.name for target in targets}
            yield temporary
            for target, written in temporary.items():
                if target.exists() and not overwrite:
                    raise UNetSegError(f"'{target}' was made by someone else meanwhile: choose another name.")
                written.replace(target)
        except OSError as error:
            names = ", ".join(f"'{target}'" for target in targets)
            raise UNetSegError(f"{names} could not be written: {error.strerror or error}.") from error


def _hidden_folder(parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=_HIDDEN, dir=parent, ignore_cleanup_errors=True)
