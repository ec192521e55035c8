"""The separation-border weight map as an image layer that follows the brush.

It holds one plane and moves to the one in view, so stacks of any size work. The map is made in a thread of
its own; here labels are not read, and what came is drawn. While the layer is hidden nothing is done.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from napari.utils import Colormap
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_unet_seg._annotate.label_watcher import Change
from napari_unet_seg._annotate.live import LiveAnnotation
from napari_unet_seg._annotate.weight_worker import Drawn, Failed, Patch, Settled, WeightWorker, Wish, copied
from napari_unet_seg._annotate.what_counts import Box, view_of
from napari_unet_seg._layers import METADATA, Index, placement, unused_name
from napari_unet_seg.core._gaps import Task
from napari_unet_seg.core.boxes import as_few
from napari_unet_seg.core.weight_map import MAX_SIGMA_PX, WeightSettings

BLOCK_FRAME_MS = 120
"""Time between two drawings of the layer while a plane is being filled."""
_REST_MS = 60
"""A plane is mapped when the slider has rested on it for so long."""
_TRANSFORMS = ("scale", "translate", "rotate", "shear", "affine")
_COLORS = ((0.2, 0.0, 0.4, 0.0), (0.7, 0.1, 0.4, 0.5), (1.0, 0.6, 0.1, 0.9), (1.0, 1.0, 0.6, 1.0))


class WeightLayer(QObject):  # type: ignore[misc]
    """The weight map of an annotation layer, live.

    Parameters
    ----------
    labels_layer
        An annotation, see `layer`.
    settings
        Lengths in pixels of the model's grid.
    zoom
        Pixels of the model's grid per pixel of the layer.
    live
        What tells of changes in the annotation and its marks; one of its own if None.
    task, n_classes
        As in `weight_map`.

    Attributes
    ----------
    layer
        Of napari; None after the end.
    redrawn
        Qt signal: the layer was drawn with something new in it.
    failed
        Qt signal with the error that keeps the map from being made.
    closed
        Qt signal: the layer was taken out, by whomever.

    Raises
    ------
    InputError
        The layer is no annotation.
    """

    redrawn = Signal()
    failed = Signal(object)
    closed = Signal()

    def __init__(
        self,
        viewer: Any,
        labels_layer: Any,
        settings: WeightSettings,
        zoom: float = 1.0,
        *,
        live: LiveAnnotation | None = None,
        task: Task = "instances",
        n_classes: int | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._labels = viewer, labels_layer
        self._settings, self._zoom = settings, zoom
        view_of(labels_layer)
        self._live = live or LiveAnnotation(viewer, labels_layer, self)
        self._owns_live = live is None
        self._generation = 0
        self._is_due = self._is_anew = True  # a wish is; and it is one for everything
        self._mapped: Index | None = None  # plane of the last wish
        self._missed: list[Change] = []  # that the thread was not told of yet
        self._n_settled = 0
        self._drawn: tuple[Index, tuple[int, ...]] | None = None  # plane and shape of the labels
        self._drawn_at = 0.0
        self.layer: Any = self._add_layer()
        self._rest, self._frame, self._end = (
            _timer(self, act) for act in (self._wish, self._draw, self.close)
        )
        self._messages = _Messages(self)
        self._worker = WeightWorker(self._messages.say, task, n_classes)
        self._connect()
        self._wish()

    # What others ask of it

    @property
    def settings(self) -> WeightSettings:
        """Lengths in pixels of the model's grid."""
        return self._settings

    @property
    def is_visible(self) -> bool:
        """Whether it is shown, and follows."""
        return self.layer is not None and bool(self.layer.visible)

    @property
    def is_settled(self) -> bool:
        """Whether the map is that of the labels as they are, or hidden."""
        if not self.is_visible:
            return True
        is_waiting = self._is_due or self._rest.isActive() or self._frame.isActive()
        return not is_waiting and self._n_settled == self._worker.n_messages

    def set_settings(self, settings: WeightSettings) -> None:
        """Draw it with another formula or other constants."""
        if settings != self._settings:
            self._settings = settings
            self._ask()

    def set_zoom(self, zoom: float) -> None:
        """Say how many pixels of the model's grid a pixel of the layer is."""
        if zoom != self._zoom:
            self._zoom = zoom
            self._ask()

    def set_visible(self, *, is_visible: bool) -> None:
        """Show or hide it."""
        if self.layer is not None:
            self.layer.visible = is_visible

    def close(self) -> None:
        """Take it out, and do nothing any more."""
        if self.layer is None:
            return
        layer, self.layer = self.layer, None
        self._rest.stop()
        self._frame.stop()
        self._worker.end()
        self._disconnect(layer)
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if self._owns_live:
            self._live.close()
        self.closed.emit()

    # The layer

    def _add_layer(self) -> Any:
        """Put it over the labels; what a person paints in stays selected."""
        layers, labels = self._viewer.layers, self._labels
        selected, active = set(layers.selection), layers.selection.active
        layer = self._viewer.add_image(
            self._empty(labels.data.shape),
            name=unused_name(self._viewer, self._name()),
            metadata={METADATA: {"weights_of": str(labels.unique_id)}},
            colormap=Colormap(_COLORS, name="separation"),
            contrast_limits=self._limits(),
            blending="translucent",
            interpolation2d="nearest",
            **self._place(self._live.plane),
        )
        layers.move(layers.index(layer), layers.index(labels) + 1)
        layers.selection = selected
        layers.selection.active = active
        return layer

    def _empty(self, shape: tuple[int, ...]) -> Any:
        return np.zeros((*[1] * (len(shape) - 2), *shape[-2:]), np.float32)

    def _name(self) -> str:
        return f"{self._labels.name} › weight map"

    def _limits(self) -> tuple[float, float]:
        """From nothing to the narrowest gap between objects."""
        return 0.0, max(1.0, self._settings.w0)

    def _place(self, plane: Index) -> dict[str, Any]:
        """Where the plane lies."""
        axes = "".join(map(str, range(self._labels.ndim)))
        return placement(self._labels, axes, axes, {str(axis): at for axis, at in enumerate(plane)})

    def _connect(self) -> None:
        self._live.changed.connect(self._note_change)
        self._live.replaced.connect(self._note_replacement)
        self._live.plane_changed.connect(self._note_plane)
        self._labels.events.name.connect(self._rename)
        for name in _TRANSFORMS:
            getattr(self._labels.events, name).connect(self._follow_labels)
        self.layer.events.visible.connect(self._note_visibility)
        self._viewer.layers.events.removed.connect(self._note_removal)
        self._messages.said.connect(self._take)
        self.destroyed.connect(partial(WeightWorker.end, self._worker))
        window = getattr(getattr(self._viewer, "window", None), "_qt_window", None)
        if window is not None:
            window.destroyed.connect(self._stop)
        program = QCoreApplication.instance()
        if program is not None:
            program.aboutToQuit.connect(self._stop)

    def _disconnect(self, layer: Any) -> None:
        self._live.changed.disconnect(self._note_change)
        self._live.replaced.disconnect(self._note_replacement)
        self._live.plane_changed.disconnect(self._note_plane)
        self._labels.events.name.disconnect(self._rename)
        for name in _TRANSFORMS:
            getattr(self._labels.events, name).disconnect(self._follow_labels)
        layer.events.visible.disconnect(self._note_visibility)
        self._viewer.layers.events.removed.disconnect(self._note_removal)

    # What happens

    def _note_change(self, change: Change) -> None:
        self._missed.append(change)
        if self.is_visible:
            self._tell_changes()

    def _note_replacement(self) -> None:
        self._is_anew = True
        self._ask()

    def _note_plane(self, _plane: Index) -> None:
        self._is_due = True
        self._generation += 1  # nothing more of the plane that is left
        self._rest.start(_REST_MS)

    def _note_visibility(self, _event: Any = None) -> None:
        self._worker.pause(is_paused=not self.is_visible)
        if not self.is_visible:
            return
        if self._is_due:
            self._wish()
        self._tell_changes()

    def _note_removal(self, event: Any) -> None:
        """Take it out with its labels; later, since napari may be removing many."""
        if event.value is self.layer or event.value is self._labels:
            self._worker.end()
            self._end.start(0)

    def _rename(self, _event: Any = None) -> None:
        self.layer.name = self._name()

    def _follow_labels(self, _event: Any = None) -> None:
        """The labels were given another scale or place."""
        plane = self._live.plane if self._drawn is None else self._drawn[0]
        for name, value in self._place(plane).items():
            if name in _TRANSFORMS:
                setattr(self.layer, name, value)

    def _stop(self, _gone: Any = None) -> None:
        """The window or the program ends."""
        self._worker.join()

    # To the thread

    def _ask(self) -> None:
        """Have it made as it is to be now."""
        self._is_due = True
        self.layer.contrast_limits = self._limits()
        self._rest.start(0)

    def _wish(self) -> None:
        if not self.is_visible:
            return  # until it is shown again
        self._live.watcher.flush()
        self._tell_changes()
        self._generation += 1
        plane, view = self._live.plane, self._live.view
        is_same = plane == self._mapped and not self._is_anew
        self._worker.wish(
            Wish(
                generation=self._generation,
                plane=plane,
                labels=None if is_same else copied(view, plane),
                stack=view,
                settings=self._on_layer_grid(),
                in_view=self._in_view(),
                is_anew=self._is_anew,
            )
        )
        self._mapped = plane
        self._is_due = self._is_anew = False
        self._rest.stop()

    def _tell_changes(self) -> None:
        """Hand on what was changed."""
        changes, self._missed = self._missed, []
        mapped = self._mapped
        if mapped is None or self._is_anew or not changes:
            return  # a wish will read it all
        for plane in {change.plane for change in changes if change.plane != mapped}:
            self._worker.recount(plane)
        view = self._live.view
        for box in as_few([change.box for change in changes if change.plane == mapped]):
            self._worker.patch(Patch(mapped, box, copied(view, mapped, box)))

    def _on_layer_grid(self) -> WeightSettings:
        """Lengths in pixels of the layer."""
        settings = self._settings
        return replace(
            settings,
            sigma_px=min(MAX_SIGMA_PX, settings.sigma_px / self._zoom),
            sigma1_px=min(MAX_SIGMA_PX, settings.sigma1_px / self._zoom),
        )

    def _in_view(self) -> Box:
        first, last = np.asarray(self._labels.corner_pixels)[:, -2:]
        rows, columns = (slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        return rows, columns

    # From the thread

    def _take(self, message: object) -> None:
        if self.layer is None:
            return
        if isinstance(message, Settled):
            self._n_settled = message.n_messages
            self.layer.refresh(data_displayed=False, highlight=False, extent=False)  # its thumbnail only
        elif isinstance(message, Drawn) and message.generation == self._generation:
            self._take_drawn(message)
        elif isinstance(message, Failed):
            self._take_failure(message)

    def _take_drawn(self, drawn: Drawn) -> None:
        """Put weights into the layer; a stroke is drawn at once, blocks a few times a second."""
        if (drawn.plane, drawn.shape) != self._drawn:
            self._move_to(drawn.plane, drawn.shape)
        for part in drawn.parts:
            self.layer.data[(*[0] * len(drawn.plane), *part.box)] = part.weights
        wait_ms = BLOCK_FRAME_MS - (time.perf_counter() - self._drawn_at) * 1e3
        if not drawn.is_block or wait_ms <= 0:
            self._draw()
        elif not self._frame.isActive():
            self._frame.start(round(wait_ms))

    def _move_to(self, plane: Index, shape: tuple[int, ...]) -> None:
        if self.layer.data.shape[-2:] != shape[-2:] or self.layer.ndim != len(shape):
            self.layer.data = self._empty(shape)
        else:
            self.layer.data[...] = 0
        self.layer.translate = self._place(plane)["translate"]
        self._drawn = plane, shape

    def _draw(self) -> None:
        self._frame.stop()
        self.layer.refresh(thumbnail=False, highlight=False, extent=False)
        self._drawn_at = time.perf_counter()
        self.redrawn.emit()

    def _take_failure(self, failed: Failed) -> None:
        """Start from nothing next time; at once, when what failed is not wanted any more."""
        self._is_anew = True
        if failed.generation == self._generation:
            self.failed.emit(failed.error)
        else:
            self._ask()


class _Messages(QObject):  # type: ignore[misc]
    """From the worker's thread to the main one."""

    said = Signal(object)

    def say(self, message: object) -> None:
        """In the worker's thread."""
        with contextlib.suppress(RuntimeError):  # the window may be gone already
            self.said.emit(message)


def _timer(parent: QObject, act: Callable[[], None]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.timeout.connect(act)
    return timer
