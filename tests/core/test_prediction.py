"""Prediction: tiled equals whole, the steps a caller sees, and what happens when things go wrong."""

from __future__ import annotations

import gc
import math
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_unet_seg.core import _convolutions, _plane_checks, _tile_size, prediction
from napari_unet_seg.core._engine import InferenceNetwork
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, OutOfMemoryError
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.network import class_probabilities
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.prediction import (
    PlaneDone,
    Prediction,
    PredictionStarted,
    PredictSettings,
    TileDone,
    predict,
    prediction_steps,
    warm_up,
    whole_image_probabilities,
)
from napari_unet_seg.core.steps import STOP, Note
from napari_unet_seg.core.tiling import SEAM_PX, halo_px

TILED_IS_WHOLE = 1e-5


def random_model(
    seed: int = 0, task: Any = "instances", pixel_size_nm: float | None = None, **parts: Any
) -> Model:
    """A small network whose batch norms have seen something."""
    architecture = Architecture(**{"base_channels": 2, "depth": 2, "padding": "same", **parts})
    model = new_model(architecture, seed=seed, task=task, pixel_size_nm=pixel_size_nm)
    generator = torch.Generator().manual_seed(seed)
    for part in model.network.modules():
        if isinstance(part, nn.BatchNorm2d):
            # gains of at most 1: float32 cannot keep 1e-5 in a network that amplifies its own rounding
            part.weight.data.copy_(torch.rand(part.weight.shape, generator=generator) / 2 + 0.5)
            part.running_var.copy_(torch.rand(part.weight.shape, generator=generator) + 1)
            for values in (part.bias.data, part.running_mean):
                values.copy_(torch.randn(values.shape, generator=generator) / 2)
    return model


