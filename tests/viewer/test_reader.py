"""Files and samples as napari layers: lazy, with scale, units, axis names; the manifest that offers them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from npe2 import PluginManifest
from skimage import data

import napari_unet_seg
from napari_unet_seg import _sample_data
from napari_unet_seg._reader import get_reader
from napari_unet_seg._space import layer_space
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.image_files import LazyArray, write_labels

MANIFEST = Path(napari_unet_seg.__file__).with_name("napari.yaml")
STACK = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)


def layers_of(path: Path) -> list[Layer]:
    reader = get_reader(str(path))
    assert reader is not None
    return [Layer.create(*layer) for layer in reader(str(path))]


def write(path: Path, array: np.ndarray = STACK, **options: Any) -> Path:
    tifffile.imwrite(path, array, photometric=options.pop("photometric", "minisblack"), **options)
    return path


def units_of(layer: Layer) -> list[str]:
    return [str(unit) for unit in layer.units]


def test_an_imagej_stack_opens_lazily_with_scale_units_and_axis_names(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "nm", "spacing": 40}
    (layer,) = layers_of(
        write(tmp_path / "em.tif", imagej=True, resolution=(1 / 8, 1 / 4), metadata=metadata)
    )
    assert isinstance(layer, Image)
    assert isinstance(layer.data, LazyArray)
    assert layer.name == "em"
    assert layer.scale == pytest.approx([40, 4, 8])
    assert units_of(layer) == ["nanometer"] * 3
    assert layer.axis_labels == ("z", "y", "x")


def test_pixels_of_light_microscopes_are_in_micrometres(tmp_path: Path) -> None:
    metadata = {"axes": "YX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}
    (layer,) = layers_of(write(tmp_path / "cells.ome.tif", STACK[0], metadata=metadata))
    assert layer.name == "cells"
    assert layer.scale == pytest.approx([0.65, 0.65])
    assert units_of(layer) == ["micrometer"] * 2


def test_an_unknown_size_is_one_pixel(tmp_path: Path) -> None:
    (layer,) = layers_of(write(tmp_path / "a.tif"))
    assert list(layer.scale) == [1, 1, 1]
    assert units_of(layer) == ["pixel"] * 3


def test_a_folder_of_sections_is_one_layer(tmp_path: Path) -> None:
    for number, plane in enumerate(STACK):
        write(tmp_path / f"{number}.tif", plane)
    (layer,) = layers_of(tmp_path)
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(np.asarray(layer.data), STACK)


def test_each_channel_is_a_named_layer_and_no_layer_warns_beside_another(tmp_path: Path) -> None:
    metadata = {
        "axes": "ZCYX",
        "Channel": {"Name": ["dapi", "gfp"]},
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
    }
    path = write(tmp_path / "a.ome.tif", np.stack([STACK, STACK + 1], axis=1), metadata=metadata)
    layers = layers_of(path)
    viewer = ViewerModel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in layers:
            viewer.add_layer(layer)
    assert [layer.name for layer in layers] == ["a · dapi", "a · gfp"]
    assert layers[0].axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(np.asarray(layers[1].data), STACK + 1)


def test_eight_bit_colour_stays_one_rgb_layer(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    (layer,) = layers_of(write(tmp_path / "a.tif", rgb, photometric="rgb"))
    assert layer.rgb
    np.testing.assert_array_equal(np.asarray(layer.data), rgb)


def test_contrast_limits_come_from_one_plane_not_from_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    original = LazyArray.__getitem__
    monkeypatch.setattr(LazyArray, "__getitem__", lambda self, key: read.append(1) or original(self, key))
    reader = get_reader(str(write(tmp_path / "a.tif", compression="zlib")))
    assert reader is not None
    ((_, meta, _),) = reader(str(tmp_path / "a.tif"))
    assert meta["contrast_limits"] == (STACK[1].min(), STACK[1].max())
    assert len(read) == 1


def test_labels_that_we_wrote_open_as_paintable_labels(tmp_path: Path) -> None:
    path = write_labels(
        tmp_path / "l.ome.tif", STACK % 7, axes="ZYX", voxel_size_nm={"Z": 40, "Y": 8, "X": 8}
    )
    (layer,) = layers_of(path)
    assert isinstance(layer, Labels)
    layer.paint((0, 5, 5), 9)
    assert layer.data[0, 5, 5] == 9
    assert list(layer.scale) == [40, 8, 8]


def test_axes_without_names_still_open(tmp_path: Path) -> None:
    (layer,) = layers_of(write(tmp_path / "a.tif", np.stack([STACK, STACK])))
    assert layer.axis_labels == ("t", "z", "y", "x")


def test_other_files_are_left_to_other_readers(tmp_path: Path) -> None:
    (tmp_path / "store.zarr").mkdir()
    for path in ("a.png", "a.npy", str(tmp_path), str(tmp_path / "store.zarr")):
        assert get_reader(path) is None


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        layers_of(path)


def test_a_known_axis_beside_an_unknown_one_keeps_its_unit() -> None:
    space = layer_space("ZYX", {"Y": 4.0, "X": 4.0})
    assert space == {"scale": (1.0, 4.0, 4.0), "units": ("pixel", "nm", "nm"), "axis_labels": ("z", "y", "x")}


@pytest.mark.parametrize(
    "sample",
    [
        _sample_data.em_stack,
        _sample_data.nuclei,
        _sample_data.phase_contrast_cell,
        _sample_data.stained_tissue,
    ],
)
def test_samples_open_without_a_network_and_without_warnings(sample: Callable[[], list[Any]]) -> None:
    viewer = ViewerModel()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for layer in sample():
            viewer.add_layer(Layer.create(*layer))
    assert len(viewer.layers) >= 1


def test_the_em_sample_has_its_voxel_size_and_truth() -> None:
    (image, meta, _), (truth, truth_meta, kind) = _sample_data.em_stack()
    assert (meta["scale"], meta["units"], meta["axis_labels"]) == (
        (40.0, 8.0, 8.0),
        ("nm",) * 3,
        ("z", "y", "x"),
    )
    assert kind == "labels"
    assert truth.shape == image.shape
    assert truth_meta["units"] == meta["units"]


def test_a_sample_that_cannot_be_fetched_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(data, "human_mitosis", offline)
    with pytest.raises(InputError, match="could not be fetched"):
        _sample_data.human_mitosis()


def test_every_command_of_the_manifest_is_used_and_every_use_is_a_command() -> None:
    contributions = PluginManifest.from_file(MANIFEST).contributions
    commands = {command.id for command in contributions.commands or []}
    used = {item.command for item in contributions.readers or []}
    used |= {item.command for item in contributions.widgets or []}
    used |= {item.command for item in contributions.sample_data or []}
    used |= {item.command for items in (contributions.menus or {}).values() for item in items}
    assert used == commands


@pytest.mark.parametrize("module", ["_reader", "_sample_data"])
def test_the_functions_that_the_manifest_names_exist(module: str) -> None:
    contributions = PluginManifest.from_file(MANIFEST).contributions
    names = [str(command.python_name) for command in contributions.commands or []]
    ours = [name.split(":")[1] for name in names if name.startswith(f"napari_unet_seg.{module}:")]
    home = __import__(f"napari_unet_seg.{module}", fromlist=["x"])
    assert ours
    assert all(callable(getattr(home, name)) for name in ours)
