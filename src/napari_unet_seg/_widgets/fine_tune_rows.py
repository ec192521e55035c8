"""The rows of the Fine-tune dock, each about one thing: what to learn from, how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet_seg._annotate.layer import check_fit, coding_of, image_layer_of, regions_layer_of
from napari_unet_seg._annotate.what_counts import view_of
from napari_unet_seg._layers import LayerImage, read_image
from napari_unet_seg._widgets.segment_rows import number_box
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.rescaling import LARGEST_ZOOM

if TYPE_CHECKING:
    from napari_unet_seg._script import AnnotationNames

Preset: TypeAlias = Literal["quick", "thorough", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

_MOST_ROWS = 5
_LOOKED_THROUGH_BYTES = 64 * 1024 * 1024
"""Labels up to this size are looked through to tell whether anything is painted."""
_SAYS = {
    "scribbles": "what is painted",
    "regions": "rectangles",
    "planes": "whole planes",
    "corrections": "corrections",
    "dense": "all of it",
}


class AnnotationRow(QWidget):
    """Which annotation layers to learn from, and which channel of their images."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.layers = QListWidget()
        self.layers.setToolTip(
            "The painted layers that the network learns from; several images are possible."
        )
        self.channel = QComboBox()
        self.channel.setToolTip("What the model looks at in images that have several channels.")
        self.scale = TrainingScaleRow()
        self._viewer_layers: Sequence[Any] = ()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.layers)
        self._channel_row = _labelled("Channel", self.channel)
        column.addWidget(self._channel_row)
        column.addWidget(self.scale)
        self.layers.itemChanged.connect(self.changed)

    @property
    def chosen(self) -> list[Any]:
        """The layers that are ticked."""
        return [layer for layer, is_ticked in self._ticks() if is_ticked]

    def offer(self, labels_layers: Sequence[Any], viewer_layers: Sequence[Any]) -> None:
        """Offer these layers, new ones ticked."""
        self._viewer_layers = viewer_layers
        ticks = {id(layer): is_ticked for layer, is_ticked in self._ticks()}
        with QSignalBlocker(self.layers):
            self.layers.clear()
            for layer in labels_layers:
                item = QListWidgetItem(self._described(layer))
                item.setData(Qt.ItemDataRole.UserRole, layer)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                is_ticked = ticks.get(id(layer), True)
                item.setCheckState(Qt.CheckState.Checked if is_ticked else Qt.CheckState.Unchecked)
                self.layers.addItem(item)
        self._fit_height()
        self.layers.setVisible(bool(labels_layers))
        self.changed.emit()

    def tick_only(self, layer: Any) -> None:
        """Tick this one and no other."""
        with QSignalBlocker(self.layers):
            for row in range(self.layers.count()):
                item = self.layers.item(row)
                is_it = item.data(Qt.ItemDataRole.UserRole) is layer
                item.setCheckState(Qt.CheckState.Checked if is_it else Qt.CheckState.Unchecked)
        self.changed.emit()

    def offer_channels(self, n_model_channels: int) -> None:
        """Offer the channels of the images to a model that sees one."""
        images = [image for layer in self.chosen if (image := self.image_of(layer)) is not None]
        widest = max(images, key=lambda image: image.n_channels, default=None)
        choices = {} if widest is None else _channels_of(widest)
        if list(choices) != [self.channel.itemText(row) for row in range(self.channel.count())]:
            with QSignalBlocker(self.channel):
                self.channel.clear()
                for name, value in choices.items():
                    self.channel.addItem(name, value)
        self._channel_row.setVisible(n_model_channels == 1 and bool(choices))

    def ask_for_scale(self, info: ModelInfo | None) -> None:
        """Ask how large images are to a model, where their pixel sizes do not tell it."""
        images = [image for layer in self.chosen if (image := self.image_of(layer)) is not None]
        self.scale.ask(info, is_known=all(image.pixel_size_nm is not None for image in images))

    @property
    def chosen_channel(self) -> int | Literal["grey"] | None:
        """None where there is nothing to choose."""
        return None if self._channel_row.isHidden() else self.channel.currentData()

    def image_of(self, layer: Any) -> LayerImage | None:
        """What the image of an annotation layer holds; None when there is none."""
        image_layer = image_layer_of(self._viewer_layers, layer)
        return None if image_layer is None else read_image(image_layer)

    def annotated(self, image_layer: Any) -> LayerImage | None:
        """What an image layer holds, if something that is ticked annotates it."""
        for layer in self.chosen:
            found = image_layer_of(self._viewer_layers, layer)
            if found is not None and image_layer is not None and found.unique_id == image_layer.unique_id:
                return read_image(found)
        return None

    def names(self) -> list[AnnotationNames]:
        """The layers that are ticked, as a script finds them again."""
        from napari_unet_seg._script import AnnotationNames  # which imports PyTorch

        found = []
        for layer in self.chosen:
            image, regions = self.image_of(layer), regions_layer_of(self._viewer_layers, layer)
            if image is not None:
                found.append(
                    AnnotationNames(
                        image.name,
                        str(layer.name),
                        coding_of(layer) or "dense",
                        None if regions is None else str(regions.name),
                        self.chosen_channel if image.n_channels > 1 else None,
                        None if image.pixel_size_nm else self.scale.pixel_size_nm,
                    )
                )
        return found

    def obstacle(self) -> str | None:
        """Why nothing can be learned from what is ticked; None when it can, as far as can be told at once."""
        if not self.layers.count():
            return "There is nothing to learn from yet: make a layer in the Annotate dock and paint in it."
        if not self.chosen:
            return "Tick at least one layer to learn from."
        problems = (self._problem(layer) for layer in self.chosen)
        return next((problem for problem in problems if problem), None)

    def _problem(self, layer: Any) -> str | None:
        try:
            image = self.image_of(layer)
            if image is None:
                return f"No image fits '{layer.name}': open the image that it annotates, or untick it."
            check_fit(layer, image)
            if layer.data.nbytes > _LOOKED_THROUGH_BYTES:
                return None
            said = view_of(layer, regions_layer_of(self._viewer_layers, layer))
        except InputError as error:
            return str(error)
        if next(said.annotated_planes(), None) is None:
            return f"Nothing is painted in '{layer.name}' yet: paint some objects and some background."
        return None

    def _described(self, layer: Any) -> str:
        image_layer = image_layer_of(self._viewer_layers, layer)
        image = "no image fits" if image_layer is None else str(image_layer.name)
        says = _SAYS.get(coding_of(layer) or "", "")
        name = str(layer.name)
        return f"{name}   ({says})" if name.startswith(image) else f"{name}   ({says}; {image})"

    def _ticks(self) -> list[tuple[Any, bool]]:
        items = [self.layers.item(row) for row in range(self.layers.count())]
        return [
            (item.data(Qt.ItemDataRole.UserRole), item.checkState() == Qt.CheckState.Checked)
            for item in items
        ]

    def _fit_height(self) -> None:
        n_rows = max(1, min(_MOST_ROWS, self.layers.count()))
        row_px = self.layers.sizeHintForRow(0) if self.layers.count() else self.fontMetrics().height()
        self.layers.setFixedHeight(n_rows * row_px + 2 * self.layers.frameWidth() + 8)


