"""What a person wishes of a prediction, and the same settled for an image and a model before work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from napari_unet_seg.core._axes import Layout, understand
from napari_unet_seg.core.devices import DeviceChoice, choose_device
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.normalisation import ArrayLike
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.rescaling import ZoomChoice, choose_zoom


@dataclass(frozen=True)
class PredictSettings:
    """How an image is read and predicted.

    Attributes
    ----------
    axes
        One letter of T Z C Y X per axis (S: samples of RGB). None: 2D is YX, 3D is ZYX, more has to be named.
    channel
        For a model that takes one channel: which, counted from 0, or "grey", the luminance of RGB.
    pixel_size_nm
        Of the image: one number for Y and X, or (Y, X), or (Z, Y, X). None: unknown.
    zoom
        Model-grid pixels per image pixel, 2 enlarges; beats the pixel size.
    invert
        Bright becomes dark before the network sees it.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps".
    tile_px
        Side of a tile's output, rounded up to the pooling grid. None: the fastest that fits. It changes time
        and memory, never the result.
    tta
        Test-time averaging over the 8 flips and quarter turns; 8 times slower.
    objects
        How probabilities become labels. None: as the model says.
    """

    axes: str | None = None
    channel: int | Literal["grey"] | None = None
    pixel_size_nm: float | tuple[float, ...] | None = None
    zoom: float | None = None
    invert: bool = False
    device: str = "auto"
    tile_px: int | None = None
    tta: bool = False
    objects: ObjectSettings | None = None

    def __post_init__(self) -> None:
        if self.tile_px is not None and self.tile_px < 1:
            raise InputError(f"The tile's side is {self.tile_px} px: choose 1 or more.")
        if self.zoom is not None and not (math.isfinite(self.zoom) and self.zoom > 0):
            raise InputError(f"The zoom is {self.zoom}: choose a positive number; 2 enlarges twofold.")
        sizes = self.pixel_size_nm if isinstance(self.pixel_size_nm, tuple) else (self.pixel_size_nm,)
        are_positive = all(size is None or (math.isfinite(size) and size > 0) for size in sizes)
        if not 1 <= len(sizes) <= 3 or not are_positive:
            raise InputError(
                f"The pixel size is {self.pixel_size_nm} nm: give a positive number, or (Y, X), or (Z, Y, X)."
            )

    @property
    def pixel_size_yx_nm(self) -> tuple[float, float] | None:
        """(Y, X) in nm."""
        if self.pixel_size_nm is None:
            return None
        sizes = self.pixel_size_nm if isinstance(self.pixel_size_nm, tuple) else (self.pixel_size_nm,)
        return sizes[-2:][0], sizes[-1]


@dataclass(frozen=True)
class Request:
    """Everything that a prediction needs to know, settled."""

    image: ArrayLike
    model: Model
    settings: PredictSettings
    layout: Layout
    zoom: tuple[float, float]
    device: DeviceChoice
    objects: ObjectSettings
    notes: tuple[str, ...]


def resolve(image: ArrayLike, model: Model, settings: PredictSettings) -> Request:
    """Settle axes, channels, zoom and device.

    Raises
    ------
    InputError
        Something does not fit; nothing was started.
    """
    layout, zoom, device = settle(image, model.info, settings)
    return Request(
        image=image,
        model=model,
        settings=settings,
        layout=layout,
        zoom=zoom.zoom,
        device=device,
        objects=settings.objects or model.objects,
        notes=() if zoom.note is None else (zoom.note,),
    )


def settle(
    image: ArrayLike, info: ModelInfo, settings: PredictSettings
) -> tuple[Layout, ZoomChoice, DeviceChoice]:
    """All of `resolve` that needs no weights, so that a wish can be refused at once.

    Raises
    ------
    InputError
        As of `resolve`.
    """
    layout = understand(
        image.shape,
        image.dtype,
        axes=settings.axes,
        channel=settings.channel,
        in_channels=info.architecture.in_channels,
    )
    zoom = choose_zoom(
        settings.zoom,
        settings.pixel_size_yx_nm,
        info.pixel_size_nm,
        info.object_diameter_px,
        info.usual_zoom,
    )
    return layout, zoom, choose_device(settings.device)
