"""What is to be said of a plane before and after it is predicted, and whether the network is asked at all."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

from napari_unet_seg.core._blank_planes import is_blank
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core.auto_zoom import ZoomTrial, inversion_steps
from napari_unet_seg.core.normalisation import (
    SAMPLE_PX,
    ArrayLike,
    NoFinitePixelError,
    PlaneStatistics,
    plane_statistics,
)
from napari_unet_seg.core.predict_settings import Request
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.steps import Stop
from napari_unet_seg.core.zoom_trials import USUAL_CONFIDENCE, confidence

SATURATED_SHARE = 0.05
"""With so many pixels of the largest grey value an image is overexposed. Of 600 training images of five
microscopes none has more than 0.03."""
_HOLED = "Some pixels are NaN or infinite: they became the median of their plane."
_SATURATED = (
    "One pixel in twenty or more has the largest grey value: unless that is a white background, the image is "
    "overexposed, and objects that touch there cannot be told apart. Record it with less light."
)


@dataclass(frozen=True)
class Finding:
    """What a look at a plane came to; without statistics it is background, and nothing is predicted."""

    statistics: PlaneStatistics | None
    sentence: str | None = None


class PlaneChecks:
    """The checks of one prediction, plane by plane.

    Parameters
    ----------
    request, engine
        What is predicted, and the network that does it.
    judges_contrast
        Whether the other contrast may be tried as well, once; it takes seconds where it is needed.
    """

    def __init__(self, request: Request, engine: InferenceNetwork, *, judges_contrast: bool) -> None:
        self._request, self._engine = request, engine
        self._judges_contrast = judges_contrast
        self._n_without_pixels = 0

    def before(self, plane: ArrayLike, index: tuple[int, ...]) -> Finding:
        """Measure a plane (C, Y, X).

        Raises
        ------
        NoFinitePixelError
            Neither this plane nor any other has a finite pixel.
        """
        request, n_planes = self._request, self._request.layout.n_planes
        try:
            statistics = plane_statistics(plane, request.model.normalisation, invert=request.settings.invert)
        except NoFinitePixelError:
            self._n_without_pixels += 1
            if self._n_without_pixels == n_planes:
                raise
            name = ", ".join(map(str, index))
            return Finding(None, f"Plane {name} holds no finite pixel: it is taken as background.")
        if is_blank(plane):
            what = "Some planes show" if n_planes > 1 else "The image shows"
            said = (
                f"{what} nothing but noise, or one grey value: that is taken as background, without objects."
            )
            return Finding(None, said)
        return Finding(statistics, _SATURATED if statistics.saturated >= SATURATED_SHARE else None)

    def after_steps(
        self, probabilities: Floats, *, met_not_finite: bool
    ) -> Generator[ZoomTrial, Stop | None, list[str] | None]:
        """Sentences about a plane that was predicted; None when it was stopped.

        Parameters
        ----------
        probabilities
            (classes, Y, X).
        met_not_finite
            Whether there were NaN or infinite pixels.
        """
        looks_inverted = yield from self._contrast_steps(probabilities)
        if looks_inverted is None:
            return None
        sentences = [_HOLED] if met_not_finite else []
        if looks_inverted and self._request.settings.invert:
            sentences.append("The model is surer of this image without 'invert': try it.")
        elif looks_inverted:
            sentences.append(
                "The model is surer of this image in inverted contrast: try the setting 'invert'."
            )
        return sentences

    def _contrast_steps(self, probabilities: Floats) -> Generator[ZoomTrial, Stop | None, bool | None]:
        """Whether it looks inverted, asked of the first plane that shows something; None: it was stopped.

        It takes time only where the model is unsure of that plane.
        """
        if not self._judges_contrast:
            return False
        self._judges_contrast = False
        step = math.ceil(math.sqrt(probabilities[0].size / SAMPLE_PX))
        sample = probabilities[:, ::step, ::step]
        if confidence(sample, self._request.model.info) >= USUAL_CONFIDENCE:
            return False
        return (yield from inversion_steps(self._request, self._engine))
