"""Files on disk: what is found in them, what is read lazily, what is written, what is refused and how."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from napari_unet_seg.core.errors import InputError, OutputError, UNetSegError
from napari_unet_seg.core.image_files import (
    check_output,
    image_stem,
    look_at,
    open_image,
    pair_by_name,
    read_provenance,
    write_float_map,
    write_labels,
    write_probabilities,
)

STACK = np.arange(4 * 30 * 50, dtype=np.uint16).reshape(4, 30, 50)
reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def imwrite(path: Path, data: np.ndarray, **options: Any) -> Path:
    options.setdefault("photometric", "minisblack")
    tifffile.imwrite(path, data, **options)
    return path


def write_pages(path: Path) -> None:
    with tifffile.TiffWriter(path) as tif:
        for plane in STACK:
            tif.write(plane, contiguous=False, metadata=None, rowsperstrip=8)


def write_lzw(path: Path) -> None:
    first, *others = [Image.fromarray(plane) for plane in STACK]
    first.save(path, format="tiff", save_all=True, append_images=others, compression="tiff_lzw")


def write_sections(path: Path) -> None:
    path.mkdir()
    for number, plane in zip((2, 9, 10, 100), STACK, strict=True):
        imwrite(path / f"s{number}.tif", plane, compression="zlib")


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "uncompressed": lambda path: imwrite(path, STACK),
    "zlib": lambda path: imwrite(path, STACK, compression="zlib", rowsperstrip=7),
    "tiles": lambda path: imwrite(path, STACK, compression="zlib", tile=(16, 32)),
    "pages": write_pages,
    "lzw": write_lzw,
    "big-endian": lambda path: imwrite(path, STACK, byteorder=">"),
    "imagej": lambda path: imwrite(path, STACK, imagej=True, metadata={"axes": "ZYX"}),
    "folder": write_sections,
}


@pytest.fixture(params=list(LAYOUTS))
def stack_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """STACK in one of the ways in which microscopes and Fiji save stacks."""
    LAYOUTS[request.param](tmp_path / "stack")
    return tmp_path / "stack"


# --- looking and opening


def test_a_stack_is_found_and_read_in_every_layout(stack_path: Path) -> None:
    info = look_at(stack_path)
    opened = open_image(stack_path)
    assert (info.axes, info.shape, info.dtype, info.n_planes) == ("ZYX", (4, 30, 50), np.uint16, 4)
    assert opened.axes == "ZYX"
    np.testing.assert_array_equal(np.asarray(opened.data), STACK)


@pytest.mark.parametrize(
    "key",
    [
        np.s_[2], np.s_[-1, 5], np.s_[1, 3:20, 10:44], np.s_[:, ::7, ::9], np.s_[..., 4], np.s_[1:3, 29:],
        np.s_[3:1:-1, ::-2, 5], np.s_[0, 4, 7], np.s_[2:2], np.s_[0, 40:60], np.s_[[0, 2], 5],
    ],
)  # fmt: skip
def test_indexing_an_opened_stack_is_like_numpy(stack_path: Path, key: Any) -> None:
    np.testing.assert_array_equal(open_image(stack_path).data[key], STACK[key])


def test_an_opened_stack_refuses_what_numpy_refuses(stack_path: Path) -> None:
    data = open_image(stack_path).data
    with pytest.raises(IndexError):
        data[4]
    with pytest.raises(IndexError):
        data[0, 0, 0, 0]


def test_iterating_an_opened_stack_gives_its_planes(stack_path: Path) -> None:
    assert len(list(open_image(stack_path).data)) == 4


def test_threads_read_one_opened_stack_at_once(stack_path: Path) -> None:
    data = open_image(stack_path).data

    def same(seed: int) -> bool:
        z, y, x = np.random.default_rng(seed).integers((4, 20, 40))
        return bool((data[z, y : y + 9, x : x + 9] == STACK[z, y : y + 9, x : x + 9]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, range(200)))


def test_looking_and_opening_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_, **__: pytest.fail("a page was decoded"))
    reads: list[int] = []
    monkeypatch.setattr("napari_unet_seg.core._tiff._Pages._decoded", lambda *_: reads.append(1) or STACK[0])
    assert open_image(path).data.shape == STACK.shape
    assert not reads


def test_the_pages_of_a_missing_axis_name_are_planes(tmp_path: Path) -> None:
    assert look_at(imwrite(tmp_path / "a.tif", STACK)).axes == "ZYX"


def test_two_unknown_axes_are_listed_but_opening_asks_for_names(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK[None].repeat(2, 0))
    assert look_at(path).axes == "QQYX"
    with pytest.raises(InputError, match="such as TZYX"):
        open_image(path)
    assert open_image(path, axes="tzyx").axes == "TZYX"


def test_axes_given_by_the_person_win_and_y_x_come_last(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK)
    opened = open_image(path, axes="YXC")
    assert opened.axes == "CYX"
    np.testing.assert_array_equal(np.asarray(opened.data), STACK.transpose(2, 0, 1))


@pytest.mark.parametrize("axes", ["YX", "ZZX", "ZYQ", "TZC"])
def test_axes_that_do_not_fit_are_refused(tmp_path: Path, axes: str) -> None:
    with pytest.raises(InputError, match=axes):
        open_image(imwrite(tmp_path / "a.tif", STACK), axes=axes)


def test_planes_can_be_chosen(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK)
    np.testing.assert_array_equal(np.asarray(open_image(path, planes=slice(1, 3)).data), STACK[1:3])
    with pytest.raises(InputError, match="0 to 3"):
        open_image(path, planes=slice(9, 12))


def test_a_single_pixel_works(tmp_path: Path) -> None:
    opened = open_image(imwrite(tmp_path / "a.tif", np.full((1, 1), 7, np.uint8)))
    assert opened.axes == "YX"
    assert opened.data[0, 0] == 7


def test_channels_are_chosen_by_number_or_name(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    imwrite(path, STACK, metadata={"axes": "CYX", "Channel": {"Name": ["dapi", "gfp", "rfp", "cy5"]}})
    assert look_at(path).channel_names == ("dapi", "gfp", "rfp", "cy5")
    for channel in (1, "1", "gfp"):
        opened = open_image(path, channel=channel)
        assert opened.axes == "YX"
        np.testing.assert_array_equal(np.asarray(opened.data), STACK[1])
    for channel in (4, "yfp", "grey"):
        with pytest.raises(InputError, match="channel 0 to 3"):
            open_image(path, channel=channel)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_colour_is_three_channels_and_grey_is_its_luminance(tmp_path: Path, ending: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / f"a.{ending}"
    Image.fromarray(rgb).save(path)
    info = look_at(path)
    assert (info.axes, info.shape, info.is_rgb) == ("CYX", (3, 20, 30), True)
    assert info.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(np.asarray(open_image(path).data), rgb.transpose(2, 0, 1))
    grey = open_image(path, channel="grey")
    assert grey.axes == "YX"
    np.testing.assert_allclose(grey.data[3:9, 5], rgb[3:9, 5] @ [0.2125, 0.7154, 0.0721], atol=0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_png_keeps_its_depth(tmp_path: Path, dtype: Any) -> None:
    plane = STACK[0].astype(dtype)
    Image.fromarray(plane).save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.data.dtype == dtype
    np.testing.assert_array_equal(opened.data[3:9], plane[3:9])


CUBE = np.arange(32 * 48 * 64, dtype=np.uint32).reshape(32, 48, 64)
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
HYPERSTACK = STACK[:, None, None].repeat(2, 1).repeat(3, 2)
ODD_FILES: dict[str, tuple[np.ndarray, str, np.ndarray, dict[str, Any]]] = {
    "planar rgb": (COLOURS[0].transpose(2, 0, 1), "CYX", COLOURS[0].transpose(2, 0, 1),
                   {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
    "rgb stack": (COLOURS, "ZCYX", COLOURS.transpose(0, 3, 1, 2),
                  {"photometric": "rgb", "compression": "zlib"}),
    "volumetric tiles": (CUBE, "ZYX", CUBE,
                         {"volumetric": True, "tile": (16, 16, 16), "compression": "zlib"}),
    "one bit": (CUBE % 3 == 0, "ZYX", CUBE % 3 == 0, {"compression": "zlib"}),
    "predictor": (CUBE, "ZYX", CUBE, {"compression": "zlib", "predictor": True}),
    "imagej hyperstack": (HYPERSTACK, "TZCYX", HYPERSTACK, {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    "imagej, first header only": (HYPERSTACK, "TZCYX", HYPERSTACK,
                                  {"imagej": True, "truncate": True, "metadata": {"axes": "TZCYX"}}),
    "named axes": (HYPERSTACK, "CTZYX", HYPERSTACK, {"metadata": {"axes": "CTZYX"}}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(ODD_FILES))
def test_less_common_files_are_read_as_well(tmp_path: Path, name: str) -> None:
    data, axes, expected, options = ODD_FILES[name]
    opened = open_image(imwrite(tmp_path / "a.tif", data, **options))
    assert opened.axes == axes
    np.testing.assert_array_equal(np.asarray(opened.data), expected)
    np.testing.assert_array_equal(opened.data[..., 3:17, 20:25], expected[..., 3:17, 20:25])


def test_images_of_other_sizes_in_the_file_are_mentioned(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(STACK, photometric="minisblack")
        tif.write(STACK[0, :5], photometric="minisblack")
    info = look_at(tmp_path / "a.tif")
    assert info.shape == STACK.shape
    assert "1 more image" in info.note


# --- voxel size


@pytest.mark.parametrize(
    ("tag", "text", "nm"),
    [
        (34682, "[Scan]\r\nPixelWidth=5e-9\r\nPixelHeight=5e-9\r\n", 5.0),
        (34118, "\r\n0\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 9.926 nm\r\n", 9.926),
    ],
    ids=["fei", "zeiss"],
)
def test_electron_microscopes_tell_their_pixel_size(tmp_path: Path, tag: int, text: str, nm: float) -> None:
    path = imwrite(tmp_path / "a.tif", STACK[0], metadata=None, extratags=[(tag, 2, 0, text, True)])
    assert look_at(path).voxel_size_nm == pytest.approx({"Y": nm, "X": nm})


@pytest.mark.parametrize(
    ("unit", "nm"),
    [("micron", 1e3), ("\\u00B5m", 1e3), ("um", 1e3), ("nm", 1.0), ("mm", 1e6), ("inch", 2.54e7)],
)
def test_imagej_units_become_nanometres(tmp_path: Path, unit: str, nm: float) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "unit": unit, "spacing": 5.0}
    imwrite(path, STACK, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    assert look_at(path).voxel_size_nm == pytest.approx({"Z": 5 * nm, "Y": 0.5 * nm, "X": 0.25 * nm})


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX", "unit": "pixel", "spacing": 2}},
        {"imagej": True, "resolution": (4, 4), "metadata": {"axes": "ZYX"}},
        {"resolution": (4, 4), "resolutionunit": "NONE"},
        {"resolution": (300, 300), "resolutionunit": "INCH"},
        {},
    ],
    ids=["imagej-pixel", "imagej-no-unit", "tiff-no-unit", "print-resolution", "nothing"],
)
def test_a_size_without_a_real_unit_is_unknown(tmp_path: Path, options: dict[str, Any]) -> None:
    assert look_at(imwrite(tmp_path / "a.tif", STACK, **options)).voxel_size_nm is None


def test_a_tiff_resolution_with_unit_is_the_pixel_size(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK[0], resolution=(1e5, 2e5), resolutionunit="CENTIMETER")
    assert look_at(path).voxel_size_nm == pytest.approx({"Y": 50.0, "X": 100.0})


def test_ome_sizes_are_read_in_their_units(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "ZYX", "PhysicalSizeZ": 0.05, "PhysicalSizeY": 40, "PhysicalSizeYUnit": "Å"}
    imwrite(path, STACK, metadata=metadata)
    assert look_at(path).voxel_size_nm == pytest.approx({"Z": 50.0, "Y": 4.0})


# --- folders


def test_a_folder_with_an_odd_section_names_it(tmp_path: Path) -> None:
    imwrite(tmp_path / "s1.tif", STACK[0])
    imwrite(tmp_path / "s2.tif", STACK[0, :20])
    with pytest.raises(InputError, match=r"s2\.tif.*separate images"):
        look_at(tmp_path)


def test_a_folder_of_stacks_is_no_stack(tmp_path: Path) -> None:
    imwrite(tmp_path / "s1.tif", STACK)
    with pytest.raises(InputError, match="separate images"):
        look_at(tmp_path)


def test_a_folder_keeps_colour_and_pixel_size_of_its_sections(tmp_path: Path) -> None:
    for number in range(3):
        imwrite(tmp_path / f"{number}.tif", np.zeros((5, 6, 3), np.uint8), photometric="rgb",
                resolution=(1e5, 1e5), resolutionunit="CENTIMETER")  # fmt: skip
    info = look_at(tmp_path)
    assert (info.axes, info.shape, info.is_rgb, info.n_planes) == ("ZCYX", (3, 3, 5, 6), True, 3)
    assert info.voxel_size_nm == pytest.approx({"Y": 100.0, "X": 100.0})


# --- bad input


def bad_files(folder: Path) -> dict[str, Path]:
    whole = imwrite(folder / "whole.tif", STACK, compression="zlib").read_bytes()
    plain = imwrite(folder / "plain.tif", STACK).read_bytes()
    Image.fromarray(STACK[0]).save(folder / "whole.png")
    paths = {
        name: folder / f"{name}.tif" for name in ("empty", "text", "cut", "cut-plain", "head", "flipped")
    }
    paths["empty"].write_bytes(b"")
    paths["text"].write_text("not an image at all")
    paths["cut"].write_bytes(whole[: len(whole) // 2])
    paths["cut-plain"].write_bytes(plain[:-100])
    paths["head"].write_bytes(whole[:20])
    paths["flipped"].write_bytes(whole[:4] + b"\xff\xff\xff\x7f" + whole[8:])
    paths["cut-png"] = folder / "cut.png"
    paths["cut-png"].write_bytes((folder / "whole.png").read_bytes()[:-20])
    paths["missing"] = folder / "missing.tif"
    paths["complex"] = imwrite(folder / "complex.tif", STACK.astype(np.complex64))
    paths["no-images"] = folder / "empty folder"
    paths["no-images"].mkdir()
    return paths


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("empty", "0 bytes"), ("text", "not an image"), ("cut", "truncated"), ("cut-plain", "truncated"),
        ("head", "damaged"), ("flipped", "damaged"), ("cut-png", "truncated"), ("missing", "does not exist"),
        ("complex", "complex64"), ("no-images", "no TIFF or PNG"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence_that_names_the_file(
    tmp_path: Path, name: str, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = bad_files(tmp_path)[name]
    with pytest.raises(InputError, match=word) as caught:
        look_at(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not caplog.records, "tifffile must not speak beside us"


def test_a_zero_size_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif, pytest.warns(UserWarning, match="zero-size"):
        tif.write(np.zeros((0, 5), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"without pixels|no image|damaged"):
        look_at(path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    path = imwrite(tmp_path / "a.tif", STACK)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="permission"):
        look_at(path)


def test_a_missing_codec_is_named_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    monkeypatch.setattr("napari_unet_seg.core._tiff._needs_codec", lambda _: True)
    monkeypatch.setattr("napari_unet_seg.core._pillow.PillowPages.can_decode", lambda _: False)
    with pytest.raises(InputError, match=r"ADOBE_DEFLATE.*imagecodecs"):
        look_at(path)


def test_a_damaged_strip_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[2].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 20)
    data = open_image(path).data
    np.testing.assert_array_equal(data[0], STACK[0])
    with pytest.raises(InputError, match=r"Plane 2 of '.*a\.tif'"):
        data[2]


def test_a_file_that_vanishes_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = imwrite(tmp_path / "a.tif", STACK)
    data = open_image(path).data
    path.unlink()
    with pytest.raises(InputError, match="no longer"):
        data[0]


@reuse_folder
@given(at=st.floats(0, 1, exclude_max=True))
def test_no_truncation_of_any_file_ends_in_anything_but_an_input_error(tmp_path: Path, at: float) -> None:
    whole = imwrite(tmp_path / "whole.tif", STACK, compression="zlib").read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: int(at * len(whole))])
    with pytest.raises(InputError):
        np.asarray(open_image(path).data)


# --- writing


@reuse_folder
@given(
    labels=hnp.arrays(
        np.int32, hnp.array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.integers(0, 99999)
    ),
    size=st.floats(1e-3, 1e6),
    data=st.data(),
)
def test_written_labels_come_back_with_axes_and_voxel_size(
    tmp_path: Path, labels: np.ndarray, size: float, data: st.DataObject
) -> None:
    leading = data.draw(st.permutations("TZ"))
    axes = "".join(leading[: labels.ndim - 2]) + "YX"
    sizes = {axis: size for axis in axes if axis != "T"}
    path = write_labels(tmp_path / "a.ome.tif", labels, axes=axes, voxel_size_nm=sizes, overwrite=True)
    opened = open_image(path)
    assert (opened.info.axes, opened.info.voxel_size_nm, opened.info.content) == (axes, sizes, "labels")
    assert opened.data.dtype == (np.uint16 if labels.max() < 2**16 else np.uint32)
    np.testing.assert_array_equal(np.asarray(opened.data), labels)


@pytest.mark.parametrize("dtype", ["float32", "uint16", "uint8"])
@pytest.mark.parametrize("axes", ["CYX", "CZYX", "ZCYX", "YX"])
def test_written_probabilities_come_back_with_their_classes(tmp_path: Path, axes: str, dtype: Any) -> None:
    shape = {"C": 3, "Z": 2, "Y": 6, "X": 7}
    written_axes = axes if "C" in axes else f"C{axes}"
    probabilities = np.random.default_rng(0).random([shape[a] for a in written_axes], dtype=np.float32)
    names = ("background", "myelin", "axön & co")
    path = tmp_path / "p.tif"
    write_probabilities(
        path, probabilities, axes=axes, class_names=names, dtype=dtype, voxel_size_nm={"Y": 4.0}
    )
    opened = open_image(path)
    assert (opened.info.axes, opened.info.channel_names, opened.info.content) == (
        written_axes,
        names,
        "probabilities",
    )
    assert opened.info.voxel_size_nm == {"Y": 4.0}
    scale = read_provenance(path).get("probability_scale", 1)
    np.testing.assert_allclose(
        np.asarray(opened.data) / scale, probabilities, atol=0.51 / scale if scale > 1 else 0
    )


def test_other_software_sees_sizes_and_channels_of_our_files(tmp_path: Path) -> None:
    path = tmp_path / "p.ome.tif"
    probabilities = np.zeros((2, 3, 5, 6), np.float32)
    write_probabilities(
        path, probabilities, axes="CZYX", class_names=("a", "b"), voxel_size_nm={"Z": 40, "Y": 8, "X": 8}
    )
    with tifffile.TiffFile(path) as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (tif.series[0].axes, tif.pages[0].compression.name) == ("CZYX", "ADOBE_DEFLATE")
    assert (pixels["PhysicalSizeZ"], pixels["PhysicalSizeXUnit"]) == (40, "nm")
    assert [channel["Name"] for channel in pixels["Channel"]] == ["a", "b"]


def test_what_made_a_result_is_read_back_from_it(tmp_path: Path) -> None:
    made = {"model": "em-boundaries", "zoom": np.float64(0.4), "normalisation": [[1.5, 2.0]], "µ": 'é"<&>'}
    path = write_labels(tmp_path / "a.tif", np.ones((3, 3), int), axes="YX", metadata=made)
    assert read_provenance(path) == {
        "model": "em-boundaries",
        "zoom": 0.4,
        "normalisation": [[1.5, 2.0]],
        "µ": 'é"<&>',
    }
    assert read_provenance(imwrite(tmp_path / "foreign.tif", STACK)) == {}


def test_big_stacks_are_written_plane_by_plane(tmp_path: Path) -> None:
    drawn: list[int] = []

    def planes() -> Iterator[np.ndarray]:
        for plane in STACK:
            drawn.append(1)
            yield plane

    path = write_labels(tmp_path / "a.tif", planes(), axes="ZYX", shape=STACK.shape, dtype=np.uint16)
    assert len(drawn) == 4
    np.testing.assert_array_equal(np.asarray(open_image(path).data), STACK)


def test_a_weight_map_is_written_as_float32(tmp_path: Path) -> None:
    path = write_float_map(tmp_path / "w.tif", STACK / 7, axes="ZYX")
    assert look_at(path).dtype == np.float32
    np.testing.assert_allclose(np.asarray(open_image(path).data), STACK / 7, rtol=1e-6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("existed", [False, True])
def test_a_write_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, error: Any, existed: bool) -> None:
    path = tmp_path / "a.tif"
    if existed:
        path.write_bytes(b"precious")

    def planes() -> Iterator[np.ndarray]:
        yield STACK[0]
        raise error

    expected = UNetSegError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        write_labels(path, planes(), axes="ZYX", shape=STACK.shape, dtype=np.uint16, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == (["a.tif"] if existed else [])
    assert not existed or path.read_bytes() == b"precious"


@pytest.mark.parametrize("labels", [np.array([[-1, 2]]), np.array([[0.5, 1.0]]), np.zeros((0, 3), int)])
def test_labels_that_are_no_ids_are_not_written(tmp_path: Path, labels: np.ndarray) -> None:
    with pytest.raises(InputError):
        write_labels(tmp_path / "a.tif", labels, axes="YX")
    assert not list(tmp_path.iterdir())


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    image = imwrite(tmp_path / "in.tif", STACK)
    (tmp_path / "folder.tif").mkdir()
    for path, word in {
        tmp_path / "no" / "a.tif": "does not exist",
        image: "also the input",
        tmp_path / ".." / tmp_path.name / "in.tif": "also the input",
        tmp_path / "a.jpg": "must end in",
        tmp_path / "folder.tif": "is a folder",
    }.items():
        with pytest.raises(OutputError, match=word):
            check_output(path, inputs=[image], overwrite=True)
    other = imwrite(tmp_path / "other.tif", STACK)
    with pytest.raises(OutputError, match="exists already"):
        check_output(other, inputs=[image])
    assert check_output(other, inputs=[image], overwrite=True) == other


def test_a_section_of_the_input_folder_is_never_the_output(tmp_path: Path) -> None:
    section = imwrite(tmp_path / "s1.tif", STACK[0])
    for path in (section, tmp_path / "new.tif"):
        with pytest.raises(OutputError, match="also the input"):
            check_output(path, inputs=[tmp_path], overwrite=True)


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="may not be written"):
        check_output(tmp_path / "a.tif")


# --- names


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("a.b.tif", "a.b"),
        ("a.png", "a"),
        ("a.ome.zarr", "a"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_a_stem_is_the_name_without_its_ending(name: str, stem: str) -> None:
    assert image_stem(Path("some.dir") / name) == stem


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def names_of(pairs: list[tuple[Path, Path]]) -> list[tuple[str, str]]:
    return [(image.name, labels.name) for image, labels in pairs]


def test_files_are_paired_by_stem_whatever_their_endings(tmp_path: Path) -> None:
    images, labels = (
        touch(tmp_path / "i", "b10.png", "b9.tif"),
        touch(tmp_path / "l", "b10.ome.tif", "b9_mask.png"),
    )
    assert names_of(pair_by_name(images, labels)) == [("b9.tif", "b9_mask.png"), ("b10.png", "b10.ome.tif")]


def test_masks_may_lie_beside_their_images(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "x.png", "x_mask.png", "y.png", "y_mask.png")
    assert names_of(pair_by_name(folder, folder)) == [("x.png", "x_mask.png"), ("y.png", "y_mask.png")]


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    folder = touch(tmp_path / "d", "a.tif", "b.tif")
    assert names_of(pair_by_name(folder / "a.tif", folder / "b.tif")) == [("a.tif", "b.tif")]


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    some, more = touch(tmp_path / "some", "a.tif"), touch(tmp_path / "more", "a.tif", "b.tif")
    with pytest.raises(InputError, match=r"'b\.tif'.*no labels"):
        pair_by_name(more, some)
    with pytest.raises(InputError, match=r"'b\.tif'.*no image"):
        pair_by_name(some, more)
    with pytest.raises(InputError, match="same stem"):
        pair_by_name(touch(tmp_path / "twice", "a.tif", "a.png"), some)
    with pytest.raises(InputError, match="two files, or two folders"):
        pair_by_name(some, more / "a.tif")


# --- real files


@pytest.mark.needs_data
def test_every_teaching_image_is_read_as_tifffile_reads_it(data_dir: Path) -> None:
    paths = sorted((data_dir / "samples-neubias").glob("*.tif"))
    assert paths
    for path in paths:
        opened = open_image(path)
        expected = tifffile.imread(path)
        if opened.is_rgb:
            expected = np.moveaxis(expected, -1, 0)
        np.testing.assert_array_equal(np.asarray(opened.data), expected, err_msg=path.name)


@pytest.mark.needs_data
def test_voxel_sizes_of_real_imagej_files_are_known(data_dir: Path) -> None:
    folder = data_dir / "samples-neubias"
    assert look_at(folder / "xy_8bit__em_mitochondria_er.tif").voxel_size_nm == {"Y": 8.0, "X": 8.0}
    spots = look_at(folder / "xyz_16bit__spots.tif")
    assert (spots.axes, spots.n_planes) == ("ZYX", 17)
    assert spots.voxel_size_nm == pytest.approx({"Z": 400.0, "Y": 94.134, "X": 94.134}, rel=1e-4)
