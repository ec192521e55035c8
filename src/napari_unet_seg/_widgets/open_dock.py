"""The Open dock: says what a file or folder holds before anything is loaded, then opens what is wanted."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import napari
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent

from napari_unet_seg._jobs import Job, Steps, sentence, start
from napari_unet_seg._opening import (
    OpenRequest,
    add_layers,
    bytes_in_words,
    in_words,
    layers_for,
    opening_script,
    request_as_found,
)
from napari_unet_seg._reader import LayerData
from napari_unet_seg._widgets.dock import COPIED, Dock, big_button, copy_script, labelled_rows, script_button
from napari_unet_seg._widgets.message import Message, wrapped_label
from napari_unet_seg._widgets.open_rows import AxesRow, ChannelBox, PartRow, PathRow, VoxelRow
from napari_unet_seg.core.errors import InputError, UNetSegError
from napari_unet_seg.core.image_files import ImageInfo, look_at

LOOK_AFTER_MS = 300
"""Pause in typing after which the path is looked at."""


class OpenDock(Dock):
    """Open a file or a folder of sections.

    Parameters
    ----------
    napari_viewer
        Where the layers go.

    Attributes
    ----------
    opened
        Qt signal: the layers that were just added.
    """

    opened = Signal(list)

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._info: ImageInfo | None = None
        self._job: Job | None = None
        self._done = ""
        self._make_rows()
        self._make_button()
        self._lay_out()
        self._connect()
        self._forget()

    def _make_rows(self) -> None:
        self.path = PathRow()
        self.found = wrapped_label()
        self.axes = AxesRow()
        self.channel = ChannelBox()
        self.voxel = VoxelRow()
        self.part = PartRow()
        self.amount = wrapped_label()

    def _make_button(self) -> None:
        self.open_button = big_button(
            "Open", "Add what was chosen to the viewer; pixels are read when they are shown."
        )
        self.script_button = script_button("open the same")
        self.message = Message()

    def _lay_out(self) -> None:
        self.form = labelled_rows(
            (
                ("Image", self.path),
                ("Found", self.found),
                ("Axes", self.axes),
                ("Channel", self.channel),
                ("Voxel", self.voxel),
                ("Part", self.part),
                ("Opens", self.amount),
            )
        )
        self._fill((self.form, self.open_button, self.message, self.script_button))

    def _connect(self) -> None:
        self.setAcceptDrops(True)
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(LOOK_AFTER_MS)
        self._typing.timeout.connect(self._look)
        self.path.changed.connect(self._forget)
        self.path.changed.connect(self._typing.start)
        self.path.line.returnPressed.connect(self._look)
        for changing in (
            self.axes.changed,
            self.channel.currentIndexChanged,
            self.voxel.changed,
            self.part.changed,
        ):
            changing.connect(self._change)
        self.open_button.clicked.connect(self.open)
        self.script_button.clicked.connect(self._copy_script)

    def look(self, path: Path | str) -> None:
        """Fill in a path and look at it now."""
        self.path.line.setText(str(path))
        self._look()

    @property
    def is_busy(self) -> bool:
        """Whether it is looking at something or opening it."""
        return self._job is not None and self._job.is_running

    def request(self) -> OpenRequest:
        """What the rows say.

        Raises
        ------
        InputError
            It cannot be opened; the sentence says what is missing.
        """
        request = self._wish()
        request.check()
        return request

    def open(self) -> None:
        """Open what the rows say.

        Raises
        ------
        InputError
            As `request`; the button is disabled then.
        """
        request = self.request()
        self._run(_opening(request), f"Opening {request.info.path.name}", self._add)

    def script(self) -> str:
        """Lines of Python that open what the rows say.

        Raises
        ------
        InputError
            As `request`.
        """
        return opening_script(self.request())

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802 - Qt's name
        """Take files that are dragged here."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802 - Qt's name
        """Look at the first of the dropped files."""
        self.look(event.mimeData().urls()[0].toLocalFile())
        event.acceptProposedAction()

    def _wish(self) -> OpenRequest:
        if self._info is None:
            raise InputError("Choose a file or a folder, or drop one here.")
        axes = self.axes.axes
        plane_axis = next((axis for axis in "ZT" if axis in axes), None)
        return OpenRequest(
            self._info, axes, self.channel.channel, self.voxel.size_nm, self.part.parts(plane_axis)
        )

    def _look(self) -> None:
        self._typing.stop()
        self._forget()
        if self.path.path is not None:
            self._run(_looking(self.path.path), f"Looking at {self.path.path.name}", self._show_found)

    def _run(self, steps: Steps, what: str, then: Callable[[Any], None]) -> None:
        """Work behind the window; an answer that comes after something newer was begun is dropped."""

        def take(job: Job) -> None:
            if job is self._job and job.error is None:
                then(job.result)

        def finish() -> None:
            if job is self._job:
                self._job = None
                self._show_state()
                if job.error is not None:
                    self.message.show_error(sentence(job.error), _details(job))

        job = start(steps, what, on_end=take, window=self, shows_errors=False)
        job.finished.connect(finish)
        self._job = job
        self._show_state()

    def _forget(self) -> None:
        """Show no image."""
        self._info = self._job = None
        self._change()

    def _change(self) -> None:
        self._done = ""
        self._show_state()

    def _show_found(self, info: ImageInfo) -> None:
        self._info = info
        request = request_as_found(info)
        self.found.setText(" ".join(filter(None, [in_words(info) + ".", info.note])))
        for row in (self.axes, self.channel, self.voxel, self.part):
            row.show_request(request)

    def _add(self, found: list[LayerData]) -> None:
        layers = add_layers(self._viewer, found)
        self._done = f"Opened '{layers[0].name}'." if len(layers) == 1 else f"Opened as {len(layers)} layers."
        self.opened.emit(layers)

    def _copy_script(self) -> None:
        copy_script(self.script())
        self._done = COPIED
        self._show_state()

    def _show_state(self) -> None:
        """Fit the rows, the button and the sentence to what is chosen now."""
        for row in range(1, self.form.rowCount()):
            self.form.setRowVisible(row, self._info is not None)
        if self._info is not None:
            self._fit_rows(OpenRequest(self._info, self.axes.axes))
        try:
            self.amount.setText(_amount(self.request()))
            problem = ""
        except InputError as error:
            self.amount.setText("–")
            problem = str(error)
        self.open_button.setEnabled(not problem and not self.is_busy)
        self.script_button.setEnabled(not problem)
        self.message.show_note(
            f"{self._job.description} …" if self._job and self.is_busy else problem or self._done
        )

    def _fit_rows(self, request: OpenRequest) -> None:
        self.channel.show_request(request)
        self.voxel.show_axes(request.axes)
        self.part.show_axes(request)
        self.form.setRowVisible(self.channel, request.length("C") > 1)


def _looking(path: Path) -> Generator[None, None, ImageInfo]:
    """`look_at` as a job of no steps."""
    yield from ()
    return look_at(path)


def _opening(request: OpenRequest) -> Generator[None, None, list[LayerData]]:
    """`layers_for` as a job of no steps."""
    yield from ()
    return layers_for(request)


def _details(job: Job) -> str:
    """Our own sentences say it all."""
    return "" if isinstance(job.error, UNetSegError) else job.details


def _amount(request: OpenRequest) -> str:
    shape = request.opened_shape
    size = " × ".join(f"{axis} {length}" for axis, length in shape.items())
    when = "" if request.info.content == "labels" else ", read when shown"
    return f"{size}, {bytes_in_words(request.n_bytes)}{when}"
