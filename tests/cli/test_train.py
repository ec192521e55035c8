"""`train`: from files to a model that `predict` takes, stopped and resumed without losing anything."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.cli.conftest import Run, bright_squares, make_bright_model, run_and_press_ctrl_c, squares, write

from napari_unet_seg.core.models import load_model

QUICK = ("--preset", "quick", "--width", "2", "--steps", "2")


def test_train_predict_and_evaluate_follow_each_other(run: Run, tmp_path: Path) -> None:
    for folder in ("images", "labels", "found"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        write(tmp_path / "images" / f"{name}.tif", bright_squares())
        write(tmp_path / "labels" / f"{name}.tif", squares())
    trained = run(
        "train", "--images", tmp_path / "images", "--labels", tmp_path / "labels", "--out", "mine", *QUICK
    )
    assert trained.code == 0
    assert trained.says("Saved", "mine.safetensors")
    assert "mine" in run("models").out
    predicted = run("predict", tmp_path / "images", "--each", "--model", "mine", "--out", tmp_path / "found")
    assert predicted.code == 0
    scored = run("evaluate", tmp_path / "found", tmp_path / "labels", "--json")
    assert scored.code == 0
    assert 0 <= scored.json["f1_at"]["0.5"] <= 1


def test_json_is_one_object(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    ran = run("train", "--images", image, "--labels", labels, "--out", out, "--json", *QUICK)
    assert ran.json["model"] == str(out)
    assert ran.json["steps"] == 2
    assert ran.json["score"]["measured_on"]
    assert not list(tmp_path.glob("*.checkpoint"))


def test_the_same_seed_gives_the_same_model(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.safetensors"
        run("train", "--images", image, "--labels", labels, "--out", out, "--seed", 7, *QUICK)
        weights.append(load_model(out).network.head.weight.detach().numpy())
    np.testing.assert_array_equal(*weights)


def test_fine_tuning_keeps_the_architecture_of_its_model(
    run: Run, image: Path, labels: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned.safetensors"
    arguments = ("--images", image, "--labels", labels, "--out", out, "--from", model)
    assert run("train", *arguments, "--preset", "quick", "--steps", 1).code == 0
    tuned = load_model(out)
    assert tuned.architecture == load_model(model).architecture
    assert [entry["from"] for entry in tuned.history] == ["bright"]


def test_another_task_than_that_of_the_model_is_refused(
    run: Run, image: Path, labels: Path, model: Path, tmp_path: Path
) -> None:
    arguments = ("--images", image, "--labels", labels, "--out", tmp_path / "m.safetensors", "--from", model)
    assert run("train", *arguments, "--task", "classes").refuses("instances", "--task")


def test_a_class_task_has_a_class_per_id(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.safetensors"
    run("train", "--images", image, "--labels", labels, "--out", out, "--task", "classes", *QUICK)
    assert load_model(out).task == "classes"
    assert load_model(out).architecture.n_classes == 4


def test_masks_of_0_and_255_are_no_256_classes(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    mask = write(tmp_path / "mask.tif", np.where(tifffile.imread(labels) > 0, 255, 0).astype(np.uint8))
    arguments = ("--images", image, "--labels", mask, "--out", tmp_path / "m.safetensors")
    assert run("train", *arguments, "--task", "classes", *QUICK).refuses("numbered 0, 1, 2", "255")


def test_a_colour_image_gives_a_model_of_three_channels(run: Run, labels: Path, tmp_path: Path) -> None:
    image, out = (
        write(tmp_path / "c.tif", np.stack([bright_squares()] * 3, axis=-1)),
        tmp_path / "m.safetensors",
    )
    assert run("train", "--images", image, "--labels", labels, "--out", out, *QUICK).code == 0
    assert load_model(out).architecture.in_channels == 3


@pytest.mark.parametrize("coding", ["dense", "scribbles"])
def test_both_codings_and_a_mask_are_understood(
    run: Run, image: Path, labels: Path, tmp_path: Path, coding: str
) -> None:
    mask = write(tmp_path / "mask.tif", np.ones((32, 40), np.uint8))
    out = tmp_path / "m.safetensors"
    arguments = ("--images", image, "--labels", labels, "--annotated", mask, "--coding", coding)
    assert run("train", *arguments, "--out", out, *QUICK).code == 0


def test_images_to_validate_on_can_be_given(run: Run, image: Path, labels: Path, tmp_path: Path) -> None:
    arguments = ("--images", image, "--labels", labels, "--val-images", image, "--val-labels", labels)
    ran = run("train", *arguments, "--out", tmp_path / "m.safetensors", "--json", *QUICK)
    assert ran.json["score"]["measured_on"] == "validation images"


def test_a_training_that_diverges_keeps_the_last_good_model(
    run: Run, image: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet_seg.core.losses import LOSSES

    def not_a_number(*_: object) -> object:
        import torch

        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setitem(LOSSES, "dice", not_a_number)
    out = tmp_path / "m.safetensors"
    ran = run("train", "--images", image, "--labels", labels, "--out", out, "--loss", "dice", *QUICK)
    assert ran.code == 1
    assert ran.says("not a finite number", "m.safetensors")
    assert load_model(out).network.head.weight.isfinite().all()


def test_resume_without_a_checkpoint_begins_and_says_so(
    run: Run, image: Path, labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    ran = run("train", "--images", image, "--labels", labels, "--out", out, "--resume", *QUICK)
    assert ran.code == 0
    assert "begins at step 0" in ran.err


def test_resume_does_not_replace_a_finished_model(
    run: Run, image: Path, labels: Path, tmp_path: Path
) -> None:
    out = make_bright_model(tmp_path / "m.safetensors")
    ran = run("train", "--images", image, "--labels", labels, "--out", out, "--resume", *QUICK)
    assert ran.refuses("exists already")


def test_an_interrupted_training_is_not_thrown_away(
    run: Run, image: Path, labels: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "m.checkpoint"
    checkpoint.write_bytes(b"precious")
    arguments = ("--images", image, "--labels", labels, "--out", tmp_path / "m.safetensors")
    assert run("train", *arguments, *QUICK).refuses("--resume", "m.checkpoint")
    assert run("train", *arguments, "--resume", *QUICK).refuses("m.checkpoint", "damaged")
    assert checkpoint.read_bytes() == b"precious"


@pytest.mark.skipif(sys.platform == "win32", reason="a child process cannot be sent Ctrl-C alone there")
def test_ctrl_c_keeps_the_best_model_and_resume_goes_on(
    run: Run, image: Path, labels: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.safetensors"
    options = ("--preset", "quick", "--width", "2", "--steps", "100000")
    arguments = [str(a) for a in ("train", "--images", image, "--labels", labels, "--out", out, *options)]
    ran = run_and_press_ctrl_c(
        *arguments, once=lambda line: line.startswith("step ") and not line.startswith("step 0")
    )
    assert (ran.code, ran.out) == (130, ""), ran.err
    assert ran.says("Stopped: the best model so far is in")
    reached = load_model(out).history[-1]["steps"]
    assert reached >= 1
    assert (tmp_path / "m.checkpoint").exists()

    resumed = run(*arguments[:-1], reached + 1, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["steps"] == reached + 1
    assert not (tmp_path / "m.checkpoint").exists()
