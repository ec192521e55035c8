"""The weight map on the canvas is that of the labels as they are, whatever was done to them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import napari
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.interactions import mouse_move_callbacks, mouse_press_callbacks, mouse_release_callbacks
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_unet_seg._annotate import weight_worker as _weight_worker
from napari_unet_seg._annotate.label_watcher import LabelWatcher
from napari_unet_seg._annotate.layer import adopt
from napari_unet_seg._annotate.new_layers import correction_layer, new_annotation_layer
from napari_unet_seg._annotate.weight_layer import WeightLayer
from napari_unet_seg._annotate.what_counts import view_of
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.weight_map import WeightSettings, weight_map

pytestmark = pytest.mark.usefixtures("qapp")
PAPER, FIJI = WeightSettings.paper(), WeightSettings.fiji()
SHAPE = (3, 150, 180)
N_STEPS = 200


@pytest.fixture
def viewer() -> ViewerModel:
    viewer = ViewerModel()
    viewer.add_image(np.zeros(SHAPE, np.uint8), name="em", scale=(40, 4, 4), translate=(5, 7, 9))
    viewer.dims.set_current_step(0, 1)
    return viewer


def painted(viewer: ViewerModel, coding: Any = "scribbles") -> Any:
    """An annotation with some objects on two planes."""
    layer = new_annotation_layer(viewer, viewer.layers["em"], coding=coding)
    for plane in (0, 1):
        layer.data[plane, 20:120, 20:160] = 1
        layer.data[plane, 30:60, 30:60] = 2
        layer.data[plane, 30:60, 63 + plane : 90] = 3
        layer.data[plane, 60:80, 30:60] = 4
    layer.refresh()
    return layer


class Map:
    """A weight layer, and what it should show."""

    def __init__(
        self, qtbot: Any, viewer: Any, labels: Any, settings: WeightSettings, **options: Any
    ) -> None:
        self.qtbot, self.viewer, self.labels = qtbot, viewer, labels
        self.weights = WeightLayer(viewer, labels, settings, **options)
        self.watcher = LabelWatcher(labels, viewer)

    @property
    def layer(self) -> Any:
        return self.weights.layer

    def settle(self) -> NDArray[np.float32]:
        """Of the plane in view, when all is done."""
        self.watcher.flush()
        self.qtbot.waitUntil(lambda: self.weights.is_settled, timeout=20_000)
        return np.asarray(self.layer.data[(0,) * (self.labels.ndim - 2)])

    def expected(self, regions: Any = None) -> NDArray[np.float32]:
        """Made anew, with counts over the whole annotation."""
        said = view_of(self.labels, regions)
        planes = list(np.ndindex(self.labels.data.shape[:-2]))
        parts = [said.read(plane) for plane in planes]
        weights = weight_map(
            np.stack([part.labels for part in parts]),
            self.weights._on_layer_grid(),
            annotated=np.stack([part.annotated for part in parts]),
        )
        return weights[planes.index(self.watcher.plane)]

    def assert_is_right(self, **where: Any) -> None:
        found, expected = self.settle(), self.expected(**where)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-3 * self.weights.settings.w0
        assert self.layer.translate[0] == pytest.approx(5 + 40 * self.watcher.plane[0])


@pytest.fixture
def made() -> Iterator[list[Map]]:
    maps: list[Map] = []
    yield maps
    for one in maps:
        one.weights.close()
        one.watcher.close()


@pytest.fixture
def shown(qtbot: Any, viewer: ViewerModel, made: list[Map]) -> Map:
    """The map of a painted layer, settled."""
    made.append(Map(qtbot, viewer, painted(viewer), PAPER))
    made[0].settle()
    return made[0]


def stroke(layer: Any, mouse_event: Any, points: list[tuple[int, ...]]) -> None:
    """A drag of the brush, as the canvas hands it to the layer."""
    at = [layer.data_to_world(point) for point in points]
    event = mouse_event(
        type="mouse_press", position=at[0], button=1, dims_displayed=(1, 2), view_direction=None
    )
    mouse_press_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_move", True
    for event.position in at[1:]:
        mouse_move_callbacks(layer, event)
    event.type, event.is_dragging = "mouse_release", False
    mouse_release_callbacks(layer, event)


# --- it is right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [PAPER, FIJI], ids=["paper", "fiji"])
@pytest.mark.parametrize("coding", ["scribbles", "planes", "corrections"])
def test_after_200_random_strokes_fills_undos_and_redos_it_equals_a_map_made_anew(
    qtbot: Any, viewer: ViewerModel, made: list[Map], MouseEvent: Any, settings: WeightSettings, coding: str
) -> None:
    rng = np.random.default_rng(5)
    layer = painted(viewer, coding)
    if coding == "planes":
        layer.metadata["napari-unet-seg"]["planes"] = [0, 1]
    if coding == "corrections":
        layer = correction_layer(viewer, layer, viewer.layers["em"])
        layer.metadata["napari-unet-seg"]["checked"] = {3}
    made.append(Map(qtbot, viewer, layer, settings))

    def point() -> tuple[int, ...]:
        return (viewer.dims.current_step[0], *(int(rng.integers(0, n)) for n in SHAPE[1:]))

    def paint_by_mouse() -> None:
        layer.mode = "erase" if rng.random() < 0.3 else "paint"
        stroke(layer, MouseEvent, [point() for _ in range(4)])

    acts: list[Callable[[], Any]] = [
        paint_by_mouse,
        lambda: layer.paint(point(), int(rng.integers(0, 6))),
        lambda: layer.fill(point(), int(rng.integers(0, 6))),
        lambda: layer.paint_polygon([point() for _ in range(3)], int(rng.integers(1, 6))),
        layer.undo,
        layer.undo,
        layer.redo,
        lambda: viewer.dims.set_current_step(0, int(rng.integers(0, 3))),
    ]
    for step in range(N_STEPS):
        layer.brush_size, layer.selected_label = int(rng.integers(1, 25)), int(rng.integers(1, 6))
        acts[rng.integers(len(acts))]()
        if rng.random() < 0.2:
            qtbot.wait(int(rng.integers(0, 40)))
        if step % 40 == 39:
            made[0].assert_is_right()


def test_real_strokes_on_the_canvas_are_followed(
    qtbot: Any, make_napari_viewer: Any, made: list[Map]
) -> None:
    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros(SHAPE, np.uint8), name="em", scale=(40, 4, 4), translate=(5, 7, 9))
    layer = painted(viewer)
    made.append(Map(qtbot, viewer, layer, PAPER))
    shown = made[0]
    before = shown.settle().copy()
    layer.mode, layer.brush_size, layer.selected_label = "paint", 12, 9
    drag_on_canvas(viewer, layer, [(100, 100), (100, 120), (110, 140)])
    assert (layer.data == 9).sum() > 100, "the mouse has painted"
    shown.assert_is_right()
    assert (shown.settle() != before).any()
    viewer.window._qt_viewer.canvas.native.setFocus()
    layer.undo()
    shown.assert_is_right()
    np.testing.assert_allclose(shown.settle(), before, atol=1e-3 * PAPER.w0)


def drag_on_canvas(viewer: napari.Viewer, layer: Any, points: list[tuple[int, int]]) -> None:
    """Press, move and release the left button over these rows and columns of the layer."""
    canvas = viewer.window._qt_viewer.canvas
    camera = viewer.scene.camera
    height, width = canvas.size

    def at(row: int, column: int) -> QPoint:
        y, x = layer.data_to_world((viewer.dims.current_step[0], row, column))[-2:]
        return QPoint(
            round((x - camera.center[-1]) * camera.zoom + width / 2),
            round((y - camera.center[-2]) * camera.zoom + height / 2),
        )

    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    places = [at(*point) for point in points]
    QTest.mouseMove(canvas.native, places[0])
    QTest.mousePress(canvas.native, left, none, places[0])
    for place in places[1:]:
        QTest.mouseMove(canvas.native, place, delay=15)
    QTest.mouseRelease(canvas.native, left, none, places[-1], delay=15)


def test_every_plane_has_its_own_map_with_counts_of_all(viewer: ViewerModel, shown: Map) -> None:
    for plane in (0, 2, 1):
        viewer.dims.set_current_step(0, plane)
        shown.assert_is_right()


def test_what_is_painted_and_undone_on_other_planes_counts(viewer: ViewerModel, shown: Map) -> None:
    before = shown.settle().copy()
    viewer.dims.set_current_step(0, 2)
    shown.labels.paint_polygon([(2, 0, 0), (2, 0, 170), (2, 140, 80)], 5)
    viewer.dims.set_current_step(0, 1)
    shown.assert_is_right()
    assert np.abs(shown.settle() - before).max() > 0.01
    shown.labels.undo()
    shown.assert_is_right()
    np.testing.assert_allclose(shown.settle(), before, atol=2e-3 * PAPER.w0)


def test_other_data_of_another_shape_are_followed(viewer: ViewerModel, shown: Map) -> None:
    other = np.zeros((2, 90, 60), np.uint8)
    other[:, 10:40, 10:20] = 2
    other[:, 10:40, 22:40] = 3
    other[:, 10:40, 20:22] = 1
    shown.labels.data = other
    shown.assert_is_right()
    assert shown.settle().max() > 8


def test_rectangles_say_where_it_counts(qtbot: Any, viewer: ViewerModel, made: list[Map]) -> None:
    from napari_unet_seg._annotate.new_layers import new_regions_layer

    layer = painted(viewer, "regions")
    regions = new_regions_layer(viewer, layer)
    made.append(Map(qtbot, viewer, layer, PAPER))
    assert not made[0].settle().any()
    corners = [layer.data_to_world((1, y, x)) for y, x in ((25, 25), (25, 100), (90, 100), (90, 25))]
    regions.add_rectangles(np.array([regions.world_to_data(corner) for corner in corners]))
    made[0].assert_is_right(regions=regions)
    assert made[0].settle().any()


def test_an_image_without_planes_is_followed(qtbot: Any, made: list[Map]) -> None:
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros((60, 70), np.uint8))
    adopt(layer, "dense")
    made.append(Map(qtbot, viewer, layer, PAPER))
    layer.paint_polygon([(5, 5), (5, 20), (50, 20), (50, 5)], 1)
    layer.paint_polygon([(5, 23), (5, 50), (50, 50), (50, 23)], 2)
    found, expected = made[0].settle(), made[0].expected()
    np.testing.assert_allclose(found, expected, atol=1e-3 * PAPER.w0)
    assert found[20, 21] > 8


def test_strokes_with_depth_and_turned_views_are_followed(viewer: ViewerModel, shown: Map) -> None:
    shown.labels.n_edit_dimensions = 3
    shown.labels.paint((1, 100, 100), 6)
    shown.assert_is_right()
    viewer.dims.ndisplay = 3
    shown.labels.undo()
    viewer.dims.ndisplay = 2
    shown.assert_is_right()
    viewer.dims.order = (1, 0, 2)
    shown.labels.paint((1, 100, 60), 6)
    viewer.dims.order = (0, 1, 2)
    shown.assert_is_right()


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [FIJI, WeightSettings.paper(w0=3), WeightSettings.paper(sigma_px=12), WeightSettings.fiji(balance=0.5)],
)
def test_presets_and_sliders_act(shown: Map, settings: WeightSettings) -> None:
    before = shown.settle().copy()
    shown.weights.set_settings(settings)
    shown.assert_is_right()
    assert np.abs(shown.settle() - before).max() > 0.1


def test_many_moves_of_a_slider_end_at_the_last(shown: Map, qtbot: Any) -> None:
    for sigma in np.linspace(3, 9, 20):
        shown.weights.set_settings(WeightSettings.paper(sigma_px=float(sigma)))
        qtbot.wait(2)
    shown.assert_is_right()


def test_sigma_is_that_of_the_models_grid(shown: Map) -> None:
    before = shown.settle().copy()
    shown.weights.set_zoom(0.5)
    assert shown.weights._on_layer_grid().sigma_px == 10
    shown.assert_is_right()
    assert shown.settle()[100, 100] >= before[100, 100]


# --- life ---------------------------------------------------------------------------------------------------


def test_it_lies_over_the_labels_and_leaves_them_selected(viewer: ViewerModel) -> None:
    layer = painted(viewer)
    viewer.layers.selection = {layer}
    weights = WeightLayer(viewer, layer, PAPER)
    assert viewer.layers.selection.active is layer
    assert viewer.layers.index(weights.layer) == viewer.layers.index(layer) + 1
    assert weights.layer.name == f"{layer.name} › weight map"
    np.testing.assert_allclose(weights.layer.scale, layer.scale)
    weights.close()


def test_nothing_is_done_while_it_is_hidden(
    viewer: ViewerModel, shown: Map, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = _weight_worker.LiveWeightMap.update
    monkeypatch.setattr(
        _weight_worker.LiveWeightMap, "update", lambda *given: calls.append(1) or original(*given)
    )
    before = shown.settle().copy()
    shown.weights.set_visible(is_visible=False)
    shown.labels.paint((1, 100, 100), 6)
    viewer.dims.set_current_step(0, 0)
    viewer.dims.set_current_step(0, 1)
    shown.weights.set_settings(WeightSettings.paper(sigma_px=7))
    shown.watcher.flush()
    qtbot.wait(200)
    assert calls == []
    np.testing.assert_array_equal(shown.layer.data[0], before)
    shown.weights.set_visible(is_visible=True)
    shown.assert_is_right()


def test_painting_while_hidden_is_caught_up_in_the_boxes_that_changed(
    shown: Map, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown.weights.set_visible(is_visible=False)
    shown.labels.paint((1, 100, 100), 6)
    monkeypatch.setattr(_weight_worker.LiveWeightMap, "fill_block", lambda _map: pytest.fail("filled anew"))
    shown.weights.set_visible(is_visible=True)
    shown.assert_is_right()


@pytest.mark.parametrize("how", ["labels", "map", "close", "all"])
def test_it_ends_with_its_labels_and_its_layer(
    viewer: ViewerModel, shown: Map, qtbot: Any, no_thread_left: Callable[[], bool], how: str
) -> None:
    with qtbot.waitSignal(shown.weights.closed):
        if how == "labels":
            viewer.layers.remove(shown.labels)
        elif how == "map":
            viewer.layers.remove(shown.layer)
        elif how == "all":
            viewer.layers.clear()
        else:
            shown.weights.close()
    assert [layer.name for layer in viewer.layers if "weight map" in layer.name] == []
    assert shown.weights.layer is None
    qtbot.waitUntil(lambda: not [one for one in threading.enumerate() if one.name == "weight map"])


def test_it_is_renamed_and_moved_with_its_labels(shown: Map) -> None:
    shown.labels.name = "my cells"
    assert shown.layer.name == "my cells › weight map"
    shown.labels.scale = (40, 8, 8)
    np.testing.assert_allclose(shown.layer.scale, (40, 8, 8))
    shown.assert_is_right()


def test_nothing_is_left_of_it(qtbot: Any, viewer: ViewerModel) -> None:
    layer = painted(viewer)
    weights = WeightLayer(viewer, layer, PAPER)
    left = [weakref.ref(one) for one in (weights._worker, weights._live.watcher._watch, weights.layer.data)]
    settle_and_close(qtbot, weights)
    del weights
    qtbot.wait(50)
    gc.collect()
    assert [one() for one in left] == [None] * len(left)


def settle_and_close(qtbot: Any, weights: WeightLayer) -> None:
    qtbot.waitUntil(lambda: weights.is_settled)
    weights.close()


def test_a_layer_that_is_no_annotation_is_refused_and_nothing_added(viewer: ViewerModel) -> None:
    foreign = viewer.add_labels(np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="does not say what counts"):
        WeightLayer(viewer, foreign, PAPER)
    assert len(viewer.layers) == 2


def test_an_error_is_told_and_the_next_wish_works(
    shown: Map, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(_weight_worker, "LiveWeightMap", lambda *_, **__: 1 / 0)
        with qtbot.waitSignal(shown.weights.failed) as told:
            shown.labels.data = shown.labels.data.copy()
    assert isinstance(told.args[0], ZeroDivisionError)
    shown.weights.set_settings(FIJI)
    shown.assert_is_right()
