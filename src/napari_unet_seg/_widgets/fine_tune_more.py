"""What most people never change of a fine-tuning, folded away under More."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QDoubleValidator
from qtpy.QtWidgets import QComboBox, QLineEdit, QSpinBox

from napari_unet_seg._widgets.device_box import DeviceBox
from napari_unet_seg._widgets.folded import Folded
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.weight_map import WeightSettings

if TYPE_CHECKING:
    from napari_unet_seg.core.train_settings import TrainSettings

_AS_PRESET, _AS_SHOWN = "as in the preset", "as the weight map shows"
_WEIGHTS: dict[str, WeightSettings | None] = {
    _AS_PRESET: None,
    "as in the paper": WeightSettings.paper(),
    "as in the Fiji plugin": WeightSettings.fiji(),
    "none": WeightSettings.fiji(w0=0.0, balance=1.0),
}
_PER_CENT = 100


class FineTuneMore(Folded):
    """Steps, time, learning rate, loss, patches, what is held out, device, seed."""

    device_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.steps = _whole_number(1, 1_000_000, "", "Batches to learn from.")
        self.time_limit = QSpinBox()
        self.time_limit.setRange(0, 100_000)
        self.time_limit.setSuffix(" s")
        self.time_limit.setSpecialValueText("no limit")
        self.time_limit.setToolTip("Training ends after this time, even when not all steps are done.")
        self.rate = QLineEdit()
        self.rate.setValidator(QDoubleValidator(1e-9, 10.0, 12))
        self.rate.setToolTip(
            "How far each step goes: smaller when the loss jumps, larger when it hardly falls."
        )
        self.loss = QComboBox()
        self.loss.setToolTip("How mistakes are counted.")
        self.weights = QComboBox()
        self.weights.addItems(list(_WEIGHTS))
        self.weights.setToolTip("How much more the borders between close objects count.")
        self.patch = _whole_number(16, 4096, " px", "Side of the pieces of the image that it learns from.")
        self.batch = _whole_number(1, 256, "", "How many pieces are learned at once.")
        self.held_out = _whole_number(0, 90, " %", "Part of the annotation that is kept for measuring only.")
        self.device = DeviceBox()
        self.seed = _whole_number(0, 2**31 - 1, "", "The same number gives the same model again on a CPU.")
        self._base: TrainSettings | None = None
        self._shown_weights: WeightSettings | None = None
        self._lay_out()
        self.device.currentIndexChanged.connect(self.device_changed)

    @property
    def is_filled(self) -> bool:
        """Whether it shows settings yet."""
        return self._base is not None

    def show_settings(self, settings: TrainSettings) -> None:
        """Show what a preset says; device and seed stay."""
        from napari_unet_seg.core.losses import LossName

        self._base = settings
        with QSignalBlocker(self.loss):
            self.loss.clear()
            self.loss.addItems(get_args(LossName))
        self.steps.setValue(settings.steps)
        self.time_limit.setValue(round(settings.time_limit_s or 0))
        self.rate.setText(f"{settings.learning_rate:g}")
        self.loss.setCurrentText(settings.loss)
        self.weights.setCurrentText(_AS_PRESET if self._shown_weights is None else _AS_SHOWN)
        self.patch.setValue(settings.patch_px)
        self.batch.setValue(settings.batch_size)
        self.held_out.setValue(round(settings.validation_fraction * _PER_CENT))

    def show_weight_map(self, weights: WeightSettings) -> None:
        """Offer the weights that a person has set for the map, and choose them; but not the usual ones."""
        is_usual = weights == WeightSettings.border_only()
        self._shown_weights = None if is_usual else weights
        self.weights.clear()
        self.weights.addItems([*_WEIGHTS] if is_usual else [*_WEIGHTS, _AS_SHOWN])
        self.weights.setCurrentText(_AS_PRESET if is_usual else _AS_SHOWN)

    def settings(self, base: TrainSettings) -> TrainSettings:
        """A preset with what was changed of it."""
        chosen = replace(base, device=self.device.chosen, seed=self.seed.value())
        if self._base is None:
            return chosen
        return replace(
            chosen,
            steps=self.steps.value(),
            time_limit_s=self.time_limit.value() or None,
            learning_rate=self._rate(base.learning_rate),
            loss=self.loss.currentText(),
            weights=self._weights() or base.weights,
            patch_px=self.patch.value(),
            batch_size=self.batch.value(),
            validation_fraction=self.held_out.value() / _PER_CENT,
        )

    def _rate(self, usual: float) -> float:
        """As typed, with a point or a comma."""
        text = self.rate.text().strip()
        try:
            return float(text.replace(",", ".")) if text else usual
        except ValueError as error:
            raise InputError(f"The learning rate '{text}' is no number: type one such as 0.001.") from error

    def _weights(self) -> WeightSettings | None:
        """None: as the preset says."""
        chosen = self.weights.currentText()
        return self._shown_weights if chosen == _AS_SHOWN else _WEIGHTS[chosen]

    def _lay_out(self) -> None:
        for label, field in (
            ("Steps", self.steps),
            ("At most", self.time_limit),
            ("Learning rate", self.rate),
            ("Loss", self.loss),
            ("Border weights", self.weights),
            ("Patch", self.patch),
            ("Batch", self.batch),
            ("Held out", self.held_out),
            ("Device", self.device),
            ("Seed", self.seed),
        ):
            self.form.addRow(label, field)


def _whole_number(lowest: int, highest: int, suffix: str, tooltip: str) -> QSpinBox:
    box = QSpinBox()
    box.setRange(lowest, highest)
    box.setSuffix(suffix)
    box.setToolTip(tooltip)
    return box
