"""The rows of the Segment dock, each about one thing: the image, the model, the scale, where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from qtpy.QtCore import QObject, QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QPushButton,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._layers import LayerImage, is_made_here
from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg.core.errors import ModelFileError
from napari_unet_seg.core.model_store import SUFFIX, ModelInfo, list_models, read_info

_FAR_OFF = 10.0
"""A pixel size that differs by more than this factor belongs to another kind of microscope."""

_WORTH_SAYING_S = 10.0
"""What takes longer is announced."""

Place: TypeAlias = Literal["plane", "rectangle", "stack"]


class ImageRow(QWidget):
    """Which image layer, which channel of it, and whether its contrast is inverted first."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.layers = QComboBox()
        self.layers.setToolTip("The image layer that is segmented.")
        self.channel = QComboBox()
        self.channel.setToolTip("The channel that the model looks at.")
        self.invert = QCheckBox("invert")
        self.invert.setToolTip("Turn bright into dark first, where the model knows the other contrast.")
        row = _row(self)
        row.addWidget(self.layers, 1)
        row.addWidget(self.channel)
        row.addWidget(self.invert)
        self.layers.currentIndexChanged.connect(self.changed)

    @property
    def layer(self) -> Any:
        """The chosen layer, or None."""
        return self.layers.currentData()

    def offer(self, layers: list[Any], preferred: Any) -> None:
        """Offer these layers, and choose a new one; else the choice is kept, else it is the preferred one."""
        known = [self.layers.itemData(index) for index in range(self.layers.count())]
        new = [layer for layer in layers if layer not in known and not is_made_here(layer)]
        wanted = [*(new if known else []), self.layer, preferred]
        kept = next((layer for layer in wanted if layer in layers), None)
        with QSignalBlocker(self.layers):
            self.layers.clear()
            for layer in layers:
                self.layers.addItem(str(layer.name), layer)
            if kept is not None:
                self.layers.setCurrentIndex(layers.index(kept))
        self.changed.emit()

    def offer_channels(self, image: LayerImage | None, n_model_channels: int) -> None:
        """Offer the channels of an image to a model that sees one."""
        kept = self.channel.currentData()
        self.channel.clear()
        if image is not None and "S" in image.axes:
            for name, value in (("grey", "grey"), ("red", 0), ("green", 1), ("blue", 2)):
                self.channel.addItem(name, value)
        elif image is not None and "C" in image.axes:
            for number in range(image.n_channels):
                self.channel.addItem(f"channel {number}", number)
        self.channel.setCurrentIndex(max(0, self.channel.findData(kept)))
        self.channel.setVisible(self.channel.count() > 0 and n_model_channels == 1)

    @property
    def chosen_channel(self) -> int | Literal["grey"] | None:
        """None where there is nothing to choose."""
        return None if self.channel.isHidden() else self.channel.currentData()


class ModelChoices(QObject):
    """Says that in some dock another model is chosen, for who goes by that."""

    changed = Signal()


CHOICES = ModelChoices()


class ModelRow(QWidget):
    """Which model, and what it was trained on."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.models = QComboBox()
        self.models.setToolTip("The network that segments: those that came with the package, then your own.")
        self.file_button = QPushButton("File…")
        self.file_button.setToolTip("Use a model from a file.")
        self.said = wrapped_label()
        self.problem = ""
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(self.models, 1)
        row.addWidget(self.file_button)
        column.addLayout(row)
        column.addWidget(self.said)
        self.models.currentIndexChanged.connect(self._change)
        self.models.activated.connect(self._forget_problem)
        self.file_button.clicked.connect(self._choose_file)
        NEWS.changed.connect(self.reload)
        self.reload()

    @property
    def info(self) -> ModelInfo | None:
        """The chosen model, or None."""
        return self.models.currentData()  # type: ignore[no-any-return]

    def reload(self, *_news: Any) -> None:
        """Offer the models that there are now; the choice is kept."""
        chosen = self.info
        from_files = [info for info in self._all() if info.source == "file"]
        with QSignalBlocker(self.models):
            self.models.clear()
            for info in [*list_models(), *from_files]:
                self.models.addItem(info.name if info.source == "bundled" else f"{info.name} (yours)", info)
            if chosen is not None:
                self.choose(chosen.name)
        if self.info != chosen:
            self._change()

    def choose(self, name: str) -> None:
        """Choose a model by its name, if it is there; your own before a bundled one."""
        for index, info in reversed(list(enumerate(self._all()))):
            if info.name == name:
                self.models.setCurrentIndex(index)
                return

    def suggest(self, pixel_size_nm: tuple[float, float] | None) -> None:
        """Choose the model whose pixel size is nearest to an image's, if one is near."""
        info = nearest_model(self._all(), pixel_size_nm)
        if info is not None:
            self.choose(info.name)

    def _all(self) -> list[ModelInfo]:
        return [self.models.itemData(index) for index in range(self.models.count())]

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Use a model from a file", "", f"Models (*{SUFFIX})")
        if path:
            self.add_file(path)

    def add_file(self, path: str) -> None:
        """Offer and choose the model in a file; what is wrong with it becomes `problem`."""
        try:
            info = read_info(Path(path))
        except ModelFileError as error:
            self.problem = str(error)
            self.changed.emit()
            return
        self.models.addItem(f"{info.name} (file)", info)
        self.models.setCurrentIndex(self.models.count() - 1)

    def _forget_problem(self) -> None:
        """The model that is chosen already was chosen again: what was wrong with another one is over."""
        if self.problem:
            self._change()

    def _change(self) -> None:
        self.problem = ""
        info = self.info
        self.said.setText("" if info is None else in_words(info))
        self.said.setToolTip("" if info is None else " ".join(filter(None, [info.credit, info.licence])))
        self.changed.emit()
        CHOICES.changed.emit()


