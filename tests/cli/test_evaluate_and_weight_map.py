"""`evaluate`, `weight-map`, `models`, `demo` and the help: what they print and write."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.cli.conftest import Run, make_bright_model, squares, write

from napari_unet_seg import __version__
from napari_unet_seg.core.image_files import look_at
from napari_unet_seg.core.weight_map import WeightSettings, weight_map

SCORES = (
    *("pixel_accuracy", "precision", "recall", "f1", "iou", "pixel_error"),
    *("rand_error", "v_rand", "v_info", "warping_error", "f1_at", "ap", "per_plane"),
)


def test_labels_against_themselves_are_perfect(run: Run, labels: Path) -> None:
    ran = run("evaluate", labels, labels, "--json")
    assert ran.code == 0
    assert set(SCORES) <= set(ran.json)
    assert (ran.json["f1"], ran.json["rand_error"], ran.json["v_rand"]) == (1, 0, 1)
    assert ran.json["f1_at"] == dict.fromkeys(("0.5", "0.6", "0.7", "0.75", "0.8", "0.9"), 1)
    assert ran.json["ap"].keys() == ran.json["f1_at"].keys()
    assert len(ran.json["per_plane"]) == 1


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_probabilities_of_predict_are_scored_as_such(
    run: Run, image: Path, labels: Path, model: Path, tmp_path: Path, dtype: str
) -> None:
    path = tmp_path / "p.tif"
    arguments = ("--out", tmp_path / "o.tif", "--probabilities", path, "--probability-dtype", dtype)
    assert run("predict", image, "--model", model, *arguments).code == 0
    ran = run("evaluate", path, labels, "--json")
    assert ran.json["f1"] == 1
    assert "f1" in ran.json["thresholds"]
    assert "at threshold" in run("evaluate", path, labels).out


def test_folders_are_paired_by_stem(run: Run, tmp_path: Path) -> None:
    for folder in ("found", "true"):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            write(tmp_path / folder / f"{name}.tif", squares() * (folder == "true" or name == "a"))
    ran = run("evaluate", tmp_path / "found", tmp_path / "true", "--json")
    assert [entry["f1"] for entry in ran.json["per_plane"]] == [1, 0]
    assert ran.json["f1_at"]["0.5"] == pytest.approx(2 * 3 / (2 * 3 + 3))


def test_a_folder_against_itself_is_perfect(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", squares())
    ran = run("evaluate", tmp_path, tmp_path, "--json")
    assert [entry["f1"] for entry in ran.json["per_plane"]] == [1, 1]


def test_a_class_task_has_scores_per_class(run: Run, labels: Path) -> None:
    ran = run("evaluate", labels, labels, "--task", "classes", "--json")
    assert [entry["class_id"] for entry in ran.json["per_class"]] == [0, 1, 2, 3]
    assert {"precision", "recall", "f1", "iou"} <= set(ran.json["per_class"][0])
    assert "class" in run("evaluate", labels, labels, "--task", "classes").out


def test_a_stack_can_be_scored_as_a_volume(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "stack.tif", np.stack([squares()] * 2), metadata={"axes": "ZYX"})
    assert len(run("evaluate", path, path, "--json").json["per_plane"]) == 2
    assert len(run("evaluate", path, path, "--volume", "--json").json["per_plane"]) == 1


def test_without_json_the_scores_are_a_table(run: Run, labels: Path) -> None:
    ran = run("evaluate", labels, labels)
    assert ran.out.splitlines()[0].split() == ["score", "value"]
    assert "rand error" in ran.out
    assert ran.err == ""


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ((), WeightSettings.paper()),
        (("--preset", "fiji"), WeightSettings.fiji()),
        (("--w0", "3", "--sigma", "2"), WeightSettings.paper(3, 2)),
    ],
)
def test_the_weight_map_is_that_of_the_core(
    run: Run, labels: Path, tmp_path: Path, options: tuple[str, ...], settings: WeightSettings
) -> None:
    out = tmp_path / "w.tif"
    assert run("weight-map", labels, "--out", out, *options).code == 0
    found = tifffile.imread(out)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, weight_map(squares(), settings))


def test_scribbles_and_a_mask_leave_the_rest_without_weight(run: Run, tmp_path: Path) -> None:
    coded = np.where(squares() > 0, squares() + 1, 1).astype(np.uint8)
    coded[:, 30:] = 0
    mask = np.ones((32, 40), np.uint8)
    mask[:2] = 0
    labels, masked = write(tmp_path / "s.tif", coded), write(tmp_path / "m.tif", mask)
    out = tmp_path / "w.tif"
    arguments = ("--coding", "scribbles", "--annotated", masked)
    assert run("weight-map", labels, "--out", out, *arguments).code == 0
    found = tifffile.imread(out)
    np.testing.assert_array_equal(found > 0, (coded > 0) & (mask > 0))


@pytest.mark.parametrize("shape", [(1, 40), (32, 39)])
def test_a_mask_of_another_shape_is_refused(
    run: Run, labels: Path, tmp_path: Path, shape: tuple[int, int]
) -> None:
    mask = write(tmp_path / "m.tif", np.ones(shape, np.uint8))
    arguments = ("--annotated", mask, "--out", tmp_path / "w.tif")
    assert run("weight-map", labels, *arguments).refuses("mask", "32×40")
    assert not (tmp_path / "w.tif").exists()


def test_the_weight_map_of_a_volume_knows_its_voxels(run: Run, tmp_path: Path) -> None:
    stack = np.stack([squares(), squares() * 0, squares()])
    options = {
        "imagej": True,
        "resolution": (100, 100),
        "metadata": {"axes": "ZYX", "unit": "um", "spacing": 0.05},
    }
    path, out = write(tmp_path / "stack.tif", stack, **options), tmp_path / "w.ome.tif"
    assert run("weight-map", path, "--out", out, "--volume").code == 0
    expected = weight_map(stack, spacing=(50, 10, 10), volume=True)
    np.testing.assert_array_equal(tifffile.imread(out), expected)
    assert look_at(out).voxel_size_nm == pytest.approx({"Z": 50, "Y": 10, "X": 10})


def test_a_weight_map_is_only_replaced_with_overwrite(run: Run, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "w.tif"
    out.write_bytes(b"precious")
    assert run("weight-map", labels, "--out", out).refuses("--overwrite")
    assert run("weight-map", labels, "--out", labels, "--overwrite").refuses("also the input")
    assert run("weight-map", labels, "--out", out, "--overwrite").code == 0
    assert out.read_bytes() != b"precious"


def test_models_lists_saved_models(run: Run, model_folder: Path) -> None:
    make_bright_model(
        model_folder / "mine.safetensors", pixel_size_nm=4.0, licence="CC0", description="Bright is it."
    )
    (found,) = [entry for entry in run("models", "--json").json["models"] if entry["name"] == "mine"]
    assert (found["where"], found["task"], found["classes"]) == (
        "saved",
        "instances",
        ["background", "object"],
    )
    assert (found["pixel_size_nm"], found["object_diameter_px"], found["licence"]) == (4, None, "CC0")
    assert (found["credit"], found["description"]) == ("", "Bright is it.")
    table = run("models").out
    assert "mine" in table
    assert "4 nm" in table
    assert "Bright is it." in table


def test_models_is_an_empty_list_without_models(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_unet_seg.core.model_store.bundled_folder", lambda: tmp_path)
    assert run("models", "--json").json == {"models": []}
    assert run("models").out == ""


def test_demo_hands_its_options_on_and_its_exit_code_back(
    run: Run, image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def run_demo(*arguments: object, **options: object) -> int:
        seen.append((arguments, options))
        return 1

    stand_in = types.ModuleType("napari_unet_seg._demo")
    stand_in.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "napari_unet_seg._demo", stand_in)
    out = tmp_path / "shown"
    ran = run("demo", image, "--model", model, "--pixel-size", 8, "--zoom", 0.5, "--out", out)
    assert ran.code == 1
    assert seen == [((image,), {"model": str(model), "pixel_size_nm": 8.0, "zoom": 0.5, "out": out})]


def test_help_and_version_are_printed_on_stdout(run: Run) -> None:
    listed = run("--help")
    assert (listed.code, listed.err) == (0, "")
    for command in ("demo", "models", "predict", "train", "evaluate", "weight-map"):
        assert command in listed.out
        assert run(command, "--help").code == 0
    assert run("--version").out == f"napari-unet-seg {__version__}\n"


def test_help_and_models_load_neither_torch_nor_napari() -> None:
    code = (
        "import sys; from napari_unet_seg._cli import exit_code; "
        "assert exit_code(['--help']) == 0; assert exit_code(['models', '--json']) == 0; "
        "sys.exit(', '.join({'torch', 'napari', 'qtpy'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
