"""The Segment dock: one click turns an image layer into labelled objects, which can be refined afterwards."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import napari
from napari.layers import Image
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QHBoxLayout

from napari_unet_seg import _layers
from napari_unet_seg._annotate.correcting import correct
from napari_unet_seg._fine_tune.model_news import NEWS
from napari_unet_seg._jobs import Job, sentence, start
from napari_unet_seg._layers import LayerImage, Where
from napari_unet_seg._widgets.dock import (
    COPIED,
    Dock,
    big_button,
    copy_script,
    labelled_rows,
    script_button,
    small_button,
)
from napari_unet_seg._widgets.job_row import JobRow, Progress
from napari_unet_seg._widgets.message import Message, wrapped_label
from napari_unet_seg._widgets.more_section import MoreSection
from napari_unet_seg._widgets.object_panel import ObjectPanel
from napari_unet_seg._widgets.preferences import remember, remembered
from napari_unet_seg._widgets.rectangle import Rectangle
from napari_unet_seg._widgets.scale_row import ScaleRow
from napari_unet_seg._widgets.segment_rows import ImageRow, ModelRow, WhereRow
from napari_unet_seg._widgets.warming import Warming
from napari_unet_seg._widgets.zoom_finder import ZoomFinder
from napari_unet_seg.core.errors import InputError, SettingError, UNetSegError

if TYPE_CHECKING:
    # They import PyTorch, which takes a second or more: that is done in the background.
    from napari_unet_seg._segment.request import Request
    from napari_unet_seg._segment.segmenting import Segmentation
    from napari_unet_seg._widgets.refinement import Refinement
    from napari_unet_seg.core.model_store import ModelInfo
    from napari_unet_seg.core.predict_settings import PredictSettings

RELABEL_AFTER_MS = 60
"""Pause after which a changed setting acts."""
_LONG_MS = 500
"""A relabelling that takes longer than this gets its own row."""


class SegmentDock(Dock):
    """Segment an image layer.

    Parameters
    ----------
    napari_viewer
        Whose layers it offers.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._image: LayerImage | None = None
        self._has_model = self._is_half_way = self._owes_relabel = False
        self._settings_of: ModelInfo | None = None
        self._seconds_per_px: float | None = None
        self._job: Job | None = None
        self.refinement: Refinement | None = None
        self._make_rows()
        self._lay_out()
        self._connect()
        self._recall()
        self.reset_choices()
        self._take_model()  # also when the first model was chosen already, which nobody announced

    def _make_rows(self) -> None:
        self.image = ImageRow()
        self.model = ModelRow()
        self.scale = ScaleRow()
        self.where = WhereRow()
        self.button = big_button(
            "Segment", "Find the objects with the model; the result appears as a labels layer."
        )
        self.why = wrapped_label()
        self.progress = JobRow()
        self.message = Message()
        self.objects = ObjectPanel()
        self.correct_button = small_button(
            "Correct these…", "Open the Annotate dock with a copy of these objects to correct."
        )
        self.table_button = small_button(
            "Save table", "Measure every object and save the table as a CSV file."
        )
        self.script_button = script_button("do the same again")
        self.more = MoreSection()
        self._finder = ZoomFinder(self.scale, self)
        self._rectangle = Rectangle(self._viewer, self)
        self._warming = Warming(self)
        self._settling = QTimer(self)
        self._settling.setSingleShot(True)
        self._settling.setInterval(RELABEL_AFTER_MS)

    def _lay_out(self) -> None:
        rows = labelled_rows(
            (
                ("Image", self.image),
                ("Model", self.model),
                ("Scale", self.scale),
                ("Where", self.where),
            )
        )
        buttons = QHBoxLayout()
        buttons.addWidget(self.correct_button)
        buttons.addWidget(self.table_button)
        buttons.addWidget(self.script_button)
        below = (self.button, self.why, self.progress, self.message, self.objects, buttons, self.more)
        self._fill((rows, *below))

    def _connect(self) -> None:
        self.image.changed.connect(self._take_layer)
        self.model.changed.connect(self._take_model)
        self.scale.changed.connect(self._show_state)
        self.scale.find_wanted.connect(self._find_zoom)
        self.image.invert.toggled.connect(self._show_state)
        self.image.channel.activated.connect(self._show_state)
        self.where.changed.connect(self._take_place)
        self.where.draw_wanted.connect(self._draw)
        self._rectangle.changed.connect(self._show_state)
        self.more.changed.connect(self._take_layer)
        self.more.device_changed.connect(self._warm_up)
        self.objects.changed.connect(self._settling.start)
        self._settling.timeout.connect(self._relabel)
        self.button.clicked.connect(self.segment)
        self.correct_button.clicked.connect(self._correct)
        self.table_button.clicked.connect(self._ask_for_table)
        self.script_button.clicked.connect(self._copy_script)
        self._warming.changed.connect(self._take_readiness)
        self._warming.failed.connect(self._show_warming_failure)
        NEWS.changed.connect(self._choose_new_model)

    def reset_choices(self, event: Any = None) -> None:  # noqa: ARG002 - napari calls it when layers change
        """Offer the image layers that there are now."""
        if self.refinement is not None:
            self.refinement.forget_removed()
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        self.image.offer(layers, self._viewer.layers.selection.active)

    @property
    def job(self) -> Job | None:
        """What it is doing, if anything."""
        return self._job

    @property
    def is_ready(self) -> bool:
        """Whether PyTorch and the model are loaded, or could not be."""
        return self._warming.is_done

    @property
    def is_settled(self) -> bool:
        """Whether the objects follow the settings."""
        is_waiting = self._settling.isActive()
        return not is_waiting and (self.refinement is None or not self.refinement.is_running)

    # The wish

    def settings(self) -> PredictSettings:
        """What the rows say."""
        from napari_unet_seg.core.predict_settings import PredictSettings

        return PredictSettings(
            axes=self.more.chosen_axes,
            channel=self.image.chosen_channel,
            pixel_size_nm=self.scale.pixel_size_nm,
            zoom=self._zoom(),
            invert=self.image.invert.isChecked(),
            device=self.more.chosen_device,
            tile_px=self.more.chosen_tile_px,
            tta=self.more.tta.isChecked(),
            objects=self.objects.settings,
        )

    def _zoom(self) -> float | Literal["auto"] | None:
        """A pixel size that the person made unknown is not to be taken from the layer after all."""
        is_unknown = (
            self.scale.pixel_size_nm is None and self._image is not None and self._image.pixel_size_nm
        )
        return self.scale.chosen_zoom or ("auto" if is_unknown else None)

    def place(self) -> Where | None:
        """Where to segment; None when a rectangle is wanted and not drawn."""
        if self.where.place != "rectangle":
            return self.where.place
        return None if self._image is None else self._rectangle.place(self.image.layer, self._image)

    def obstacle(self) -> str | None:
        """Why the button cannot work now, with a way out; None when it can."""
        if self.model.problem:
            return self.model.problem
        if self.image.layer is None:
            return "Choose an image layer: none is open yet. Use File > Open, or the Open dock."
        if self.model.info is None:
            return "There is no model yet: choose a file, or train one."
        if self._image is None:
            return self._image_problem
        if self._job is not None:
            return None
        scale_problem = self.scale.explain(self.model.info)
        if scale_problem is None and self.where.place == "rectangle" and self.place() is None:
            return "Draw a rectangle on the image first: press Draw, then drag on the image."
        return scale_problem

    # What the rows do to each other

    def _take_layer(self) -> None:
        layer = self.image.layer
        self._image, self._image_problem = None, ""
        if layer is not None:
            try:
                self._image = _layers.read_image(layer, self.more.chosen_axes)
            except InputError as error:
                hint = " (Axes are set under More.)" if isinstance(error, SettingError) else ""
                self._image_problem = f"{error}{hint}"
        if self._image is not None and not self._has_model:
            self._has_model = True
            self.model.suggest(self._image.pixel_size_nm)
        self.scale.take_from(self._image)
        self.where.describe(self._image, self._seconds_per_px)
        self._offer_channels()
        self._show_state()

    def _offer_channels(self) -> None:
        info = self.model.info
        self.image.offer_channels(self._image, 1 if info is None else info.architecture.in_channels)

    def _take_model(self) -> None:
        info = self.model.info
        self._seconds_per_px = None
        if info is not None and info != self._settings_of:
            self._settings_of = info
            self.objects.show_settings(info.objects)
            self.objects.show_task(info.task)
        self._offer_channels()
        self._show_state()
        self._warm_up()

    def _choose_new_model(self, name: str, viewer: Any) -> None:
        """One was saved or put back in a dock of this viewer; the list has it already."""
        if viewer is _layers.behind_proxy(self._viewer):
            self.model.choose(name)

    def _take_place(self) -> None:
        layer = self.image.layer
        if self.where.place == "rectangle" and layer is not None and not self._rectangle.is_drawn(layer):
            self._draw()
        self._show_state()

    def _draw(self) -> None:
        if self._image is not None:
            self._rectangle.draw(self.image.layer, self._image)

    def _show_state(self) -> None:
        obstacle = self.obstacle()
        self.objects.show_pixel_size(self.scale.pixel_size_nm)
        self._show_smallest()
        self.button.setEnabled(obstacle is None and self._job is None)
        self.why.setText(obstacle or self._device_in_words())
        self.why.setVisible(bool(self.why.text()))
        has_result = self.refinement is not None and self.refinement.latest is not None
        for button in (self.correct_button, self.table_button):
            button.setEnabled(has_result and self._job is None)
        self.script_button.setEnabled(self._image is not None and self.model.info is not None)
        self.scale.find.setEnabled(
            obstacle is None and self._job is None and self._warming.readiness is not None
        )
        self._look_for_zoom()

    def _show_smallest(self) -> None:
        """A model says it for its own pixels; it is shown in those of the image."""
        zoom = None if self.model.info is None else self.scale.known_zoom(self.model.info)
        if zoom is not None:
            self.objects.show_zoom(zoom)

    # The zoom of images that do not tell it

    @property
    def is_looking_for_zoom(self) -> bool:
        """Whether some zooms are being tried in the background."""
        return self._finder.is_looking

    def _look_for_zoom(self) -> None:
        """Find it in the background, once for each image and model, when nothing else is done."""
        if self._job is None and self._warming.readiness is not None:
            self._finder.ask(self._zoom_question(), self._zoom_request)

    def _zoom_question(self) -> Any:
        """What the zoom depends on; None while there is nothing to ask."""
        info, layer = self.model.info, self.image.layer
        if info is None or self._image is None or self.obstacle() is not None or not self.scale.is_open(info):
            return None
        seen = (self.image.chosen_channel, self.image.invert.isChecked(), self.more.chosen_axes)
        return (layer.unique_id, id(self._image.data), info.path, *seen)

    def _zoom_request(self) -> Request | None:
        """What is to be looked at; None where that cannot be."""
        from napari_unet_seg._segment.request import request_of

        info, readiness = self.model.info, self._warming.readiness
        if info is None or readiness is None:
            return None
        model, settings = readiness.model_for(info), replace(self.settings(), zoom="auto")
        point = self._viewer.dims.point
        try:
            return request_of(self.image.layer, model or str(info.path), settings, "plane", point)
        except UNetSegError:
            return None  # segmenting says why

    def _find_zoom(self) -> None:
        """Look again, in the plane in view, whatever the pixel sizes say."""
        self._finder.ask(self._zoom_question(), self._zoom_request, again=True)

    def _device_in_words(self) -> str:
        return "" if self._warming.readiness is None else f"Runs on {self._warming.readiness.device_reason}."

    # Segmenting

    def segment(self) -> None:
        """Start what the rows say; the button does this."""
        from napari_unet_seg._segment.segmenting import segmentation_of
        from napari_unet_seg._widgets.segment_progress import Reporter

        self.message.clear()
        self.progress.say("")
        self._take_layer()  # it may have been calibrated since
        where, info = self.place(), self.model.info
        if self.obstacle() is not None or where is None or info is None or self._job is not None:
            self._show_state()
            return
        readiness = self._warming.readiness
        model = None if readiness is None else readiness.model_for(info)
        try:
            segmentation = segmentation_of(
                self.image.layer,
                model or str(info.path),
                self.settings(),
                where=where,
                viewer=self._viewer,
            )
            question = self._zoom_question()
            self._owes_relabel = not self.is_settled
            if self.refinement is not None:
                self.refinement.cancel()
            job = segmentation.run(shows_errors=False)
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        self._finder.leave()  # the segmentation finds the zoom itself, if it has none
        self._remember()
        self.progress.follow(job, Reporter().describe)
        job.finished.connect(partial(self._end, job, segmentation, question))
        self._job = job
        self._show_state()

    def _end(self, job: Job, segmentation: Segmentation, question: Any) -> None:
        """Say what came out; settings that were changed meanwhile act now."""
        self._job = None
        if job.error is not None:
            self.message.show_error(sentence(job.error), job.details)
        else:
            self._take_result(segmentation, question)
        if self.scale.is_looking:
            self._finder.take(None)  # it was stopped before it was found
        self._show_state()
        self._relabel_if_owed()

    def _take_result(self, segmentation: Segmentation, question: Any) -> None:
        from napari_unet_seg._widgets.refinement import Refinement
        from napari_unet_seg._widgets.segment_progress import result_in_words

        if segmentation.prediction is None or not segmentation.is_layer_there:
            self.progress.say("Stopped; nothing was kept.")
            return
        if self.refinement is None:
            self.refinement = Refinement(self)
            self.refinement.started.connect(self._note_relabelling)
            self.refinement.finished.connect(self._show_count)
            self.refinement.failed.connect(self._show_failure)
            self.refinement.stopped.connect(self._show_half_way)
        self.refinement.add(segmentation)
        self._seconds_per_px = segmentation.seconds_per_px
        self.where.describe(self._image, self._seconds_per_px)
        found = segmentation.prediction.found_zoom
        if found is not None and question == self._zoom_question():
            self._finder.answer(question, found)
        self._show_count()
        self.progress.say(result_in_words(segmentation))
        notes = (note for note in segmentation.prediction.notes if not note.startswith("Zoom "))
        self.message.show_note(" ".join(notes))
        if self.more.keep.isChecked():
            segmentation.add_probabilities()

    # Objects

    def _relabel(self) -> None:
        """Let the objects follow the settings; while something else runs, when that is over."""
        self._owes_relabel = self._job is not None
        if self.refinement is not None and self._job is None:
            if self._is_half_way:
                self.message.clear()
            self._is_half_way = False
            self.refinement.apply(self.objects.settings)

    def _relabel_if_owed(self) -> None:
        if self._owes_relabel:
            self._relabel()

    def _note_relabelling(self, job: Job) -> None:
        """A long one gets its row."""
        QTimer.singleShot(_LONG_MS, partial(self._show_relabelling, job))

    def _show_relabelling(self, job: Job) -> None:
        from napari_unet_seg._widgets.segment_progress import describe_planes

        if job.is_running and not job.is_cancelled and self._job is None:
            self.progress.follow(job, describe_planes)

    def _show_failure(self, job: Job) -> None:
        if job.error is not None:
            self.message.show_error(sentence(job.error), job.details)

    def _show_half_way(self) -> None:
        self._show_count()
        self._is_half_way = True
        self.message.show_note(
            "Stopped half way: some planes follow the new settings, the others still the old ones. Change a "
            "setting to do all of them."
        )

    def _show_count(self) -> None:
        segmentation = None if self.refinement is None else self.refinement.latest
        if self.refinement is None or segmentation is None:
            return
        info = segmentation.request.info
        if info.object_class:
            self.objects.show_count(self.refinement.n_objects, info.object_class)
        if info.task == "instances":
            self.objects.show_count(self.refinement.n_objects)
            if not segmentation.can_relabel:
                self.message.show_note(
                    "Memory is too small for the probabilities: settings act on the next run."
                )

    # Correcting, table, script

    def _correct(self) -> None:
        """Go on in the Annotate dock with the latest result."""
        segmentation = None if self.refinement is None else self.refinement.latest
        if segmentation is None or self._job is not None:
            return
        if not self._is_settled_or_says("correct them"):
            return
        self.message.clear()
        image = segmentation.image_layer if segmentation.is_image_there else None
        try:
            correct(self._viewer, segmentation.layer, image)
            if segmentation.objects_layer is not None:
                segmentation.objects_layer.visible = False
        except UNetSegError as error:
            self.message.show_error(str(error))

    def _is_settled_or_says(self, what: str) -> bool:
        """What is half of the old objects and half of the new ones is nothing to go on with."""
        if not self.is_settled:
            self.message.show_note(f"The objects are being made anew: {what} when that is done.")
        return self.is_settled

    def _ask_for_table(self) -> None:
        segmentation = None if self.refinement is None else self.refinement.latest
        if segmentation is None or not self._is_settled_or_says("save the table"):
            return
        start_name = f"{_measured(segmentation).name.replace(' › ', '-')}.csv"
        path, _ = QFileDialog.getSaveFileName(self, "Save table", start_name, "Tables (*.csv)")
        if path:
            self.save_table(Path(path))

    def save_table(self, path: Path) -> None:
        """Measure the objects of the latest result, else its classes, and write them to a CSV file."""
        from napari_unet_seg._tables import table_request, table_steps

        segmentation = None if self.refinement is None else self.refinement.latest
        if segmentation is None or self._job is not None or not self._is_settled_or_says("save the table"):
            return
        try:
            wish = table_request(_measured(segmentation).data, segmentation.request, path)
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        job = start(
            table_steps(wish), f"Table of {segmentation.request.image.name}", window=self, shows_errors=False
        )
        self.progress.follow(job, lambda what: Progress(f"{what}…", 0, 0))
        job.finished.connect(partial(self._end_table, job, path))
        self._job = job
        self._show_state()

    def _end_table(self, job: Job, path: Path) -> None:
        self._job = None
        if job.error is not None:
            self.message.show_error(sentence(job.error), job.details)
        elif job.result is not None:
            self.progress.say(f"Saved {job.result:,} objects in {path.name}.")
        self._show_state()
        self._relabel_if_owed()

    def script(self) -> str:
        """Lines of Python that do what the rows say."""
        from napari_unet_seg._script import script_of

        self._take_layer()
        info, where = self.model.info, self.place()
        if self._image is None or info is None or where is None:
            raise InputError(self.obstacle() or "There is nothing to segment.")
        shown = _layers.plane_in_view(self.image.layer, self._image, self._viewer.dims.point)
        region = _layers.region_of(self._image, where, shown)
        model = str(info.path) if info.source == "file" else info.name
        return script_of(str(self.image.layer.name), model, self.settings(), region)

    def _copy_script(self) -> None:
        try:
            copy_script(self.script())
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        self.progress.say(COPIED)

    # Getting ready, remembering, leaving

    def _warm_up(self) -> None:
        """Load PyTorch and the model in the background, so that the first click starts at once."""
        from napari_unet_seg._segment.warm_up import warm_up_steps

        self._warming.begin(warm_up_steps(self.model.info, self.more.chosen_device))

    def _take_readiness(self) -> None:
        from napari_unet_seg._segment.warm_up import look_for_garbage

        look_for_garbage()
        self._show_state()

    def _show_warming_failure(self, job: Job) -> None:
        if self._job is None:
            self._show_failure(job)

    def _recall(self) -> None:
        known = remembered("segment")
        self._has_model = bool(known.get("model"))
        self.model.choose(known.get("model", ""))
        self.where.choose(known.get("where", "plane"))
        self.more.choose_device(known.get("device", "auto"))

    def _remember(self) -> None:
        info = self.model.info
        remember(
            "segment",
            model="" if info is None else info.name,
            where=self.where.place,
            device=self.more.chosen_device,
        )

    def _stop(self) -> None:
        self._finder.leave()
        self._warming.cancel()
        if self._job is not None:
            self._job.cancel()
        if self.refinement is not None:
            self.refinement.cancel()


def _measured(segmentation: Segmentation) -> Any:
    """The layer whose regions the table is about: of the objects, where there are any."""
    return segmentation.layer if segmentation.objects_layer is None else segmentation.objects_layer