def _channels_of(image: LayerImage) -> dict[str, int | str]:
    """What a model that sees one channel can look at; nothing to choose where there is only one."""
    if "S" in image.axes:
        return {"grey": "grey", "red": 0, "green": 1, "blue": 2}
    return {f"channel {number}": number for number in range(image.n_channels) if image.n_channels > 1}


def _labelled(text: str, control: QWidget) -> QWidget:
    whole = QWidget()
    row = QHBoxLayout(whole)
    row.setContentsMargins(0, 0, 0, 0)
    row.addWidget(QLabel(text))
    row.addWidget(control, 1)
    return whole


class TrainingScaleRow(QWidget):
    """How large images are to the model where their pixel sizes do not tell it: a size, or a zoom."""

    def __init__(self) -> None:
        super().__init__()
        self.size = number_box(0, 1e7, 4, " nm/px", "unknown")
        self.size.setToolTip("Pixel size of the images that do not know theirs; the model works at its own.")
        self.zoom = number_box(0, LARGEST_ZOOM, 3, "×", "automatic")
        self.zoom.setToolTip("Rescale such images by this factor instead, as Segment does; 2 enlarges.")
        self._size_label = QLabel("Pixel size")
        self._is_own = False
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._size_label)
        row.addWidget(self.size, 1)
        row.addWidget(QLabel("zoom"))
        row.addWidget(self.zoom, 1)
        for box in (self.size, self.zoom):
            box.valueChanged.connect(self._note_choice)

    def ask(self, info: ModelInfo | None, *, is_known: bool) -> None:
        """Show what is needed for a model and images that know their pixel size, or some of which do not."""
        if info is None:
            self.hide()
            return
        for widget in (self._size_label, self.size):
            widget.setVisible(info.pixel_size_nm is not None)
        if info.pixel_size_nm is not None:
            self.size.setSpecialValueText(f"unknown (model: {info.pixel_size_nm:g} nm/px)")
        self.zoom.setSpecialValueText(f"automatic ({info.usual_zoom:g}×)")
        self.setVisible(not is_known or info.pixel_size_nm is None)

    def suggest(self, pixel_size_nm: tuple[float, float] | None, zoom: float | None) -> None:
        """Show what images are segmented with, unless the person has chosen here."""
        if self._is_own:
            return
        with QSignalBlocker(self.size), QSignalBlocker(self.zoom):
            self.size.setValue(0 if pixel_size_nm is None else pixel_size_nm[0])
            self.zoom.setValue(zoom or 0)

    @property
    def chosen_zoom(self) -> float | None:
        """None where the pixel sizes decide."""
        return None if self.isHidden() else self.zoom.value() or None

    @property
    def pixel_size_nm(self) -> tuple[float, float] | None:
        """(Y, X) of the images that do not know theirs; None: unknown, or a zoom beats it."""
        value = self.size.value()
        is_asked = not (self.isHidden() or self.size.isHidden())
        return (value, value) if value and is_asked and self.chosen_zoom is None else None

    def _note_choice(self) -> None:
        self._is_own = True


