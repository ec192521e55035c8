"""Small files of plain values, readable by a person and by other programs: JSON, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet_seg.core.atomic import make_folder, write_atomically
from napari_unet_seg.core.errors import InputError

_FORMAT = 1


def write_json(path: Path, said: Mapping[str, Any]) -> None:
    """Replace a file of ours, in a folder that is made when it is missing.

    Raises
    ------
    OutputError
        It cannot be written; the old one is still there.
    """
    text = json.dumps({"format": _FORMAT, **said}, indent=1, default=_plain, ensure_ascii=False)
    make_folder(path.parent)
    write_atomically(path, text.encode())


def read_json(path: Path) -> Any:
    """The values of a file of ours.

    Raises
    ------
    InputError
        It cannot be read, is damaged, or was written by a newer version.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise InputError(f"'{path}' is damaged: choose another folder.") from error
    if not isinstance(said, dict):
        raise InputError(f"'{path}' is damaged: choose another folder.")
    if said.get("format", 0) > _FORMAT:
        raise InputError(f"'{path}' was written by a newer napari-unet-seg: update this one.")
    return said


def _plain(value: object) -> object:
    """Numpy values and the like as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
