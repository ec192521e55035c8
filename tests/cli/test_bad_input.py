"""What cannot be used is refused with exit 2, one sentence, and nothing on stdout or on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.cli.conftest import Run, bright_squares, squares, write, write_corrupt_second_plane

from napari_unet_seg.core.errors import OutOfMemoryError

MANY = np.stack([[[bright_squares()] * 2] * 2] * 2)


def write_truncated(path: Path) -> None:
    write(path, np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("not an image"), "not an image"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "truncated": (write_truncated, "truncated"),
    "no pixels": (lambda path: write(path, np.zeros((0, 5), np.uint8), photometric="minisblack"), ""),
    "all NaN": (lambda path: write(path, np.full((9, 9), np.nan, np.float32)), "no finite pixel"),
    "complex": (lambda path: write(path, np.ones((9, 9), np.complex64)), "complex64"),
    "many axes": (lambda path: write(path, MANY), "--axes"),
    "colour": (lambda path: write(path, np.stack([bright_squares()] * 3, axis=-1)), "--channel grey"),
    "folder without images": (lambda path: path.mkdir(), "no TIFF or PNG"),
}


@pytest.mark.filterwarnings("ignore:.*writing zero-size array:UserWarning")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_predict_refuses_an_unusable_image(run: Run, model: Path, tmp_path: Path, kind: str) -> None:
    make, words = UNUSABLE[kind]
    path = tmp_path / "given.tif"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    ran = run("predict", path, "--model", model, "--out", tmp_path / "out.tif", "--json")
    assert ran.refuses("given.tif", words)
    assert sorted(tmp_path.rglob("*")) == before


def test_predict_refuses_an_image_that_is_not_there(run: Run, model: Path, tmp_path: Path) -> None:
    ran = run("predict", tmp_path / "no.tif", "--model", model, "--out", tmp_path / "out.tif")
    assert ran.refuses("no.tif", "does not exist")


@pytest.mark.parametrize("command", ["predict", "evaluate", "weight-map"])
def test_a_name_that_cannot_be_looked_at_is_no_bug(
    run: Run, labels: Path, model: Path, tmp_path: Path, command: str
) -> None:
    others = {
        "predict": ["--model", model, "--out", tmp_path / "out.tif"],
        "evaluate": [labels],
        "weight-map": ["--out", tmp_path / "out.tif"],
    }
    assert run(command, tmp_path / ("n" * 300 + ".tif"), *others[command]).refuses("too long")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--axes", "YXZ", "2"),
        ("--channel", "7", "no channel '7'"),
        ("--pixel-size", "4 nm", "nm as one number"),
        ("--pixel-size", "-4", "nm as one number"),
        ("--pixel-size", "1,2,3,4", "nm as one number"),
        ("--zoom", "0", "zoom"),
        ("--tile", "0", "tile"),
        ("--threshold", "2", "threshold"),
        ("--min-size", "-1", "min_size_px"),
        ("--device", "abacus", "abacus"),
        ("--probability-dtype", "int8", "--probability-dtype"),
        ("--tile", "wide", "--tile"),
    ],
)
def test_predict_refuses_impossible_options(
    run: Run, image: Path, model: Path, tmp_path: Path, option: str, value: str, words: str
) -> None:
    if option == "--channel":
        write(image, np.stack([bright_squares()] * 3, axis=-1))
    ran = run("predict", image, "--model", model, "--out", tmp_path / "out.tif", option, value)
    assert ran.refuses(words)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("predict",),
        ("predict", "x.tif"),
        ("frobnicate",),
        ("models", "--nonsense"),
        ("evaluate", "one.tif"),
    ],
)
def test_usage_errors_point_to_the_help(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).refuses("--help")


def test_an_unknown_model_is_refused_by_name(run: Run, image: Path, tmp_path: Path) -> None:
    ran = run("predict", image, "--model", "unheard-of", "--out", tmp_path / "out.tif")
    assert ran.refuses("unheard-of", "known are")


@pytest.mark.parametrize("content", [b"", b"text", b"\x40" + b"\0" * 7 + b"{}"])
def test_a_damaged_model_is_refused(run: Run, image: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    assert run("predict", image, "--model", path, "--out", tmp_path / "out.tif").refuses(
        "damaged.safetensors"
    )


def test_a_truncated_model_is_refused(run: Run, image: Path, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(model.read_bytes()[:-20])
    ran = run("predict", image, "--model", path, "--out", tmp_path / "out.tif")
    assert ran.refuses("cut.safetensors", "get the file again")


OUTPUTS = ("--out", "--probabilities", "--table")


def _arguments(option: str, path: Path, folder: Path) -> list[str]:
    """Sound outputs, except the one that is under test."""
    ending = {"--out": "o.tif", "--probabilities": "p.tif", "--table": "t.csv"}
    chosen = {"--out": folder / ending["--out"], option: path}
    return [str(part) for pair in chosen.items() for part in pair]


@pytest.mark.parametrize("option", OUTPUTS)
def test_an_output_in_a_missing_folder_is_refused(run: Run, image: Path, tmp_path: Path, option: str) -> None:
    path = tmp_path / "none" / ("x.csv" if option == "--table" else "x.tif")
    # The model does not exist either: outputs are checked first.
    ran = run("predict", image, "--model", "unheard-of", *_arguments(option, path, tmp_path))
    assert ran.refuses("none", "does not exist")


@pytest.mark.parametrize("option", OUTPUTS)
def test_an_output_below_a_file_is_refused(run: Run, image: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / ("x.csv" if option == "--table" else "x.tif")
    assert run("predict", image, "--model", "m", *_arguments(option, path, tmp_path)).refuses("file")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
@pytest.mark.parametrize("option", OUTPUTS)
def test_an_output_in_a_folder_that_nobody_can_write_to_is_refused(
    run: Run, image: Path, tmp_path: Path, option: str
) -> None:
    path = Path("/proc", "x.csv" if option == "--table" else "x.tif")
    ran = run("predict", image, "--model", "m", *_arguments(option, path, tmp_path))
    assert ran.refuses("/proc", "choose another")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_a_folder_for_a_batch_that_cannot_be_made_is_refused(run: Run, image: Path, labels: Path) -> None:
    assert run("predict", image, labels, "--model", "m", "--out", "/proc/new").refuses("/proc")


@pytest.mark.parametrize("option", OUTPUTS)
def test_an_existing_output_stays_unless_overwriting_is_allowed(
    run: Run, image: Path, model: Path, tmp_path: Path, option: str
) -> None:
    path = tmp_path / ("x.csv" if option == "--table" else "x.tif")
    path.write_bytes(b"precious")
    arguments = _arguments(option, path, tmp_path)
    assert run("predict", image, "--model", model, *arguments).refuses("--overwrite", path.name)
    assert path.read_bytes() == b"precious"
    assert run("predict", image, "--model", model, *arguments, "--overwrite").code == 0
    assert path.read_bytes() != b"precious"


@pytest.mark.parametrize("option", ["--out", "--probabilities"])
def test_an_output_that_is_the_input_is_refused_even_with_overwrite(
    run: Run, image: Path, tmp_path: Path, option: str
) -> None:
    before = image.read_bytes()
    arguments = _arguments(option, image, tmp_path)
    assert run("predict", image, "--model", "m", *arguments, "--overwrite").refuses("also the input")
    assert image.read_bytes() == before


def test_labels_and_probabilities_need_two_names(run: Run, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    assert run("predict", image, "--model", "m", "--out", out, "--probabilities", out).refuses("two names")


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.zarr"])
def test_zarr_outputs_say_that_tiff_is_supported_for_now(
    run: Run, image: Path, tmp_path: Path, name: str
) -> None:
    assert run("predict", image, "--model", "m", "--out", tmp_path / name).refuses(
        "TIFF is supported for now"
    )


@pytest.mark.parametrize("name", ["out.png", "out"])
def test_other_endings_are_refused(run: Run, image: Path, tmp_path: Path, name: str) -> None:
    assert run("predict", image, "--model", "m", "--out", tmp_path / name).refuses(".ome.tif")


def test_two_inputs_of_one_stem_are_refused(run: Run, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    twin = write(other / "cells.ome.tif", bright_squares())
    assert run("predict", image, twin, "--model", "m", "--out", tmp_path / "o").refuses("cells.tif")


def test_a_batch_does_not_replace_its_own_inputs(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    ran = run("predict", image, labels, "--model", "m", "--out", tmp_path, "--overwrite")
    assert ran.refuses("also the input")


def test_a_batch_needs_a_folder_not_a_file(run: Run, image: Path, labels: Path) -> None:
    assert run("predict", image, labels, "--model", "m", "--out", image).refuses("is a file")


def test_a_plane_that_cannot_be_decoded_fails_a_run_under_way(run: Run, model: Path, tmp_path: Path) -> None:
    path = write_corrupt_second_plane(tmp_path / "stack.tif")
    ran = run("predict", path, "--model", model, "--out", tmp_path / "out.tif")
    assert ran.code == 1
    assert ran.says("Plane 1", "stack.tif")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["stack.tif"]


def test_running_out_of_memory_is_one_sentence(
    run: Run, image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet_seg.core import _engine

    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(_engine.InferenceNetwork, "__call__", no_room)
    ran = run("predict", image, "--model", model, "--out", tmp_path / "out.tif", "--tile", 16)
    assert ran.code == 1
    assert ran.says("memory")
    assert not (tmp_path / "out.tif").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    run: Run, image: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    ran = run("predict", image, "--model", model, "--out", tmp_path / "out.tif")
    assert ran.code == 1
    assert ran.says("No space left")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["cells.tif"]


def test_a_bug_is_one_sentence_unless_debugging(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ValueError("a b c")

    monkeypatch.setattr("napari_unet_seg.core.model_store.list_models", broken)
    ran = run("models")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert "ValueError: a b c" in ran.err
    monkeypatch.setenv("NAPARI_UNET_SEG_DEBUG", "1")
    assert "Traceback" in run("models").err


def test_no_memory_at_all_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OutOfMemoryError("It does not fit.")

    monkeypatch.setattr("napari_unet_seg.core.model_store.list_models", broken)
    ran = run("models")
    assert (ran.code, ran.err) == (1, "It does not fit.\n")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: squares()[:20], "20×40"),
        (lambda: squares().astype(np.int16) - 1, "negative id -1"),
        (lambda: squares().astype(np.float32), "not integers"),
        (lambda: squares() * 0, "0"),
    ],
)
def test_train_refuses_unusable_labels(
    run: Run, image: Path, tmp_path: Path, make: Callable[[], np.ndarray], words: str
) -> None:
    labels = write(tmp_path / "given.tif", make())
    out = tmp_path / "m.safetensors"
    assert run("train", "--images", image, "--labels", labels, "--out", out).refuses("given.tif", words)
    assert not out.exists()


def test_train_refuses_scribbles_without_a_stroke(run: Run, image: Path, tmp_path: Path) -> None:
    labels = write(tmp_path / "given.tif", squares() * 0)
    arguments = ("--images", image, "--labels", labels, "--out", tmp_path / "m.safetensors")
    assert run("train", *arguments, "--coding", "scribbles").refuses("Nothing is annotated")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--val-images", "x"), "--val-labels"),
        (("--val-images", "x", "--val-labels", "y", "--val-fraction", "0.1"), "--val-fraction"),
        (("--from", "unheard-of"), "unheard-of"),
        (("--from", "unheard-of", "--width", "4"), "--width"),
        (("--steps", "0"), "steps"),
        (("--val-fraction", "1"), "fraction"),
        (("--loss", "hinge"), "hinge"),
        (("--optimizer", "lion"), "lion"),
        (("--width", "0"), "base_channels"),
        (("--device", "abacus"), "abacus"),
        (("--annotated", "none.tif"), "none.tif"),
        (("--pixel-size", "-3"), "-3"),
        (("--pixel-size", "0"), "positive"),
    ],
)
def test_train_refuses_what_contradicts_itself(
    run: Run, image: Path, labels: Path, tmp_path: Path, extra: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "m.safetensors"
    assert run("train", "--images", image, "--labels", labels, "--out", out, *extra).refuses(words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("none/m.safetensors", "does not exist"),
        ("cells.tif/m.safetensors", "does not exist"),
        ("m.pt", "m.pt"),
        ("a:b", "a:b"),
    ],
)
def test_train_refuses_a_model_that_cannot_be_written(
    run: Run, image: Path, labels: Path, tmp_path: Path, out: str, words: str
) -> None:
    path = out if ":" in out else tmp_path / out
    assert run("train", "--images", image, "--labels", labels, "--out", path).refuses(words)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_train_refuses_a_folder_that_nobody_can_write_to(run: Run, image: Path, labels: Path) -> None:
    out = "/proc/m.safetensors"
    assert run("train", "--images", image, "--labels", labels, "--out", out).refuses("/proc")


def test_train_keeps_an_existing_model(run: Run, image: Path, labels: Path, model: Path) -> None:
    before = model.read_bytes()
    ran = run("train", "--images", image, "--labels", labels, "--out", model)
    assert ran.refuses("--overwrite")
    assert model.read_bytes() == before


def test_evaluate_refuses_what_does_not_fit(run: Run, labels: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small.tif", squares()[:20])
    assert run("evaluate", small, labels).refuses("20×40", "32×40")
    assert run("evaluate", labels, tmp_path).refuses("two files, or two folders")
    assert run("evaluate", labels, tmp_path / "none.tif").refuses("none.tif")


def test_weight_map_refuses_labels_without_objects(run: Run, tmp_path: Path) -> None:
    labels = write(tmp_path / "nothing.tif", squares() * 0)
    assert run("weight-map", labels, "--out", tmp_path / "w.tif").refuses("nothing.tif", "0 everywhere")


def test_demo_refuses_before_it_starts_the_viewer(run: Run, image: Path, model: Path, tmp_path: Path) -> None:
    assert run("demo", tmp_path / "no.tif", "--model", model).refuses("no.tif")
    assert run("demo", image, "--model", "unheard-of").refuses("unheard-of")
    assert run("demo", "--model", model, "--out", image).refuses("is a file")
    assert run("demo", "--model", model, "--out", tmp_path / "no" / "where").refuses("does not exist")
