"""Where a model is least sure: the right window, fairly measured, without what is annotated or empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from napari_unet_seg.core import uncertainty
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.models import Model, new_model
from napari_unet_seg.core.normalisation import Normalisation
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.prediction import predict
from napari_unet_seg.core.steps import STOP, Note, run_to_end
from napari_unet_seg.core.uncertainty import (
    Place,
    Searched,
    entropy,
    least_certain,
    uncertainty_map,
    where_next_steps,
)

Floats = NDArray[np.float32]
SETTINGS = PredictSettings(zoom=1, device="cpu", tile_px=32)
FOREGROUND = arrays(np.float32, (14, 17), elements=st.sampled_from([0, 0.1, 0.3, 0.5, 0.9, 1]))


def two_classes(foreground: NDArray[Any]) -> Floats:
    """(2, Y, X)."""
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def nothing(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.zeros(shape, bool)


@pytest.fixture(scope="module")
def grey_is_probability() -> Model:
    """A model that is undecided where the image is grey, and certain where it is black or white."""
    plain = Architecture(base_channels=2, depth=1, padding="same", dropout=0.0)
    model = new_model(plain, normalisation=Normalisation("none"))
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            parameter.zero_()
            if parameter.ndim == 4 and parameter.shape[-1] == 3 and not name.startswith("up"):
                parameter[0, 0, 1, 1] = 1.0
        model.network.head.weight[1, 0] = 2.0
        model.network.head.bias[1] = -1.0
        model.network.head.weight[:] *= 20
        model.network.head.bias[:] *= 20
    return model


def noisy(shape: tuple[int, ...], seed: int = 0) -> Floats:
    """Black or white squares with a little noise, where the model is certain."""
    rng = np.random.default_rng(seed)
    height, width = shape[-2:]
    coarse = rng.integers(0, 2, (*shape[:-2], -(-height // 5), -(-width // 5)))
    squares = coarse.repeat(5, axis=-2).repeat(5, axis=-1)[..., :height, :width]
    return (squares + rng.normal(0, 0.01, shape)).astype(np.float32)


def make_grey(plane: Floats, rows: slice, columns: slice) -> None:
    plane[rows, columns] = 0.5 + 0.02 * np.random.default_rng(1).standard_normal(plane[rows, columns].shape)


def none_annotated(image: NDArray[Any]) -> Any:
    return lambda _: nothing(image.shape[-2:])


def test_entropy_is_0_where_certain_and_1_where_all_classes_are_equally_likely() -> None:
    np.testing.assert_allclose(entropy(two_classes(np.array([[0, 1, 0.5]]))), [[0, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(entropy(np.full((4, 1, 1), 0.25)), [[1]], atol=1e-6)


def test_flips_that_disagree_make_it_uncertain() -> None:
    agreeing, disagreeing = np.full((8, 1, 1), 0.95), np.where(np.arange(8) % 2, 0.95, 0.05)[:, None, None]
    averaged = [two_classes(flips.mean(axis=0)) for flips in (agreeing, disagreeing)]
    assert entropy(averaged[1])[0, 0] > entropy(averaged[0])[0, 0] + 0.5


def test_of_a_checkerboard_the_window_with_the_most_uncertain_squares_is_found() -> None:
    foreground = np.kron(np.indices((8, 8)).sum(axis=0) % 2, np.ones((4, 4))) * 0.5
    foreground[12:20, 8:16] = 0.5
    place = least_certain(two_classes(foreground), nothing(foreground.shape), 8)
    assert place is not None
    assert place.box == (slice(12, 20), slice(8, 16))
    assert place.center == (16, 12)
    assert place.uncertainty == pytest.approx(1, abs=1e-5)


def test_ties_go_to_the_first_from_the_top_left() -> None:
    place = least_certain(two_classes(np.full((20, 20), 0.5)), nothing((20, 20)), 6)
    assert place is not None
    assert place.box == (slice(0, 6), slice(0, 6))


def test_what_is_annotated_is_left_out() -> None:
    foreground = np.full((20, 40), 0.05)
    foreground[5:11, 5:11] = 0.5
    foreground[5:11, 25:31] = 0.4
    annotated = nothing(foreground.shape)
    annotated[5:11, 5:11] = True
    place = least_certain(two_classes(foreground), annotated, 6)
    assert place is not None
    assert place.box == (slice(5, 11), slice(25, 31))
    assert least_certain(two_classes(foreground), ~nothing(foreground.shape), 6) is None


def test_a_model_that_is_certain_everywhere_has_no_such_place() -> None:
    assert least_certain(two_classes(np.ones((9, 9))), nothing((9, 9)), 3) is None


def test_a_window_larger_than_the_plane_is_the_plane() -> None:
    place = least_certain(two_classes(np.full((5, 9), 0.5)), nothing((5, 9)), 64)
    assert place is not None
    assert place.box == (slice(0, 5), slice(0, 9))


def test_the_map_of_an_even_plane_is_even_up_to_its_edge() -> None:
    uncertain = uncertainty_map(two_classes(np.full((20, 30), 0.3)), 7)
    assert uncertain.dtype == np.float32
    assert np.ptp(uncertain) == 0


def test_probabilities_that_are_not_finite_are_left_out() -> None:
    foreground = np.full((20, 30), 0.1, np.float32)
    foreground[:, :5] = np.nan
    foreground[5:12, 10:17] = 0.5
    probabilities = two_classes(foreground)
    assert np.isfinite(uncertainty_map(probabilities, 7)).all()
    assert np.isnan(uncertainty_map(np.full_like(probabilities, np.nan), 7)).all()
    place = least_certain(probabilities, nothing(foreground.shape), 7)
    assert place is not None
    assert place.box == (slice(5, 12), slice(10, 17))


def test_a_window_of_no_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="window is 0 px"):
        uncertainty_map(two_classes(np.ones((4, 4))), 0)


@given(FOREGROUND, st.integers(1, 20), st.data())
def test_no_window_has_a_higher_mean_than_the_one_found(
    foreground: Floats, window_px: int, data: Any
) -> None:
    annotated = data.draw(arrays(np.bool_, foreground.shape))
    place = least_certain(two_classes(foreground), annotated, window_px)
    unsure = entropy(two_classes(foreground))
    height, width = (min(window_px, length) for length in foreground.shape)
    best = 0.0
    for row in range(foreground.shape[0] - height + 1):
        for column in range(foreground.shape[1] - width + 1):
            window = np.s_[row : row + height, column : column + width]
            if annotated[window].mean() <= 0.5:
                best = max(best, float(unsure[window][~annotated[window]].mean()))
    if place is None:
        assert best < 1e-6
    else:
        assert place.uncertainty == pytest.approx(best, abs=2e-6)
        assert annotated[place.box].mean() <= 0.5


@given(FOREGROUND, st.integers(1, 8))
def test_turning_the_plane_turns_its_map(foreground: Floats, half_px: int) -> None:
    window_px = 2 * half_px - 1
    upright = uncertainty_map(two_classes(foreground), window_px)
    turned = uncertainty_map(two_classes(np.rot90(foreground)), window_px)
    for length in foreground.shape:  # a window as large as the plane has no middle pixel to turn around
        if window_px >= length:
            return
    np.testing.assert_allclose(turned, np.rot90(upright), atol=2e-6)


def test_the_least_certain_places_of_a_stack_are_ranked(grey_is_probability: Model) -> None:
    stack = noisy((3, 64, 64))
    make_grey(stack[0], np.s_[10:20], np.s_[10:26])
    make_grey(stack[2], np.s_[30:46], np.s_[40:56])
    steps = where_next_steps(stack, grey_is_probability, SETTINGS, none_annotated(stack), 16)
    places = run_to_end(steps)
    assert places[0].plane == (2,)
    assert places[0].box == (slice(30, 46), slice(40, 56))
    assert places[1].plane == (0,)
    assert [place.uncertainty for place in places] == sorted(
        (place.uncertainty for place in places), reverse=True
    )


def test_places_of_a_plane_do_not_overlap_and_are_at_most_as_many_as_wanted(
    grey_is_probability: Model,
) -> None:
    image = 0.4 + 0.2 * noisy((70, 90))
    steps = where_next_steps(image, grey_is_probability, SETTINGS, none_annotated(image), 20, most_places=9)
    places = run_to_end(steps)
    assert len(places) == 9
    covered = np.zeros(image.shape, int)
    for place in places:
        assert place.plane == ()
        covered[place.box] += 1
    assert covered.max() == 1


def test_a_plane_is_seen_as_prediction_sees_it(grey_is_probability: Model) -> None:
    image = np.random.default_rng(0).uniform(0, 1, (2, 50, 61, 3)).astype(np.float32)
    settings = PredictSettings(axes="ZYXC", channel=1, zoom=0.8, device="cpu", tile_px=16)
    annotated = np.random.default_rng(1).random((50, 61)) < 0.2
    steps = where_next_steps(
        image, grey_is_probability, settings, lambda _: annotated, 12, most_places=1, most_planes=1
    )
    (found,) = run_to_end(steps)
    whole = predict(image, grey_is_probability, settings)
    expected = least_certain(whole.probabilities[:, 0], annotated, 12)
    assert expected is not None
    assert found.box == expected.box
    assert found.uncertainty == pytest.approx(expected.uncertainty, abs=1e-5)


def test_the_plane_in_view_comes_first_and_only_some_of_many_are_searched(
    grey_is_probability: Model,
) -> None:
    stack = noisy((40, 24, 24))
    asked: list[tuple[int, ...]] = []

    def annotated_of(plane: tuple[int, ...]) -> NDArray[np.bool_]:
        asked.append(plane)
        return nothing((24, 24))

    steps = where_next_steps(
        stack, grey_is_probability, SETTINGS, annotated_of, 8, plane_in_view=(13,), most_planes=4
    )
    said = [step.message for step in steps if isinstance(step, Note)]
    assert asked == [(13,), (3,), (23,), (33,)]
    assert said == ["Of 40 planes 4 are searched, evenly spread, the one in view first."]


@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_the_planes_that_are_searched_are_spread_over_the_stack(n: int, most: int, data: Any) -> None:
    layout = uncertainty.Layout("ZYX", (n, 5, 5), (0,))
    in_view = data.draw(st.integers(0, n - 1))
    planes = uncertainty._chosen_planes(layout, (in_view,), most)
    assert planes[0] == (in_view,)
    assert len(set(planes)) == len(planes) == min(n, most)
    gaps = np.diff(sorted(plane[0] for plane in planes))
    assert len(gaps) == 0 or gaps.max() <= -(-n // most) + 1


def test_of_a_very_large_plane_a_part_around_the_view_is_searched(
    grey_is_probability: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uncertainty, "LONGEST_SIDE_PX", 48)
    image = noisy((200, 64))
    make_grey(image, np.s_[20:36], np.s_[0:16])
    make_grey(image, np.s_[120:130], np.s_[30:46])
    steps = where_next_steps(
        image, grey_is_probability, SETTINGS, none_annotated(image), 16, around=(130, 40)
    )
    seen = list(_all(steps))
    assert Note("The planes are 200×64 px: 48×48 px of each are searched.") in seen[:-1]
    places = seen[-1]
    assert places[0].box[1] == slice(30, 46)
    assert all(place.box[0].start >= 106 and place.box[0].stop <= 154 for place in places)


def _all(steps: Any) -> Any:
    """The steps, then the result."""
    result = yield from steps
    yield result


def test_empty_areas_are_left_out(grey_is_probability: Model) -> None:
    image = noisy((60, 60))
    image[:30, :30] = 0.5  # nothing was imaged here, and the model cannot decide
    image[40:, :20] = np.nan
    make_grey(image, np.s_[34:44], np.s_[36:46])
    places = run_to_end(
        where_next_steps(image, grey_is_probability, SETTINGS, none_annotated(image), 10, most_places=3)
    )
    assert places[0].box == (slice(34, 44), slice(36, 46))
    assert all(place.uncertainty < 0.7 for place in places[1:])


def test_a_plane_without_a_finite_pixel_is_left_out_and_that_is_said(grey_is_probability: Model) -> None:
    stack = noisy((2, 40, 40))
    stack[0] = np.nan
    make_grey(stack[1], np.s_[8:16], np.s_[8:16])
    steps = where_next_steps(stack, grey_is_probability, SETTINGS, none_annotated(stack), 8)
    seen = list(_all(steps))
    assert Note("Plane 0 holds no finite pixel: it is left out.") in seen[:-1]
    assert {place.plane for place in seen[-1]} == {(1,)}


def test_where_nothing_can_be_seen_nothing_is_found(grey_is_probability: Model) -> None:
    blind = np.full((9, 9), np.nan)
    assert not run_to_end(where_next_steps(blind, grey_is_probability, SETTINGS, none_annotated(blind), 8))


def test_what_was_annotated_meanwhile_is_left_out(grey_is_probability: Model) -> None:
    stack = noisy((2, 40, 40))
    make_grey(stack[0], np.s_[8:16], np.s_[8:16])
    make_grey(stack[1], np.s_[20:28], np.s_[20:28])
    annotated = nothing(stack.shape)
    steps = where_next_steps(stack, grey_is_probability, SETTINGS, lambda plane: annotated[plane], 8)
    for step in steps:
        if isinstance(step, Searched) and step.planes_done == 1:
            annotated[1, 16:32, 16:32] = True
            break
    places = run_to_end(steps)
    assert places[0].plane == (0,)
    assert all(not annotated[place.plane][place.box].mean() > 0.5 for place in places)


def test_progress_grows_to_the_whole(grey_is_probability: Model) -> None:
    stack = noisy((2, 70, 70))
    steps = where_next_steps(stack, grey_is_probability, SETTINGS, none_annotated(stack), 8)
    shares = [step.share_done for step in steps if isinstance(step, Searched)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 10, "a step for each tile, so that a stop is heard at once"


def test_stop_ends_with_what_was_found(grey_is_probability: Model) -> None:
    stack = noisy((3, 64, 64))
    make_grey(stack[0], np.s_[8:16], np.s_[8:16])
    steps = where_next_steps(stack, grey_is_probability, SETTINGS, none_annotated(stack), 8)
    for step in steps:
        if isinstance(step, Searched) and step.planes_done == 1:
            break
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    places: list[Place] = end.value.value
    assert places[0].box == (slice(8, 16), slice(8, 16))
    assert {place.plane for place in places} == {(0,)}


def test_a_plane_that_does_not_exist_and_a_mask_that_does_not_fit_are_refused(
    grey_is_probability: Model,
) -> None:
    stack = noisy((3, 20, 20))
    with pytest.raises(InputError, match=r"Plane \(7,\) does not exist"):
        next(
            where_next_steps(
                stack, grey_is_probability, SETTINGS, none_annotated(stack), 8, plane_in_view=(7,)
            )
        )
    with pytest.raises(InputError, match="4×4"):
        run_to_end(where_next_steps(stack, grey_is_probability, SETTINGS, lambda _: nothing((4, 4)), 8))
