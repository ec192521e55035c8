"""The moving average of a network in training: less noisy than the weights of any one step."""

from __future__ import annotations

import copy
from typing import Final

import torch

from napari_unet_seg.core.network import UNet

_SLOWEST_START: Final = 10
"""The first steps count for more, so that the starting weights do not linger in a short training."""


class MovingAverage:
    """Exponential moving average of all weights, batch-norm statistics included (Polyak and Juditsky 1992).

    Parameters
    ----------
    network
        Where it starts; copied.
    decay
        What the average keeps of itself at each step, below 1.

    Attributes
    ----------
    network
        With the averaged weights.
    """

    def __init__(self, network: UNet, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self._decay = decay

    @torch.no_grad()
    def add(self, network: UNet, step: int) -> None:
        """Take in the weights after a step, of which the first is 1."""
        decay = min(self._decay, step / (_SLOWEST_START + step))
        for mean, now in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)
