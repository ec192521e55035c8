"""Where model files live and what their headers say; reads no weights and needs no torch.

A model is one `.safetensors` file: weights, plus one JSON header entry that says everything else.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import platformdirs

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, ModelFileError
from napari_unet_seg.core.normalisation import Normalisation
from napari_unet_seg.core.objects import ObjectSettings

Task = Literal["instances", "classes"]
Source = Literal["bundled", "saved", "file", "memory"]

HEADER_ENTRY = "napari_unet_seg"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
NOT_IN_NAMES = '/\\:*?"<>|\0'
"""What some system does not allow in a file's name."""
_LARGEST_HEADER_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ModelInfo:
    """Everything that a person or a program may want to know of a model, except its weights.

    Parameters
    ----------
    name
        What it is called in lists.
    class_names
        One name per class; class 0 is the background (for membranes: the membrane).
    pixel_size_nm
        Pixel size that it was trained at, or None when unknown.
    object_diameter_px
        Typical object diameter in pixels of its training grid, or None when unknown: the median of discs of
        the objects' areas, without the smallest that cover a tenth of all.
    objects
        How its probabilities become objects unless the person says otherwise.
    object_class
        In a class task, the class whose connected pieces are single objects, such as axons; empty: none.
    history
        One entry per training, oldest first: plain values.
    """

    name: str
    architecture: Architecture
    task: Task = "instances"
    class_names: tuple[str, ...] = ("background", "object")
    pixel_size_nm: float | None = None
    object_diameter_px: float | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    object_class: str = ""
    history: tuple[Mapping[str, Any], ...] = ()
    licence: str = ""
    credit: str = ""
    description: str = ""
    source: Source = "memory"
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.task not in ("instances", "classes"):
            raise InputError(f"A model's task is 'instances' or 'classes', not {self.task!r}.")
        if len(self.class_names) != self.architecture.n_classes:
            raise InputError(
                f"Model '{self.name}' has {self.architecture.n_classes} classes "
                f"but {len(self.class_names)} class names: {', '.join(self.class_names)}."
            )
        if self.object_class and (self.task != "classes" or self.object_class not in self.class_names[1:]):
            raise InputError(
                f"Model '{self.name}' cannot have objects of class '{self.object_class}': "
                "name one of the classes of a class task, but not its background."
            )

    @property
    def object_class_id(self) -> int | None:
        """Number of the class whose connected pieces are single objects; None where there is none."""
        return self.class_names.index(self.object_class) if self.object_class else None

    @property
    def learned_zoom(self) -> float | None:
        """Zoom at which it was last adapted to images whose pixel size says nothing; None: it never was.

        A model that was trained once, on images as they are, was not adapted: its grid is theirs.
        """
        recorded = (entry.get("zoom") for entry in reversed(self.history))
        zoom = next((float(zoom) for zoom in recorded if isinstance(zoom, int | float)), None)
        return None if zoom == 1 and len(self.history) == 1 else zoom

    @property
    def usual_zoom(self) -> float:
        """The same, or 1."""
        return 1.0 if self.learned_zoom is None else self.learned_zoom

    def to_json(self) -> dict[str, Any]:
        """Return what the file's header holds: plain values, without where the file is."""
        return {
            "format": FORMAT_VERSION,
            "name": self.name,
            "architecture": self.architecture.to_json(),
            "task": self.task,
            "class_names": list(self.class_names),
            "pixel_size_nm": self.pixel_size_nm,
            "object_diameter_px": self.object_diameter_px,
            "normalisation": self.normalisation.to_json(),
            "objects": self.objects.to_json(),
            "object_class": self.object_class,
            "history": [dict(entry) for entry in self.history],
            "licence": self.licence,
            "credit": self.credit,
            "description": self.description,
        }


def model_folder() -> Path:
    """Return the folder of the person's own models: `NAPARI_UNET_SEG_HOME`, or the platform's data folder."""
    home = os.environ.get("NAPARI_UNET_SEG_HOME")
    return Path(home) if home else platformdirs.user_data_path("napari-unet-seg", appauthor=False) / "models"


