"""Which model the Annotate dock is about: that of the Segment or Fine-tune dock, else the last one used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._layers import LayerImage
from napari_unet_seg._open_docks import found_dock
from napari_unet_seg._widgets.preferences import remembered
from napari_unet_seg._widgets.segment_rows import CHOICES, nearest_model
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo, list_models
from napari_unet_seg.core.rescaling import choose_zoom


@dataclass(frozen=True)
class Chosen:
    """A model, and why it is the one."""

    info: ModelInfo
    why: str


@dataclass(frozen=True)
class ModelGrid:
    """The pixels that a model sees an image in.

    Attributes
    ----------
    zoom
        Of them per pixel of the image, along a side.
    nm_per_px
        None where it is not known.
    """

    model: str = ""
    zoom: float = 1.0
    nm_per_px: float | None = None


def model_grid(
    info: ModelInfo | None, pixel_size_nm: tuple[float, float] | None, zoom: float | None = None
) -> ModelGrid:
    """As training chooses it: from the two pixel sizes; by the zoom that was set where one is not known."""
    size_nm = None if pixel_size_nm is None else math.sqrt(pixel_size_nm[0] * pixel_size_nm[1])
    if info is None:
        return ModelGrid(nm_per_px=size_nm)
    if pixel_size_nm is not None and info.pixel_size_nm is not None:
        zoom = None
    try:
        choice = choose_zoom(
            zoom, pixel_size_nm, info.pixel_size_nm, info.object_diameter_px, info.learned_zoom
        )
    except InputError:  # so far off that training will refuse it, and say why
        return ModelGrid(info.name, nm_per_px=size_nm)
    side = math.sqrt(choice.zoom[0] * choice.zoom[1])
    return ModelGrid(info.name, side, None if size_nm is None else size_nm / side)


class ModelInUse(QObject):
    """Follows the choices of the docks of one viewer.

    Attributes
    ----------
    changed
        Qt signal: another one may be in use now, or in another scale.
    """

    changed = Signal()

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._kept = ""
        self._saved = list_models()
        self._soon = QTimer(self)  # a dock that chooses while it is made is in the window a moment later
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._look)
        self._followed: WeakSet[QWidget] = WeakSet()
        CHOICES.changed.connect(self._note_choice)
        NEWS.changed.connect(self._note_kept)
        self._soon.start(0)

    def close(self) -> None:
        """Follow no more."""
        self._soon.stop()
        CHOICES.changed.disconnect(self._note_choice)
        NEWS.changed.disconnect(self._note_kept)

    def that_segments(self, image: LayerImage | None) -> Chosen | None:
        """Whose results are looked at; None when there is no model."""
        return next(self._ranked(image, ["Segment", "", "Fine-tune"]), None)

    def that_learns(self, image: LayerImage | None) -> Chosen | None:
        """That will be trained on what is painted; None when there is no model."""
        return next(self._ranked(image, ["Fine-tune", "Segment", ""]), None)

    def grid(self, image_layer: Any, image: LayerImage | None) -> ModelGrid:
        """The pixels in which what is painted on an image will be learned."""
        learning = self.that_learns(image)
        size_nm, zoom = self._scale(image_layer, image)
        return model_grid(None if learning is None else learning.info, size_nm, zoom)

    def _scale(
        self, image_layer: Any, image: LayerImage | None
    ) -> tuple[tuple[float, float] | None, float | None]:
        """Pixel size and zoom of an image, as a person has set them where it does not know them."""
        known = None if image is None else image.pixel_size_nm
        row, segment = self._scale_row("Fine-tune"), found_dock(self._viewer, "Segment")
        if row is None and segment is not None and segment.image.layer is image_layer:
            row = segment.scale
        return (known, None) if row is None else (known or row.pixel_size_nm, row.chosen_zoom)

    def _look(self) -> None:
        """Docks that are new are followed, too."""
        for name in ("Fine-tune", "Segment"):
            row = self._scale_row(name)
            if row is not None and row not in self._followed:
                self._followed.add(row)
                row.size.valueChanged.connect(self._note_choice)
                row.zoom.valueChanged.connect(self._note_choice)
        self.changed.emit()

    def _scale_row(self, name: str) -> Any:
        """Where a dock asks for pixel size and zoom; None when it is not open."""
        dock = found_dock(self._viewer, name)
        if dock is None:
            return None
        return dock.annotations.scale if name == "Fine-tune" else dock.scale

    def _ranked(self, image: LayerImage | None, docks: list[str]) -> Iterator[Chosen]:
        """Docks by name; "": what was kept last."""
        for name in docks:
            found = self._saved_as(self._kept) if not name else self._chosen_in(name)
            if found is not None:
                yield Chosen(found, f"chosen in the {name} dock" if name else "kept last")
        for section in ("segment", "fine_tune"):
            found = self._saved_as(remembered(section).get("model", ""))
            if found is not None:
                yield Chosen(found, "used last")
        nearest = nearest_model(self._saved, None if image is None else image.pixel_size_nm)
        if nearest is not None:
            yield Chosen(nearest, "trained nearest to the image's pixel size")
        elif self._saved:
            yield Chosen(self._saved[0], "the first of the list")

    def _chosen_in(self, name: str) -> ModelInfo | None:
        dock = found_dock(self._viewer, name)
        return None if dock is None else dock.model.info

    def _saved_as(self, name: str) -> ModelInfo | None:
        """Your own before a bundled one."""
        return next((info for info in reversed(self._saved) if name and info.name == name), None)

    def _note_choice(self) -> None:
        self._soon.start(0)

    def _note_kept(self, name: str, viewer: Any) -> None:
        self._saved = list_models()
        if viewer is self._viewer:
            self._kept = name
        self._soon.start(0)
