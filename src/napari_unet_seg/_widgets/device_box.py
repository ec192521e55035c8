"""Where the network runs, to choose from."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox

_DEVICES = {"automatic": "auto", "CPU": "cpu", "NVIDIA GPU": "cuda", "Apple GPU": "mps"}


class DeviceBox(QComboBox):
    """The devices that PyTorch knows."""

    def __init__(self) -> None:
        super().__init__()
        for text, name in _DEVICES.items():
            self.addItem(text, name)
        self.setToolTip("Where the network runs; automatic takes a GPU where there is one.")

    @property
    def chosen(self) -> str:
        """As `choose_device` takes it."""
        return str(self.currentData())

    def choose(self, name: str) -> None:
        """Choose a device by its name, automatic where it is unknown."""
        self.setCurrentIndex(max(0, self.findData(name)))
