"""The rows of the Open dock, each about one thing: where the image is, its axes, voxel size, which part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Qt, QUrl, Signal
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QRadioButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._opening import UNKNOWN, OpenRequest
from napari_unet_seg.core.errors import InputError

_AXIS_NAMES = {"T": "time", "Z": "planes", "C": "channels", "Y": "rows", "X": "columns"}
_FILE_FILTER = "Images (*.tif *.tiff *.png);;All files (*)"


class PathRow(QWidget):
    """A line for the path, and buttons that choose a file or a folder."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.line = QLineEdit(placeholderText="TIFF, PNG, or a folder of sections")
        self.line.setToolTip(
            "Path of an image or of a folder with one file per section; you can also drop it here."
        )
        self.line.setClearButtonEnabled(True)
        self.file_button = QPushButton("File…")
        self.file_button.setToolTip("Choose an image file.")
        self.folder_button = QPushButton("Folder…")
        self.folder_button.setToolTip("Choose a folder that holds one file per section.")
        row = _row(self)
        row.addWidget(self.line, 1)
        row.addWidget(self.file_button)
        row.addWidget(self.folder_button)
        self.line.textChanged.connect(self.changed)
        self.file_button.clicked.connect(self._choose_file)
        self.folder_button.clicked.connect(self._choose_folder)

    @property
    def path(self) -> Path | None:
        """What is in the line; quotes that a file manager copied along are left out."""
        text = self.line.text().strip().strip("\"'")
        if text.startswith("file:"):
            text = QUrl(text).toLocalFile()
        return Path(text).expanduser() if text else None

    def _choose_file(self) -> None:
        self._take(QFileDialog.getOpenFileName(self, "Open an image", self._folder(), _FILE_FILTER)[0])

    def _choose_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, "Open a folder of sections", self._folder()))

    def _take(self, chosen: str) -> None:
        if chosen:
            self.line.setText(chosen)

    def _folder(self) -> str:
        return str(self.path.parent) if self.path else ""


class AxesRow(QWidget):
    """One list of letters per axis, in the order of the file."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.boxes: list[QComboBox] = []
        self._row = _row(self)
        self._row.addStretch(1)

    @property
    def axes(self) -> str:
        """One letter per axis."""
        return "".join(box.currentText() for box in self.boxes)

    def show_request(self, request: OpenRequest) -> None:
        """Offer letters for each axis of an image."""
        for box in self.boxes:
            self._row.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.boxes = [_axis_box(axis, n) for axis, n in zip(request.axes, request.info.shape, strict=True)]
        for at, box in enumerate(self.boxes):
            self._row.insertWidget(at, box)
            box.currentTextChanged.connect(self.changed)


def _axis_box(axis: str, length: int) -> QComboBox:
    box = QComboBox()
    box.addItems(["T", "Z", "C", "Y", "X"] if axis != UNKNOWN else [UNKNOWN, "T", "Z", "C", "Y", "X"])
    box.setCurrentText(axis)
    names = ", ".join(f"{letter} = {name}" for letter, name in _AXIS_NAMES.items())
    box.setToolTip(f"What the axis of length {length} is: {names}.")
    return box


class ChannelBox(QComboBox):
    """All channels, one of them, or the grey of a colour image."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Which channel to open; all of them become one layer each, or one colour layer.")

    @property
    def channel(self) -> int | str | None:
        """As in `OpenRequest`."""
        chosen: int | str | None = self.currentData()
        return chosen

    def show_request(self, request: OpenRequest) -> None:
        """Offer the channels of an image, keeping the choice where it is still there."""
        before = self.channel
        n_channels = request.length("C")
        names = request.info.channel_names
        with QSignalBlocker(self):
            self.clear()
            self.addItem("all", None)
            if request.info.is_rgb and n_channels == len(names):
                self.addItem("grey", "grey")
            for number in range(n_channels if "C" in request.axes else 0):
                name = f" · {names[number]}" if len(names) == n_channels else ""
                self.addItem(f"{number}{name}", number)
            self.setCurrentIndex(max(0, self.findData(before)))


