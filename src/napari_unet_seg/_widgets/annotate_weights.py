"""The rows of the Annotate dock that show and set the separation-border weight map."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget
from superqt import QLabeledDoubleSlider

from napari_unet_seg._widgets.annotate_tools import MAP_KEY
from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg.core.weight_map import WeightSettings

_SAME_ZOOM = 0.005
_PRESETS = {
    "border only": WeightSettings.border_only,
    "paper": WeightSettings.paper,
    "fiji": WeightSettings.fiji,
}


class WeightRow(QWidget):
    """Whether the weight map is shown, and the constants of its formula."""

    toggled = Signal(bool)
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.shown = QCheckBox(f"Separation-border weight map   {MAP_KEY}")
        self.shown.setToolTip(
            "Show how much each pixel counts in training: most in the gaps between close objects."
        )
        self.preset = QComboBox()
        self.preset.addItems(list(_PRESETS))
        self.preset.setToolTip(
            "What training uses: the border alone, or the formula of the U-Net paper, or of the Fiji plugin."
        )
        self.w0 = _slider(0, 100, 0.5, "How much the border between objects counts; 0 switches it off.")
        self.sigma = _slider(1, 30, 0.5, "How far from the objects the border's weight reaches.")
        self.balance = _slider(0, 1, 0.01, "How much background far from objects counts.")
        self.sigma1 = _slider(1, 60, 0.5, "How far from an object background counts like the object.")
        self.lengths = {self.sigma: QLabel(), self.sigma1: QLabel()}
        self.grid = wrapped_label()
        self.grid.hide()
        self._nm_per_px: float | None = None
        self._lay_out()
        self.show_settings(WeightSettings.border_only())
        self._unfold(is_open=False)
        self._connect()

    @property
    def settings(self) -> WeightSettings:
        """What the rows say."""
        if self.preset.currentText() != "fiji":
            return _PRESETS[self.preset.currentText()](self.w0.value(), self.sigma.value())
        return WeightSettings.fiji(
            self.w0.value(), self.sigma.value(), self.balance.value(), self.sigma1.value()
        )

    def show_settings(self, settings: WeightSettings) -> None:
        """Set the rows, without `changed`."""
        controls = (self.preset, self.w0, self.sigma, self.balance, self.sigma1)
        blockers = [QSignalBlocker(control) for control in controls]
        is_border_only = settings.preset == "fiji" and settings.balance == 1
        self.preset.setCurrentText("border only" if is_border_only else settings.preset)
        self.w0.setValue(settings.w0)
        self.sigma.setValue(settings.sigma_px)
        self.balance.setValue(settings.balance)
        self.sigma1.setValue(settings.sigma1_px)
        for blocker in blockers:
            blocker.unblock()
        self._show_preset()
        self._show_lengths()

    def show_grid(self, model: str, zoom: float, nm_per_px: float | None) -> None:
        """Say what the lengths are measured on: the pixels that the model sees, and how large they are."""
        self._nm_per_px = nm_per_px
        is_other = abs(zoom - 1) > _SAME_ZOOM
        self.grid.setText(f"px of '{model}': {zoom:.3g} of them per pixel of the image" if is_other else "")
        self.grid.setVisible(is_other)
        self._show_lengths()

    def show_shown(self, *, is_shown: bool) -> None:
        """Check the box, without a signal."""
        with QSignalBlocker(self.shown):
            self.shown.setChecked(is_shown)
        self._unfold(is_shown)

    def _toggle(self, is_shown: bool) -> None:
        self._unfold(is_shown)
        self.toggled.emit(is_shown)

    def _unfold(self, is_open: bool) -> None:
        self.inside.setVisible(is_open)

    def _choose_preset(self) -> None:
        self.show_settings(_PRESETS[self.preset.currentText()]())
        self.changed.emit()

    def _change(self) -> None:
        self._show_lengths()
        self.changed.emit()

    def _show_preset(self) -> None:
        is_fiji = self.preset.currentText() == "fiji"
        for row in (self.balance, self.sigma1_row):
            self.form.setRowVisible(row, is_fiji)

    def _show_lengths(self) -> None:
        for slider, label in self.lengths.items():
            size = (
                "" if self._nm_per_px is None else f" ({length_in_words(slider.value() * self._nm_per_px)})"
            )
            label.setText(f"px{size}")

    def _connect(self) -> None:
        self.shown.toggled.connect(self._toggle)
        self.preset.currentTextChanged.connect(self._choose_preset)
        for slider in (self.w0, self.sigma, self.balance, self.sigma1):
            slider.valueChanged.connect(self._change)

    def _lay_out(self) -> None:
        self.inside = QWidget()
        self.form = QFormLayout(self.inside)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.sigma_row, self.sigma1_row = (_beside(slider, label) for slider, label in self.lengths.items())
        self.form.addRow("Preset", self.preset)
        self.form.addRow("Border w₀", self.w0)
        self.form.addRow("Reach σ", self.sigma_row)
        self.form.addRow("Far v_bal", self.balance)
        self.form.addRow("Near σ₁", self.sigma1_row)
        self.form.addRow(self.grid)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.shown)
        column.addWidget(self.inside)


def length_in_words(nm: float) -> str:
    """In nm, from 1000 nm in µm."""
    return f"{nm:.3g} nm" if nm < 1000 else f"{nm / 1000:.3g} µm"


def _beside(left: QWidget, right: QWidget) -> QWidget:
    both = QWidget()
    row = QHBoxLayout(both)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(left, 1)
    row.addWidget(right)
    return both


def _slider(lowest: float, highest: float, step: float, tooltip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(lowest, highest)
    slider.setSingleStep(step)
    slider.setDecimals(2 if highest <= 1 else 1)
    slider.setToolTip(tooltip)
    return slider
