"""Random variation of the grey values of a patch: blur, contrast, brightness, gamma, inversion, noise."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.normalisation import Normalisation
from napari_unet_seg.core.patches import Floats


def vary_grey_values(image: Floats, settings: AugmentSettings, rng: np.random.Generator) -> Floats:
    """Own contrast, blur, contrast, brightness, gamma, inversion, noise; (C, Y, X), values in about 0..1."""
    if settings.crop_contrast_probability and rng.random() < settings.crop_contrast_probability:
        image = np.stack([_with_own_contrast(channel) for channel in image])
    image = blur(image, rng.uniform(0.0, settings.blur_sigma_px))
    for channel in range(image.shape[0]):
        factor = draw_log_uniform(settings.contrast, rng)
        offset = rng.uniform(*settings.brightness)
        exponent = draw_log_uniform(settings.gamma, rng)
        image[channel] = _bend(_stretch(image[channel], factor, offset), exponent)
    if rng.random() < settings.invert_probability:
        image = 1 - image
    if settings.noise_sigma > 0:
        sigma = np.float32(rng.uniform(0.0, settings.noise_sigma))
        image += sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return image


def _with_own_contrast(channel: Floats) -> Floats:
    """Normalised once more, as an image of its own; one grey value stays as it is."""
    of_image = Normalisation()
    low, high = np.percentile(channel, [of_image.low, of_image.high])
    if not high > low:
        return channel
    out: Floats = (channel - np.float32(low)) / np.float32(high - low)
    return out


def _stretch(channel: Floats, factor: float, offset: float) -> Floats:
    if factor == 1 and offset == 0:
        return channel
    mean = float(channel.mean())
    out: Floats = channel * np.float32(factor) + np.float32(mean * (1 - factor) + offset)
    return out


def _bend(channel: Floats, exponent: float) -> Floats:
    """Gamma on 0..1; what lies outside keeps its distance to the range, so that nothing is clipped away."""
    if exponent == 1:
        return channel
    inside = np.clip(channel, 0, 1)
    bent: Floats = inside ** np.float32(exponent) + (channel - inside)
    return bent


def blur(image: Floats, sigma_px: float) -> Floats:
    if sigma_px < 0.25:  # changes a pixel by less than 0.1 % of its neighbours
        return image
    blurred: Floats = ndimage.gaussian_filter(image, (0, sigma_px, sigma_px), mode="mirror", truncate=3)
    return blurred


def draw_log_uniform(limits: tuple[float, float], rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))
