"""Which part of an annotation is kept from learning, to score on; once held out, never learned from.

Whole planes where there are several, else a strip of what is annotated densely, else some objects with the
background near them. What is annotated later joins what is nearest to it, and a part of it is held out too
when otherwise too little would be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label as label_pieces

from napari_unet_seg.core._training_planes import TrainingPlane

Mask = NDArray[np.bool_]

FEWEST_PLANES: Final = 4
"""With fewer planes none is given away as a whole."""
NARROWEST_STRIP_PX: Final = 64
"""A narrower strip says too little."""
FEWEST_OBJECTS: Final = 4
"""With fewer objects none is given away."""
LEAST_PART: Final = 0.8
LARGEST_EXCESS: Final = 1.5
"""Left-out objects may make up so much less, or more, than the wanted part."""
ENOUGH_OBJECTS: Final = 8
"""So many are enough at half the wanted part: of few strokes each one counts for learning."""
RIM_PX: Final = 6
"""What is painted so near to a left-out object, and nearer to it than to any other, is left out with it."""


class HoldingOut:
    """Keeps a part of the planes from learning, for one training.

    Parameters
    ----------
    fraction
        Which part, from 0 to below 1.
    seed
        Chooses objects and planes.
    """

    def __init__(self, fraction: float, seed: int) -> None:
        self._fraction, self._seed = fraction, seed
        self._held: dict[str, Mask] = {}
        self._learned: dict[str, Mask] = {}
        self._is_begun = self._has_planes = self._has_strip = False
        self._n_objects = 0

    @property
    def is_by_area(self) -> bool:
        """Whether everything in an area is held out, so that found objects can be compared with true ones."""
        return (self._has_planes or self._has_strip) and not self._n_objects

    @property
    def what(self) -> str:
        """What is held out, in the person's words; empty when nothing is."""
        objects = "1 left-out object" if self._n_objects == 1 else f"{self._n_objects} left-out objects"
        parts = [
            "held-out planes" * self._has_planes,
            "a held-out strip of the annotation" * self._has_strip,
            objects * bool(self._n_objects),
        ]
        return " and ".join(part for part in parts if part)

    def held(self, plane: TrainingPlane) -> Mask:
        """Where the annotation of a plane is to be scored on; elsewhere it is learned from."""
        mask = self._held.get(plane.identity)
        return np.zeros_like(plane.annotated) if mask is None else plane.annotated & mask[plane.box]

    def update(self, planes: Sequence[TrainingPlane]) -> None:
        """Decide for planes that are new or have changed; what was decided before stays."""
        if self._fraction == 0:
            return
        is_enough = self._held_share(planes) >= self._fraction / 2 if self._is_begun else self._begin(planes)
        if not is_enough:
            self._leave_out_objects(planes)
        for plane in planes:
            _whole_mask(self._learned, plane)[plane.box] |= plane.annotated & ~self.held(plane)

    def _begin(self, planes: Sequence[TrainingPlane]) -> bool:
        self._is_begun = True
        self._has_planes = self._hold_out_planes(planes)
        self._has_strip = not self._has_planes and self._hold_out_strips(planes)
        return self._has_planes or self._has_strip

    def _rank(self, *names: object) -> bytes:
        """An order by chance that depends on the seed and on the thing itself, not on what else there is."""
        return blake2b(repr((self._seed, *names)).encode(), digest_size=8).digest()

    def _held_share(self, planes: Sequence[TrainingPlane]) -> float:
        n_held = sum(int(np.count_nonzero(self.held(plane))) for plane in planes)
        return n_held / sum(int(np.count_nonzero(plane.annotated)) for plane in planes)

    def _hold_out_planes(self, planes: Sequence[TrainingPlane]) -> bool:
        """Hold out whole planes that have both objects and background, and leave such for learning."""
        if len(planes) < FEWEST_PLANES:
            return False
        telling = sorted(filter(_tells_both, planes), key=lambda plane: self._rank(plane.identity))
        n_wanted = max(1, round(self._fraction * len(planes)))
        chosen = {plane.identity for plane in telling[: min(n_wanted, len(telling) - 1)]}
        for plane in planes:
            if plane.identity in chosen:
                _whole_mask(self._held, plane)[...] = True
        return bool(chosen)

    def _hold_out_strips(self, planes: Sequence[TrainingPlane]) -> bool:
        """Hold out the last part of each densely annotated box, along its longer side."""
        strips = [(plane, _strip(plane, self._fraction)) for plane in planes]
        for plane, strip in strips:
            if strip is not None:
                _whole_mask(self._held, plane)[plane.box] |= strip
        return any(strip is not None for _, strip in strips)

    def _leave_out_objects(self, planes: Sequence[TrainingPlane]) -> None:
        """Leave out some objects that were never learned from, each with the background nearest to it."""
        cells = [_Cells(plane, self.held(plane), self._already_learned(plane)) for plane in planes]
        pieces = [piece for of_plane in cells for piece in of_plane.pieces()]
        if len(pieces) < FEWEST_OBJECTS:
            return
        chosen = _chosen(sorted(pieces, key=self._piece_rank), self._fraction)
        if not (self.what or sum(piece.n_background_px for piece in chosen)):
            return  # a score needs both objects and background
        for of_plane in cells:
            numbers = [piece.number for piece in chosen if piece.plane is of_plane.plane]
            _whole_mask(self._held, of_plane.plane)[of_plane.plane.box] |= of_plane.territory(numbers)
        self._n_objects += len(chosen)

    def _already_learned(self, plane: TrainingPlane) -> Mask:
        return _whole_mask(self._learned, plane)[plane.box]

    def _piece_rank(self, piece: _Piece) -> tuple[bool, bytes]:
        """By chance, but first those that have background of their own."""
        return not piece.n_background_px, self._rank(piece.plane.identity, piece.place)


