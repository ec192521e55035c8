"""The region table: sizes, places, shapes and grey values of objects, and its CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.regions import RegionTable, region_table, region_table_steps, write_csv
from napari_unet_seg.core.steps import STOP

Labels = NDArray[np.int32]


def _rectangle() -> Labels:
    labels = np.zeros((12, 20), np.int32)
    labels[2:6, 5:15] = 7
    return labels


def _only_row(table: RegionTable) -> dict[str, int | float]:
    (row,) = table.rows()
    return row


def test_a_rectangle_is_measured_in_pixels() -> None:
    row = _only_row(region_table(_rectangle()))
    assert row["label"] == 7
    assert row["area_px"] == 40
    assert (row["centroid_y_px"], row["centroid_x_px"]) == (3.5, 9.5)
    box = [row[f"bbox_{axis}_{end}_px"] for axis in "yx" for end in ("min", "max")]
    assert box == [2, 6, 5, 15]
    assert row["equivalent_diameter_px"] == pytest.approx(np.sqrt(4 * 40 / np.pi))
    # Axes of the ellipse with the same second moments: 4·√(variance + 1/12 of the pixel itself).
    assert row["major_axis_px"] == pytest.approx(4 * np.sqrt(10**2 / 12), rel=0.01)
    assert row["minor_axis_px"] == pytest.approx(4 * np.sqrt(4**2 / 12), rel=0.04)
    assert row["solidity"] == 1


def test_known_pixel_size_gives_micrometres() -> None:
    row = _only_row(region_table(_rectangle(), spacing=(500, 250), unit="nm"))
    assert row["area_px"] == 40
    assert row["area_um2"] == pytest.approx(40 * 0.5 * 0.25)
    assert row["centroid_y_um"] == pytest.approx(3.5 * 0.5)
    assert row["centroid_x_um"] == pytest.approx(9.5 * 0.25)
    assert "major_axis_um" in row
    assert "centroid_y_px" not in row


@pytest.mark.parametrize(
    ("unit", "name"), [("µm", "area_um2"), ("micrometer", "area_um2"), ("mm", "area_mm2")]
)
def test_columns_are_named_after_the_unit(unit: str, name: str) -> None:
    row = _only_row(region_table(_rectangle(), spacing=(2, 2), unit=unit))
    assert row[name] == pytest.approx(160)


def test_a_stack_is_measured_plane_by_plane() -> None:
    labels = np.stack([_rectangle(), np.zeros_like(_rectangle()), _rectangle()])
    table = region_table(labels, spacing=(50, 10, 10), unit="nm")
    assert table.columns["plane"].tolist() == [0, 2]
    assert table.columns["label"].tolist() == [7, 7]
    np.testing.assert_allclose(table.columns["area_um2"], 40 * 1e-4)


def test_bodies_in_space_have_a_volume() -> None:
    labels = np.stack([_rectangle(), _rectangle()])
    row = _only_row(region_table(labels, spacing=(50, 10, 10), unit="nm", volume=True))
    assert row["volume_voxels"] == 80
    assert row["volume_um3"] == pytest.approx(80 * 50 * 10 * 10 * 1e-9)
    assert row["centroid_z_um"] == pytest.approx(0.025)
    assert "plane" not in row


def test_time_and_depth_are_two_plane_columns() -> None:
    labels = np.zeros((2, 3, 4, 4), np.int32)
    labels[1, 2, 1, 1] = 5
    row = _only_row(region_table(labels))
    assert (row["plane_0"], row["plane_1"]) == (1, 2)


def test_grey_values_are_those_inside_the_object() -> None:
    image = np.full((12, 20), 100, np.uint8)
    image[2:6, 5:10], image[2:6, 10:15] = 10, 20
    row = _only_row(region_table(_rectangle(), image))
    assert (row["grey_mean"], row["grey_min"], row["grey_max"], row["grey_std"]) == (15, 10, 20, 5)


def test_grey_level_bins_share_edges_over_the_whole_stack() -> None:
    labels = np.array([[[1, 1, 1, 1]], [[2, 2, 0, 0]]], np.int32)
    image = np.array([[[0, 1, 2, 3]], [[4, 5, 8, 6]]], np.uint16)
    table = region_table(labels, image, histogram_bins=4)
    names = [name for name in table.columns if "from" in name]
    assert names == ["grey_00_from_0", "grey_01_from_2", "grey_02_from_4", "grey_03_from_6"]
    assert [list(row.values())[-4:] for row in table.rows()] == [[2, 2, 0, 0], [0, 0, 2, 0]]


def test_the_largest_grey_value_is_in_the_last_bin_and_nan_in_none() -> None:
    row = _only_row(region_table(np.ones((1, 4), int), np.array([[0, 1, 4, np.nan]]), histogram_bins=2))
    assert list(row.values())[-2:] == [2, 1]


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_an_image_of_one_value_has_a_histogram_too(value: float) -> None:
    row = _only_row(region_table(_rectangle(), np.full((12, 20), value), histogram_bins=3))
    assert sum(list(row.values())[-3:]) == (0 if np.isnan(value) else 40)


def test_no_bins_no_histogram() -> None:
    assert not any(
        "from" in name for name in region_table(_rectangle(), _rectangle(), histogram_bins=0).columns
    )


class _LazyPlanes:
    """An image that can only be read a plane at a time."""

    shape = (3, 12, 20)

    def __getitem__(self, key: object) -> NDArray[np.uint8]:
        assert isinstance(key, tuple)
        assert isinstance(key[0], int)
        return np.full((12, 20), key[0], np.uint8)


def test_a_lazy_stack_is_read_plane_by_plane() -> None:
    table = region_table(np.stack([_rectangle()] * 3), _LazyPlanes())
    assert table.columns["grey_mean"].tolist() == [0, 1, 2]


def test_a_huge_id_costs_nothing() -> None:
    labels = np.zeros((5, 5), np.int64)
    labels[2, 2] = 2**40
    assert _only_row(region_table(labels))["label"] == 2**40


@pytest.mark.parametrize("image", [None, np.zeros((4, 5))])
def test_no_objects_give_the_same_columns_and_no_rows(image: NDArray[np.float64] | None) -> None:
    empty = region_table(np.zeros((4, 5), int), image)
    full = region_table(np.ones((4, 5), int), image)
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)


@settings(max_examples=20)
@given(arrays(np.int32, (2, 5, 6), elements=st.integers(0, 4)), st.booleans())
def test_areas_and_histograms_add_up_to_the_labelled_pixels(labels: Labels, volume: bool) -> None:
    image = np.arange(labels.size).reshape(labels.shape)
    table = region_table(labels, image, volume=volume)
    sizes = table.columns["volume_voxels" if volume else "area_px"]
    assert sizes.sum() == (labels > 0).sum()
    counts = sum(column for name, column in table.columns.items() if "from" in name)
    np.testing.assert_array_equal(counts, sizes)


def test_csv_holds_one_line_per_object(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table = region_table(_rectangle(), spacing=(4, 4), unit="nm")
    write_csv(table, path)
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == list(table.columns)
    assert row["label"] == "7"
    assert float(row["area_um2"]) == pytest.approx(40 * 16e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["cells.csv"]


def test_a_csv_that_cannot_be_written_is_an_error_of_ours_and_leaves_nothing(tmp_path: Path) -> None:
    table = region_table(_rectangle())
    with pytest.raises(OutputError, match="missing"):
        write_csv(table, tmp_path / "missing" / "cells.csv")
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(OutputError, match=r"folder\.csv"):
        write_csv(table, folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_an_image_of_another_shape_is_refused_naming_both() -> None:
    with pytest.raises(InputError, match=r"12×20.*3×12×20"):
        region_table(_rectangle(), np.zeros((3, 12, 20)))


@pytest.mark.parametrize("spacing", [(4,), (0, 4), (np.nan, 4)])
def test_a_spacing_that_is_no_pixel_size_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="Spacing"):
        region_table(_rectangle(), spacing=spacing, unit="nm")


def test_labels_that_are_none_are_refused() -> None:
    wrongs: list[NDArray[Any]] = [np.full((3, 3), -1), np.zeros((3, 3)), np.zeros(3, int)]
    for wrong in wrongs:
        with pytest.raises(InputError):
            region_table(wrong)
    with pytest.raises(InputError, match=r"\(Z, Y, X\)"):
        region_table(_rectangle(), volume=True)


def test_measuring_can_be_stopped_between_planes() -> None:
    steps = region_table_steps(np.stack([_rectangle()] * 3), np.zeros((3, 12, 20)))
    assert next(steps) == "Grey values of plane 1 of 3"
    assert steps.send(None) == "Grey values of plane 2 of 3"
    with pytest.raises(StopIteration) as end:
        steps.send(STOP)
    assert end.value.value is None
