"""A training on the disk, in a folder of its own: settings, curves, and the best model so far.

```text
training.json      name, settings, what became of it
curves.csv         loss and score by step
best.safetensors   the best model so far
```
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from napari_unet_seg.core._plain_files import read_json, write_json
from napari_unet_seg.core.atomic import append_durably, make_folder, write_atomically
from napari_unet_seg.core.errors import InputError

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model

BEST_FILE = "best.safetensors"
CURVES_FILE = "curves.csv"
TRAINING_FILE = "training.json"

_COLUMNS = ("step", "loss", "learning_rate", "score", "is_best")

TrainingState: TypeAlias = Literal["running", "settled"]
"""Settled: its model was kept or given up, so there is nothing to recover."""


@dataclass(frozen=True)
class CurvePoint:
    """A row of `curves.csv`: a step that was learned, or weights that were scored."""

    step: int
    loss: float | None = None
    learning_rate: float | None = None
    score: float | None = None
    is_best: bool | None = None


@dataclass(frozen=True)
class TrainingNotes:
    """What is known of a training.

    Attributes
    ----------
    name
        What its model would be called.
    started
        Local time, as in ISO 8601.
    settings
        Plain values.
    """

    name: str
    started: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    state: TrainingState = "running"


class SavedTraining:
    """A training in its folder, `trainings/<id>`; one thread writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._curve_bytes = 0

    def note_move(self, folder: Path) -> None:
        """Its folder is another one now."""
        self.folder = folder

    @property
    def best_path(self) -> Path:
        """The best model so far."""
        return self.folder / BEST_FILE

    def write_notes(self, notes: TrainingNotes) -> None:
        """Replace the notes.

        Raises
        ------
        OutputError
            They cannot be written; the old ones are still there.
        """
        write_json(self.folder / TRAINING_FILE, asdict(notes))

    def read_notes(self) -> TrainingNotes:
        """What is noted; of damaged notes, the name of the folder."""
        try:
            said = read_json(self.folder / TRAINING_FILE)
            return TrainingNotes(**{entry.name: said[entry.name] for entry in fields(TrainingNotes)})
        except (InputError, KeyError):
            return TrainingNotes(self.folder.name, "")

    def append_curve(self, points: Iterable[CurvePoint]) -> None:
        """Add rows.

        Raises
        ------
        OutputError
            They cannot be written; those before are still there.
        """
        path = self.folder / CURVES_FILE
        if not self._curve_bytes or not path.exists():
            make_folder(self.folder)
            header = (",".join(_COLUMNS) + "\n").encode()
            write_atomically(path, header)
            self._curve_bytes = len(header)
        text = io.StringIO()
        csv.DictWriter(text, _COLUMNS, lineterminator="\n").writerows(map(asdict, points))
        self._curve_bytes = append_durably(path, self._curve_bytes, text.getvalue().encode())

    def read_curve(self) -> list[CurvePoint]:
        """The rows so far, without one that was cut off.

        Raises
        ------
        InputError
            There are none.
        """
        path = self.folder / CURVES_FILE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"'{path}' cannot be read: {error.strerror or error}.") from error
        points = []
        for row in csv.DictReader(io.StringIO(text.rpartition("\n")[0])):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                points.append(_curve_point(row))
        return points

    def save_best(self, model: Model) -> None:
        """Replace the best model.

        Raises
        ------
        OutputError
            It cannot be written; the one before is still there.
        """
        make_folder(self.folder)
        model.save(self.best_path, overwrite=True)


def _curve_point(row: Mapping[str, str]) -> CurvePoint:
    loss, rate, score = (float(row[name]) if row[name] else None for name in _COLUMNS[1:4])
    is_best = {"True": True, "False": False, "": None}[row["is_best"]]
    return CurvePoint(int(row["step"]), loss, rate, score, is_best)
