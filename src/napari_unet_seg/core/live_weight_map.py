"""The weight map of one plane that is being painted: filled block by block, then redrawn where it changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._gaps import IntArray, Task
from napari_unet_seg.core.weight_map import (
    ClassCounts,
    WeightParts,
    WeightSettings,
    carve_gaps,
    halo_px,
    weight_parts,
)

Box: TypeAlias = tuple[slice, slice]

BLOCK_PX = 512
"""Side of the blocks in which a plane is filled: some hundredths of a second each."""
TILE_PX = 256
"""Side of the tiles of which it is known whether something is annotated there."""


@dataclass(frozen=True, eq=False)
class Redrawn:
    """What is to be shown anew.

    Attributes
    ----------
    box
        Rows and columns.
    weights
        float32, (Y, X) of the box: a view, in which later changes will be seen too.
    """

    box: Box
    weights: NDArray[np.float32]


class LiveWeightMap:
    """Keeps the parts of a plane's weight map; after every change, says what of the map looks different.

    The weights of the classes depend on every annotated pixel. While those that are shown are off by no more
    than 5e-4 w0, a change is redrawn in its surroundings only; beyond, all of the map is due: `is_stale`.

    Parameters
    ----------
    labels, annotated
        (Y, X), its own from now on. Labels count only where `annotated` is True.
    others
        What else is annotated, on other planes: it counts for the weights of the classes.
    task, n_classes
        As in `weight_map`.
    """

    def __init__(
        self,
        labels: IntArray,
        annotated: NDArray[np.bool_],
        settings: WeightSettings,
        *,
        others: ClassCounts | None = None,
        task: Task = "instances",
        n_classes: int | None = None,
    ) -> None:
        self._labels, self._annotated = labels, annotated
        self.settings, self._task = settings, task
        self._others = others or ClassCounts(())
        self._begin(n_classes or 2 if task == "classes" else 2)

    def _begin(self, n_classes: int) -> None:
        """Forget all weights."""
        n_classes = max(n_classes, len(self._others.pixels))
        if self._task == "classes":
            n_classes = max(n_classes, int(self._labels.max(initial=0)) + 1)
        height, width = self._labels.shape
        self._parts = WeightParts.empty((slice(0, height), slice(0, width)), n_classes)
        self._parts.classes[...] = n_classes
        self._weights = np.zeros((height, width), np.float32)  # kept: fresh memory costs more than the sums
        self._counts = ClassCounts((0,) * n_classes)
        self._used: set[tuple[int, int]] = set()  # tiles; in the others, nothing is annotated
        self._blocks = _blocks(height, width, max(BLOCK_PX, 4 * halo_px(self.settings)))
        self._shown = self._others + self._estimate(n_classes)

    def _estimate(self, n_classes: int) -> ClassCounts:
        """Annotated pixels of each class, as good as it gets before the gaps are carved."""
        labels = self._labels[self._annotated]
        if self._task == "instances":
            n_objects = int(np.count_nonzero(labels))
            return ClassCounts((labels.size - n_objects, n_objects))
        return ClassCounts(tuple(np.bincount(labels, minlength=n_classes).tolist()))

    @property
    def counts(self) -> ClassCounts:
        """Annotated pixels of each class on this plane; all of them when it is complete."""
        return self._counts

    @property
    def is_complete(self) -> bool:
        """Whether every block has been filled."""
        return not self._blocks

    @property
    def is_stale(self) -> bool:
        """Whether the weights of the classes have moved so far that the whole map has to be redrawn."""
        return self.is_complete and self._total.moved_from(self._shown, self.settings)

    @property
    def _total(self) -> ClassCounts:
        return self._others + self._counts

    def look_at(self, box: Box) -> None:
        """Fill the blocks of this part of the plane first."""
        middle_y, middle_x = ((part.start + part.stop) / 2 for part in box)

        def distance(block: Box) -> float:
            rows, columns = block
            along_y = max(rows.start - middle_y, middle_y - rows.stop)
            along_x = max(columns.start - middle_x, middle_x - columns.stop)
            return float(max(along_y, along_x))

        self._blocks.sort(key=distance, reverse=True)

    def fill_block(self) -> Redrawn:
        """Fill one more block; there is one."""
        return self._take(
            weight_parts(
                self._labels,
                self.settings,
                wanted=self._blocks.pop(),
                annotated=self._annotated,
                task=self._task,
                n_classes=self._parts.n_classes,
            )
        )

    def update(self, box: Box, labels: IntArray, annotated: NDArray[np.bool_]) -> Redrawn | None:
        """Take over what changed in a box; None when all is to be filled anew, for a class that is new."""
        self._labels[box], self._annotated[box] = labels, annotated
        n_classes = self._parts.n_classes
        if self._task == "classes" and labels.max(initial=0) >= n_classes:
            self._begin(n_classes)
            return None
        return self._take(
            weight_parts(
                self._labels,
                self.settings,
                changed=box,
                annotated=self._annotated,
                task=self._task,
                n_classes=n_classes,
            )
        )

    def count_others(self, others: ClassCounts) -> None:
        """Let what is annotated elsewhere count; of a class that is new here, all is to be filled anew."""
        self._others = others
        if len(others.pixels) > self._parts.n_classes:
            self._begin(len(others.pixels))

    def redraw(self) -> tuple[Redrawn, ...]:
        """All of the map that is not 0, with the weights of the classes as they are now."""
        self._shown = self._total
        boxes = [self._box_of(run) for run in _runs(self._used)]
        return tuple(self._draw(self._parts_in(box), box) for box in boxes)

    def with_settings(self, settings: WeightSettings) -> LiveWeightMap:
        """The same plane, with other settings, to be filled; this one is not to be used any more."""
        return LiveWeightMap(
            self._labels,
            self._annotated,
            settings,
            others=self._others,
            task=self._task,
            n_classes=self._parts.n_classes,
        )

    def _take(self, new: WeightParts) -> Redrawn:
        """Replace the parts in a box."""
        rows, columns = new.box
        box = rows, columns
        old = self._parts_in(box)
        self._counts = self._counts.updated(old.counts, new.counts)
        old.classes[...], old.border[...] = new.classes, new.border
        if sum(new.counts.pixels):
            self._used.update(_tiles(box))
        return self._draw(new, box)

    def _draw(self, parts: WeightParts, box: Box) -> Redrawn:
        return Redrawn(box, parts.weights(self.settings, self._shown, out=self._weights[box]))

    def _parts_in(self, box: Box) -> WeightParts:
        """A view of the parts."""
        whole = self._parts
        return WeightParts(box, whole.classes[box], whole.border[box], whole.n_classes)

    def _box_of(self, run: tuple[int, range]) -> Box:
        """Rows and columns of tiles beside each other."""
        (row, columns), (height, width) = run, self._labels.shape
        return (
            slice(row * TILE_PX, min(height, (row + 1) * TILE_PX)),
            slice(columns.start * TILE_PX, min(width, columns.stop * TILE_PX)),
        )


def count_classes(
    labels: IntArray, annotated: NDArray[np.bool_], *, task: Task = "instances", skipped_rows: int = 0
) -> ClassCounts:
    """Annotated pixels of each class of a plane, or a part of it, after carving the gaps.

    The gaps of a row depend on the one above: it can be given and skipped.
    """
    carved = carve_gaps(labels, annotated=annotated, task=task)[skipped_rows:]
    classes: IntArray = (carved > 0).view(np.uint8) if task == "instances" else carved
    return ClassCounts(tuple(np.bincount(classes[annotated[skipped_rows:]], minlength=2).tolist()))


def _tiles(box: Box) -> Iterator[tuple[int, int]]:
    """Row and column of the tiles that a box touches."""
    rows, columns = (range(part.start // TILE_PX, -(-part.stop // TILE_PX)) for part in box)
    return product(rows, columns)


def _runs(tiles: set[tuple[int, int]]) -> Iterator[tuple[int, range]]:
    """Tiles beside each other, row by row."""
    for row, in_row in groupby(sorted(tiles), key=itemgetter(0)):
        columns = [column for _, column in in_row]
        starts = [column for column in columns if (row, column - 1) not in tiles]
        stops = [column + 1 for column in columns if (row, column + 1) not in tiles]
        for start, stop in zip(starts, stops, strict=True):
            yield row, range(start, stop)


def _blocks(height: int, width: int, side_px: int) -> list[Box]:
    rows, columns = (
        [slice(start, min(length, start + side_px)) for start in range(0, length, side_px)]
        for length in (height, width)
    )
    return list(product(rows, columns))[::-1]