def picture(*shape: int, seed: int = 0) -> np.ndarray:
    """Squares of several greys with noise: noise alone would be taken as background."""
    rng = np.random.default_rng(seed)
    height, width = shape[-2:]
    coarse = rng.integers(0, 200, (*shape[:-2], -(-height // 9), -(-width // 9)))
    squares = coarse.repeat(9, axis=-2).repeat(9, axis=-1)[..., :height, :width]
    return (squares + rng.integers(0, 55, shape)).astype(np.uint8)


def drain(steps: Any) -> tuple[list[Any], Prediction]:
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return seen, end.value


architectures = st.builds(
    dict,
    depth=st.sampled_from([1, 2, 2, 3]),
    padding=st.sampled_from(["same", "valid"]),
    batch_norm=st.booleans(),
    base_channels=st.integers(1, 4),
    in_channels=st.integers(1, 2),
    out_channels=st.integers(1, 3),
)
lengths = st.one_of(st.integers(1, 12), st.integers(1, 60))


@settings(max_examples=30)
@given(
    architectures,
    st.integers(0, 1000),
    lengths,
    lengths,
    st.integers(8, 50),
    st.sampled_from([1.0, 1.0, 0.31, 0.77, 1.37, 2.6]),
    st.booleans(),
    st.booleans(),
)
def test_tiled_is_whole(
    parts: dict[str, Any], seed: int, height: int, width: int, tile: int, zoom: float, tta: bool, invert: bool
) -> None:
    model = random_model(seed, **parts)
    image = picture(parts["in_channels"], height, width, seed=seed)
    wishes = PredictSettings(axes="CYX", tile_px=tile, zoom=zoom, tta=tta, invert=invert, device="cpu")
    tiled = predict(image, model, wishes).probabilities
    whole = whole_image_probabilities(image, model, zoom=(zoom, zoom), tta=tta, invert=invert)
    assert np.abs(tiled - whole).max() <= TILED_IS_WHOLE


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (33, 50), (97, 65)])
def test_tiled_is_whole_at_the_papers_depth(padding: str, shape: tuple[int, int]) -> None:
    model = random_model(depth=4, padding=padding, batch_norm=True)
    image = picture(*shape)
    tiled = predict(image, model, PredictSettings(tile_px=32)).probabilities
    assert np.abs(tiled - whole_image_probabilities(image[np.newaxis], model)).max() <= TILED_IS_WHOLE


def test_tiled_is_whole_where_y_and_x_are_zoomed_apart() -> None:
    model = random_model(pixel_size_nm=10.0)
    image = picture(50, 61)
    tiled = predict(image, model, PredictSettings(pixel_size_nm=(15.0, 7.0), tile_px=16))
    assert tiled.zoom == (1.5, 0.7)
    whole = whole_image_probabilities(image[np.newaxis], model, zoom=(1.5, 0.7))
    assert np.abs(tiled.probabilities - whole).max() <= TILED_IS_WHOLE


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("out_channels", [1, 2, 3])
@pytest.mark.parametrize("is_fused", [False, True])
def test_the_engine_computes_what_the_network_computes(
    padding: str, out_channels: int, is_fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_fused:
        monkeypatch.setattr(_convolutions, "_is_fused_on", lambda _: False)
    model = random_model(depth=3, padding=padding, batch_norm=True, out_channels=out_channels)
    halo = halo_px(3)
    images = torch.rand(2, 1, 24 + 2 * halo, 32 + 2 * halo, generator=torch.Generator().manual_seed(1))
    engine = InferenceNetwork(model.network, torch.device("cpu"))(images)
    # a same-size network takes multiples of the grid: 2 more pixels a side, which never reach the middle
    margin = SEAM_PX if padding == "same" else 0
    with torch.no_grad():
        network = class_probabilities(model.network(nn.functional.pad(images, (margin,) * 4)))
    excess = (network.shape[-1] - 32) // 2
    middle = network[..., excess:-excess, excess:-excess]
    assert (engine[..., SEAM_PX:-SEAM_PX, SEAM_PX:-SEAM_PX] - middle).abs().max() <= TILED_IS_WHOLE


def test_predicting_leaves_the_model_alone() -> None:
    model = random_model(batch_norm=True)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    predict(picture(20, 20), model)
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())


def test_a_tile_size_is_chosen_when_none_is_given_and_changes_nothing() -> None:
    model, image = random_model(), picture(70, 90)
    chosen = predict(image, model)
    by_hand = predict(image, model, PredictSettings(tile_px=20))
    assert chosen.tile_px % 4 == 0
    assert by_hand.tile_px == 20
    assert np.abs(chosen.probabilities - by_hand.probabilities).max() <= TILED_IS_WHOLE


def test_a_tile_is_rounded_up_to_the_pooling_grid() -> None:
    assert predict(picture(9, 9), random_model(), PredictSettings(tile_px=5)).tile_px == 8


def test_probabilities_sum_to_one_with_the_class_axis_first() -> None:
    result = predict(picture(3, 20, 21), random_model(out_channels=3))
    assert result.probabilities.shape == (3, 3, 20, 21)
    assert result.probabilities.dtype == np.float32
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, rtol=1e-5)


def test_one_sigmoid_becomes_two_classes() -> None:
    result = predict(picture(20, 21), random_model(out_channels=1))
    assert result.probabilities.shape[0] == len(result.class_names) == 2
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, rtol=1e-5)


def test_the_object_class_of_a_class_task_gives_instances_numbered_over_the_stack() -> None:
    names = ("a", "b", "c")
    model = random_model(task="classes", out_channels=3).copy(class_names=names, object_class="c")
    settings = PredictSettings(objects=ObjectSettings(min_size_px=0, fill_holes=False))
    steps = list(prediction_steps(picture(2, 40, 41), model, settings))
    result = predict(picture(2, 40, 41), model, settings)
    assert result.objects is not None
    np.testing.assert_array_equal(result.objects > 0, result.labels == 2)
    ids = [set(np.unique(plane[plane > 0])) for plane in result.objects]
    assert all(ids)
    assert not ids[0] & ids[1]
    planes = [step.objects for step in steps if isinstance(step, PlaneDone)]
    np.testing.assert_array_equal(np.stack(planes), result.objects)


