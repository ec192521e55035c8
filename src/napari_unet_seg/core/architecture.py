"""What a U-Net is made of, as a value, and the shape arithmetic that follows from it; no tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from napari_unet_seg.core._plain_values import PlainValues
from napari_unet_seg.core.errors import InputError

Padding = Literal["valid", "same"]


@dataclass(frozen=True)
class Architecture(PlainValues):
    """What a U-Net is made of; the defaults are the network of 2015.

    Parameters
    ----------
    in_channels
        Channels of the input image.
    out_channels
        Classes of the softmax, or 1 for a sigmoid on the foreground.
    base_channels
        Channels of the first level; each level below doubles them.
    depth
        Number of 2×2 poolings.
    batch_norm
        Batch normalisation between each 3×3 convolution and its ReLU.
    padding
        "valid": unpadded convolutions, cropped skips, the output is `2 * context_px` smaller than the input.
        "same": zero-padded convolutions, the output has the input's size.
    dropout
        Probability at the end of the contracting path (after its last two levels, as in the reference code).
    dimensions
        Spatial dimensions: 2.
    """

    KIND: ClassVar[str] = "an architecture"

    in_channels: int = 1
    out_channels: int = 2
    base_channels: int = 64
    depth: int = 4
    batch_norm: bool = False
    padding: Padding = "valid"
    dropout: float = 0.5
    dimensions: int = 2

    def __post_init__(self) -> None:
        for name in ("in_channels", "out_channels", "base_channels", "depth"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"A U-Net needs {name} of at least 1, not {value!r}.")
        if self.depth > 8:
            raise InputError(f"A U-Net of depth {self.depth} is not supported: choose 1 to 8.")
        if self.padding not in ("valid", "same"):
            raise InputError(f"Padding is 'valid' or 'same', not {self.padding!r}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"Dropout is a probability from 0 to below 1, not {self.dropout!r}.")
        if self.dimensions != 2:
            raise InputError(f"Only 2D U-Nets can be built, not {self.dimensions}D.")

    @property
    def n_classes(self) -> int:
        """Number of classes that the probabilities have: a single sigmoid output stands for two."""
        return max(2, self.out_channels)


def grid_px(depth: int) -> int:
    """Side of the pooling grid: 16 at depth 4. Tiles must start on it for tiled = whole."""
    return int(2**depth)


def context_px(depth: int) -> int:
    """Pixels that unpadded convolutions eat on each side: 92 at depth 4.

    Each level's two convolutions cost 4 of its own pixels going down and 4 going up, the bottom level 4.
    """
    return int(6 * 2**depth - 4)


def margin_px(depth: int) -> int:
    """Context rounded up to the pooling grid: 96 at depth 4.

    Counted with the 2 pixels by which unpadded convolutions leave the grid before the first pooling; without
    them, at depth 2, the zero padding of a same-size network would reach the image's first pixels.
    """
    grid = grid_px(depth)
    return math.ceil((context_px(depth) + 2) / grid) * grid


def output_size(input_size: int, architecture: Architecture) -> int:
    """Return the output's side for an input's side, both in pixels.

    Raises
    ------
    InputError
        The network cannot take this size.
    """
    depth = architecture.depth
    if architecture.padding == "same":
        if input_size < 1 or input_size % grid_px(depth):
            raise InputError(
                f"A same-size U-Net of depth {depth} needs multiples of {grid_px(depth)}, not {input_size}."
            )
        return input_size
    result = input_size - 2 * context_px(depth)
    if result < 4 or (result - 4) % grid_px(depth):
        smallest = valid_input_size(1, architecture)
        raise InputError(
            f"An unpadded U-Net of depth {depth} needs {smallest} + {grid_px(depth)}·n, not {input_size} px."
        )
    return result


def valid_input_size(at_least: int, architecture: Architecture) -> int:
    """Return the smallest input side whose *output* covers at least so many pixels."""
    grid = grid_px(architecture.depth)
    if architecture.padding == "same":
        return max(1, math.ceil(at_least / grid)) * grid
    steps = max(0, math.ceil((at_least - 4) / grid))
    return 2 * context_px(architecture.depth) + 4 + grid * steps
