"""The current view as the network in training would segment it, redrawn every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer

from napari_unet_seg._current_view import AnnotatedImage, View, ViewLayer, visible
from napari_unet_seg._fine_tune.request import TrainingRequest
from napari_unet_seg._layers import METADATA, LayerImage, take, unused_name
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.rescaling import choose_zoom
from napari_unet_seg.core.training_messages import PreviewDone, PreviewFailed, PreviewRequest

MOST_MODEL_PX = 512
"""Side of what is previewed, in pixels of the model's grid."""
SHORTEST_PAUSE_S = 2.0
MOST_OF_THE_TIME = 0.12
"""Part of the time of the training that previews may take."""

# Blue where an object is thought possible, a yellow line where it becomes likely, a tint inside: the
# colour-blind can tell them, on dark and on bright images.
_COLORMAP = Colormap(
    [
        [0.0, 0.4, 0.8, 0.0],
        [0.0, 0.4, 0.8, 0.35],
        [1.0, 0.95, 0.2, 1.0],
        [0.3, 0.9, 0.8, 0.2],
        [0.3, 0.9, 0.8, 0.14],
    ],
    controls=[0.0, 0.4, 0.5, 0.6, 1.0],
    name="preview",
)


@dataclass(frozen=True)
class _Token:
    """What a request was about, to tell a late answer."""

    view: View
    number: int


class LivePreview(QObject):  # type: ignore[misc]
    """Asks for previews and shows them in one image layer.

    Parameters
    ----------
    send
        Hands a `PreviewRequest` to the training.
    """

    def __init__(
        self,
        request: TrainingRequest,
        subject: AnnotatedImage,
        viewer: Any,
        send: Callable[[PreviewRequest], object],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._request, self._subject, self._viewer, self._send = request, subject, viewer, send
        self._shown = ViewLayer(viewer, subject, self._make_layer)
        self._is_on = self._is_asking = False
        self._number = 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._ask)

    @property
    def layer(self) -> Any:
        """The image layer; None before the first answer."""
        return self._shown.layer

    @property
    def is_on(self) -> bool:
        """Whether previews are asked for."""
        return self._is_on

    def switch(self, *, is_on: bool) -> None:
        """Begin or end; the layer is hidden meanwhile, and a removed one comes back."""
        self._is_on = is_on
        if self._shown.is_removed:
            self._shown.remove()
        if self.layer is not None:
            self.layer.visible = is_on
        self._timer.stop()
        if is_on:
            self._timer.start(0)

    def close(self) -> None:
        """End, and take the layer out; answers that still come are dropped."""
        self._is_on = False
        self._number += 1
        self._timer.stop()
        self._shown.remove()

    def take(self, answer: PreviewDone | PreviewFailed) -> None:
        """Show an answer if it is about what is seen now, and ask again after a while."""
        token = answer.token
        if not isinstance(token, _Token) or token.number != self._number:
            return
        self._is_asking = False
        if not self._is_on:
            return
        if self._shown.is_removed:
            self._is_on = False
            return
        pause_s = SHORTEST_PAUSE_S
        if isinstance(answer, PreviewDone):
            pause_s = max(pause_s, answer.prediction.seconds * (1 / MOST_OF_THE_TIME - 1))
            if token.view.plane == self._view().plane:
                foreground = 1 - answer.prediction.probabilities[0][token.view.box]
                self._shown.show(foreground.astype(np.float32, copy=False), token.view)
            else:
                pause_s = 0.0
        self._timer.start(round(pause_s * 1000))

    def _ask(self) -> None:
        if not self._is_on or self._is_asking or self._subject.layer not in self._viewer.layers:
            return
        view = self._view()
        self._number += 1
        self._is_asking = True
        token = _Token(view, self._number)
        self._send(preview_request(self._request, self._subject.image, view, token))

    def _view(self) -> View:
        image = self._subject.image
        most_px = most_image_px(self._request, image, MOST_MODEL_PX)
        return visible(self._subject.layer, image, self._viewer.dims.point, most_px)

    def _make_layer(self, data: NDArray[np.float32], **place: Any) -> Image:
        return Image(
            data,
            name=unused_name(self._viewer, f"{self._subject.image.name} › preview"),
            colormap=_COLORMAP,
            contrast_limits=(0.0, 1.0),
            blending="translucent",
            interpolation2d="linear",
            metadata={METADATA: {"preview": True}},
            **place,
        )


def preview_request(
    request: TrainingRequest, image: LayerImage, view: View, token: object = None
) -> PreviewRequest:
    """Predict a view as the Segment dock would: as part of its plane."""
    plane, axes = take(image, (*view.plane, slice(None), slice(None)))
    settings = PredictSettings(
        axes=axes,
        channel=request.channel_of(image),
        pixel_size_nm=request.pixel_size_of(image),
        zoom=request.zoom_of(image),
        device=request.settings.device,
    )
    return PreviewRequest(plane, settings, view.box, token)


def most_image_px(request: TrainingRequest, image: LayerImage, model_px: int) -> tuple[float, float]:
    """Rows and columns of the image that are so many pixels of the model's grid."""
    info = request.info
    choice = choose_zoom(
        request.zoom_of(image),
        request.pixel_size_of(image),
        info.pixel_size_nm,
        info.object_diameter_px,
        info.learned_zoom,
    )
    return model_px / choice.zoom[0], model_px / choice.zoom[1]