def test_without_an_object_class_there_are_no_instances_of_classes() -> None:
    assert predict(picture(20, 21), random_model(task="classes", out_channels=3)).objects is None
    instances = predict(picture(20, 21), random_model())
    assert instances.objects is instances.labels


def test_a_class_task_is_labelled_with_the_likeliest_class() -> None:
    result = predict(picture(20, 21), random_model(task="classes", out_channels=3))
    np.testing.assert_array_equal(result.labels, result.probabilities.argmax(axis=0))


def bright_is_foreground() -> Model:
    """A network that copies the bright pixels of its input, so that objects can be drawn."""
    model = new_model(Architecture(base_channels=1, depth=1, padding="same"))
    with torch.no_grad():
        for values in model.network.parameters():
            values.zero_()
        for block in (model.network.down[0], model.network.merge[0]):
            for part in block.children():
                if isinstance(part, nn.Conv2d):
                    part.weight[0, 0, 1, 1] = 1
        model.network.head.weight[:, 0] = torch.tensor([[[-20.0]], [[20.0]]])
        model.network.head.bias[:] = torch.tensor([10.0, -10.0])
    return model


def test_instance_ids_are_unique_over_a_stack() -> None:
    stack = np.zeros((3, 40, 40), np.uint8)
    stack[:, 5:15, 5:15] = stack[:, 20:35, 20:35] = 200
    steps, result = drain(prediction_steps(stack, bright_is_foreground(), PredictSettings(tile_px=16)))
    ids = [set(np.unique(plane)) - {0} for plane in result.labels]
    assert [len(found) for found in ids] == [2, 2, 2]
    assert len(set.union(*ids)) == 6
    planes = [step for step in steps if isinstance(step, PlaneDone)]
    for step in planes:
        np.testing.assert_array_equal(step.labels, result.labels[step.plane])


def test_a_models_smallest_size_is_that_of_its_own_pixels() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[8:16, 8:16] = image[32:48, 32:48] = 200
    shrunk = predict(image, bright_is_foreground(), PredictSettings(zoom=0.5))
    assert shrunk.object_settings.min_size_px == 80, "20 px of the model"
    assert shrunk.labels.max() == 1
    said = PredictSettings(zoom=0.5, objects=ObjectSettings(min_size_px=20))
    assert predict(image, bright_is_foreground(), said).labels.max() == 2


def test_steps_announce_the_work_then_fill_each_plane_once() -> None:
    stack = picture(2, 30, 41)
    steps, result = drain(prediction_steps(stack, random_model(), PredictSettings(tile_px=16, zoom=1.3)))
    assert isinstance(steps[0], PredictionStarted)
    assert (steps[0].shape, steps[0].axes, steps[0].n_planes) == ((2, 30, 41), "ZYX", 2)
    tiles = [step for step in steps if isinstance(step, TileDone)]
    assert steps[0].n_tiles == len(tiles) == result.n_tiles == tiles[-1].n_tiles
    assert [step.tiles_done for step in tiles] == list(range(1, len(tiles) + 1))
    counts = np.zeros(stack.shape, int)
    for step in tiles:
        counts[step.plane][step.box] += 1
        np.testing.assert_array_equal(
            step.probabilities, result.probabilities[:, step.plane[0]][(slice(None), *step.box)]
        )
    assert (counts == 1).all()
    assert [step.planes_done for step in steps if isinstance(step, PlaneDone)] == [1, 2]


def test_stop_returns_what_there_is() -> None:
    steps = prediction_steps(picture(3, 30, 30), random_model(), PredictSettings(tile_px=16))
    assert isinstance(next(steps), PredictionStarted)
    assert isinstance(next(steps), TileDone)
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    result = end.value.value
    assert not result.complete
    assert result.probabilities[:, 0, :16, :16].min() > 0
    assert result.probabilities[:, 1:].max() == 0


