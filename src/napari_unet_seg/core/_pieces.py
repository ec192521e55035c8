"""The connected pieces of every id in a plane, found from runs of equal pixels rather than pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Ints = NDArray[np.integer[Any]]
Point = tuple[int, int]

_MOST_RUNS = 1000
"""Of a piece, when the distance to another is measured: of more, every second, third… one is taken."""


@dataclass(frozen=True, eq=False)
class Runs:
    """Stretches of equal labels in rows, from top left to bottom right; 0 has none.

    Attributes
    ----------
    rows, starts, stops
        Row, first column, and column after the last.
    ids
        The label.
    pieces
        Number of the piece, from 0: pixels of one id that hang together, also by their corners.
    n_columns
        Of the plane.
    """

    rows: Ints
    starts: Ints
    stops: Ints
    ids: Ints
    pieces: Ints
    n_columns: int

    def count(self, mask: NDArray[np.bool_]) -> Ints:
        """How many pixels of each run are True in a mask of the plane."""
        if not len(self.rows):
            return np.zeros(0, np.int64)
        before = np.zeros(mask.size + 1, np.int32)
        np.cumsum(mask.ravel(), out=before[1:])
        row_starts = self.rows * self.n_columns
        return np.asarray(before[row_starts + self.stops] - before[row_starts + self.starts], np.int64)


class Pieces:
    """Everything that is asked about the pieces of a plane; arrays have one entry per piece.

    Parameters
    ----------
    runs
        Of the plane, see `find_runs`.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._n = int(runs.pieces.max(initial=-1)) + 1
        self.areas_px = self._sum(runs.stops - runs.starts)
        self.ids = np.zeros(self._n, runs.ids.dtype)
        self.ids[runs.pieces] = runs.ids

    def __len__(self) -> int:
        return self._n

    def count(self, mask: NDArray[np.bool_]) -> Ints:
        """How many pixels of each piece are True in a mask of the plane."""
        return self._sum(self.runs.count(mask))

    @cached_property
    def boxes(self) -> Ints:
        """Top, bottom, left, right of each piece, bottom and right not included: (pieces, 4)."""
        if not self._n:
            return np.zeros((0, 4), np.int64)
        order, ends = self._by_piece
        first, last = order[ends[:-1]], order[ends[1:] - 1]
        left = np.minimum.reduceat(self.runs.starts[order], ends[:-1])
        right = np.maximum.reduceat(self.runs.stops[order], ends[:-1])
        return np.stack([self.runs.rows[first], self.runs.rows[last] + 1, left, right], axis=1)

    def middle(self, piece: int) -> Point:
        """A pixel of the piece, about in its middle."""
        runs = self._runs_of(piece)
        half = int(runs[len(runs) // 2])
        return int(self.runs.rows[half]), int(self.runs.starts[half] + self.runs.stops[half]) // 2

    def nearest(self, one: int, other: int) -> tuple[float, Point, Point]:
        """Distance of two pieces in px, and the pixels of each that are so near."""
        a, b = self._sample(one), self._sample(other)
        down = self.runs.rows[b] - self.runs.rows[a][:, np.newaxis]
        right_of = self.runs.starts[b] - (self.runs.stops[a] - 1)[:, np.newaxis]
        left_of = self.runs.starts[a][:, np.newaxis] - (self.runs.stops[b] - 1)
        across = np.maximum(np.maximum(right_of, left_of), 0)
        squared = down**2 + across**2
        i, j = np.unravel_index(int(squared.argmin()), squared.shape)
        from_column, to_column = self._columns(int(a[i]), int(b[j]))
        return (
            float(np.sqrt(squared[i, j])),
            (int(self.runs.rows[a[i]]), from_column),
            (int(self.runs.rows[b[j]]), to_column),
        )

    def _columns(self, run: int, other: int) -> Point:
        """Columns of two runs that are nearest to each other."""
        starts, stops = self.runs.starts, self.runs.stops
        column = min(max(int(starts[other]), int(starts[run])), int(stops[run]) - 1)
        return column, min(max(column, int(starts[other])), int(stops[other]) - 1)

    def _sample(self, piece: int) -> Ints:
        runs = self._runs_of(piece)
        return runs[:: len(runs) // _MOST_RUNS + 1]

    def _runs_of(self, piece: int) -> Ints:
        """In the order of rows."""
        order, ends = self._by_piece
        return order[ends[piece] : ends[piece + 1]]

    @cached_property
    def _by_piece(self) -> tuple[Ints, Ints]:
        order = np.argsort(self.runs.pieces, kind="stable")
        counts = np.bincount(self.runs.pieces, minlength=self._n)
        return order, np.concatenate([[0], np.cumsum(counts)])

    def _sum(self, of_runs: Ints) -> Ints:
        return np.bincount(self.runs.pieces, of_runs, minlength=self._n).astype(np.int64)


def find_pieces(labels: Ints) -> Pieces:
    """The pieces of the ids of a plane (Y, X)."""
    return Pieces(find_runs(labels))


def find_runs(labels: Ints) -> Runs:
    """The runs of a plane (Y, X), numbered by the piece that they belong to."""
    n_rows, n_columns = labels.shape
    # A column of 0 after the last one keeps a run from going on in the next row.
    width = n_columns + 1
    flat = np.zeros(n_rows * width, labels.dtype)
    flat.reshape(n_rows, width)[:, :n_columns] = labels
    changes = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    values = flat[changes[:-1]]
    is_object = values != 0
    starts, stops, ids = changes[:-1][is_object], changes[1:][is_object], values[is_object]
    rows = starts // width
    pieces = _pieces_of_runs(starts, stops, ids, width)
    return Runs(rows, starts - rows * width, stops - rows * width, ids, pieces, n_columns)


def _pieces_of_runs(starts: Ints, stops: Ints, ids: Ints, width: int) -> Ints:
    """Join each run with those of its id that it touches in the next row, be it by a corner."""
    first = np.searchsorted(stops - width, starts, "left")
    n_below = np.maximum(np.searchsorted(starts - width, stops, "right") - first, 0)
    above = np.repeat(np.arange(len(starts)), n_below)
    before = np.cumsum(n_below) - n_below
    below = np.arange(len(above)) - np.repeat(before - first, n_below)
    is_same = ids[above] == ids[below]
    above, below = above[is_same], below[is_same]
    touching = coo_array((np.ones(len(above), bool), (above, below)), shape=(len(starts), len(starts)))
    return np.asarray(connected_components(touching, directed=False)[1])
