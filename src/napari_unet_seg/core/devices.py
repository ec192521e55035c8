"""Which processor runs the network, and a sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from napari_unet_seg.core._memory import is_out_of_memory
from napari_unet_seg.core.errors import InputError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True)
class DeviceChoice:
    """A device that exists on this machine, with the reason for choosing it in the person's words."""

    device: torch.device
    reason: str


def choose_device(wish: str = "auto") -> DeviceChoice:
    """Resolve `auto`, `cpu`, `cuda`, `cuda:N` or `mps` to a device that exists here.

    Raises
    ------
    InputError
        The wish is unknown, or this machine has no such device.
    """
    if wish == "auto":
        return _best_device()
    kind = wish.split(":")[0]
    if kind not in get_args(DeviceName) or kind == "auto":
        raise InputError(f"Device '{wish}' is unknown: choose auto, cpu, cuda or mps.")
    if kind == "cuda" and not _has_cuda(wish):
        raise InputError(f"Device '{wish}' was asked for, but {_why_no_cuda()}: choose auto or cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("Device 'mps' was asked for, but this machine has no Apple GPU: choose auto or cpu.")
    return DeviceChoice(torch.device(wish), f"{wish}, as chosen")


def is_lost(error: BaseException, device: torch.device) -> bool:
    """Whether an error of PyTorch means that the GPU stopped working, not that its memory ran out."""
    if device.type == "cpu" or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return False
    # PyTorch 2.4 has no type for it.
    by_type = isinstance(error, getattr(torch, "AcceleratorError", ()))
    return by_type or any(word in str(error) for word in ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "Metal"))


def _best_device() -> DeviceChoice:
    if torch.cuda.is_available():
        return DeviceChoice(torch.device("cuda"), f"GPU: {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return DeviceChoice(torch.device("mps"), "GPU: Apple Metal")
    return DeviceChoice(torch.device("cpu"), f"CPU, because {_why_no_cuda()}")


def _has_cuda(wish: str) -> bool:
    if not torch.cuda.is_available():
        return False
    index = wish.partition(":")[2]
    return not index or (index.isdigit() and int(index) < torch.cuda.device_count())


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this PyTorch was installed without CUDA"
    if not torch.cuda.is_available():
        return "no usable NVIDIA GPU was found"
    return f"this machine has {torch.cuda.device_count()} NVIDIA GPU(s)"
