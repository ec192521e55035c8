"""Axes and channels of an image: what is understood, what is refused, and how one plane is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet_seg.core._axes import Layout, PlaneView, understand
from napari_unet_seg.core.errors import InputError


def layout_of(
    image: np.ndarray, axes: str | None = None, channel: Any = None, in_channels: int = 1
) -> Layout:
    return understand(image.shape, image.dtype, axes=axes, channel=channel, in_channels=in_channels)


def read(image: np.ndarray, plane: tuple[int, ...] = (), **wishes: Any) -> np.ndarray:
    return PlaneView(image, layout_of(image, **wishes), plane)[:, :, :]


def test_two_unnamed_axes_are_a_picture_and_three_are_planes() -> None:
    assert layout_of(np.zeros((5, 6))).axes == "YX"
    assert layout_of(np.zeros((3, 5, 6))).axes == "ZYX"


def test_more_unnamed_axes_ask_for_their_names() -> None:
    with pytest.raises(InputError, match="such as TZYX"):
        layout_of(np.zeros((2, 3, 5, 6)))


def test_a_line_of_pixels_is_no_picture() -> None:
    with pytest.raises(InputError, match="two axes"):
        layout_of(np.zeros(5))


@pytest.mark.parametrize("axes", ["YX", "ZZYX", "QYX", "ZTX", "ZCSYX", "ZYXC"])
def test_axes_that_do_not_fit_are_refused(axes: str) -> None:
    with pytest.raises(InputError, match=r"[Aa]xes"):
        layout_of(np.zeros((3, 5, 6)), axes=axes)


def test_axes_may_come_in_any_order() -> None:
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    layout = layout_of(image, axes="xzyt")
    assert (layout.plane_axes, layout.plane_counts, layout.plane_shape) == ("ZT", (3, 5), (4, 2))
    np.testing.assert_array_equal(read(image, (1, 2), axes="xzyt")[0], image[:, 1, :, 2].T)


@pytest.mark.parametrize("axes", ["YXC", "YXS", None])
def test_colour_for_a_grey_model_is_refused_with_the_way_out(axes: str | None) -> None:
    with pytest.raises(InputError, match="choose grey"):
        layout_of(np.zeros((20, 30, 3), np.uint8), axes=axes)


def test_grey_is_the_luminance() -> None:
    image = np.zeros((6, 7, 3), np.uint8)
    image[..., 1] = 100
    np.testing.assert_allclose(read(image, axes="YXS", channel="grey"), np.full((1, 6, 7), 71.54), rtol=1e-6)


def test_grey_of_a_grey_image_is_the_image() -> None:
    image = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(read(image, channel="grey")[0], image)


def test_grey_of_two_channels_is_refused() -> None:
    with pytest.raises(InputError, match="red, green and blue"):
        layout_of(np.zeros((2, 5, 6)), axes="CYX", channel="grey")


def test_a_channel_is_chosen_by_number_and_read_alone() -> None:
    image = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    np.testing.assert_array_equal(read(image, axes="CYX", channel=1)[0], image[1])


def test_a_channel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="Channel 2 does not exist"):
        layout_of(np.zeros((2, 5, 6)), axes="CYX", channel=2)


def test_several_channels_for_a_one_channel_model_ask_for_one() -> None:
    with pytest.raises(InputError, match="choose one, 0 to 1"):
        layout_of(np.zeros((2, 5, 6)), axes="CYX")


def test_a_model_of_several_channels_sees_them_in_order() -> None:
    image = np.arange(2 * 3 * 4).reshape(3, 4, 2)
    np.testing.assert_array_equal(read(image, axes="YXC", in_channels=2), np.moveaxis(image, 2, 0))


def test_too_few_channels_are_refused() -> None:
    with pytest.raises(InputError, match="the model takes 2"):
        layout_of(np.zeros((5, 6)), in_channels=2)


def test_alpha_is_left_out() -> None:
    image = np.arange(6 * 7 * 4, dtype=np.uint8).reshape(6, 7, 4)
    np.testing.assert_array_equal(read(image, in_channels=3), np.moveaxis(image[..., :3], 2, 0))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 4, 5)])
def test_an_image_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no pixels"):
        layout_of(np.zeros(shape))


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="complex"):
        layout_of(np.zeros((4, 5), complex))


def test_truth_values_and_foreign_byte_order_become_plain_numbers() -> None:
    assert read(np.ones((2, 2), bool)).dtype == np.uint8
    assert read(np.ones((2, 2), ">u2")).dtype == np.dtype("=u2")
