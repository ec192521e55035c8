"""The scale of an image to a model: its pixel size, or a zoom that was set or found."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_unet_seg._layers import LayerImage
from napari_unet_seg._widgets.dock import small_button
from napari_unet_seg._widgets.message import wrapped_label
from napari_unet_seg._widgets.segment_rows import number_box
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.rescaling import LARGEST_ZOOM, ZoomChoice, choose_zoom

_LOOKING = "Looking which zoom fits …"
_FOUND = "Zoom {:g}×, found: the objects then look to the model as those that it knows"
_NOT_FOUND = "Zoom 1×: nothing in the image tells which zoom fits; set one where objects are missed or cut."


class ScaleRow(QWidget):
    """Pixel size of the image and zoom to the model's; the zoom beats the pixel size.

    Attributes
    ----------
    changed
        Qt signal: another size or zoom holds now.
    find_wanted
        Qt signal: the person wants the zoom to be found.
    """

    changed = Signal()
    find_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.size = number_box(0, 1e7, 4, " nm/px", "unknown")
        self.size.setToolTip("Pixel size of the image; the image is rescaled to the pixel size of the model.")
        self.zoom = number_box(0, LARGEST_ZOOM, 3, "×", "automatic")
        self.zoom.setToolTip("Rescale by this factor instead, 2 enlarges; 0 lets the pixel sizes decide.")
        self.find = small_button("Find", "Try some zooms, and set the one that suits the model best.")
        self.said = wrapped_label()
        self._from_layer: tuple[float, float] | None = None
        self._is_found = self._is_not_found = self._is_looking = False
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        row = QHBoxLayout()
        row.addWidget(self.size, 1)
        row.addWidget(QLabel("zoom"))
        row.addWidget(self.zoom, 1)
        row.addWidget(self.find)
        column.addLayout(row)
        column.addWidget(self.said)
        self.size.valueChanged.connect(self._note_choice)
        self.zoom.valueChanged.connect(self._note_choice)
        self.find.clicked.connect(self.find_wanted)

    def take_from(self, image: LayerImage | None) -> None:
        """Fill in what a layer says of its pixel size."""
        known = None if image is None else image.pixel_size_nm
        if known == self._from_layer:
            return
        self._from_layer = known
        with QSignalBlocker(self.size), QSignalBlocker(self.zoom):
            self.size.setValue(known[0] if known else 0)
            self.zoom.setValue(0)
        self._note_choice()

    @property
    def pixel_size_nm(self) -> tuple[float, float] | None:
        """(Y, X), or None when unknown."""
        value = self.size.value()
        if not value:
            return None
        if self._from_layer and abs(value - self._from_layer[0]) < 10.0 ** -self.size.decimals():
            return self._from_layer
        return (value, value)

    @property
    def chosen_zoom(self) -> float | None:
        """As set or found; None when the pixel sizes decide."""
        return 1.0 if self._is_not_found else self.zoom.value() or None

    def is_open(self, info: ModelInfo) -> bool:
        """Whether nothing but a search tells the zoom."""
        if self.zoom.value() and not self._is_found:
            return False
        try:
            return _choice(info, self.pixel_size_nm, None).unknown is not None
        except InputError:
            return False

    def known_zoom(self, info: ModelInfo) -> tuple[float, float] | None:
        """Model-grid pixels per image pixel along (Y, X); None while nothing tells it."""
        try:
            choice = _choice(info, self.pixel_size_nm, self.chosen_zoom)
        except InputError:
            return None
        return choice.zoom if choice.unknown is None else None

    # What a search comes to

    @property
    def is_looking(self) -> bool:
        """Whether the zoom is that of a search which has not ended."""
        return self._is_looking

    def show_looking(self) -> None:
        """A search is under way."""
        self._forget(is_looking=True)

    def show_found(self, zoom: float, *, is_sure: bool) -> None:
        """Take over what a search has found; 1 where it is not sure of it."""
        self._is_looking, self._is_found, self._is_not_found = False, is_sure, not is_sure
        self._set_zoom(zoom if is_sure else 0)
        self.changed.emit()

    def forget_found(self) -> None:
        """What was found is not of this image and model."""
        self._forget(is_looking=False)

    def _forget(self, *, is_looking: bool) -> None:
        is_new = (self._is_looking, self._is_not_found) != (is_looking, False) or self._is_found
        if self._is_found:
            self._set_zoom(0)
        self._is_looking, self._is_found, self._is_not_found = is_looking, False, False
        if is_new:
            self.changed.emit()

    def _set_zoom(self, zoom: float) -> None:
        with QSignalBlocker(self.zoom):
            self.zoom.setValue(zoom)

    def _note_choice(self) -> None:
        self._is_looking = self._is_found = self._is_not_found = False
        self.changed.emit()

    def explain(self, info: ModelInfo | None) -> str | None:
        """Say what becomes of the image; returns why it cannot be, else None."""
        self.said.setText("")
        if info is None:
            return None
        self.size.setEnabled(info.pixel_size_nm is not None)
        try:
            self.said.setText(self._in_words(info))
        except InputError as error:
            return str(error)
        return None

    def _in_words(self, info: ModelInfo) -> str:
        if self._is_looking:
            return _LOOKING
        if self._is_found:
            return _FOUND.format(self.zoom.value())
        if self._is_not_found:
            return _NOT_FOUND
        return scale_in_words(info, self.pixel_size_nm, self.chosen_zoom, self._from_layer)


def scale_in_words(
    info: ModelInfo,
    pixel_size_nm: tuple[float, float] | None,
    zoom: float | None,
    from_layer: tuple[float, float] | None,
) -> str:
    """How the image is rescaled, and why.

    Raises
    ------
    InputError
        The zoom is impossible.
    """
    choice = _choice(info, pixel_size_nm, zoom)
    if zoom is not None:
        return f"Zoom {zoom:g}×, as you set it"
    if choice.unknown is not None:
        return f"The zoom will be looked for: {choice.unknown}."
    if choice.note is not None:
        return choice.note
    source = "from the layer" if pixel_size_nm == from_layer else "as you set it"
    size = " × ".join(f"{value:g}" for value in dict.fromkeys(pixel_size_nm or ()))
    return f"{size} nm/px {source} → zoom {choice.zoom[0]:.3g}×"


def _choice(info: ModelInfo, pixel_size_nm: tuple[float, float] | None, zoom: float | None) -> ZoomChoice:
    return choose_zoom(zoom, pixel_size_nm, info.pixel_size_nm, info.object_diameter_px, info.learned_zoom)
