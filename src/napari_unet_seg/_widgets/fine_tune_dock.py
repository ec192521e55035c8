"""The Fine-tune dock: a model learns from painted layers in the background, and is kept when it is better."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Labels
from napari.utils.theme import get_theme
from qtpy.QtCore import QTimer
from qtpy.QtGui import QColor, QShowEvent
from qtpy.QtWidgets import QCheckBox

from napari_unet_seg._annotate.layer import coding_of
from napari_unet_seg._jobs import Job, sentence
from napari_unet_seg._open_docks import found_dock
from napari_unet_seg._recover.recovery import recorder_of
from napari_unet_seg._widgets.dock import (
    COPIED,
    Dock,
    big_button,
    copy_script,
    labelled_rows,
    script_button,
)
from napari_unet_seg._widgets.fine_tune_curves import Curves
from napari_unet_seg._widgets.fine_tune_more import FineTuneMore
from napari_unet_seg._widgets.fine_tune_result import ResultPanel
from napari_unet_seg._widgets.fine_tune_rows import AnnotationRow, PresetRow
from napari_unet_seg._widgets.job_row import JobRow
from napari_unet_seg._widgets.message import Message, wrapped_label
from napari_unet_seg._widgets.preferences import remember, remembered
from napari_unet_seg._widgets.recovery_row import ProjectRow
from napari_unet_seg._widgets.segment_rows import ModelRow
from napari_unet_seg._widgets.warming import Warming
from napari_unet_seg.core.errors import InputError, UNetSegError

if TYPE_CHECKING:
    # They import PyTorch, which takes a second or more: that is done in the background.
    from napari_unet_seg._fine_tune.fine_tuning import FineTuning
    from napari_unet_seg._fine_tune.request import TrainingRequest
    from napari_unet_seg.core.train_settings import TrainSettings
    from napari_unet_seg.core.weight_map import WeightSettings

_LOOK_AFTER_MS = 300
"""Pause in painting after which the dock looks whether there is anything to learn from."""
_MOST_NOTES = 4
QUICK_S = 60.0
"""What "about a minute" comes to on any machine."""


class FineTuneDock(Dock):
    """Fine-tune a model on annotation layers.

    Parameters
    ----------
    napari_viewer
        Whose layers it offers.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._job: Job | None = None
        self._warming = Warming(self)
        self._notes: list[str] = []
        self.fine_tuning: FineTuning | None = None
        self._make_rows()
        self._lay_out()
        self._connect()
        self._recall()
        self._show_theme()
        self.reset_choices()
        self._warm_up()

    def _make_rows(self) -> None:
        self.model = ModelRow()
        self.annotations = AnnotationRow()
        self.preset = PresetRow()
        self.more = FineTuneMore()
        self.project = ProjectRow(self._viewer)
        self.more.form.addRow("Save to", self.project)
        self.button = big_button(
            "Fine-tune", "Let the model learn from what you painted; you can go on painting meanwhile."
        )
        self.why = wrapped_label()
        self.curves = Curves()
        self.progress = JobRow("Stop, keep best", "Stop now and keep the best model so far.", can_pause=True)
        self.preview = QCheckBox("preview this view while training")
        self.preview.setToolTip("Show every few seconds what the network makes of the current view.")
        self.preview.setChecked(True)
        self.message = Message()
        self.result = ResultPanel()
        self.script_button = script_button("do the same again")
        self._looking = QTimer(self)
        self._looking.setSingleShot(True)
        self._looking.setInterval(_LOOK_AFTER_MS)

    def _lay_out(self) -> None:
        rows = labelled_rows((("From", self.model), ("With", self.annotations)))
        above = (self.preset, self.more, self.button, self.why, self.curves, self.progress)
        below = (self.preview, self.message, self.result, self.script_button)
        self._fill((rows, *above, *below))

    def _connect(self) -> None:
        self.model.changed.connect(self._take_layers)
        self.annotations.changed.connect(self._take_layers)
        self.preset.changed.connect(self._take_preset)
        self.more.device_changed.connect(self._warm_up)
        self._warming.changed.connect(self._take_readiness)
        self._warming.failed.connect(self._show_warming_failure)
        self.button.clicked.connect(self.fine_tune)
        self.preview.toggled.connect(self._switch_preview)
        self.result.side_wanted.connect(self._show_side)
        self.result.keep_wanted.connect(self.keep)
        self.result.revert_wanted.connect(self.revert)
        self.script_button.clicked.connect(self._copy_script)
        self._looking.timeout.connect(self._show_state)
        self._viewer.events.theme.connect(self._show_theme)

    def reset_choices(self, event: Any = None) -> None:
        """Offer the annotation layers that there are now."""
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Labels)]
        for layer in layers:
            # napari connects a callback only once.
            for event in (layer.events.paint, layer.events.set_data):
                event.connect(self._look_soon)
            layer.events.name.connect(self.reset_choices)
        self.annotations.offer([layer for layer in layers if coding_of(layer)], self._viewer.layers)

    def learn_from(self, labels_layer: Any, weights: WeightSettings | None = None) -> None:
        """Tick this annotation and no other; its weight map is used when it is not the usual one."""
        self.annotations.tick_only(labels_layer)
        if weights is not None:
            self.more.show_weight_map(weights)

    @property
    def job(self) -> Job | None:
        """What it is doing, if anything."""
        return self._job

    @property
    def is_ready(self) -> bool:
        """Whether PyTorch is loaded, or could not be."""
        return self._warming.is_done

    # The wish

    def settings(self) -> TrainSettings:
        """What the rows say."""
        return replace(self.more.settings(self._preset_settings()), zoom=self.annotations.scale.chosen_zoom)

    def _preset_settings(self) -> TrainSettings:
        from napari_unet_seg.core.train_settings import TrainSettings

        presets: dict[str, Callable[[], TrainSettings]] = {
            "quick": partial(TrainSettings.quick, time_limit_s=QUICK_S),
            "thorough": TrainSettings.thorough,
            "paper": TrainSettings.paper,
        }
        return presets[self.preset.chosen]()

    def request(self) -> TrainingRequest:
        """What the rows say, of the layers as they are now.

        Raises
        ------
        UNetSegError
            Something does not fit.
        """
        from napari_unet_seg._fine_tune.request import training_request

        if self.model.info is None:
            raise InputError(self.obstacle() or "There is no model to start from.")
        return training_request(
            self.annotations.chosen,
            self._viewer.layers,
            self.model.info,
            self.settings(),
            channel=self.annotations.chosen_channel,
            pixel_size_nm=self.annotations.scale.pixel_size_nm,
        )

    def obstacle(self) -> str | None:
        """Why the button cannot work now, with a way out; None when it can."""
        if self.model.problem:
            return self.model.problem
        if self.model.info is None:
            return "There is no model to start from: choose a file, or train one."
        if self._job is not None:
            return None
        return self.annotations.obstacle()

    # What the rows do to each other

    def _take_layers(self) -> None:
        info = self.model.info
        self.annotations.offer_channels(1 if info is None else info.architecture.in_channels)
        self.annotations.ask_for_scale(info)
        self._take_scale()
        self._show_state()

    def _take_scale(self) -> None:
        """Train as the Segment dock segments, where pixel sizes do not tell how."""
        segment = found_dock(self._viewer, "Segment")
        image = None if segment is None else self.annotations.annotated(segment.image.layer)
        if image is not None:
            size_nm = segment.scale.pixel_size_nm if image.pixel_size_nm is None else None
            self.annotations.scale.suggest(size_nm, segment.scale.chosen_zoom)

    def _take_preset(self) -> None:
        if self.is_ready:
            self.more.show_settings(self._preset_settings())

    def _look_soon(self, event: Any = None) -> None:  # noqa: ARG002 - napari's event
        if self._job is None:
            self._looking.start()

    def _show_state(self) -> None:
        obstacle = self.obstacle()
        self.button.setEnabled(obstacle is None and self._job is None and self.is_ready)
        self.why.setText(obstacle or self._device_in_words())
        self.why.setVisible(bool(self.why.text()))
        self.script_button.setEnabled(bool(self.annotations.chosen) and self.model.info is not None)

    def _device_in_words(self) -> str:
        if not self.is_ready:
            return "Getting ready…"
        return "" if self._warming.readiness is None else f"Runs on {self._warming.readiness.device_reason}."

    def _show_theme(self, event: Any = None) -> None:  # noqa: ARG002 - napari's event
        ground = QColor(get_theme(self._viewer.theme).background.as_hex())
        self.curves.show_theme(is_dark=ground.lightness() < 128)

    # Training

    def fine_tune(self) -> None:
        """Start what the rows say; the button does this."""
        from napari_unet_seg._fine_tune.fine_tuning import FineTuning
        from napari_unet_seg._widgets.fine_tune_progress import Reporter

        self.message.clear()
        self._notes.clear()
        if self.obstacle() is not None or self._job is not None:
            self._show_state()
            return
        try:
            request = self.request()
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        self._remember()
        if self.fine_tuning is not None:
            self.fine_tuning.leave()
        self.result.setVisible(False)
        self.curves.begin()
        chosen = self.annotations.chosen
        fine_tuning = FineTuning(request, chosen, self._viewer, recorder_of(self._viewer))
        fine_tuning.noted.connect(self._note)
        fine_tuning.kept.connect(self._show_kept)
        fine_tuning.reverted.connect(self._show_reverted)
        fine_tuning.failed.connect(self._show_failure)
        job = fine_tuning.run(previews=self.preview.isChecked())
        job.stepped.connect(self._take_step)
        self.progress.follow(job, Reporter(request.settings).describe)
        job.finished.connect(self._end)
        self.fine_tuning, self._job = fine_tuning, job
        self._show_state()

    def _take_step(self, step: Any) -> None:
        from napari_unet_seg.core.training_messages import TrainStep, ValidationStep

        if isinstance(step, TrainStep):
            self.curves.add_loss(step.step, step.loss)
        elif isinstance(step, ValidationStep):
            self.curves.add_score(step.step, step.score.value, step.before.value)

    def _note(self, sentence_: str) -> None:
        """Keep the last sentences."""
        if sentence_ in self._notes:
            self._notes.remove(sentence_)
        self._notes = [*self._notes, sentence_][-_MOST_NOTES:]
        self.message.show_note("\n".join(self._notes))

    def _end(self) -> None:
        """Say what came out."""
        job, self._job = self._job, None
        if self.fine_tuning is not None and self.fine_tuning.tuned is not None:
            self._show_result(self.fine_tuning)
        if job is not None and job.error is not None:
            self.message.show_error(sentence(job.error), job.details)
        self._show_state()

    def _show_result(self, fine_tuning: FineTuning) -> None:
        from napari_unet_seg._widgets.fine_tune_progress import verdict

        info = fine_tuning.request.info
        self.result.show_result(verdict(fine_tuning), info, fine_tuning.name, is_better=fine_tuning.is_better)
        if fine_tuning.tuned is not None and fine_tuning.tuned.problem:
            self.message.show_error(fine_tuning.tuned.problem)
        elif not fine_tuning.is_better:
            self.message.clear()  # the verdict says it
        fine_tuning.compare()

    def _show_failure(self, job: Job) -> None:
        if job.error is not None:
            self.message.show_error(sentence(job.error), job.details)

    def _switch_preview(self, is_on: bool) -> None:
        if self.fine_tuning is not None:
            self.fine_tuning.show_preview(is_shown=is_on)

    # Better?

    def _show_side(self, side: Any) -> None:
        if self.fine_tuning is not None and self.fine_tuning.comparison is not None:
            self.fine_tuning.comparison.show(side)

    def keep(self, name: str, is_replacing: bool = False) -> None:
        """Save the new model under a name."""
        if self.fine_tuning is not None and self.fine_tuning.tuned is not None:
            self.fine_tuning.keep(name, overwrite=is_replacing)

    def _show_kept(self, name: str) -> None:
        self.message.clear()
        self.result.show_kept(name)

    def revert(self) -> None:
        """Go on with the old model."""
        if self.fine_tuning is not None:
            self.fine_tuning.revert()

    def _show_reverted(self) -> None:
        if self.fine_tuning is not None:
            self.result.show_gone_back(self.fine_tuning.request.info.name)

    # Script

    def script(self) -> str:
        """Lines of Python that do what the rows say."""
        from napari_unet_seg._fine_tune.fine_tuning import name_for
        from napari_unet_seg._script import tuning_script

        request = self.request()
        info = request.info
        return tuning_script(
            self.annotations.names(),
            str(info.path) if info.source == "file" else info.name,
            self.preset.chosen,
            request.settings,
            save_as=name_for(info, [source.image.name for source in request.sources]),
        )

    def _copy_script(self) -> None:
        try:
            copy_script(self.script())
        except UNetSegError as error:
            self.message.show_error(str(error))
            return
        self.progress.say(COPIED)

    # Getting ready, remembering, leaving

    def _warm_up(self) -> None:
        """Load PyTorch and the plots in the background, so that the first click starts at once."""
        self._warming.begin(_getting_ready(self.more.device.chosen))
        self._show_state()

    def _take_readiness(self) -> None:
        if not self.more.is_filled and self._warming.readiness is not None:
            self._take_preset()
        self._show_state()

    def _show_warming_failure(self, job: Job) -> None:
        if self._job is None and job.error is not None:
            self.message.show_error(sentence(job.error), job.details)

    def _recall(self) -> None:
        known = remembered("fine_tune")
        self.model.choose(known.get("model", ""))
        self.preset.choose(known.get("preset", "quick"))
        self.preview.setChecked(known.get("preview", True))
        self.more.device.choose(known.get("device", "auto"))

    def _remember(self) -> None:
        info = self.model.info
        remember(
            "fine_tune",
            model="" if info is None else info.name,
            preset=self.preset.chosen,
            preview=self.preview.isChecked(),
            device=self.more.device.chosen,
        )

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Take over what was chosen in the Segment dock meanwhile."""
        super().showEvent(event)
        self._take_scale()

    def _stop(self) -> None:
        self._warming.cancel()
        if self.fine_tuning is not None:
            self.fine_tuning.leave()


def _getting_ready(device: str) -> Generator[Any, Any, None]:
    """Load what the dock needs later, in a job; yields its `Readiness` as soon as training could begin."""
    import_module("pyqtgraph")
    import_module("napari_unet_seg._fine_tune.fine_tuning")

    from napari_unet_seg._segment.warm_up import warm_up_steps

    yield (yield from warm_up_steps(None, device))
    import_module("torch._dynamo")  # PyTorch needs it for the first optimiser, and it takes seconds
