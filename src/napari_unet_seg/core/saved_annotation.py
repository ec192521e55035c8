"""An annotation on the disk, in a folder of its own: notes, labels as they grow, and the same as a TIFF.

```text
annotation.json   name, coding, planes, regions, image, where it lies
journal-*.bin     the labels, box by box as they are painted (`journal`)
labels.tif        the same as OME-TIFF, renewed when there is time
```
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet_seg.core._plain_files import read_json, write_json
from napari_unet_seg.core.annotation import DEFAULT_AXES
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import write_labels
from napari_unet_seg.core.journal import Journal, Recorded, patch_of, read_journal

PREDICTED = "predicted"
"""The part of a journal with the prediction that the labels are a correction of."""
TOUCHED = "touched"
"""The part of a journal that is not 0 where a person has painted."""

ANNOTATION_FILE = "annotation.json"
TIFF_FILE = "labels.tif"

_LARGEST_TIFF_PX = 2**29


@dataclass(frozen=True)
class ImageNotes:
    """Which image was annotated, and how it was opened.

    Attributes
    ----------
    path
        Of its file or folder; None for one that was in memory only.
    opened
        Plain values that open it again in the same way: axes, channel, part.
    """

    name: str
    path: str | None = None
    opened: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RegionNotes:
    """Shapes in which everything is annotated.

    Attributes
    ----------
    corners
        Of each shape, in pixels of the labels.
    kinds
        Of each shape: "rectangle", "polygon"…
    """

    name: str
    corners: tuple[tuple[tuple[float, ...], ...], ...] = ()
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationNotes:
    """Everything about an annotation but its labels.

    Attributes
    ----------
    planes
        Annotated as a whole.
    checked
        Ids of predicted objects that are right.
    axes, voxel_size_nm
        For the TIFF; empty where unknown.
    placement
        Plain values: scale, translate… of the layer.
    last_plane
        Where it was painted last.
    classes
        Names of the classes that the labels of a class map are, the background first.
    """

    name: str
    coding: str
    shape: tuple[int, ...]
    selected_label: int = 1
    planes: tuple[int, ...] = ()
    checked: tuple[int, ...] = ()
    regions: RegionNotes | None = None
    image: ImageNotes | None = None
    axes: str = ""
    voxel_size_nm: Mapping[str, float] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    last_plane: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    @property
    def has_marks(self) -> bool:
        """Whether a person has said something besides painting."""
        has_regions = self.regions is not None and bool(self.regions.corners)
        return has_regions or bool(self.planes) or bool(self.checked)

    @property
    def first_object_id(self) -> int:
        """The smallest id of an object: among scribbles, 1 is background."""
        return 2 if self.coding == "scribbles" else 1

    @classmethod
    def from_json(cls, fields: Any) -> AnnotationNotes:
        """Read what `dataclasses.asdict` made, as JSON hands it back."""
        known = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields}
        regions, image = known.get("regions"), known.get("image")
        return cls(
            **known
            | {
                "shape": tuple(int(length) for length in fields["shape"]),
                "planes": tuple(known.get("planes", ())),
                "checked": tuple(known.get("checked", ())),
                "last_plane": tuple(known.get("last_plane", ())),
                "classes": tuple(map(str, known.get("classes", ()))),
                "regions": None if regions is None else _regions_from_json(regions),
                "image": None if image is None else ImageNotes(**image),
            }
        )


def _regions_from_json(fields: Any) -> RegionNotes:
    corners = tuple(tuple(tuple(map(float, corner)) for corner in shape) for shape in fields["corners"])
    return RegionNotes(str(fields["name"]), corners, tuple(map(str, fields["kinds"])))


@dataclass(frozen=True)
class Extent:
    """How much a person has done in an annotation."""

    n_objects: int
    n_planes: int
    is_empty: bool


class SavedAnnotation:
    """An annotation in its folder, `annotations/<id>`; one thread writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note_move(self, folder: Path) -> None:
        """Its folder is another one now."""
        self.folder = folder
        self.__dict__.pop("journal", None)

    @cached_property
    def journal(self) -> Journal:
        """To write labels to."""
        return Journal(self.folder)

    def write_notes(self, notes: AnnotationNotes) -> None:
        """Replace the notes.

        Raises
        ------
        OutputError
            They cannot be written; the old ones are still there.
        """
        write_json(self.folder / ANNOTATION_FILE, asdict(notes))

    def read_notes(self) -> AnnotationNotes:
        """What is noted; of damaged notes, what the labels say: their shape.

        Raises
        ------
        InputError
            Neither notes nor labels can be read.
        """
        path = self.folder / ANNOTATION_FILE
        try:
            return _notes_in(path)
        except InputError as error:
            found = self.read_labels()
            if found is None:
                raise InputError(f"'{path}' is damaged, and so are the labels beside it.") from error
            return AnnotationNotes(self.folder.name, "", found.shape)

    def read_labels(self) -> Recorded | None:
        """The labels so far; None before the first were written."""
        return read_journal(self.folder)

    def extent(self) -> Extent:
        """Look through all of it for what was done."""
        notes, found = self.read_notes(), self.read_labels()
        if found is None:
            return Extent(0, 0, is_empty=not notes.has_marks)
        ids: set[int] = set()
        n_planes, is_corrected = 0, False
        for plane in {*found.planes(), *found.planes(PREDICTED)}:
            labels = found.plane(plane)
            if PREDICTED in found.parts:
                is_corrected = is_corrected or bool((labels != found.plane(plane, PREDICTED)).any())
            patch = patch_of(plane, labels)
            if patch is not None:
                n_planes += 1
                ids.update(np.unique(patch.values).tolist())
        n_objects = sum(label >= notes.first_object_id for label in ids)
        is_painted = is_corrected if PREDICTED in found.parts else n_planes > 0
        is_touched = TOUCHED in found.parts
        return Extent(n_objects, n_planes, is_empty=not (is_painted or is_touched or notes.has_marks))

    @property
    def is_certainly_empty(self) -> bool:
        """Whether nothing was done, as far as this version can read it all."""
        try:
            _notes_in(self.folder / ANNOTATION_FILE)
            is_readable = self.read_labels() is not None or not any(self.folder.glob("journal-*"))
            return is_readable and self.extent().is_empty
        except InputError:
            return False

    def write_tiff(self) -> None:
        """Renew `labels.tif`, unless the stack is too large for that.

        Raises
        ------
        OutputError, InputError, UNetSegError
            It cannot be written; the journal holds everything nevertheless.
        """
        notes, found = self.read_notes(), self.read_labels()
        if found is None or math.prod(found.shape) > _LARGEST_TIFF_PX:
            return
        write_labels(
            self.folder / TIFF_FILE,
            (found.plane(plane) for plane in np.ndindex(*found.shape[:-2])),
            shape=found.shape,
            dtype=np.uint16 if found.dtype.itemsize <= 2 else np.uint32,
            axes=notes.axes or DEFAULT_AXES[len(found.shape)],
            voxel_size_nm=notes.voxel_size_nm,
            metadata={"annotation": notes.name, "coding": notes.coding},
            overwrite=True,
        )

    @property
    def changed(self) -> datetime:
        """When it was last written to."""
        written = [*self.folder.glob("journal-*.bin"), *self.folder.glob(ANNOTATION_FILE)]
        latest_s = max((path.stat().st_mtime for path in written), default=0.0)
        return datetime.fromtimestamp(latest_s, tz=UTC).astimezone()


def _notes_in(path: Path) -> AnnotationNotes:
    said = read_json(path)
    try:
        return AnnotationNotes.from_json(said)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"'{path}' is damaged.") from error