@pytest.mark.parametrize("n_steps", [1, 2, 10])
def test_closing_midway_frees_the_network(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = []

    class Watched(InferenceNetwork):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            engines.append(weakref.ref(self))

    monkeypatch.setattr(prediction, "InferenceNetwork", Watched)
    steps = prediction_steps(picture(3, 30, 30), random_model(), PredictSettings(tile_px=16))
    for _ in range(n_steps):
        next(steps)
    steps.close()
    del steps
    gc.collect()
    assert engines[0]() is None


class LazyImage:
    """A duck array that remembers the largest piece that was asked for."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.most_read = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part: np.ndarray = self.values[key]
        self.most_read = max(self.most_read, part.size)
        return part


def test_a_lazy_stack_is_read_plane_by_plane() -> None:
    lazy, model = LazyImage(picture(4, 30, 31)), random_model()
    result = predict(lazy, model)
    assert lazy.most_read == 30 * 31
    np.testing.assert_array_equal(result.probabilities, predict(lazy.values, model).probabilities)


@pytest.mark.parametrize("zoom", [1.0, 0.5])
def test_a_large_plane_is_read_tile_by_tile(zoom: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "LARGEST_WHOLE_PLANE_PX", 1000)
    lazy, model = LazyImage(picture(130, 140)), random_model()
    wishes = PredictSettings(tile_px=16, zoom=zoom)
    monkeypatch.setattr(_plane_checks, "plane_statistics", measured := Measured())
    monkeypatch.setattr(_plane_checks, "is_blank", lambda _: False)
    monkeypatch.setattr(_plane_checks, "USUAL_CONFIDENCE", 0.0)  # the contrast is not tried
    result = predict(lazy, model, wishes)
    assert lazy.most_read <= ((16 + 2 * halo_px(2)) / zoom + 2) ** 2
    assert measured.n_calls == 1
    assert (
        np.abs(result.probabilities - predict(lazy.values, model, wishes).probabilities).max()
        <= TILED_IS_WHOLE
    )


class Measured:
    """Statistics of a known picture, without reading it."""

    n_calls = 0

    def __call__(self, plane: Any, *_: Any, **__: Any) -> Any:
        self.n_calls += 1
        return prediction.PlaneStatistics((0.0,), (255.0,), (0.0,))


def test_probabilities_can_be_written_into_a_file_or_not_kept(tmp_path: Path) -> None:
    stack, model = picture(3, 20, 21), random_model()
    kept = predict(stack, model)
    file = np.memmap(tmp_path / "p.raw", np.float32, "w+", shape=kept.probabilities.shape)
    _, into_file = drain(prediction_steps(stack, model, probabilities_out=file))
    np.testing.assert_array_equal(file, kept.probabilities)
    assert into_file.probabilities is file
    _, labels_only = drain(prediction_steps(stack, model, keep_probabilities=False))
    assert labels_only.probabilities.size == 0
    np.testing.assert_array_equal(labels_only.labels, kept.labels)


def test_labels_can_be_written_into_a_file(tmp_path: Path) -> None:
    stack, model = picture(3, 20, 21), random_model()
    file = np.memmap(tmp_path / "l.raw", np.int32, "w+", shape=stack.shape)
    _, into_file = drain(prediction_steps(stack, model, labels_out=file))
    assert into_file.labels is file
    np.testing.assert_array_equal(file, predict(stack, model).labels)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"probabilities_out": np.zeros((2, 20, 20), np.float32)}, "must be float32"),
        ({"labels_out": np.zeros((20, 21), np.uint16)}, "must be int32"),
    ],
)
def test_an_array_of_another_kind_for_the_result_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        next(prediction_steps(picture(20, 21), random_model(), **given))


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Make the network fail on inputs longer than so many pixels."""

    def limit(longest_px: int, error: BaseException) -> None:
        forward = InferenceNetwork.__call__

        def limited(self: InferenceNetwork, images: torch.Tensor) -> torch.Tensor:
            if max(images.shape[-2:]) > longest_px:
                raise error
            return forward(self, images)

        monkeypatch.setattr(InferenceNetwork, "__call__", limited)

    return limit


OUT_OF_MEMORY = [
    MemoryError(),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"
    ),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:12])
