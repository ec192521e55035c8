"""The made-up images: repeatable, true to their truth, and like what a microscope gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.measure import label, regionprops

from napari_unet_seg.core.synthetic import synthetic_em, synthetic_nuclei


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    for make in (synthetic_em, synthetic_nuclei):
        first, again, other = make(), make(), make(seed=1)
        np.testing.assert_array_equal(first.image, again.image)
        np.testing.assert_array_equal(first.truth, again.truth)
        assert (first.image != other.image).any()


def test_em_has_the_promised_form() -> None:
    image, truth, voxel_size_nm = synthetic_em()
    assert (image.shape, image.dtype) == ((5, 256, 256), np.uint8)
    assert (truth.shape, truth.dtype) == ((5, 256, 256), np.uint16)
    assert voxel_size_nm == {"Z": 40.0, "Y": 8.0, "X": 8.0}


def test_em_membranes_are_dark_lines_between_many_cells() -> None:
    image, truth, _ = synthetic_em()
    membrane = truth == 0
    assert image[membrane].mean() < image[~membrane].mean() - 20
    assert 0.1 < membrane.mean() < 0.3
    assert all(len(np.unique(plane)) > 20 for plane in truth)


def test_em_planes_change_smoothly() -> None:
    truth = synthetic_em().truth
    both = (truth[1:] > 0) & (truth[:-1] > 0)
    assert (truth[1:] == truth[:-1])[both].mean() > 0.8
    assert (truth[1:] != truth[:-1]).mean() > 0.05


@pytest.mark.needs_data
def test_em_grey_levels_resemble_those_of_real_tissue(data_dir: Path) -> None:
    real = tifffile.imread(data_dir / "em-flyem-medulla" / "train" / "images.tif")
    made = synthetic_em().image
    assert abs(float(real.mean()) - float(made.mean())) < 12
    assert np.percentile(made, [5, 50, 95]) == pytest.approx(np.percentile(real, [5, 50, 95]), abs=20)


def test_nuclei_have_the_promised_form_and_are_brighter_than_their_surroundings() -> None:
    image, truth, pixel_size_nm = synthetic_nuclei()
    assert (image.shape, image.dtype, truth.dtype) == ((256, 256), np.uint16, np.uint16)
    assert set(pixel_size_nm) == {"Y", "X"}
    assert truth.max() >= 15
    assert all(
        np.median(image[truth == n]) > 2 * np.median(image[truth == 0]) for n in range(1, truth.max() + 1)
    )


def test_some_nuclei_touch_and_each_is_one_round_piece() -> None:
    truth = synthetic_nuclei().truth
    assert label(truth > 0).max() < truth.max()
    for nucleus in regionprops(truth):
        assert label(truth == nucleus.label).max() == 1
        assert nucleus.solidity > 0.85


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 31)])
def test_em_of_any_size_can_be_made(shape: tuple[int, int, int]) -> None:
    assert synthetic_em(shape).image.shape == shape


@pytest.mark.parametrize("shape", [(1, 1), (9, 31)])
def test_nuclei_of_any_size_can_be_made(shape: tuple[int, int]) -> None:
    assert synthetic_nuclei(shape).image.shape == shape
