"""What most people never change, folded away under More."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

_DEVICES = {"automatic": "auto", "CPU": "cpu", "NVIDIA GPU": "cuda", "Apple GPU": "mps"}


class MoreSection(QWidget):
    """Device, tile size, averaging, axes, probabilities."""

    changed = Signal()
    device_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.toggle = QToolButton()
        self.toggle.setText("More")
        self.toggle.setToolTip("Show what most people never change.")
        self.toggle.setCheckable(True)
        self.toggle.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.device = QComboBox()
        for text, name in _DEVICES.items():
            self.device.addItem(text, name)
        self.device.setToolTip("Where the network runs; automatic takes a GPU where there is one.")
        self.tile = QSpinBox()
        self.tile.setRange(0, 8192)
        self.tile.setSingleStep(64)
        self.tile.setSuffix(" px")
        self.tile.setSpecialValueText("automatic")
        self.tile.setToolTip(
            "Side of the tiles that are predicted one by one; it does not change the result."
        )
        self.tta = QCheckBox("average over 8 flips and turns")
        self.tta.setToolTip(
            "Predict each tile in 8 orientations and average: a little better, 8 times slower."
        )
        self.keep = QCheckBox("add a layer with the probabilities")
        self.keep.setToolTip("Show how sure the network is of each pixel as an image layer.")
        self.axes = QLineEdit()
        self.axes.setPlaceholderText("as the layer says")
        self.axes.setToolTip(
            "A letter of T Z C Y X per axis of the image, such as TZYX, if the layer is wrong."
        )
        self._lay_out()
        self._unfold(is_open=False)
        self.toggle.toggled.connect(self._unfold)
        self.device.currentIndexChanged.connect(self.device_changed)
        self.axes.editingFinished.connect(self.changed)

    @property
    def chosen_device(self) -> str:
        """As `choose_device` takes it."""
        return str(self.device.currentData())

    @property
    def chosen_tile_px(self) -> int | None:
        """None: automatic."""
        return self.tile.value() or None

    @property
    def chosen_axes(self) -> str | None:
        """None: as the layer says."""
        return self.axes.text().strip().upper() or None

    def choose_device(self, name: str) -> None:
        """Choose a device by its name, automatic where it is unknown."""
        self.device.setCurrentIndex(max(0, self.device.findData(name)))

    def _unfold(self, is_open: bool) -> None:
        self.inside.setVisible(is_open)
        self.toggle.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)

    def _lay_out(self) -> None:
        self.inside = QWidget()
        form = QFormLayout(self.inside)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Device", self.device)
        form.addRow("Tiles", self.tile)
        form.addRow("Axes", self.axes)
        form.addRow(self.tta)
        form.addRow(self.keep)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.toggle)
        column.addWidget(self.inside)
