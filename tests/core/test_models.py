"""Model files: what is saved comes back, and nothing foreign or damaged is loaded."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.errors import InputError, ModelFileError, OutputError
from napari_unet_seg.core.models import Model, list_models, load_model, new_model
from napari_unet_seg.core.normalisation import Normalisation
from napari_unet_seg.core.objects import ObjectSettings

TINY = Architecture(base_channels=2, depth=2, batch_norm=True, padding="same")


@pytest.fixture
def model() -> Model:
    return new_model(
        TINY,
        seed=1,
        class_names=("membrane", "cell"),
        pixel_size_nm=10.0,
        normalisation=Normalisation("min-max"),
        objects=ObjectSettings(threshold=0.4),
        history=({"steps": 3},),
        licence="CC0",
        credit="us",
    )


def same_weights(a: Model, b: Model) -> bool:
    one, other = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one)


def test_a_saved_model_comes_back_whole(model: Model, tmp_path: Path) -> None:
    path = model.save(tmp_path / "mine.safetensors")
    loaded = load_model(path)
    assert same_weights(model, loaded)
    for name in ("task", "class_names", "pixel_size_nm", "normalisation", "objects", "licence", "credit"):
        assert getattr(loaded.info, name) == getattr(model.info, name), name
    assert loaded.history == ({"steps": 3},)
    assert not loaded.network.training


def test_a_bare_name_is_a_file_in_the_model_folder(model: Model, model_folder: Path) -> None:
    model.save("my cells")
    assert (model_folder / "my cells.safetensors").exists()
    assert "my cells" in [info.name for info in list_models() if info.source == "saved"]
    assert load_model("my cells").name == "my cells"


def test_half_precision_halves_the_file_and_keeps_the_function(model: Model, tmp_path: Path) -> None:
    wide = new_model(Architecture(base_channels=16, depth=2, batch_norm=True, padding="same"))
    full, half = wide.save(tmp_path / "full.safetensors"), wide.save(tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        difference = (load_model(full).network(image) - load_model(half).network(image)).abs().max()
    assert difference < 0.02
    assert all(p.dtype == torch.float32 for p in load_model(half).network.parameters())


def test_an_existing_file_is_replaced_only_when_allowed(model: Model, tmp_path: Path) -> None:
    path = model.save(tmp_path / "mine.safetensors")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        model.copy(credit="others").save(path)
    assert path.read_bytes() == before
    model.copy(credit="others").save(path, overwrite=True)
    assert load_model(path).info.credit == "others"


def test_nothing_half_written_is_left_when_saving_fails(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        model.save(tmp_path / "mine.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(model: Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        model.save(tmp_path / "nowhere" / "mine.safetensors")


@pytest.mark.parametrize("name", ["", "a/b", "a:b", ".hidden", "what?"])
def test_a_name_that_no_file_can_have_is_refused(model: Model, name: str) -> None:
    with pytest.raises((InputError, OutputError)):
        model.save(name)


def test_a_bundled_model_cannot_be_shadowed_by_its_name(model: Model) -> None:
    with pytest.raises(OutputError, match="bundled"):
        model.save("em-boundaries", overwrite=True)
    assert load_model("em-boundaries").info.source == "bundled"


def test_an_unknown_name_lists_the_known_ones(model: Model) -> None:
    model.save("mine")
    with pytest.raises(ModelFileError, match=r"no model 'yours'.*mine"):
        load_model("yours")


def _foreign_safetensors(path: Path) -> None:
    save_file({"x": torch.zeros(2)}, path)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"x": 1}))


def _torch_file(path: Path) -> None:
    torch.save({"x": torch.zeros(2)}, path)


@pytest.mark.parametrize("write", [_foreign_safetensors, _pickle, _torch_file, Path.touch])
def test_a_foreign_file_is_refused_with_a_sentence(write: object, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    write(path)  # type: ignore[operator]
    with pytest.raises(ModelFileError, match="foreign"):
        load_model(path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(model: Model, tmp_path: Path, kept: float) -> None:
    path = model.save(tmp_path / "mine.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ModelFileError):
        load_model(path)


def test_weights_that_do_not_fit_the_description_are_refused(model: Model, tmp_path: Path) -> None:
    path = model.save(tmp_path / "mine.safetensors")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + length].replace(b'\\"base_channels\\": 2', b'\\"base_channels\\": 3')
    assert header != content[8 : 8 + length], "the test must change the header"
    path.write_bytes(content[:8] + header + content[8 + length :])
    with pytest.raises(ModelFileError, match="do not fit"):
        load_model(path)


def test_weights_that_are_not_numbers_are_refused(model: Model, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.network.parameters())[0] = float("nan")
    path = model.save(tmp_path / "mine.safetensors")
    with pytest.raises(ModelFileError, match="damaged"):
        load_model(path)


def test_a_damaged_file_does_not_hide_the_other_models(model: Model, model_folder: Path) -> None:
    model.save("good")
    (model_folder / "bad.safetensors").write_bytes(b"nonsense")
    assert [info.name for info in list_models() if info.source == "saved"] == ["good"]


def test_a_file_of_a_newer_version_says_so(model: Model, tmp_path: Path) -> None:
    from safetensors.torch import save

    header = {**model.info.to_json(), "format": 99}
    path = tmp_path / "newer.safetensors"
    path.write_bytes(save({"x": torch.zeros(1)}, metadata={"napari_unet_seg": json.dumps(header)}))
    with pytest.raises(ModelFileError, match="newer"):
        load_model(path)


def test_the_class_whose_pieces_are_objects_comes_back(tmp_path: Path) -> None:
    names = ("background", "myelin", "axon")
    tissue = new_model(
        Architecture(out_channels=3, base_channels=1), task="classes", class_names=names, object_class="axon"
    )
    info = load_model(tissue.save(tmp_path / "tissue.safetensors")).info
    assert (info.object_class, info.object_class_id) == ("axon", 2)
    assert new_model(TINY).info.object_class_id is None


@pytest.mark.parametrize(
    ("task", "name"), [("classes", "background"), ("classes", "glia"), ("instances", "b")]
)
def test_only_a_class_of_a_class_task_holds_objects(task: str, name: str) -> None:
    with pytest.raises(InputError, match=f"objects of class '{name}'"):
        new_model(TINY, task=task, class_names=("background", "b"), object_class=name)


def test_class_names_must_fit_the_architecture() -> None:
    with pytest.raises(InputError, match="class names"):
        new_model(TINY, class_names=("a", "b", "c"))
    assert len(new_model(Architecture(out_channels=4, base_channels=1)).class_names) == 4


def test_a_copy_is_independent(model: Model) -> None:
    copy = model.copy()
    with torch.no_grad():
        next(copy.network.parameters()).zero_()
    assert not same_weights(model, copy)
    assert np.isfinite(next(model.network.parameters()).detach().numpy()).all()
