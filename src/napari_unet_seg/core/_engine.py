"""The network as prediction runs it: the same weights and numbers, arranged for speed.

Batch norm is folded into the convolutions, and all convolutions are unpadded, also those of a same-size
network: with the margin of a whole-image pass, zero padding never reaches a pixel that is kept, so what it
touches would be computed for nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_unet_seg.core._convolutions import convolution, merging_convolution, moved
from napari_unet_seg.core.network import UNet, centre_crop

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
        self._down = [[convolution(*weights, device) for weights in _folded(block)] for block in network.down]
        self._up = [_upsampling(part, device) for part in network.up]
        merges = [_folded(block) for block in network.merge]
        self._merge = [merging_convolution(*first, device) for first, _ in merges]
        self._after_merge = [convolution(*second, device) for _, second in merges]
        self._head = convolution(*_decisive(network.head), device, relu=False)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Class probabilities (N, classes, Y - 2·context, X - 2·context) of images (N, C, Y, X)."""
        with _full_float32(self.device):
            return self._probabilities(images)

    def _probabilities(self, images: Tensor) -> Tensor:
        x = images.to(self.device).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, block in enumerate(self._down):
            x = F.max_pool2d(x, 2) if level else x
            for convolve in block:
                x = convolve(x)
            skips.append(x)
        skips.pop()
        for (kernel, bias), merge, convolve in zip(self._up, self._merge, self._after_merge, strict=True):
            x = F.conv_transpose2d(x, kernel, bias, stride=2)
            x = convolve(merge(centre_crop(skips.pop(), x.shape[-2:]), x))
        return _probabilities(self._head(x))


def _full_float32(device: torch.device) -> AbstractContextManager[None]:
    """Keep CUDA from rounding float32 convolutions to TF32, which would show as seams between tile sizes."""
    if device.type != "cuda":
        return nullcontext()
    exact: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return exact


def _probabilities(decisions: Tensor) -> Tensor:
    """Softmax over the classes; of two classes, where only the difference was computed, the sigmoid."""
    if decisions.shape[1] > 1:
        return torch.softmax(decisions.contiguous(), dim=1)
    foreground = torch.sigmoid(decisions)
    return torch.cat([1 - foreground, foreground], dim=1)


def _decisive(head: nn.Conv2d) -> Weights:
    """The last layer; of two classes only their difference, which is all that their softmax depends on."""
    kernel, bias = _double(head)
    if kernel.shape[0] == 2:
        return kernel[1:] - kernel[:1], bias[1:] - bias[:1]
    return kernel, bias


def _upsampling(part: nn.Module, device: torch.device) -> Weights:
    if not isinstance(part, nn.ConvTranspose2d):
        raise TypeError(f"a U-Net goes up by transposed convolutions, not by {type(part).__name__}")
    kernel, bias = _double(part)
    return moved(kernel, device), moved(bias, device)


def _folded(block: nn.Module) -> list[Weights]:
    """Kernel and bias of each convolution of a block, its batch norm folded in."""
    weights = []
    for layer, following in pairwise(block.children()):
        if isinstance(layer, nn.Conv2d):
            kernel, bias = _double(layer)
            weights.append(
                _fold(kernel, bias, following) if isinstance(following, nn.BatchNorm2d) else (kernel, bias)
            )
    return weights


def _fold(kernel: Tensor, bias: Tensor, norm: nn.BatchNorm2d) -> Weights:
    """(x - mean) / √(var + ε) · γ + β, as part of the convolution before it."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a batch norm without running statistics depends on its tile")
    gain = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return kernel * gain.view(-1, 1, 1, 1), (
        bias - norm.running_mean.double()
    ) * gain + norm.bias.detach().double()


def _double(layer: nn.Conv2d | nn.ConvTranspose2d) -> Weights:
    """Kernel and bias in double precision, so that folding rounds once."""
    kernel = layer.weight.detach().double()
    bias = kernel.new_zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().double()
    return kernel, bias