def test_out_of_memory_goes_on_with_smaller_tiles_and_says_so(
    error: BaseException, memory_for: Callable[[int, BaseException], None]
) -> None:
    stack, model = picture(2, 60, 61), random_model()
    whole = predict(stack, model, PredictSettings(tile_px=64))
    memory_for(16 + 2 * halo_px(2), error)
    steps, result = drain(prediction_steps(stack, model, PredictSettings(tile_px=64)))
    notes = [step.message for step in steps if isinstance(step, Note)]
    assert len(notes) == 2
    assert "tiles of 32 px" in notes[0]
    assert "tiles of 16 px" in notes[1]
    assert set(notes) <= set(result.notes)
    assert result.tile_px == 16
    last = [step for step in steps if isinstance(step, TileDone)][-1]
    assert last.tiles_done == last.n_tiles == 32
    assert np.abs(result.probabilities - whole.probabilities).max() <= TILED_IS_WHOLE


def test_memory_too_small_for_any_tile_ends_in_a_sentence(
    memory_for: Callable[[int, BaseException], None],
) -> None:
    memory_for(10, MemoryError())
    with pytest.raises(OutOfMemoryError, match="Not even a tile"):
        predict(picture(60, 61), random_model())


def test_other_errors_of_the_network_are_not_mistaken_for_memory(
    memory_for: Callable[[int, BaseException], None],
) -> None:
    memory_for(10, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        predict(picture(60, 61), random_model(), PredictSettings(tile_px=32))


def test_some_nan_is_replaced_by_the_median_and_said() -> None:
    image = picture(30, 31).astype(np.float32)
    filled = image.copy()
    image[3, 4] = np.nan
    filled[3, 4] = np.median(image[np.isfinite(image)])
    model = random_model()
    result = predict(image, model)
    assert any("NaN" in note for note in result.notes)
    np.testing.assert_allclose(result.probabilities, predict(filled, model).probabilities, atol=1e-3)


def test_an_image_of_nan_is_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        predict(np.full((30, 31), np.nan), random_model())


def test_a_missing_section_is_background_and_the_rest_goes_on() -> None:
    stack = picture(3, 30, 31).astype(np.float32)
    stack[1] = np.nan
    result = predict(stack, random_model())
    assert any("Plane 1" in note for note in result.notes)
    assert result.labels[1].max() == 0
    np.testing.assert_array_equal(result.probabilities[0, 1], 1)
    np.testing.assert_array_equal(result.probabilities[:, 2], predict(stack[2], random_model()).probabilities)


def test_the_axes_of_the_labels_are_the_images_without_channels() -> None:
    image = picture(4, 2, 20, 21)
    result = predict(image, random_model(), PredictSettings(axes="TCYX", channel=1))
    assert (result.axes, result.labels.shape) == ("TYX", (4, 20, 21))
    np.testing.assert_array_equal(
        result.probabilities[:, 3], predict(image[3, 1], random_model()).probabilities
    )


def test_what_was_assumed_is_noted() -> None:
    result = predict(picture(20, 21), random_model(pixel_size_nm=4.0))
    assert any("pixel size is unknown" in note for note in result.notes)


@pytest.mark.parametrize(
    "wishes",
    [
        {"tile_px": 0},
        {"zoom": 0},
        {"zoom": float("nan")},
        {"pixel_size_nm": -4},
        {"pixel_size_nm": 0},
        {"pixel_size_nm": (1.0,) * 4},
    ],
)
def test_impossible_settings_are_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PredictSettings(**wishes)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="Device"):
        predict(picture(20, 21), random_model(), PredictSettings(device="abacus"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_tiled_is_whole_on_a_gpu(padding: str) -> None:
    model, image = random_model(depth=4, padding=padding, base_channels=8), picture(300, 411)
    tiled = predict(image, model, PredictSettings(tile_px=64, device="cuda")).probabilities
    assert np.abs(tiled - whole_image_probabilities(image[np.newaxis], model)).max() <= TILED_IS_WHOLE


def probed(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], float]) -> list[int]:
    """Replace the timed runs; the sides that were timed."""
    sides: list[int] = []

    def probe(_: Any, side: int) -> float:
        sides.append(side)
        return seconds(side)

    monkeypatch.setattr(_tile_size, "_measured", {})
    monkeypatch.setattr(_tile_size, "_probe", probe)
    return sides


