"""Convolutions for inference: unpadded, stride 1, their ReLU done while the result is still in the cache.

On the CPU PyTorch's own oneDNN operators do that (those that its compiler uses); elsewhere, and where a build
of PyTorch lacks them, the plain functions compute the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Convolve = Callable[[Tensor], Tensor]
Merge = Callable[[Tensor, Tensor], Tensor]

_UNPADDED: tuple[Any, ...] = ([0, 0], [1, 1], [1, 1], 1)
"""Padding, stride, dilation, groups."""
_TYPICAL_INPUT_PX = 256
"""The side for which kernels are packed; inputs of another size run as well."""


def convolution(kernel: Tensor, bias: Tensor, device: torch.device, *, relu: bool = True) -> Convolve:
    """A function from (N, in, Y, X) to (N, out, Y - k + 1, X - k + 1) for a kernel (out, in, k, k)."""
    kernel, bias = moved(kernel, device), moved(bias, device)
    if _is_fused_on(device):
        return _fused(kernel, bias, "relu" if relu else "none")

    def convolve(x: Tensor) -> Tensor:
        y = F.conv2d(x, kernel, bias)
        return y.relu_() if relu else y

    return convolve


def merging_convolution(kernel: Tensor, bias: Tensor, device: torch.device) -> Merge:
    """A convolution and ReLU of two inputs as if they were concatenated along their channels.

    Fused, it is the sum of two convolutions, and the concatenation is never written to memory.
    """
    kernel, bias = moved(kernel, device), moved(bias, device)
    if not _is_fused_on(device):
        return lambda first, second: F.conv2d(torch.cat([first, second], dim=1), kernel, bias).relu_()
    half = kernel.shape[1] // 2
    of_first = _fused(kernel[:, :half], None, "none")
    packed = _packed(kernel[:, half:])
    add_convolution = torch.ops.mkldnn._convolution_pointwise_.binary

    def merge(first: Tensor, second: Tensor) -> Tensor:
        total = of_first(first.contiguous(memory_format=torch.channels_last))
        merged: Tensor = add_convolution(total, second, packed, bias, *_UNPADDED, "add", 1.0, "relu", [], "")
        return merged

    return merge


def moved(values: Tensor, device: torch.device) -> Tensor:
    """A float32 copy on a device, kernels with their channels last."""
    copied = values.detach().float().to(device, copy=True)  # Apple's GPUs take no double precision
    return copied.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else copied


def _fused(kernel: Tensor, bias: Tensor | None, after: str) -> Convolve:
    packed, operator = _packed(kernel), torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001

    def convolve(x: Tensor) -> Tensor:
        y: Tensor = operator(x, packed, bias, *_UNPADDED, after, [], "")
        return y

    return convolve


def _packed(kernel: Tensor) -> Tensor:
    size = [1, kernel.shape[1], _TYPICAL_INPUT_PX, _TYPICAL_INPUT_PX]
    kernel = kernel.contiguous(memory_format=torch.channels_last)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(kernel, *_UNPADDED, size)  # noqa: SLF001
    return packed


def _is_fused_on(device: torch.device) -> bool:
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and _fused_works()


@cache
@torch.inference_mode()
def _fused_works() -> bool:
    """Whether this PyTorch has the operators (they are not in its public interface), and they are right."""
    x = torch.linspace(-1, 1, 50).view(1, 2, 5, 5).contiguous(memory_format=torch.channels_last)
    kernel, bias = torch.linspace(-1, 1, 36).view(2, 2, 3, 3), torch.ones(2)
    expected = F.conv2d(x, kernel, bias)
    try:
        total = _fused(kernel, bias, "none")(x)
        torch.ops.mkldnn._convolution_pointwise_.binary(
            total, x, _packed(kernel), bias, *_UNPADDED, "add", 1.0, "relu", [], ""
        )
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    return torch.allclose(total, (2 * expected).relu(), atol=1e-5)
