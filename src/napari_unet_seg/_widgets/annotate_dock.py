"""The Annotate dock: a person paints what the network is to learn, and sees what counts and what is amiss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Image, Labels
from qtpy.QtWidgets import QCheckBox

from napari_unet_seg._annotate.annotating import Annotating, advice
from napari_unet_seg._annotate.correcting import correct
from napari_unet_seg._annotate.counts import Totals
from napari_unet_seg._annotate.layer import Coding, adopt, check_fit, coding_of, image_layer_of
from napari_unet_seg._annotate.new_layers import new_annotation_layer
from napari_unet_seg._annotate.weight_layer import WeightLayer
from napari_unet_seg._layers import LayerImage, behind_proxy, is_made_here, read_image
from napari_unet_seg._open_docks import raised_dock
from napari_unet_seg._recover.recovery import Restored
from napari_unet_seg._widgets.annotate_model import ModelGrid, ModelInUse
from napari_unet_seg._widgets.annotate_rows import CodingRow, LayersRow, ProblemList, Question
from napari_unet_seg._widgets.annotate_tools import CHECK_KEY, MAP_KEY, TOOLS, Keys, ToolRow
from napari_unet_seg._widgets.annotate_unsure import UnsureRow
from napari_unet_seg._widgets.annotate_weights import WeightRow
from napari_unet_seg._widgets.dock import COPIED, Dock, big_button, copy_script, script_button
from napari_unet_seg._widgets.folded import Folded
from napari_unet_seg._widgets.message import Message, wrapped_label
from napari_unet_seg._widgets.preferences import remember, remembered
from napari_unet_seg._widgets.recovery_row import ProjectRow, RecoveryRow
from napari_unet_seg.core.errors import InputError, UNetSegError

if TYPE_CHECKING:
    from napari_unet_seg.core.annotation_problems import Problem

_BRUSH_SHARE = 1 / 60
"""Of the shorter side of an image: the brush that a new annotation starts with."""
_SMALLEST_BRUSH_PX, _LARGEST_BRUSH_PX = 3, 40


class AnnotateDock(Dock):
    """Annotate an image layer.

    Parameters
    ----------
    napari_viewer
        Whose layers it offers.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(behind_proxy(napari_viewer))
        self._image: LayerImage | None = None
        self.annotating: Annotating | None = None
        self._map: WeightLayer | None = None
        self._next_unfinished = 0
        self._is_stopped = False
        self._keys = Keys(self._viewer)
        self._models = ModelInUse(self._viewer, self)
        self._make_rows()
        self._lay_out()
        self._recall()
        self._connect()
        self.reset_choices()

    def _make_rows(self) -> None:
        self.recovery = RecoveryRow(self._viewer)
        self.layers = LayersRow()
        self.coding = CodingRow()
        self.tools = ToolRow()
        self.why = wrapped_label()
        self.question = Question()
        self.counted = wrapped_label()
        self.advice = wrapped_label()
        self.problems = ProblemList()
        self.unsure = UnsureRow(self._viewer)
        self.message = Message()
        self.veil = QCheckBox("veil over what does not count")
        self.veil.setToolTip("Darken everything that is not annotated, so that you see what counts.")
        self.weights = WeightRow()
        self.button = big_button(
            "Fine-tune with this…", "Open the Fine-tune dock with this annotation chosen."
        )
        self.script_button = script_button("read this annotation")
        self.more = Folded()
        self.project = ProjectRow(self._viewer)
        self.more.form.addRow("Save to", self.project)

    def _lay_out(self) -> None:
        self._fill(
            (
                self.recovery,
                self.layers,
                self.coding,
                self.tools,
                self.unsure,
                self.why,
                self.question,
                self.counted,
                self.advice,
                self.problems,
                self.message,
                self.veil,
                self.weights,
                self.button,
                self.script_button,
                self.more,
            )
        )

    def _connect(self) -> None:
        self.recovery.restored.connect(self._take_restored)
        self.project.chosen.connect(self.recovery.look)
        self.layers.image_changed.connect(self._take_image)
        self.layers.labels_changed.connect(self._take_labels)
        self.layers.new_wanted.connect(self.make_new)
        self.coding.coding_chosen.connect(self.choose_coding)
        self.coding.rectangle_wanted.connect(self._draw_rectangle)
        self.coding.complete_toggled.connect(self._toggle_complete)
        self.coding.check_wanted.connect(partial(self._check, at_cursor=False))
        self.tools.wanted.connect(self.use)
        self.unsure.said.connect(self.message.show_note)
        self.unsure.failed.connect(self.message.show_error)
        self.problems.show_wanted.connect(self._show_problem)
        self.veil.toggled.connect(self._toggle_veil)
        self.weights.toggled.connect(self._toggle_map)
        self.weights.changed.connect(self._set_map)
        self._models.changed.connect(self._take_model)
        self.button.clicked.connect(self._fine_tune)
        self.script_button.clicked.connect(self._copy_script)
        self._viewer.layers.selection.events.active.connect(self._follow_active)
        for tool in TOOLS:
            if not tool.is_napari_key:
                self._keys.bind(tool.key, partial(self.use, tool.name))
        self._keys.bind(CHECK_KEY, partial(self._check, at_cursor=True))
        self._keys.bind(MAP_KEY, self.weights.shown.toggle)

    def reset_choices(self, event: Any = None) -> None:  # noqa: ARG002 - napari calls it when layers change
        """Offer the layers that there are now; an annotation whose layer is gone is left."""
        if self._is_stopped:
            return
        layers = list(self._viewer.layers)
        images = [layer for layer in layers if isinstance(layer, Image) and not is_made_here(layer)]
        before = self.layers.image_layer
        self.layers.offer(images, [layer for layer in layers if isinstance(layer, Labels)])
        if before is not self.layers.image_layer:
            self._leave_labels_of_removed_image()
        if self.layers.labels_layer is None:
            self._choose_first()
        self._take_layers()

    # Which layers

    def _choose_first(self) -> None:
        """The active image, or the only one; and an annotation of it, if there is one."""
        active = self._viewer.layers.selection.active
        labels = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
        if isinstance(active, Image) and not is_made_here(active):
            self.layers.choose_image(active)
        mine = [layer for layer in labels if coding_of(layer) and self._annotates_chosen(layer)]
        if mine:
            self.layers.choose_labels(active if any(layer is active for layer in mine) else mine[-1])

    def _annotates_chosen(self, labels: Any) -> bool:
        return image_layer_of(self._viewer.layers, labels) is self.layers.image_layer

    def _leave_labels_of_removed_image(self) -> None:
        """The next image is offered: what annotates the one before is not to be painted for it."""
        labels = self.layers.labels_layer
        if labels is not None and self.layers.image_layer is not None and not self._annotates_chosen(labels):
            self.layers.choose_labels(None)

    def _follow_active(self, _event: Any = None) -> None:
        """A person who goes to another annotation in napari's list goes on with it here."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Labels) and coding_of(active) and active is not self.layers.labels_layer:
            self.choose(active)

    def choose(self, labels_layer: Any) -> None:
        """Go on with this layer, and the image that it belongs to."""
        self.layers.choose_labels(labels_layer)
        image_layer = image_layer_of(self._viewer.layers, labels_layer)
        if image_layer is not None:
            self.layers.choose_image(image_layer)
        self._take_layers()

    def _take_image(self) -> None:
        """Another image was chosen: its own annotation follows, if there is one."""
        labels = self.layers.labels_layer
        if labels is None or not self._annotates_chosen(labels):
            self.layers.choose_labels(None)
            self._choose_first_of(self.layers.image_layer)
        self._make_active(self.layers.labels_layer or self.layers.image_layer)
        self._take_layers()

    def _choose_first_of(self, image_layer: Any) -> None:
        for layer in self._viewer.layers:
            is_annotation = isinstance(layer, Labels) and coding_of(layer) is not None
            if is_annotation and image_layer_of(self._viewer.layers, layer) is image_layer:
                self.layers.choose_labels(layer)

    def _take_labels(self) -> None:
        labels = self.layers.labels_layer
        image_layer = None if labels is None else image_layer_of(self._viewer.layers, labels)
        if image_layer is not None:
            self.layers.choose_image(image_layer)
        self._make_active(labels)
        self._take_layers()

    def _make_active(self, layer: Any) -> None:
        """What a person chooses here is what they paint in."""
        if layer is not None:
            self._viewer.layers.selection.active = layer

    def _take_layers(self) -> None:
        """Begin with what is chosen now, unless it is what is worked on."""
        self._image, self._image_problem = None, ""
        if self.layers.image_layer is not None:
            try:
                self._image = read_image(self.layers.image_layer)
            except InputError as error:
                self._image_problem = str(error)
        labels = self.layers.labels_layer
        if self.annotating is not None and self.annotating.layer is not labels:
            self._leave()
        self.question.withdraw()
        self.message.clear()
        if labels is not None and self.annotating is None:
            self._begin(labels)
        if self.annotating is None:
            self._show_counts()
        self._take_model()
        self._show_state()

    def _take_model(self) -> None:
        """Say which model is asked, and measure the weight map in its pixels."""
        image = self._image
        self.unsure.show_model(None if image is None else self._models.that_segments(image))
        grid = self._grid()
        self.weights.show_grid(grid.model, grid.zoom, grid.nm_per_px)
        if self._map is not None:
            self._map.set_zoom(grid.zoom)

    def _grid(self) -> ModelGrid:
        return self._models.grid(self.layers.image_layer, self._image)

    def _begin(self, labels: Any) -> None:
        coding = coding_of(labels)
        try:
            if self._image is not None:
                check_fit(labels, self._image)
            if coding is None:
                self._ask_what_counts(labels)
                return
            adopt(labels, coding, self.layers.image_layer)
        except InputError as error:
            self.message.show_error(str(error))
            return
        annotating = Annotating(self._viewer, labels)
        annotating.tool_changed.connect(self._show_tool)
        annotating.said.connect(self.message.show_note)
        annotating.live.marked.connect(self._show_state)
        annotating.live.marked.connect(self._show_counts)
        annotating.live.plane_changed.connect(self._show_state)
        annotating.counts.changed.connect(self._show_counts)
        self.annotating = annotating
        self.unsure.begin(annotating.live)
        if self.veil.isChecked():
            annotating.veil.show()
        self._show_map(self.weights.shown.isChecked())
        self._show_counts()

    def _leave(self) -> None:
        weight_map, self._map = self._map, None  # closing them changes layers, which is told here
        annotating, self.annotating = self.annotating, None
        self.unsure.leave()
        if weight_map is not None:
            weight_map.closed.disconnect(self._forget_map)  # the next annotation gets one, too
            weight_map.close()
        if annotating is not None:
            annotating.close()
            annotating.deleteLater()

    def _ask_what_counts(self, labels: Any) -> None:
        self.question.ask(
            f"'{labels.name}' does not say what counts in it: choose it above to go on with these labels. "
            "Or correct a copy, of which only counts what you touch.",
            {"Correct a copy": partial(self.correct, labels)},
        )

    # New ones

    def make_new(self) -> None:
        """Add an annotation layer for the image, and take the brush."""
        if self._image is None:
            self._show_state()
            return
        coding = self.coding.chosen
        try:
            layer = new_annotation_layer(self._viewer, self.layers.image_layer, coding=coding)
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        self.paint_in(layer)

    def correct(self, labels_layer: Any) -> None:
        """Add a copy of predicted labels, to be corrected; the prediction is hidden."""
        try:
            correct(self._viewer, labels_layer, self.layers.image_layer)
        except UNetSegError as error:
            self.message.show_error(str(error))

    def paint_in(self, layer: Any) -> None:
        """Go on with this layer, with a brush that fits it."""
        height, width = layer.data.shape[-2:]
        share = round(min(height, width) * _BRUSH_SHARE)
        layer.brush_size = min(max(share, _SMALLEST_BRUSH_PX), _LARGEST_BRUSH_PX)
        self.choose(layer)
        if self.annotating is not None:
            self.annotating.take("paint")

    def _take_restored(self, restored: Restored) -> None:
        """Go on with what has come back."""
        if restored.layers:
            self.choose(restored.layers[-1])

    # What counts

    def choose_coding(self, coding: Coding) -> None:
        """Say what the labels mean; asks where that would turn background into an object, or the reverse."""
        labels, annotating = self.layers.labels_layer, self.annotating
        if labels is None:
            self._show_state()
            return
        if annotating is None:
            self._adopt(labels, coding)
            return
        self.question.withdraw()
        before = annotating.live.coding
        if coding == before or not self._changes_meaning(before, coding, annotating):
            self._set_coding(coding)
            return
        becomes = (
            ("background", "an object", "Erase it", 0)
            if before == "scribbles"
            else ("an object", "background", "Give it a new id", annotating.live.next_object_id)
        )
        self.question.ask(
            f"What is painted with id 1 is {becomes[0]} now and would become {becomes[1]}.",
            {becomes[2]: partial(self._replace, becomes[3], coding), "Leave all as it was": self._show_state},
        )

    def _changes_meaning(self, before: Coding, after: Coding, annotating: Annotating) -> bool:
        return ("scribbles" in (before, after)) and annotating.has_id_1

    def _replace(self, by: int, coding: Coding) -> None:
        if self.annotating is not None:
            self.annotating.replace_id_1(by)
            self._set_coding(coding)

    def _set_coding(self, coding: Coding) -> None:
        if self.annotating is not None:
            self.annotating.live.set_coding(coding)
        self._show_state()

    def _adopt(self, labels: Any, coding: Coding) -> None:
        try:
            if self._image is not None:
                check_fit(labels, self._image)
            adopt(labels, coding, self.layers.image_layer)
        except InputError as error:
            self.message.show_error(str(error))
            self._show_state()
            return
        self._take_layers()

    def _toggle_map(self, is_shown: bool) -> None:
        self._remember()
        self._show_map(is_shown)

    def _show_map(self, is_shown: bool) -> None:
        """The live weight map, made when it is wanted first."""
        if self._map is not None:
            self._map.set_visible(is_visible=is_shown)
        elif self.annotating is not None and is_shown:
            live, n_classes = self.annotating.live, len(self.annotating.class_names)
            self._map = WeightLayer(
                self._viewer,
                live.layer,
                self.weights.settings,
                self._grid().zoom,
                live=live,
                task="classes" if n_classes else "instances",
                n_classes=n_classes or None,
                parent=self,
            )
            self._map.closed.connect(self._forget_map)

    def _set_map(self) -> None:
        if self._map is not None:
            self._map.set_settings(self.weights.settings)

    def _forget_map(self) -> None:
        """A person has removed its layer."""
        self._map = None
        self.weights.shown.setChecked(False)

    def _fine_tune(self) -> None:
        if self.annotating is not None:
            dock = raised_dock(self._viewer, "Fine-tune")
            dock.learn_from(self.annotating.live.layer, self.weights.settings)

    def _draw_rectangle(self) -> None:
        if self.annotating is not None:
            self.annotating.draw_region()

    def _toggle_complete(self, is_complete: bool) -> None:
        if self.annotating is not None:
            self.annotating.toggle_complete(is_complete=is_complete)

    def _check(self, *, at_cursor: bool) -> None:
        if self.annotating is not None:
            self.annotating.toggle_checked(at_cursor=at_cursor)

    # Tools

    def use(self, name: str) -> None:
        """What a big button or its key does."""
        if self.annotating is None and name in ("object", "unsure") and self.layers.labels_layer is None:
            self.make_new()
        if self.annotating is None:
            self._show_state()
            return
        self.message.clear()
        actions: dict[str, Callable[[], object]] = {
            "object": self.annotating.take_new_object,
            "background": self.annotating.take_background,
            "erase": partial(self.annotating.take, "erase"),
            "pick": partial(self.annotating.take, "pick"),
            "unfinished": self._go_to_unfinished,
            "unsure": self._go_to_unsure,
        }
        if name in actions:
            actions[name]()
        self._show_tool()

    def _go_to_unfinished(self) -> None:
        if self.annotating is None:
            return
        places = self.annotating.unfinished(self.annotating.counts.totals())
        if not places:
            self.message.show_note(
                "Nothing is unfinished: every rectangle holds an object, no problem found."
            )
            return
        plane, center, box, why = places[self._next_unfinished % len(places)]
        self._next_unfinished += 1
        self.annotating.live.go_to(plane, center, box)
        self.message.show_note(why)

    def _go_to_unsure(self) -> None:
        self._take_model()
        if self._image is not None:
            self.unsure.go_on(self.layers.image_layer, self._image)

    def _show_problem(self, problem: Problem) -> None:
        if self.annotating is not None:
            self.annotating.live.go_to(problem.plane, problem.center)

    def _toggle_veil(self, is_on: bool) -> None:
        self._remember()
        if self.annotating is not None:
            (self.annotating.veil.show if is_on else self.annotating.veil.hide)()

    # What it says

    def obstacle(self) -> str | None:
        """Why nothing can be painted now, with a way out; None when it can."""
        if self.layers.image_layer is None:
            return "Choose an image layer: none is open yet. Use File > Open, or the Open dock."
        if self._image is None:
            return self._image_problem
        if self.layers.labels_layer is None:
            return "Press New object, or N on the image, and paint: a labels layer is added for you."
        return None

    def _show_state(self, _plane: Any = None) -> None:
        obstacle = self.obstacle()
        self.why.setText(obstacle or "")
        self.why.setVisible(bool(obstacle))
        annotating = self.annotating
        coding = None if annotating is None else annotating.live.coding
        plane = () if annotating is None else annotating.live.plane
        is_stack = self._image is not None and len(self._image.label_shape) > 2
        self.coding.show_coding(coding, plane, is_stack=is_stack)
        self.coding.show_state(
            "" if annotating is None else marks_in_words(annotating),
            is_complete=annotating is not None and annotating.live.is_complete(plane),
        )
        self.tools.show_coding(coding, has_classes=annotating is not None and bool(annotating.class_names))
        self.tools.setEnabled(
            annotating is not None or (self._image is not None and not self.layers.labels_layer)
        )
        self.button.setEnabled(annotating is not None)
        self.script_button.setEnabled(annotating is not None)
        self._show_tool()

    def _show_tool(self) -> None:
        self.tools.show_in_use(None if self.annotating is None else self.annotating.tool)

    def _show_counts(self) -> None:
        annotating = self.annotating
        totals = Totals() if annotating is None else annotating.counts.totals()
        has_classes = annotating is not None and bool(annotating.class_names)
        self.counted.setText(totals.in_words(has_classes=has_classes))
        self.counted.setVisible(annotating is not None)
        next_thing = ""
        if annotating is not None:
            live = annotating.live
            next_thing = advice(live.coding, totals, live.n_regions, has_classes=has_classes)
        self.advice.setText(next_thing)
        self.advice.setVisible(bool(next_thing))
        self.problems.list(totals.problems)
        if annotating is not None:
            self._ask_about_id_1(annotating, totals)

    def _ask_about_id_1(self, annotating: Annotating, totals: Totals) -> None:
        """Who paints objects with id 1, as elsewhere, would teach the network background."""
        if annotating.live.coding != "scribbles" or totals.n_objects or not totals.has_background:
            return
        if self.question.isHidden():
            self.question.ask(
                "Only background (id 1) is painted: objects start at 2. Is what you painted an object?",
                {"It is an object": partial(annotating.replace_id_1, 2), "It is background": _nothing},
            )

    def _copy_script(self) -> None:
        from napari_unet_seg._annotate.script import annotation_script

        if self.annotating is None:
            return
        live = self.annotating.live
        copy_script(
            annotation_script(self.layers.image_layer, live.layer, live.regions, self.weights.settings)
        )
        self.message.show_note(COPIED)

    # Remembering, leaving

    def _recall(self) -> None:
        known = remembered("annotate")
        self.veil.setChecked(known.get("veil", True))
        self.weights.show_shown(is_shown=known.get("weight_map", False))

    def _remember(self) -> None:
        remember("annotate", veil=self.veil.isChecked(), weight_map=self.weights.shown.isChecked())

    def _stop(self) -> None:
        """Keys, veil and map go with the dock; the layer stays."""
        self._is_stopped = True
        self._keys.release()
        self._viewer.layers.selection.events.active.disconnect(self._follow_active)
        self._models.close()
        self._leave()


def marks_in_words(annotating: Annotating) -> str:
    """How much is marked, apart from what is painted."""
    live = annotating.live
    parts = []
    if live.coding in ("regions", "corrections") and (live.n_regions or live.coding == "regions"):
        parts.append(_many(live.n_regions, "rectangle"))
    if live.coding in ("planes", "corrections"):
        n_planes = len(live.view.planes)
        if n_planes or live.coding == "planes":
            parts.append(f"{_many(n_planes, 'plane')} complete")
    if live.coding == "corrections" and not annotating.class_names:
        parts.append(f"{_many(len(live.checked), 'object')} checked")
    return " · ".join(parts)


def _many(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _nothing() -> None:
    """The answer that changes nothing."""
