"""Runs tiles of a plane through the network; where memory runs out it cuts them smaller and goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core._memory import free, is_out_of_memory
from napari_unet_seg.core._plane_grid import GridGeometry, PlaneGrid
from napari_unet_seg.core.architecture import grid_px
from napari_unet_seg.core.errors import OutOfMemoryError
from napari_unet_seg.core.rescaling import Floats
from napari_unet_seg.core.steps import Note
from napari_unet_seg.core.tiling import Tile, halo_px, plan_tiles, round_up, subdivide


@dataclass(frozen=True)
class TileOutput:
    """Class probabilities (classes, y, x) of a tile and its seam, on the model's grid; how many follow."""

    tile: Tile
    probabilities: Floats
    n_waiting: int


class TileRunner:
    """The network, ready to run, and the side of its tiles, which only ever shrinks.

    Parameters
    ----------
    engine
        The network.
    side_px
        Side of a tile's output; rounded up to the pooling grid.
    tta
        Average over the 8 flips and quarter turns of each tile.
    """

    def __init__(self, engine: InferenceNetwork, side_px: int, *, tta: bool = False) -> None:
        self._engine, self._tta = engine, tta
        self._depth = engine.architecture.depth
        self.side_px = round_up(side_px, grid_px(self._depth))

    def plan(self, geometry: GridGeometry) -> list[Tile]:
        """The tiles of a plane that answer for at least one image pixel that is wanted."""
        return _useful(plan_tiles(*geometry.wanted, self.side_px, self._depth), geometry)

    def run(self, grid: PlaneGrid) -> Generator[TileOutput | Note, None, None]:
        """Each tile of a plane, row by row.

        Raises
        ------
        OutOfMemoryError
            Not even the smallest tile fits.
        """
        waiting = deque(self.plan(grid.geometry))
        while waiting:
            probabilities = self._probabilities(grid, waiting[0])
            if probabilities is not None:
                yield TileOutput(waiting.popleft(), probabilities, len(waiting))
                continue
            yield self._shrink()
            pieces = [piece for tile in waiting for piece in subdivide(tile, self.side_px, self._depth)]
            waiting = deque(_useful(pieces, grid.geometry))

    def _probabilities(self, grid: PlaneGrid, tile: Tile) -> Floats | None:
        """None when memory ran out; what was held is free again by then."""
        try:
            images = torch.from_numpy(grid.read(tile.padded_rows, tile.padded_columns, halo_px(self._depth)))
            probabilities = averaged(self._engine, images[None]) if self._tta else self._engine(images[None])
            return probabilities[0].cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return None

    def _shrink(self) -> Note:
        smallest = grid_px(self._depth)
        device = self._engine.device
        free(device)
        if self.side_px <= smallest:
            raise OutOfMemoryError(
                f"Not even a tile of {smallest} px fits the memory of {device}: "
                "close other programs, or choose a narrower model or another device."
            )
        self.side_px = max(smallest, round_up(self.side_px // 2, smallest))
        return Note(
            f"Memory ran out on {device}: going on with tiles of {self.side_px} px; the result is the same."
        )


def averaged(engine: InferenceNetwork, images: Tensor) -> Tensor:
    """Mean of the probabilities under the 8 flips and quarter turns of (N, C, Y, X).

    A tile that starts and ends on the pooling grid lies on the same grid when it is mirrored or turned.
    """
    total: Tensor | None = None
    for turns in range(4):
        turned = torch.rot90(images, turns, (2, 3))
        straight = engine(turned)
        straight = straight + engine(turned.flip(3)).flip(3)
        back = torch.rot90(straight, -turns, (2, 3))
        total = back if total is None else total + back
    if total is None:
        raise AssertionError
    return total / 8


def _useful(tiles: tuple[Tile, ...] | list[Tile], geometry: GridGeometry) -> list[Tile]:
    return [tile for tile in tiles if geometry.is_wanted(tile)]
