"""The U-Net as a torch module, built from an `Architecture`.

The paper's network (Ronneberger, Fischer, Brox 2015, arXiv 1505.04597) is the default architecture; the
practical variants (narrower, shallower, batch norm, same-size output) are other values of the same class.
Nothing here knows about images, tiles or training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_unet_seg.core.architecture import Architecture


class UNet(nn.Module):
    """A U-Net after `Architecture`; maps `(N, C, Y, X)` images to `(N, out_channels, Y', X')` logits.

    Weights are drawn from N(0, √(2/N)), N the incoming nodes of one neuron (He et al. 2015, section 3 of the
    paper), biases are 0.
    """

    def __init__(self, architecture: Architecture, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        widths = [architecture.base_channels * 2**level for level in range(architecture.depth + 1)]
        above = [architecture.in_channels, *widths]
        self.down = nn.ModuleList(
            _double_convolution(above[level], width, architecture) for level, width in enumerate(widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, kernel_size=2, stride=2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(
            _double_convolution(2 * width, width, architecture) for width in reversed(widths[:-1])
        )
        self.head = nn.Conv2d(widths[0], architecture.out_channels, kernel_size=1)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout(architecture.dropout)
        initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `(N, out_channels, Y', X')` for images `(N, in_channels, Y, X)`."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            if level >= len(self.down) - 2:
                x = self.drop(x)
            skips.append(x)
        skips.pop()
        for upsample, block in zip(self.up, self.merge, strict=True):
            x = upsample(x)
            x = block(torch.cat([centre_crop(skips.pop(), x.shape[-2:]), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


def centre_crop(x: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """Return the central `size` of `(N, C, Y, X)`, a view."""
    top, left = (x.shape[-2] - size[0]) // 2, (x.shape[-1] - size[1]) // 2
    return x[..., top : top + size[0], left : left + size[1]]


def class_probabilities(logits: Tensor) -> Tensor:
    """Turn logits `(N, out, Y, X)` into probabilities per class; one sigmoid becomes (1 - p, p)."""
    if logits.shape[1] > 1:
        return torch.softmax(logits, dim=1)
    foreground = torch.sigmoid(logits)
    return torch.cat([1 - foreground, foreground], dim=1)


def _double_convolution(incoming: int, width: int, architecture: Architecture) -> nn.Sequential:
    padding = 1 if architecture.padding == "same" else 0
    layers: list[nn.Module] = []
    for channels in (incoming, width):
        layers.append(
            nn.Conv2d(channels, width, kernel_size=3, padding=padding, bias=not architecture.batch_norm)
        )
        if architecture.batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew, N(0, √(2/N)) with N = kernel area × incoming channels; biases become 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nodes = part.in_channels * (math.prod(part.kernel_size) if isinstance(part, nn.Conv2d) else 1)
            nn.init.normal_(part.weight, std=math.sqrt(2 / nodes), generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
