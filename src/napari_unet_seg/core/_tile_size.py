"""How large a tile is: the fastest that fits the memory at hand and is done within half a second."""

from __future__ import annotations

import os
import time

import torch

from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._memory import available_bytes, free, is_out_of_memory
from napari_unet_seg.core.architecture import Architecture, grid_px
from napari_unet_seg.core.tiling import halo_px, round_up

LONGEST_TILE_S = 0.5
SIDES_PX = (192, 256, 384, 512, 640, 768, 1024, 1536, 2048)
_TIGHT_SIDES_PX = (64, 128)
"""Only where memory forbids more: most of what such a tile computes is its halo."""
_SHORT_JOB_S = 3.0
"""A job estimated shorter than this is not worth more than one probe."""
_MEMORY_SHARE = {"cpu": 0.25, "cuda": 0.6, "mps": 0.3}

_measured: dict[tuple[Architecture, str, int], dict[int, float]] = {}
"""Seconds per tile, by (architecture, device, threads) and side; filled once per process."""


def choose_side_px(engine: InferenceNetwork, plane_shape: tuple[int, int], n_planes: int) -> int:
    """Side of a tile's output, a multiple of the pooling grid, for planes (Y, X) of the model's grid.

    Numbers do not depend on it, only time and memory do. Short timed runs are made once per architecture,
    device and number of threads; for a short job one of them is extrapolated by the operations that a tile
    takes.
    """
    architecture = engine.architecture
    sides = _candidates(architecture, plane_shape, available_bytes(engine.device), engine.device.type)
    seconds = _measured.setdefault((architecture, str(engine.device), torch.get_num_threads()), {})
    for side in sides:
        if seconds and (
            _is_short(seconds, plane_shape, n_planes)
            or _predicted(side, seconds, architecture) > LONGEST_TILE_S
        ):
            break
        if side not in seconds:
            seconds[side] = _probe(engine, side)
    quick = [side for side in sides if _predicted(side, seconds, architecture) <= LONGEST_TILE_S] or sides[:1]
    return min(
        quick, key=lambda side: plane_seconds(side, plane_shape, _predicted(side, seconds, architecture))
    )


def warm_up(engine: InferenceNetwork) -> None:
    """Measure all tile sizes now, so that the next prediction starts at once."""
    choose_side_px(engine, (SIDES_PX[-1], SIDES_PX[-1]), 100)


def plane_seconds(side: int, plane_shape: tuple[int, int], tile_seconds: float) -> float:
    """Estimated time of a plane: its tiles, those at the border in proportion to what is left of them."""
    tiles_down, tiles_across = (max(1.0, length / side) for length in plane_shape)
    return tiles_down * tiles_across * tile_seconds


def operations(side: int, architecture: Architecture) -> float:
    """Multiply-adds of one tile, its halo included, up to a common factor."""
    length = float(side + 2 * halo_px(architecture.depth))
    width = architecture.base_channels
    total, incoming = 0.0, architecture.in_channels
    for level in range(architecture.depth + 1):
        outgoing = width * 2**level
        total += 9 * outgoing * (incoming * (length - 2) ** 2 + outgoing * (length - 4) ** 2)
        incoming, length = outgoing, (length - 4) / 2
    length *= 2
    for level in reversed(range(architecture.depth)):
        outgoing = width * 2**level
        length *= 2
        total += outgoing * length**2 * 2 * outgoing
        total += 9 * outgoing * (2 * outgoing * (length - 2) ** 2 + outgoing * (length - 4) ** 2)
        length -= 4
    return total


def activation_bytes(side: int, architecture: Architecture) -> float:
    """About what one tile's activations take at their peak: all skips, and the widest merge."""
    read = side + 2 * halo_px(architecture.depth)
    return 1.5 * 4 * architecture.base_channels * (2 * read**2 + 4 * side**2)


def _candidates(
    architecture: Architecture, plane_shape: tuple[int, int], free_bytes: float, kind: str
) -> list[int]:
    """Sides that fit the memory and are not larger than the plane, smallest first; at least one."""
    grid = grid_px(architecture.depth)
    longest = round_up(max(plane_shape), grid)
    tight, sides = (
        sorted({min(round_up(side, grid), longest) for side in wanted})
        for wanted in (_TIGHT_SIDES_PX, SIDES_PX)
    )
    budget = free_bytes * _MEMORY_SHARE.get(kind, 0.25)
    fitting = [side for side in sides if activation_bytes(side, architecture) <= budget]
    return fitting or [side for side in tight if activation_bytes(side, architecture) <= budget] or tight[:1]


def _predicted(side: int, seconds: dict[int, float], architecture: Architecture) -> float:
    """Seconds of one tile: measured, or from the nearest measured side in proportion to the operations."""
    if side in seconds:
        return seconds[side]
    nearest = min(seconds, key=lambda known: abs(known - side))
    return seconds[nearest] * operations(side, architecture) / operations(nearest, architecture)


def _is_short(seconds: dict[int, float], plane_shape: tuple[int, int], n_planes: int) -> bool:
    best = min(plane_seconds(side, plane_shape, time) for side, time in seconds.items())
    return best * n_planes < _SHORT_JOB_S


def _probe(engine: InferenceNetwork, side: int) -> float:
    """Seconds of one tile, the better of two runs unless it is slow; infinite when memory forbids it."""
    length = side + 2 * halo_px(engine.architecture.depth)
    try:
        images = torch.zeros(1, engine.architecture.in_channels, length, length)
        first = _seconds(engine, images)
        return first if first > LONGEST_TILE_S else min(first, _seconds(engine, images))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    free(engine.device)
    return float("inf")


def _seconds(engine: InferenceNetwork, images: torch.Tensor) -> float:
    """By the clock of this thread where it does the work itself: other programs' time is not the tile's."""
    # Windows counts a thread's time in steps of 16 ms.
    clock = time.thread_time if engine.device.type == "cpu" and os.name == "posix" else time.perf_counter
    started = clock()
    engine(images).cpu()
    return clock() - started
