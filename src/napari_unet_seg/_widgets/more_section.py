"""What most people never change, folded away under More."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLineEdit, QSpinBox

from napari_unet_seg._widgets.device_box import DeviceBox
from napari_unet_seg._widgets.folded import Folded


class MoreSection(Folded):
    """Device, tile size, averaging, axes, probabilities."""

    changed = Signal()
    device_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.device = DeviceBox()
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
        self.device.currentIndexChanged.connect(self.device_changed)
        self.axes.editingFinished.connect(self.changed)

    @property
    def chosen_device(self) -> str:
        """As `choose_device` takes it."""
        return self.device.chosen

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
        self.device.choose(name)

    def _lay_out(self) -> None:
        self.form.addRow("Device", self.device)
        self.form.addRow("Tiles", self.tile)
        self.form.addRow("Axes", self.axes)
        self.form.addRow(self.tta)
        self.form.addRow(self.keep)