class VoxelRow(QWidget):
    """The size of a voxel along Z, Y and X in nm; an empty line means that it is not known."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.lines = {axis: _size_line(axis) for axis in "ZYX"}
        self.source = QLabel()
        self._from_file: Mapping[str, float] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        column.addLayout(self._lines_row())
        column.addWidget(self.source)
        for line in self.lines.values():
            line.textChanged.connect(self._say_source)
            line.textChanged.connect(self.changed)

    def _lines_row(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.letters = {axis: QLabel(axis) for axis in self.lines}
        for axis, line in self.lines.items():
            row.addWidget(self.letters[axis])
            row.addWidget(line)
        row.addWidget(QLabel("nm"))
        row.addStretch(1)
        return row

    @property
    def size_nm(self) -> dict[str, float]:
        """The sizes that are known.

        Raises
        ------
        InputError
            A line does not hold a number.
        """
        texts = {axis: line.text().strip() for axis, line in self.lines.items() if line.isEnabled()}
        return {axis: _number(axis, text) for axis, text in texts.items() if text}

    def show_request(self, request: OpenRequest) -> None:
        """Fill in what the file says."""
        self._from_file = request.info.voxel_size_nm or {}
        for axis, line in self.lines.items():
            with QSignalBlocker(line):
                line.setText(f"{self._from_file[axis]:.6g}" if axis in self._from_file else "")
        self.show_axes(request.axes)
        self._say_source()

    def show_axes(self, axes: str) -> None:
        """Offer the axes that the image has."""
        for axis, line in self.lines.items():
            line.setVisible(axis in axes)
            line.setEnabled(axis in axes)
            self.letters[axis].setVisible(axis in axes)

    def _say_source(self) -> None:
        typed = {axis for axis, line in self.lines.items() if line.text() and line.isEnabled()}
        shown = {axis: f"{size:.6g}" for axis, size in self._from_file.items()}
        if not typed:
            self.source.setText("not known: type it if you know it")
        elif all(self.lines[axis].text() == shown.get(axis, "") for axis in typed):
            self.source.setText("from the file: please check")
        else:
            self.source.setText("as typed")


def _size_line(axis: str) -> QLineEdit:
    line = QLineEdit(placeholderText="unknown")
    line.setFixedWidth(68)
    line.setToolTip(f"Size of a voxel along {axis} in nanometres; empty means that it is not known.")
    return line


def _number(axis: str, text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError as error:
        raise InputError(
            f"The voxel size '{text}' of {axis} is not a number: type nanometres, or leave it empty."
        ) from error


class PartRow(QWidget):
    """All planes or some, whole or cropped; ends are included and counted from 0, as on napari's slider."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.all_button = QRadioButton("all planes")
        self.all_button.setToolTip("Every plane, each read from the disk when it is shown.")
        self.some_button = QRadioButton("planes")
        self.some_button.setToolTip("Only the planes from the first to the last number, both included.")
        self.all_button.setChecked(True)
        self.crop_box = QCheckBox("crop")
        self.crop_box.setToolTip("Only a rectangle of every plane; it stays at its place in the whole image.")
        self.planes, self.rows, self.columns = RangeBox(), RangeBox(), RangeBox()
        self._lay_out()
        for button in (self.all_button, self.some_button, self.crop_box):
            button.toggled.connect(self._enable)
            button.toggled.connect(self.changed)
        for box in (self.planes, self.rows, self.columns):
            box.changed.connect(self.changed)
        self._enable()

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self._plane_choice, self._crop_choice = QWidget(), QWidget()
        choice = _grid(self._plane_choice)
        choice.addWidget(self.all_button, 0, 0, 1, 2)
        choice.addWidget(self.some_button, 1, 0)
        choice.addWidget(self.planes, 1, 1)
        crop = _grid(self._crop_choice)
        for line, (name, box) in enumerate((("rows", self.rows), ("columns", self.columns))):
            crop.addWidget(QLabel(name), line, 0)
            crop.addWidget(box, line, 1)
        for part in (self._plane_choice, self.crop_box, self._crop_choice):
            column.addWidget(part)

    def parts(self, plane_axis: str | None) -> dict[str, tuple[int, int]]:
        """As in `OpenRequest`; empty when everything is wanted."""
        wanted = {}
        if plane_axis is not None and self.some_button.isChecked():
            wanted[plane_axis] = self.planes.ends
        if self.crop_box.isChecked():
            wanted |= {"Y": self.rows.ends, "X": self.columns.ends}
        return wanted

    def show_request(self, request: OpenRequest) -> None:
        """Offer all of an image."""
        self.all_button.setChecked(True)
        self.crop_box.setChecked(False)
        self.show_axes(request)

    def show_axes(self, request: OpenRequest) -> None:
        """Fit the numbers to what the axes are called now."""
        self._plane_choice.setVisible(request.plane_axis is not None)
        self.planes.show_length(request.length(request.plane_axis or ""))
        self.rows.show_length(request.length("Y"))
        self.columns.show_length(request.length("X"))

    def _enable(self) -> None:
        self.planes.setEnabled(self.some_button.isChecked())
        self._crop_choice.setVisible(self.crop_box.isChecked())


class RangeBox(QWidget):
    """First and last index, both included."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = _index_box("First"), _index_box("Last")
        self._length = 0
        row = _row(self)
        row.addWidget(self.first)
        row.addWidget(QLabel("–"))
        row.addWidget(self.last)
        self.first.valueChanged.connect(self.changed)
        self.last.valueChanged.connect(self.changed)

    @property
    def ends(self) -> tuple[int, int]:
        """First and last."""
        return self.first.value(), self.last.value()

    def show_length(self, length: int) -> None:
        """Offer 0 to length - 1; the whole of it when the length is another than before."""
        if length == self._length:
            return
        self._length = length
        for box, value in ((self.first, 0), (self.last, length - 1)):
            with QSignalBlocker(box):
                box.setRange(0, length - 1)
                box.setValue(value)


def _index_box(which: str) -> QSpinBox:
    box = QSpinBox()
    box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    box.setAlignment(Qt.AlignmentFlag.AlignRight)
    box.setFixedWidth(58)
    box.setToolTip(f"{which} one wanted, counted from 0.")
    return box


def _grid(owner: QWidget) -> QGridLayout:
    grid = QGridLayout(owner)
    grid.setContentsMargins(0, 0, 0, 0)
    grid.setSpacing(2)
    grid.setColumnMinimumWidth(0, 72)
    grid.setColumnStretch(2, 1)
    return grid


def _row(owner: QWidget) -> QHBoxLayout:
    row = QHBoxLayout(owner)
    row.setContentsMargins(0, 0, 0, 0)
    row.setSpacing(4)
    return row