def nearest_model(models: Sequence[ModelInfo], pixel_size_nm: tuple[float, float] | None) -> ModelInfo | None:
    """The model trained nearest to a pixel size; where all are tenfold off, one that knows no pixel size.

    None when the pixel size is unknown or nothing fits.
    """
    if pixel_size_nm is None:
        return None
    off = [
        (abs(math.log(info.pixel_size_nm / pixel_size_nm[0])), info) for info in models if info.pixel_size_nm
    ]
    distance, nearest = min(off, key=lambda one: one[0], default=(math.inf, None))
    if distance < math.log(_FAR_OFF):
        return nearest
    return next((info for info in models if info.pixel_size_nm is None), None)


def in_words(info: ModelInfo) -> str:
    """What a model was trained on, in a line."""
    if info.pixel_size_nm is not None:
        scale = f"trained at {info.pixel_size_nm:g} nm/px"
    elif info.object_diameter_px is not None:
        scale = f"trained on objects about {info.object_diameter_px:g} px across"
    else:
        scale = "trained at an unknown pixel size"
    description = info.description.rstrip(".")
    if info.pixel_size_nm is not None and f"{info.pixel_size_nm:g} nm" in description:
        return description
    return f"{description}; {scale}" if description else scale.capitalize()


class WhereRow(QWidget):
    """Which part: the plane in view, a drawn rectangle of it, or the whole stack."""

    changed = Signal()
    draw_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.plane = QRadioButton("this plane")
        self.plane.setToolTip("Segment the plane that is shown.")
        self.rectangle = QRadioButton("rectangle")
        self.rectangle.setToolTip("Segment the rectangle that you have drawn on the plane that is shown.")
        self.stack = QRadioButton("stack")
        self.stack.setToolTip("Segment all planes, one after the other.")
        self.draw = QPushButton("Draw")
        self.draw.setToolTip("Take the rectangle tool and draw on the image.")
        self.plane.setChecked(True)
        row = _row(self)
        for button in (self.plane, self.rectangle, self.draw, self.stack):
            row.addWidget(button)
        row.addStretch(1)
        for button in (self.plane, self.rectangle, self.stack):
            button.toggled.connect(self._toggle)
        self.draw.clicked.connect(self.draw_wanted)
        self.draw.hide()

    @property
    def place(self) -> Place:
        """What is chosen."""
        if self.rectangle.isChecked():
            return "rectangle"
        return "stack" if self.stack.isChecked() else "plane"

    def choose(self, place: str) -> None:
        """Choose a place, "plane" where there is no such one."""
        {"rectangle": self.rectangle, "stack": self.stack}.get(place, self.plane).setChecked(True)

    def describe(self, image: LayerImage | None, seconds_per_px: float | None) -> None:
        """Say how many planes there are, and how long they take; a single plane is a whole image."""
        n_planes = math.prod(image.label_shape[:-2]) if image is not None else 1
        seconds = math.prod(image.label_shape) * seconds_per_px if image and seconds_per_px else 0
        duration = f", ~{duration_in_words(seconds)}" if seconds > _WORTH_SAYING_S else ""
        is_stack = image is not None and len(image.label_shape) > 2
        self.plane.setText("this plane" if is_stack else "whole image")
        self.stack.setText(f"stack ({n_planes} planes{duration})")
        self.stack.setVisible(is_stack)
        if not is_stack and self.stack.isChecked():
            self.plane.setChecked(True)

    def _toggle(self, is_checked: bool) -> None:
        self.draw.setVisible(self.rectangle.isChecked())
        if is_checked:
            self.changed.emit()


def duration_in_words(seconds: float) -> str:
    """Roughly how long: 40 s, 14 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class _Number(QDoubleSpinBox):
    """A number without trailing zeros."""

    def textFromValue(self, value: float) -> str:  # noqa: N802 - Qt's name
        """As short as it is exact."""
        return str(self.locale().toString(value, "g", 6))


def _row(widget: QWidget) -> QHBoxLayout:
    row = QHBoxLayout(widget)
    row.setContentsMargins(0, 0, 0, 0)
    return row


def number_box(lowest: float, highest: float, decimals: int, suffix: str, at_zero: str) -> QDoubleSpinBox:
    """A box for a number, which at 0 says something else instead."""
    box = _Number()
    box.setRange(lowest, highest)
    box.setDecimals(decimals)
    box.setSuffix(suffix)
    box.setSpecialValueText(at_zero)
    box.setStepType(QDoubleSpinBox.StepType.AdaptiveDecimalStepType)
    box.setKeyboardTracking(False)
    box.setMinimumWidth(box.fontMetrics().horizontalAdvance(f"1000{suffix}{at_zero}"))
    return box
