"""Settings that act after the network: they change the objects at once, without running it again."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QHBoxLayout, QLabel, QWidget
from superqt import QLabeledDoubleSlider

from napari_unet_seg.core.objects import ObjectSettings

_NM2_PER_UM2 = 1e6
_PX, _UM2 = "px²", "µm²"


class ObjectPanel(QWidget):
    """Certainty, smallest size, splitting, holes; and how many objects there are."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.heading = QLabel()
        self.heading.setStyleSheet("font-weight: bold; padding-top: 4px;")
        self.certainty = _slider("How sure the network must be that a pixel belongs to an object.")
        self.split = _slider("Cut where a neck is thinner than this part of its body; 0 never cuts.")
        self.smallest = QDoubleSpinBox()
        self.smallest.setRange(0, 1e9)
        self.smallest.setToolTip("Objects that are smaller in their plane are left out.")
        self.unit = QComboBox()
        self.unit.addItems([_PX, _UM2])
        self.unit.setToolTip("Pixels of the image, or square micrometres where the pixel size is known.")
        self.fill = QCheckBox("fill holes")
        self.fill.setToolTip("Fill background that is enclosed by one object.")
        self._pixel_um2: float | None = None
        self._of_model, self._zoom = ObjectSettings(), (1.0, 1.0)
        self._px: int | None = None
        self._lay_out()
        self._connect()
        self.show_settings(ObjectSettings())
        self.show_count(None)

    @property
    def settings(self) -> ObjectSettings:
        """What the controls say; the smallest size is None, as the model's, until a person sets it."""
        is_um2 = self.unit.currentText() == _UM2
        return ObjectSettings(
            threshold=self.certainty.value(),
            min_size_px=self._px,
            min_size_um2=self.smallest.value() if is_um2 else None,
            fill_holes=self.fill.isChecked(),
            split_touching=self.split.value(),
        )

    def show_settings(self, settings: ObjectSettings) -> None:
        """Set the controls to what a model says, without `changed`."""
        self._of_model, self._px = settings, None
        with (
            QSignalBlocker(self.certainty),
            QSignalBlocker(self.split),
            QSignalBlocker(self.smallest),
            QSignalBlocker(self.unit),
            QSignalBlocker(self.fill),
        ):
            self.certainty.setValue(settings.threshold)
            self.split.setValue(settings.split_touching)
            self.fill.setChecked(settings.fill_holes)
            is_um2 = settings.min_size_um2 is not None and self._pixel_um2 is not None
            self._set_unit(is_um2=is_um2)
            self.smallest.setValue(settings.min_size_um2 if is_um2 else self._smallest_px)

    def show_zoom(self, zoom: tuple[float, float]) -> None:
        """Bring the model's smallest size to the pixels of the image, without `changed`.

        Parameters
        ----------
        zoom
            Model-grid pixels per image pixel along (Y, X).
        """
        self._zoom = zoom
        if self._px is None and self.unit.currentText() == _PX:
            with QSignalBlocker(self.smallest):
                self.smallest.setValue(self._smallest_px)

    def show_pixel_size(self, pixel_size_nm: tuple[float, float] | None) -> None:
        """Offer square micrometres where the pixel size is known."""
        self._pixel_um2 = (
            None if pixel_size_nm is None else pixel_size_nm[0] * pixel_size_nm[1] / _NM2_PER_UM2
        )
        self.unit.setVisible(self._pixel_um2 is not None)
        self.plain_unit.setVisible(self._pixel_um2 is None)
        if self._pixel_um2 is None and self.unit.currentText() == _UM2:
            with QSignalBlocker(self.unit), QSignalBlocker(self.smallest):
                self._set_unit(is_um2=False)
                self.smallest.setValue(self._smallest_px)

    def show_count(self, n_objects: int | None, class_name: str = "") -> None:
        """Say how many objects there are, and of which class; None: nothing is segmented yet."""
        what = f"{class_name.capitalize()} objects" if class_name else "Objects"
        self.heading.setText("Objects" if n_objects is None else f"{what}: {n_objects:,} found")

    def show_task(self, task: str) -> None:
        """Classes are the likeliest ones: nothing can be set."""
        for control in (self.certainty, self.split, self.smallest, self.unit, self.fill):
            control.setEnabled(task == "instances")
        if task == "classes":
            self.heading.setText("Classes: the likeliest of each pixel")

    @property
    def _smallest_px(self) -> float:
        """In pixels of the image: as a person has set it, else as the model says."""
        return ObjectSettings(min_size_px=self._px).settled(self._of_model, self._zoom).smallest_px()

    def _set_unit(self, *, is_um2: bool) -> None:
        self.unit.setCurrentText(_UM2 if is_um2 else _PX)
        self.smallest.setDecimals(4 if is_um2 else 0)

    def _change_unit(self) -> None:
        """Keep the size, say it in the other unit."""
        is_um2 = self.unit.currentText() == _UM2
        pixel_um2 = self._pixel_um2 or 1.0
        value = self.smallest.value()
        with QSignalBlocker(self.smallest):
            self._set_unit(is_um2=is_um2)
            self.smallest.setValue(value * pixel_um2 if is_um2 else round(value / pixel_um2))
        self._note_size()

    def _note_size(self) -> None:
        """From now on it is the person's, not the model's."""
        if self.unit.currentText() == _PX:
            self._px = round(self.smallest.value())
        self.changed.emit()

    def _connect(self) -> None:
        self.certainty.valueChanged.connect(self.changed)
        self.split.valueChanged.connect(self.changed)
        self.smallest.valueChanged.connect(self._note_size)
        self.fill.toggled.connect(self.changed)
        self.unit.currentTextChanged.connect(self._change_unit)

    def _lay_out(self) -> None:
        self.plain_unit = QLabel(_PX)
        size = QHBoxLayout()
        size.addWidget(self.smallest, 1)
        size.addWidget(self.unit)
        size.addWidget(self.plain_unit)
        size.addWidget(self.fill)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow(self.heading)
        form.addRow("Certainty", self.certainty)
        form.addRow("Smallest", size)
        form.addRow("Split touching", self.split)


def _slider(tooltip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, 1)
    slider.setSingleStep(0.01)
    slider.setDecimals(2)
    slider.setToolTip(tooltip)
    return slider