class PresetRow(QWidget):
    """How long, and how thoroughly."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.quick = QRadioButton("Quick, about 1 min")
        self.quick.setToolTip("Learn from a few painted objects while you wait.")
        self.thorough = QRadioButton("Thorough")
        self.thorough.setToolTip(
            "Many more steps: when much is annotated and quality counts more than minutes."
        )
        self.paper = QRadioButton("As in the paper")
        self.paper.setToolTip("The settings of the U-Net paper: long, and meant for a GPU.")
        self.quick.setChecked(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for button in self._buttons.values():
            row.addWidget(button)
            button.toggled.connect(self._note_toggle)
        row.addStretch(1)

    @property
    def _buttons(self) -> dict[Preset, QRadioButton]:
        return {"quick": self.quick, "thorough": self.thorough, "paper": self.paper}

    @property
    def chosen(self) -> Preset:
        """Which one."""
        return next(name for name, button in self._buttons.items() if button.isChecked())

    def choose(self, name: str) -> None:
        """Choose one; "quick" where there is no such one."""
        buttons: dict[str, QRadioButton] = {str(key): button for key, button in self._buttons.items()}
        buttons.get(name, self.quick).setChecked(True)

    def _note_toggle(self, is_checked: bool) -> None:
        if is_checked:
            self.changed.emit()