def engine() -> InferenceNetwork:
    return InferenceNetwork(random_model(depth=4).network, torch.device("cpu"))


def test_a_tile_takes_half_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    probed(monkeypatch, lambda side: ((side + 188) / 900) ** 2)
    assert _tile_size.choose_side_px(engine(), (4000, 4000), n_planes=10) == 384


def test_of_tiles_that_are_quick_enough_the_one_with_most_pixels_per_second_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probed(monkeypatch, lambda side: side**2 / (2e6 if side == 384 else 1e6))
    assert _tile_size.choose_side_px(engine(), (4000, 4000), n_planes=10) == 384


def test_a_short_job_is_probed_once_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = probed(monkeypatch, lambda side: side**2 / 1e6)
    for _ in range(2):
        _tile_size.choose_side_px(engine(), (512, 512), n_planes=1)
    assert len(sides) == 1


def test_a_slow_machine_does_not_get_tiles_that_are_mostly_halo(monkeypatch: pytest.MonkeyPatch) -> None:
    probed(monkeypatch, lambda side: side**2 / 1e3)
    assert _tile_size.choose_side_px(engine(), (4000, 4000), n_planes=10) == 192
    assert _tile_size.choose_side_px(engine(), (100, 40), n_planes=1) == 112, "one tile for a small plane"


@pytest.mark.skipif(os.name != "posix", reason="the clock of a thread is too coarse there")
def test_what_other_programs_take_of_the_time_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting_s = 0.2

    def wait(_: InferenceNetwork, images: torch.Tensor) -> torch.Tensor:
        time.sleep(waiting_s)
        return images

    monkeypatch.setattr(InferenceNetwork, "__call__", wait)
    assert _tile_size._seconds(engine(), torch.zeros(1)) < waiting_s / 2


def test_tiles_fit_the_memory_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    probed(monkeypatch, lambda _: 1e-9)
    monkeypatch.setattr(_tile_size, "available_bytes", lambda _: 20e6)
    side = _tile_size.choose_side_px(engine(), (4000, 4000), n_planes=10)
    assert _tile_size.activation_bytes(side, engine().architecture) <= 5e6


def test_warming_up_measures_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = probed(monkeypatch, lambda side: side**2 / 1e6)
    warm_up(random_model(depth=4), "cpu")
    n_probes = len(sides)
    _tile_size.choose_side_px(engine(), (1024, 1024), n_planes=9)
    assert n_probes > 3
    assert len(sides) == n_probes


@pytest.mark.parametrize("size", [[4.0, 3.0], np.array([4.0, 3.0]), (4, 3)])
def test_a_pixel_size_may_be_any_sequence(size: Any) -> None:
    assert PredictSettings(pixel_size_nm=size).pixel_size_yx_nm == (4.0, 3.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zoom", (2, 1)),
        ("zoom", np.ones(2)),
        ("zoom", "big"),
        ("zoom", math.nan),
        ("pixel_size_nm", "4 nm"),
        ("pixel_size_nm", (4, 0)),
        ("pixel_size_nm", [4, None]),
        ("pixel_size_nm", (4,) * 4),
        ("pixel_size_nm", ()),
    ],
)
def test_zooms_and_pixel_sizes_that_mean_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name.removesuffix("_nm").replace("_", " ")):
        PredictSettings(**{name: value})
