"""The loop that the plugin exists for, driven through the real window by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage
from scripts.hand import Hand, strokes_through

from napari_unet_seg._widgets.preferences import remember
from napari_unet_seg.core.model_store import list_models
from napari_unet_seg.core.prediction import PredictSettings, predict
from napari_unet_seg.core.synthetic import synthetic_em

SIDE_PX, PIXEL_SIZE_NM = 192, 8.0
N_OBJECTS = 8
STEPS = 40
NAME = "em-boundaries, dark cells"


@pytest.fixture(scope="module")
def tissue() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Tissue in negative contrast, which the bundled model has never seen, and its cells."""
    made = synthetic_em((2, SIDE_PX, SIDE_PX))
    return 255 - made.image, made.truth


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., Any]) -> Any:
    remember("segment", model="em-boundaries", where="plane", device="cpu")
    remember("annotate", veil=True, weight_map=False)
    remember("fine_tune", model="em-boundaries", preset="quick", preview=True, device="cpu")
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1400, 900)
    return viewer


def test_open_segment_paint_fine_tune_compare_keep_and_segment_again(
    viewer: Any, tissue: tuple[NDArray[np.uint8], NDArray[np.uint16]], tmp_path: Path
) -> None:
    image, truth = tissue
    hand = Hand(viewer)
    open_image(hand, write(tmp_path, image))
    before = segment(hand, viewer)
    annotation = paint(hand, viewer, truth[0])
    painted = annotation.data.copy()
    fine_tune(hand, viewer, annotation)
    compare_and_keep(hand, viewer)
    assert [info.name for info in list_models() if info.source == "saved"] == [NAME]
    after = segment(hand, viewer)
    assert after.name == f"dark cells › {NAME} › labels"
    expected = predict(image[:1], NAME, PredictSettings(pixel_size_nm=PIXEL_SIZE_NM))
    np.testing.assert_array_equal(after.data[0], expected.labels[0], "the new model was used")
    assert (after.data != before.data).any()
    np.testing.assert_array_equal(annotation.data, painted, "only the person writes into an annotation")


def write(folder: Path, image: NDArray[np.uint8]) -> Path:
    path = folder / "dark cells.ome.tif"
    sizes = {"PhysicalSizeX": PIXEL_SIZE_NM, "PhysicalSizeY": PIXEL_SIZE_NM, "PhysicalSizeZ": 40.0}
    units = {f"PhysicalSize{axis}Unit": "nm" for axis in "XYZ"}
    tifffile.imwrite(path, image, metadata={"axes": "ZYX", **sizes, **units})
    return path


def open_image(hand: Hand, path: Path) -> None:
    dock = hand.dock("Open")
    dock.look(path)
    hand.wait_until(lambda: not dock.is_busy and dock.open_button.isEnabled(), "the file is looked at")
    hand.click(dock.open_button)
    hand.wait_until(lambda: not dock.is_busy, "it is open")


def segment(hand: Hand, viewer: Any) -> Any:
    """The labels layer that a press of the button makes."""
    viewer.dims.set_current_step(0, 0)
    dock = hand.dock("Segment")
    hand.wait_until(lambda: dock.is_ready, "the model is loaded")
    hand.click(dock.button)
    hand.wait_until(lambda: dock.job is None, "it is segmented")
    labels = viewer.layers[-1]
    assert labels.data[0].any()
    return labels


def paint(hand: Hand, viewer: Any, truth: NDArray[np.uint16]) -> Any:
    """A stroke in each of a few cells, and some on the membranes between them."""
    dock = hand.dock("Annotate")
    areas_px = np.bincount(truth.ravel())
    largest = np.argsort(-areas_px[1:])[:N_OBJECTS] + 1
    for one in largest:
        hand.key("N")
        labels = dock.layers.labels_layer
        labels.brush_size = 4
        hand.stroke(labels, strokes_through(ndimage.binary_erosion(truth == one, iterations=4))[0])
    assert len(np.unique(labels.data)) == N_OBJECTS + 1, "each cell has its own id"
    hand.key("G")
    labels.brush_size = 2
    membrane = (truth == 0) & ndimage.binary_dilation(np.isin(truth, largest), iterations=6)
    for stroke in strokes_through(membrane, most=4):
        hand.stroke(labels, stroke)
    before = labels.data.copy()
    hand.stroke(labels, [(5.0, 5.0), (40.0, 40.0)])
    assert (labels.data != before).any()
    hand.key("Z", control=True)
    np.testing.assert_array_equal(labels.data, before, "undo takes a stroke back")
    assert (labels.data[0] == 1).any()
    assert not labels.data[1].any()
    hand.wait_until(lambda: dock.annotating.counts.is_settled, "it is counted")
    assert dock.counted.text().startswith(f"{N_OBJECTS} objects on 1 plane")
    return labels


def fine_tune(hand: Hand, viewer: Any, annotation: Any) -> None:
    dock = hand.dock("Fine-tune")
    hand.wait_until(lambda: dock.is_ready, "it is ready")
    assert dock.annotations.chosen == [annotation]
    dock.more.steps.setValue(STEPS)
    dock.more.patch.setValue(96)
    dock.more.batch.setValue(2)
    hand.click(dock.button)
    hand.wait_until(lambda: dock.job is None, "it has learned")
    assert dock.fine_tuning.is_better, dock.message.sentence.text()
    assert dock.fine_tuning.after.value > dock.fine_tuning.before.value


def compare_and_keep(hand: Hand, viewer: Any) -> None:
    dock = hand.dock("Fine-tune")
    comparison = dock.fine_tuning.comparison
    hand.wait_until(lambda: not comparison.is_running, "both models have seen the view")
    old, new = comparison.layer("before"), comparison.layer("after")
    hand.click(dock.result.before)
    assert (old.visible, new.visible) == (True, False)
    hand.click(dock.result.after)
    assert (old.visible, new.visible) == (False, True)
    dock.result.name.setText(NAME)
    hand.click(dock.result.keep)
    hand.wait_until(lambda: dock.fine_tuning.saved is not None, "it is saved")
