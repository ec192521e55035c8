"""`predict`: the right objects, in files that say what they are, for one image, a stack and a batch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.cli.conftest import Run, bright_squares, make_bright_model, squares, write

from napari_unet_seg._cli import _predict_run
from napari_unet_seg.core.image_files import look_at, open_image, read_provenance


def test_three_bright_squares_become_three_objects(
    run: Run, image: Path, model: Path, tmp_path: Path
) -> None:
    ran = run("predict", image, "--model", model, "--out", tmp_path / "out.ome.tif")
    assert (ran.code, ran.out) == (0, "")
    assert ran.says("3 objects", "out.ome.tif")
    found = tifffile.imread(tmp_path / "out.ome.tif")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, squares())


def test_json_is_one_object_with_everything_about_the_run(
    run: Run, image: Path, model: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "out.tif", tmp_path / "t.csv"
    ran = run("predict", image, "--model", model, "--out", out, "--table", table, "--tile", 16, "--json")
    assert ran.code == 0
    assert ran.json["outputs"] == [str(out), str(table)]
    assert ran.json["model"] == "bright"
    assert ran.json["device"] == "cpu" or ran.json["device"].startswith(("cuda", "mps"))
    assert (ran.json["tile"], ran.json["tiles"], ran.json["zoom"], ran.json["objects"]) == (16, 6, 1, 3)
    assert ran.json["seconds"] > 0
    assert ran.json["failed"] == []


def test_probabilities_have_the_class_axis_first_and_named(
    run: Run, image: Path, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "p.ome.tif"
    assert (
        run("predict", image, "--model", model, "--out", tmp_path / "o.tif", "--probabilities", path).code
        == 0
    )
    found = tifffile.imread(path)
    assert (found.dtype, found.shape) == (np.float32, (2, 32, 40))
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(found[1] > 0.5, squares() > 0)
    opened = open_image(path)
    assert (opened.axes, opened.channel_names) == ("CYX", ("background", "object"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_probabilities_can_be_stored_as_whole_numbers(
    run: Run, image: Path, model: Path, tmp_path: Path, dtype: str
) -> None:
    path = tmp_path / "p.tif"
    arguments = ("--out", tmp_path / "o.tif", "--probabilities", path, "--probability-dtype", dtype)
    assert run("predict", image, "--model", model, *arguments).code == 0
    found = tifffile.imread(path)
    assert found.dtype == dtype
    assert found[1].max() == pytest.approx(np.iinfo(dtype).max, rel=1e-3)
    assert read_provenance(path)["probability_scale"] == np.iinfo(dtype).max


def test_a_stack_keeps_its_voxel_size_and_its_ids_are_unique(run: Run, model: Path, tmp_path: Path) -> None:
    stack = np.stack([bright_squares(), bright_squares()])
    options = {
        "imagej": True,
        "resolution": (100, 100),
        "metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.05},
    }
    path = write(tmp_path / "stack.tif", stack, **options)
    out, probabilities = tmp_path / "out.ome.tif", tmp_path / "p.ome.tif"
    ran = run("predict", path, "--model", model, "--out", out, "--probabilities", probabilities, "--json")
    assert ran.json["objects"] == 6
    found = tifffile.imread(out)
    assert sorted(np.unique(found[1])) == [0, 4, 5, 6]
    assert tifffile.imread(probabilities).shape == (2, 2, 32, 40)
    for written in (out, probabilities):
        assert look_at(written).voxel_size_nm == pytest.approx({"Z": 50, "Y": 10, "X": 10})


def test_a_given_pixel_size_beats_that_of_the_file_and_is_written(
    run: Run, tmp_path: Path, image: Path
) -> None:
    knows_size = make_bright_model(tmp_path / "knows.safetensors", pixel_size_nm=10.0)
    out = tmp_path / "out.tif"
    ran = run("predict", image, "--model", knows_size, "--out", out, "--pixel-size", "20", "--json")
    assert ran.json["zoom"] == 2
    assert look_at(out).voxel_size_nm == {"Y": 20, "X": 20}
    np.testing.assert_array_equal(tifffile.imread(out) > 0, squares() > 0)


def test_zoom_beats_the_pixel_size(run: Run, tmp_path: Path, image: Path) -> None:
    knows_size = make_bright_model(tmp_path / "knows.safetensors", pixel_size_nm=10.0)
    arguments = ("--out", tmp_path / "o.tif", "--pixel-size", "20,20", "--zoom", 1, "--json")
    assert run("predict", image, "--model", knows_size, *arguments).json["zoom"] == 1


def test_an_unknown_zoom_is_found_and_said(run: Run, tmp_path: Path, image: Path) -> None:
    knows_size = make_bright_model(tmp_path / "knows.safetensors", pixel_size_nm=10.0)
    ran = run("predict", image, "--model", knows_size, "--out", tmp_path / "o.tif", "--json")
    assert ran.code == 0
    assert "found automatically, because the image's pixel size is unknown" in ran.err
    assert ran.json["zoom"] == 1
    assert any("found automatically" in note for note in ran.json["images"][0]["notes"])


def test_the_zoom_is_found_on_request_whatever_is_known(run: Run, tmp_path: Path, image: Path) -> None:
    knows_size = make_bright_model(tmp_path / "knows.safetensors", pixel_size_nm=10.0)
    arguments = ("--out", tmp_path / "o.tif", "--pixel-size", "20,20", "--zoom", "auto", "--json")
    ran = run("predict", image, "--model", knows_size, *arguments)
    assert ran.json["zoom"] == 1
    assert "that was asked for" in ran.err


def test_a_zoom_in_words_is_refused(run: Run, tmp_path: Path, image: Path, model: Path) -> None:
    ran = run("predict", image, "--model", model, "--out", tmp_path / "o.tif", "--zoom", "twice")
    assert ran.code == 2
    assert "zoom 'twice' is not understood" in ran.err.splitlines()[-1]
    assert not (tmp_path / "o.tif").exists()


def test_the_output_says_how_it_was_made(run: Run, image: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.tif"
    run("predict", image, "--model", model, "--out", out, "--invert")
    made = read_provenance(out)
    assert (made["model"], made["zoom"], made["invert"], made["image"]) == (
        "bright",
        [1, 1],
        True,
        "cells.tif",
    )
    assert made["normalisation"]["kind"] == "min-max"
    assert len(made["normalisation"]["planes"]) == 1


def test_invert_finds_dark_objects(run: Run, model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "dark.tif", 255 - bright_squares())
    assert run("predict", path, "--model", model, "--out", tmp_path / "o.tif", "--invert").code == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), squares())


def test_small_objects_are_dropped_on_request(run: Run, image: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "o.tif", "--min-size", 65, "--json")
    assert run("predict", image, "--model", model, *arguments).json["objects"] == 0


def test_nothing_is_above_a_threshold_of_1(run: Run, image: Path, model: Path, tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "o.tif", "--threshold", 1, "--json")
    assert run("predict", image, "--model", model, *arguments).json["objects"] == 0


def test_the_table_has_a_row_per_object_in_physical_units(
    run: Run, image: Path, model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "t.csv"
    arguments = ("--out", tmp_path / "o.tif", "--table", table, "--pixel-size", "500")
    assert run("predict", image, "--model", model, *arguments).code == 0
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["label"] for row in rows] == ["1", "2", "3"]
    assert {row["area_px"] for row in rows} == {"64"}
    assert {float(row["area_um2"]) for row in rows} == {16.0}
    assert {float(row["grey_mean"]) for row in rows} == {200.0}


def test_a_class_model_writes_its_class_map(run: Run, image: Path, tmp_path: Path) -> None:
    classes = make_bright_model(
        tmp_path / "classes.safetensors", task="classes", class_names=("dark", "bright")
    )
    ran = run("predict", image, "--model", classes, "--out", tmp_path / "o.tif", "--json")
    assert ran.json["objects"] is None
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), squares() > 0)


def test_the_table_of_a_class_model_is_about_its_objects(run: Run, image: Path, tmp_path: Path) -> None:
    classes = make_bright_model(
        tmp_path / "classes.safetensors",
        task="classes",
        class_names=("dark", "bright"),
        object_class="bright",
    )
    out, table = tmp_path / "o.tif", tmp_path / "t.csv"
    ran = run("predict", image, "--model", classes, "--out", out, "--table", table, "--json")
    np.testing.assert_array_equal(tifffile.imread(out), squares() > 0)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == ran.json["objects"] == squares().max()


@pytest.mark.parametrize("channel", ["grey", "1", "green"])
def test_one_channel_of_a_colour_image_can_be_chosen(
    run: Run, model: Path, tmp_path: Path, channel: str
) -> None:
    path = write(tmp_path / "rgb.tif", np.stack([bright_squares()] * 3, axis=-1))
    out = tmp_path / "o.tif"
    assert run("predict", path, "--model", model, "--out", out, "--channel", channel).code == 0
    np.testing.assert_array_equal(tifffile.imread(out), squares())


def test_axes_can_be_named(run: Run, model: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "many.tif", np.stack([[bright_squares()] * 2] * 3))
    assert run("predict", path, "--model", model, "--out", tmp_path / "o.tif").refuses(
        "--axes TZYX", "many.tif"
    )
    out = tmp_path / "o.ome.tif"
    assert run("predict", path, "--model", model, "--out", out, "--axes", "TZYX").code == 0
    assert open_image(out).axes == "TZYX"
    assert tifffile.imread(out).max() == 18


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (33, 1)])
def test_images_of_one_pixel_or_row_work(
    run: Run, model: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    path = write(tmp_path / "thin.tif", np.full(shape, 7, np.uint8))
    assert run("predict", path, "--model", model, "--out", tmp_path / "o.tif").code == 0
    assert tifffile.imread(tmp_path / "o.tif").reshape(shape).max() == 0


def test_some_nan_are_replaced_and_said(run: Run, model: Path, tmp_path: Path) -> None:
    values = bright_squares(np.float32)
    values[0, :5] = (np.nan, np.inf, -np.inf, np.nan, np.nan)
    path = write(tmp_path / "gaps.tif", values)
    ran = run("predict", path, "--model", model, "--out", tmp_path / "o.tif")
    assert ran.code == 0
    assert "NaN or infinite" in ran.err
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "o.tif"), squares())


def test_a_plane_of_nan_in_a_stack_is_background_in_every_file(run: Run, model: Path, tmp_path: Path) -> None:
    values = np.stack([bright_squares(np.float32), np.full((32, 40), np.nan, np.float32)])
    path = write(tmp_path / "stack.tif", values, metadata={"axes": "ZYX"})
    probabilities = tmp_path / "p.tif"
    arguments = ("--out", tmp_path / "o.tif", "--probabilities", probabilities)
    ran = run("predict", path, "--model", model, *arguments)
    assert ran.code == 0
    assert "no finite pixel" in ran.err
    assert tifffile.imread(tmp_path / "o.tif")[1].max() == 0
    np.testing.assert_array_equal(tifffile.imread(probabilities)[:, 1, 0, 0], (1, 0))


def test_a_folder_of_sections_is_one_stack(run: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sections"
    folder.mkdir()
    for number in (9, 10):
        Image.fromarray(bright_squares()).save(folder / f"s{number}.png")
    assert run("predict", folder, "--model", model, "--out", tmp_path / "o.tif").code == 0
    assert tifffile.imread(tmp_path / "o.tif").shape == (2, 32, 40)


def test_a_folder_of_different_images_points_to_each(run: Run, model: Path, tmp_path: Path) -> None:
    folder = _folder_of_two(tmp_path)
    write(folder / "c.tif", bright_squares()[:20])
    assert run("predict", folder, "--model", model, "--out", tmp_path / "o.tif").refuses("--each")


def test_each_image_of_a_folder_gets_its_own_files(run: Run, model: Path, tmp_path: Path) -> None:
    folder, out, tables = _folder_of_two(tmp_path), tmp_path / "out", tmp_path / "tables"
    arguments = ("--out", out, "--probabilities", tmp_path / "p", "--table", tables, "--each", "--json")
    ran = run("predict", folder, "--model", model, *arguments)
    assert ran.code == 0
    assert ran.says("All 2 images are done")
    assert ran.json["objects"] == 6
    assert len(ran.json["outputs"]) == 6
    assert sorted(path.name for path in out.iterdir()) == ["a.tif", "b.tif"]
    assert sorted(path.name for path in tables.iterdir()) == ["a.csv", "b.csv"]


def test_several_paths_are_separate_images(run: Run, model: Path, tmp_path: Path) -> None:
    folder = _folder_of_two(tmp_path)
    ran = run("predict", folder / "a.ome.tif", folder / "b.png", "--model", model, "--out", tmp_path / "out")
    assert ran.code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]


def test_a_pattern_that_the_shell_left_alone_is_expanded(run: Run, model: Path, tmp_path: Path) -> None:
    folder = _folder_of_two(tmp_path)
    assert run("predict", folder / "*", "--model", model, "--out", tmp_path / "out").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]


def test_one_bad_image_does_not_stop_the_batch(run: Run, model: Path, tmp_path: Path) -> None:
    folder = _folder_of_two(tmp_path)
    (folder / "bad.tif").write_bytes(b"II*\0 not really")
    ran = run("predict", folder, "--each", "--model", model, "--out", tmp_path / "out", "--json")
    assert ran.code == 1
    assert ran.says("1 of 3 images failed", "'bad.tif'")
    assert len(ran.json["outputs"]) == 2
    assert [entry["input"] for entry in ran.json["failed"]] == [str(folder / "bad.tif")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "b.tif"]


def test_one_image_that_does_not_fit_the_memory_does_not_stop_the_batch(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(path: Path, **options: Any) -> Any:
        if path.name == "a.ome.tif":
            raise MemoryError
        return open_image(path, **options)

    monkeypatch.setattr(_predict_run, "open_image", opening)
    folder = _folder_of_two(tmp_path)
    ran = run("predict", folder, "--each", "--model", model, "--out", tmp_path / "out")
    assert ran.code == 1
    assert ran.says("1 of 2 images failed", "a.ome.tif' does not fit the memory")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.tif"]


def test_a_batch_without_one_usable_image_is_refused_and_leaves_no_folder(
    run: Run, model: Path, tmp_path: Path
) -> None:
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).write_bytes(b"")
    ran = run("predict", tmp_path / "a.tif", tmp_path / "b.tif", "--model", model, "--out", tmp_path / "out")
    assert ran.refuses("None of the 2 images", "empty")
    assert not (tmp_path / "out").exists()


def _folder_of_two(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / "a.ome.tif", bright_squares())
    Image.fromarray(bright_squares()).save(folder / "b.png")
    return folder
