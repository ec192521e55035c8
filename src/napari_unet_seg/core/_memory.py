"""Memory of a device: how much is free, whether an error means that it ran out, and giving it back."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

_MEMORY_SENTENCES = ("out of memory", "allocate memory", "not enough memory", "could not create a memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out; PyTorch says so by type on CUDA, by its sentence elsewhere."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return any(sentence in str(error).lower() for sentence in _MEMORY_SENTENCES)


def free(device: torch.device) -> None:
    """Give back what a failed run still holds, also what its error's traceback held."""
    gc.collect()
    empty_cache(device)


def empty_cache(device: torch.device) -> None:
    """Give back memory that PyTorch keeps for its next tensors."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def used_bytes(device: torch.device) -> int | None:
    """What this process holds: of the GPU's memory where it works on one, else of the system's."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return _resident_bytes()


def _resident_bytes() -> int | None:
    """Linux says it in a file; elsewhere psutil does, which comes with napari."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.Process().memory_info().rss)


def available_bytes(device: torch.device) -> float:
    """Free memory of the device; infinite where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free)
    return min(_free_system_bytes(), _container_bytes())


def _free_system_bytes() -> float:
    """What Linux could give without swapping; other systems do not say it in a file."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, IndexError, ValueError):
        return float("inf")


def _container_bytes() -> float:
    """The limit of a Linux control group."""
    try:
        return float(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return float("inf")