def bundled_folder() -> Path:
    """Return the folder of the models inside the package."""
    return Path(str(files("napari_unet_seg").joinpath("weights")))


def list_models() -> list[ModelInfo]:
    """List the bundled models, then the person's own, each by name; unreadable files are left out."""
    return [*_readable(bundled_folder(), "bundled"), *_readable(model_folder(), "saved")]


def find_model(name_or_path: str | os.PathLike[str]) -> tuple[Path, Source]:
    """Return the file of a bundled name, a saved name, or a path; a saved name wins over a bundled one.

    Raises
    ------
    ModelFileError
        There is no such model.
    """
    if is_path(name_or_path):
        path = Path(name_or_path)
        if not path.is_file():
            raise ModelFileError(
                f"There is no model file '{path}': check the path, or give a name from `models`."
            )
        return path, "file"
    name = str(name_or_path)
    places: tuple[tuple[Path, Source], ...] = ((model_folder(), "saved"), (bundled_folder(), "bundled"))
    for folder, source in places:
        path = folder / f"{name}{SUFFIX}"
        if path.is_file():
            return path, source
    known = ", ".join(info.name for info in list_models()) or "none"
    raise ModelFileError(f"There is no model '{name}': known are {known}; a path must end in {SUFFIX}.")


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Tell a path (has a folder, or ends in .safetensors) from the bare name of a model."""
    text = os.fspath(name_or_path)
    return text.endswith(SUFFIX) or Path(text).name != text or not isinstance(name_or_path, str)


def saved_path(name: str) -> Path:
    """Return the file in the model folder that a bare name stands for.

    Raises
    ------
    InputError
        The name cannot be a file's name on every system.
    """
    if not name.strip() or any(character in name for character in NOT_IN_NAMES) or name.startswith("."):
        raise InputError(f"'{name}' cannot be a model's name: use letters, digits, spaces, '-' and '_'.")
    return model_folder() / f"{name}{SUFFIX}"


def read_info(path: Path, source: Source = "file") -> ModelInfo:
    """Read a model's header.

    Raises
    ------
    ModelFileError
        The file is not a model of this project, is damaged, or comes from a newer version.
    """
    entry = _header(path).get("__metadata__", {}).get(HEADER_ENTRY)
    if entry is None:
        raise ModelFileError(f"'{path}' holds weights, but not of napari-unet-seg: it cannot be used here.")
    try:
        fields = json.loads(entry)
        if fields["format"] > FORMAT_VERSION:
            raise ModelFileError(
                f"'{path}' was written by a newer napari-unet-seg: update this one to use it."
            )
        return ModelInfo(
            name=path.name.removesuffix(SUFFIX) if source != "file" else str(fields["name"]),
            architecture=Architecture.from_json(fields["architecture"]),
            task=fields["task"],
            class_names=tuple(fields["class_names"]),
            pixel_size_nm=fields["pixel_size_nm"],
            object_diameter_px=fields["object_diameter_px"],
            normalisation=Normalisation.from_json(fields["normalisation"]),
            objects=ObjectSettings.from_json(fields["objects"]),
            object_class=fields.get("object_class", ""),
            history=tuple(fields["history"]),
            licence=fields["licence"],
            credit=fields["credit"],
            description=fields["description"],
            source=source,
            path=path,
        )
    except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"The description inside model file '{path}' is damaged: get the file again."
        ) from error


def _header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file: 8 bytes of length, then the header."""
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > _LARGEST_HEADER_BYTES:
                raise ModelFileError(f"'{path}' is not a model file.")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelFileError(f"Model file '{path}' cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError) as error:
        raise ModelFileError(
            f"'{path}' is not a model file, or it is cut off: get the file again."
        ) from error
    if not isinstance(header, dict):
        raise ModelFileError(f"'{path}' is not a model file.")
    return header


def _readable(folder: Path, source: Source) -> Iterator[ModelInfo]:
    if not folder.is_dir():
        return
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            yield read_info(path, source)
        except ModelFileError:
            continue
