"""What a person wishes of a prediction, and the same settled for an image and a model before work starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from napari_unet_seg.core._axes import Layout, understand
from napari_unet_seg.core.devices import DeviceChoice, choose_device
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.model_store import ModelInfo
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.normalisation import ArrayLike
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.rescaling import ZoomChoice, choose_zoom, known_pixel_size
from napari_unet_seg.core.zoom_trials import FoundZoom


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
        Model-grid pixels per image pixel, 2 enlarges; beats the pixel size. "auto": found by trying some
        (`find_zoom`), whatever the pixel sizes say. None: as the pixel sizes say; where they are unknown, as
        the model learned; where it never did, found.
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
        How probabilities become labels. None: as the model says, its smallest size brought from its grid to
        that of the image.
    """

    axes: str | None = None
    channel: int | Literal["grey"] | None = None
    pixel_size_nm: float | tuple[float, ...] | None = None
    zoom: float | Literal["auto"] | None = None
    invert: bool = False
    device: str = "auto"
    tile_px: int | None = None
    tta: bool = False
    objects: ObjectSettings | None = None

    def __post_init__(self) -> None:
        if self.tile_px is not None and self.tile_px < 1:
            raise InputError(f"The tile's side is {self.tile_px} px: choose 1 or more.")
        zoom: Any = self.zoom
        if isinstance(zoom, Real):
            is_possible = 0 < float(zoom) < math.inf
        else:
            is_possible = zoom is None or (isinstance(zoom, str) and zoom == "auto")
        if not is_possible:
            raise InputError(f"The zoom is {zoom}: choose a positive number, 2 enlarges twofold, or 'auto'.")
        sizes = known_pixel_size(self.pixel_size_nm)
        if isinstance(sizes, tuple) and len(sizes) > 3:
            raise InputError(f"The pixel size has {len(sizes)} numbers: give one, or (Y, X), or (Z, Y, X).")
        object.__setattr__(self, "pixel_size_nm", sizes)

    @property
    def pixel_size_yx_nm(self) -> tuple[float, float] | None:
        """(Y, X) in nm."""
        if self.pixel_size_nm is None:
            return None
        sizes = self.pixel_size_nm if isinstance(self.pixel_size_nm, tuple) else (self.pixel_size_nm,)
        return sizes[-2:][0], sizes[-1]


@dataclass(frozen=True)
class Request:
    """Everything that a prediction needs to know, settled.

    Attributes
    ----------
    zoom
        Along (Y, X); 1 as long as it is to be found.
    zoom_unknown
        Why it is to be found, in words; None when it is known.
    found_zoom
        Where it was found.
    """

    image: ArrayLike
    model: Model
    settings: PredictSettings
    layout: Layout
    zoom: tuple[float, float]
    zoom_unknown: str | None
    device: DeviceChoice
    notes: tuple[str, ...]
    found_zoom: FoundZoom | None = None

    @property
    def objects(self) -> ObjectSettings:
        """How probabilities become labels, in pixels of the image."""
        return settled_objects(self.settings, self.model.info, self.zoom)


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
        zoom_unknown=zoom.unknown,
        device=device,
        notes=() if zoom.note is None or zoom.unknown is not None else (zoom.note,),
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
    return layout, zoom_choice(info, settings), choose_device(settings.device)


def settled_objects(settings: PredictSettings, info: ModelInfo, zoom: tuple[float, float]) -> ObjectSettings:
    """How probabilities become labels where the zoom is known, sizes in pixels of the image."""
    wished = settings.objects or info.objects.without_grid
    return wished.settled(info.objects, zoom)


def zoom_choice(info: ModelInfo, settings: PredictSettings) -> ZoomChoice:
    """What the settings and a model say of the zoom.

    Raises
    ------
    InputError
        The zoom is so extreme that a unit must be wrong.
    """
    if settings.zoom == "auto":
        return ZoomChoice((1.0, 1.0), unknown="that was asked for")
    return choose_zoom(
        settings.zoom,
        settings.pixel_size_yx_nm,
        info.pixel_size_nm,
        info.object_diameter_px,
        info.learned_zoom,
    )
