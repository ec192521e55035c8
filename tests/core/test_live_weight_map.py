"""The map that follows the brush equals the one made anew, whatever was done in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet_seg.core import live_weight_map as module
from napari_unet_seg.core._gaps import Task
from napari_unet_seg.core.live_weight_map import Box, LiveWeightMap, Redrawn, count_classes
from napari_unet_seg.core.weight_map import ClassCounts, WeightSettings, carve_gaps, weight_map

PAPER, FIJI = WeightSettings.paper(), WeightSettings.fiji()
PRESETS = pytest.mark.parametrize("settings", [PAPER, FIJI], ids=["paper", "fiji"])
SHAPE = (45, 61)
N_CLASSES = 4


class Painting:
    """A plane that is painted, the map that follows it, and what a person sees of that."""

    def __init__(
        self,
        labels: NDArray[Any],
        annotated: NDArray[np.bool_],
        settings: WeightSettings,
        others: NDArray[Any] | None = None,
        task: Task = "instances",
    ) -> None:
        self.labels, self.annotated, self.others, self.task = labels, annotated, others, task
        self.shown = np.full(labels.shape, np.nan, np.float32)
        counted = None if others is None else count_classes(others, np.ones(others.shape, bool), task=task)
        self.map = LiveWeightMap(
            labels.copy(), annotated.copy(), settings, others=counted, task=task, n_classes=N_CLASSES
        )

    def show(self, *parts: Redrawn | None) -> None:
        for redrawn in parts:
            if redrawn is not None:
                self.shown[redrawn.box] = redrawn.weights

    def change(self, box: Box, labels: NDArray[Any] | int, annotated: NDArray[Any] | bool) -> None:
        self.labels[box], self.annotated[box] = labels, annotated
        self.show(self.map.update(box, self.labels[box], self.annotated[box]))

    def settle(self) -> NDArray[np.float32]:
        while not self.map.is_complete:
            self.show(self.map.fill_block())
        if self.map.is_stale:
            self.show(*self.map.redraw())
        return self.shown

    def expected(self) -> NDArray[np.float32]:
        planes, masks = [self.labels], [self.annotated]
        if self.others is not None:
            planes.append(self.others)
            masks.append(np.ones(self.others.shape, bool))
        stack = np.stack(planes)
        return weight_map(
            stack,
            self.map.settings,
            annotated=np.stack(masks),
            task=self.task,
            n_classes=max(N_CLASSES, int(stack.max()) + 1) if self.task == "classes" else None,
        )[0]

    def error_over_w0(self) -> float:
        return float(np.abs(self.settle() - self.expected()).max()) / self.map.settings.w0


def random_box(rng: np.random.Generator, longest_px: int) -> Box:
    rows, columns = (
        slice(start, min(length, start + int(rng.integers(1, longest_px + 1))))
        for start, length in ((int(rng.integers(0, length)), length) for length in SHAPE)
    )
    return rows, columns


def random_labels(rng: np.random.Generator, highest: int) -> NDArray[np.uint16]:
    labels = np.zeros(SHAPE, np.uint16)
    for _ in range(8):
        labels[random_box(rng, 20)] = rng.integers(0, highest + 1)
    return labels


def random_step(painting: Painting, rng: np.random.Generator, highest: int) -> None:
    """A dab, an erasure, a fill, or a change of what counts."""
    box = random_box(rng, 12)
    kind = rng.integers(0, 5)
    if kind == 0:
        painting.change(box, int(rng.integers(1, highest + 1)), True)
    elif kind == 1:
        painting.change(box, 0, False)
    elif kind == 2:
        painting.change(box, 0, True)
    elif kind == 3:
        whole = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
        chosen = painting.labels == painting.labels[box[0].start, box[1].start]
        painting.change(
            whole, np.where(chosen, rng.integers(1, highest + 1), painting.labels), painting.annotated
        )
    else:
        painting.map.look_at(box)
        if not painting.map.is_complete:
            painting.show(painting.map.fill_block())


@PRESETS
@pytest.mark.parametrize("task", ["instances", "classes"])
@examples(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), n_steps=st.integers(0, 12), has_others=st.booleans())
def test_after_any_steps_the_map_equals_one_made_anew(
    settings: WeightSettings, task: Task, seed: int, n_steps: int, has_others: bool
) -> None:
    rng = np.random.default_rng(seed)
    highest = 5 if task == "instances" else 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_PX", 16)
        patch.setattr(module, "TILE_PX", 10)
        patch.setattr(module, "halo_px", lambda _settings: 1)
        annotated = rng.random(SHAPE) < rng.choice([0.0, 0.8, 1.0])
        others = random_labels(rng, highest) if has_others else None
        painting = Painting(random_labels(rng, highest), annotated, settings, others, task)
        for _ in range(n_steps):
            random_step(painting, rng, highest)
            if rng.random() < 0.3:
                painting.settle()
        assert painting.error_over_w0() <= 1e-3


def squares(shape: tuple[int, int] = (1200, 1100)) -> NDArray[np.uint16]:
    labels = np.zeros(shape, np.uint16)
    labels[100:140, 100:140], labels[100:140, 143:180] = 1, 2
    labels[900:940, 900:940] = 3
    labels[1100:] = 9
    return labels


@pytest.fixture
def painting() -> Painting:
    labels = squares()
    return Painting(labels, np.ones(labels.shape, bool), PAPER)


def test_what_a_person_looks_at_is_filled_first(painting: Painting) -> None:
    painting.map.look_at((slice(880, 960), slice(880, 960)))
    assert painting.map.fill_block().box == (slice(512, 1024), slice(512, 1024))


def test_a_stroke_is_redrawn_in_its_surroundings_only(painting: Painting) -> None:
    painting.settle()
    box = (slice(600, 605), slice(600, 605))
    redrawn = painting.map.update(box, np.full((5, 5), 4, np.uint16), np.ones((5, 5), bool))
    assert redrawn is not None
    assert redrawn.weights.shape == (45, 45)
    assert not painting.map.is_stale, "few pixels among many move no weight"


def test_many_pixels_of_a_class_make_the_whole_map_due(painting: Painting) -> None:
    painting.settle()
    painting.change((slice(300, 500), slice(300, 500)), 4, True)
    assert painting.map.is_stale
    painting.show(*painting.map.redraw())
    assert not painting.map.is_stale
    assert painting.error_over_w0() <= 1e-3


def test_only_what_is_annotated_is_rewritten() -> None:
    labels = squares()
    painting = Painting(labels, np.zeros(labels.shape, bool), PAPER)
    painting.settle()
    for box in ((slice(10, 20), slice(10, 20)), (slice(10, 20), slice(400, 700)), (slice(900, 910),) * 2):
        painting.change(box, 1, True)
    tile = module.TILE_PX
    rewritten = painting.map.redraw()
    painting.show(*rewritten)
    assert [redrawn.box for redrawn in rewritten] == [
        (slice(0, tile), slice(0, 3 * tile)),
        (slice(3 * tile, 4 * tile),) * 2,
    ]
    assert painting.error_over_w0() <= 1e-3


def test_what_is_annotated_elsewhere_counts(painting: Painting) -> None:
    painting.settle()
    painting.map.count_others(ClassCounts((0, 1_000_000)))
    assert painting.map.is_stale
    before = painting.shown[120, 120]
    painting.show(*painting.map.redraw())
    assert painting.shown[120, 120] < before


@pytest.mark.parametrize(
    "settings", [WeightSettings.paper(w0=3.0, sigma_px=9.0), FIJI, WeightSettings.paper(w0=0.5)]
)
def test_other_settings_give_their_own_map_of_the_same_labels(
    painting: Painting, settings: WeightSettings
) -> None:
    painting.settle()
    painting.change((slice(300, 340), slice(300, 340)), 4, True)
    painting.map = painting.map.with_settings(settings)
    assert painting.error_over_w0() <= 1e-3


def test_a_class_that_is_new_fills_the_map_anew() -> None:
    labels = squares()[100:180, 100:190]
    painting = Painting(labels, np.ones(labels.shape, bool), PAPER, task="classes")
    painting.settle()
    painting.change((slice(30, 40), slice(30, 40)), 7, True)
    assert not painting.map.is_complete
    assert painting.error_over_w0() <= 1e-3


def test_nothing_annotated_weighs_nothing() -> None:
    painting = Painting(np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, bool), PAPER)
    assert not painting.settle().any()


def test_counts_are_taken_after_carving() -> None:
    labels = squares()
    labels[100:140, 140:143] = 1
    counts = count_classes(labels, labels < 3)
    assert sum(counts.pixels) == np.count_nonzero(labels < 3)
    assert counts.pixels[1] == np.count_nonzero(carve_gaps(labels)[labels < 3])
    assert counts.pixels[1] < np.count_nonzero(labels[labels < 3])


@pytest.mark.parametrize("at", [1, 120, 600])
def test_counts_of_parts_add_up(at: int) -> None:
    labels = squares()
    labels[120:140, 100:140] = 4
    everywhere = np.ones(labels.shape, bool)
    upper = count_classes(labels[:at], everywhere[:at])
    lower = count_classes(labels[at - 1 :], everywhere[at - 1 :], skipped_rows=1)
    assert upper + lower == count_classes(labels, everywhere)