@dataclass(frozen=True, eq=False)
class _Piece:
    """A connected piece of an object; its background is what is annotated and nearer to it than to others."""

    plane: TrainingPlane
    number: int
    place: tuple[int, int]
    n_object_px: int
    n_background_px: int
    n_held_px: int
    is_fresh: bool


class _Cells:
    """A plane divided among the pieces of its objects: each pixel belongs to the nearest."""

    def __init__(self, plane: TrainingPlane, held: Mask, learned: Mask) -> None:
        self.plane = plane
        self._held, self._learned = held, learned
        self._numbers = label_pieces(plane.labels, background=0, connectivity=2)
        self._owner = self._numbers
        if self._numbers.any():
            is_empty = self._numbers == 0
            nearest = ndimage.distance_transform_edt(is_empty, return_distances=False, return_indices=True)
            self._owner = self._numbers[tuple(nearest)]

    def pieces(self) -> Iterator[_Piece]:
        """Each piece of an object; none on a plane that is all background."""
        if not self._numbers.any():
            return
        is_free = self.plane.annotated & ~self._held & ~self._learned
        n_object_px = self._count(self._numbers, self.plane.annotated)
        n_background_px = self._count(self._owner, is_free & (self._numbers == 0))
        n_held_px = self._count(self._numbers, self._held)
        n_learned_px = self._count(self._numbers, self._learned)
        places = _first_pixels(self._numbers)
        for number in range(1, len(n_object_px)):
            row, column = places[number]
            yield _Piece(
                plane=self.plane,
                number=number,
                place=(row + self.plane.box[0].start, column + self.plane.box[1].start),
                n_object_px=int(n_object_px[number]),
                n_background_px=int(n_background_px[number]),
                n_held_px=int(n_held_px[number]),
                is_fresh=not (n_held_px[number] or n_learned_px[number]),
            )

    def territory(self, numbers: Sequence[int]) -> Mask:
        """What is annotated in these cells and was not learned from, and a rim for what may follow."""
        is_inside = np.isin(self._owner, numbers) & ~self._learned
        core = is_inside & self.plane.annotated
        if not core.any():
            return core
        return is_inside & (ndimage.distance_transform_edt(~core) <= RIM_PX)

    def _count(self, numbers: NDArray[np.integer], where: Mask) -> NDArray[np.intp]:
        return np.bincount(numbers[where], minlength=int(self._numbers.max()) + 1)


def _whole_mask(masks: dict[str, Mask], plane: TrainingPlane) -> Mask:
    """The mask of the whole plane, whatever part of it is annotated now."""
    return masks.setdefault(plane.identity, np.zeros(plane.shape, bool))


def _first_pixels(numbers: NDArray[np.integer]) -> list[tuple[int, int]]:
    """(row, column) of the first pixel of each number from 0."""
    first = np.zeros(int(numbers.max()) + 1, np.intp)
    found, where = np.unique(numbers, return_index=True)
    first[found] = where
    rows, columns = np.unravel_index(first, numbers.shape)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def _chosen(pieces: Sequence[_Piece], fraction: float) -> list[_Piece]:
    """The first fresh ones that make up the wanted part of objects, and not much more of either class.

    Large ones, such as a filled cell among strokes, come last: two or three objects are too few to score on.
    """
    n_object_px = sum(piece.n_object_px for piece in pieces)
    large_px = fraction * n_object_px / FEWEST_OBJECTS
    largest_share = max(LARGEST_EXCESS * fraction, LARGEST_EXCESS / len(pieces))
    taken_px = sum(piece.n_held_px for piece in pieces)
    background_left_px = largest_share * sum(piece.n_background_px for piece in pieces)
    chosen: list[_Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.n_object_px > large_px):
        least_part = LEAST_PART / 2 if len(chosen) >= ENOUGH_OBJECTS else LEAST_PART
        if taken_px >= least_part * fraction * n_object_px:
            break
        fits = taken_px + piece.n_object_px <= largest_share * n_object_px
        if piece.is_fresh and fits and piece.n_background_px <= background_left_px:
            chosen.append(piece)
            taken_px += piece.n_object_px
            background_left_px -= piece.n_background_px
    return chosen


def _tells_both(plane: TrainingPlane) -> bool:
    """Whether both objects and background are annotated."""
    return _has_both(plane, plane.annotated)


def _has_both(plane: TrainingPlane, where: Mask) -> bool:
    is_object = plane.labels[where] > 0
    return bool(is_object.any() and not is_object.all())


def _strip(plane: TrainingPlane, fraction: float) -> Mask | None:
    """The strip to hold out; None where it would be too narrow, or one side of its edge told too little."""
    lines = [np.flatnonzero(plane.annotated.any(axis=axis)) for axis in (1, 0)]
    spans = [(int(line[0]), int(line[-1]) + 1) for line in lines]
    height, width = (stop - start for start, stop in spans)
    axis = int(width > height)
    strip_px = round(max(height, width) * fraction)
    is_dense = 2 * np.count_nonzero(plane.annotated) > height * width
    if strip_px < NARROWEST_STRIP_PX or not is_dense:
        return None
    strip = np.zeros_like(plane.annotated)
    last = slice(spans[axis][1] - strip_px, spans[axis][1])
    strip[(last, slice(None)) if axis == 0 else (slice(None), last)] = True
    is_telling = _has_both(plane, plane.annotated & strip) and _has_both(plane, plane.annotated & ~strip)
    return strip if is_telling else None
