"""The network as prediction runs it: the same weights and numbers, arranged for speed.

Batch norm is folded into the convolutions, and all convolutions are unpadded, also those of a same-size
network: with the margin of a whole-image pass, zero padding never reaches a pixel that is kept, so what it
touches would be computed for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_unet_seg.core.network import UNet, centre_crop, class_probabilities

Weights = tuple[Tensor, Tensor]
"""Kernel and bias of one convolution."""


class InferenceNetwork:
    """An unpadded copy of a U-Net for inference on one device.

    Parameters
    ----------
    network
        The network; it is not changed.
    device
        Where the copy runs.
    """

    def __init__(self, network: UNet, device: torch.device) -> None:
        self.device = device
        self.architecture = network.architecture
        self._down = [_folded(block, device) for block in network.down]
        self._merge = [_folded(block, device) for block in network.merge]
        self._up = [
            _moved(up.weight, up.bias, device) for up in network.up if isinstance(up, nn.ConvTranspose2d)
        ]
        self._head = _moved(network.head.weight, network.head.bias, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Class probabilities (N, classes, Y - 2·context, X - 2·context) of images (N, C, Y, X)."""
        x = images.to(self.device, memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, block in enumerate(self._down):
            x = _convolve(F.max_pool2d(x, 2) if level else x, block)
            skips.append(x)
        skips.pop()
        for (kernel, bias), block in zip(self._up, self._merge, strict=True):
            x = F.conv_transpose2d(x, kernel, bias, stride=2)
            x = _convolve(torch.cat([centre_crop(skips.pop(), x.shape[-2:]), x], dim=1), block)
        return class_probabilities(F.conv2d(x, *self._head))


def _convolve(x: Tensor, block: Sequence[Weights]) -> Tensor:
    for kernel, bias in block:
        x = F.conv2d(x, kernel, bias).relu_()
    return x


def _folded(block: nn.Module, device: torch.device) -> list[Weights]:
    """Kernel and bias of each convolution of a block, its batch norm folded in."""
    layers = list(block.children())
    weights = []
    for layer, following in pairwise(layers):
        if not isinstance(layer, nn.Conv2d):
            continue
        kernel = layer.weight.detach().double()
        bias = torch.zeros(kernel.shape[0]).double() if layer.bias is None else layer.bias.detach().double()
        if isinstance(following, nn.BatchNorm2d):
            kernel, bias = _fold(kernel, bias, following)
        weights.append(_moved(kernel, bias, device))
    return weights


def _fold(kernel: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Weights:
    """(x - mean) / √(var + ε) · γ + β, as part of the convolution before it."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a batch norm without running statistics depends on its tile")
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return kernel * gain.view(-1, 1, 1, 1), (bias - norm.running_mean.double()) * gain + norm.bias.double()


def _moved(kernel: Tensor, bias: Tensor | None, device: torch.device) -> Weights:
    bias = torch.zeros(kernel.shape[0]) if bias is None else bias
    moved = kernel.detach().to(device, torch.float32, memory_format=torch.channels_last)
    return moved.clone(memory_format=torch.preserve_format), bias.detach().to(device, torch.float32).clone()
