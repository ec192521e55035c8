"""The main job from end to end in the real window: open an image, press Segment, write what came of it."""

from __future__ import annotations

import importlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._cli._console import Cancelled, say
from napari_unet_seg._cli._progress import StopWish, first_interrupt_asks_to_stop
from napari_unet_seg._private_display import has_display, start_private_display
from napari_unet_seg._reader import LayerData, layers_of, opened_as_found
from napari_unet_seg._sample_data import em_stack
from napari_unet_seg._space import layer_space
from napari_unet_seg.core.atomic import write_atomically
from napari_unet_seg.core.errors import InputError, OutputError, UNetSegError
from napari_unet_seg.core.image_files import image_stem, write_labels, write_probabilities
from napari_unet_seg.core.model_store import find_model, is_path
from napari_unet_seg.core.predict_settings import PredictSettings
from napari_unet_seg.core.rescaling import checked_zoom
from napari_unet_seg.core.synthetic import EM_VOXEL_SIZE_NM

if TYPE_CHECKING:
    from napari_unet_seg._widgets.open_dock import OpenDock
    from napari_unet_seg._widgets.segment_dock import SegmentDock
    from napari_unet_seg.core.prediction import Prediction

PLUGIN = "napari-unet-seg"
WINDOW_PX = (1400, 900)
LABELS_OPACITY = 0.45
_SETTLING_MS = 600
"""Time for layout, thumbnails and the last drawing before the picture is taken."""
_LONGEST_WARM_UP_MS = 6000
_LOOK_FOR_CTRL_C_MS = 100


@dataclass(frozen=True)
class Subject:
    """What is going to be segmented.

    Attributes
    ----------
    layers
        For the viewer; the first one is segmented, the others are there to be compared with.
    voxel_size_nm
        Of the axes whose size is known.
    """

    name: str
    layers: tuple[LayerData, ...]
    voxel_size_nm: dict[str, float]


@dataclass(frozen=True)
class DemoWindow:
    """napari with our docks."""

    viewer: Any
    open_dock: OpenDock
    segment_dock: SegmentDock


def run_demo(
    image: Path | None,
    *,
    model: str,
    pixel_size_nm: float | None = None,
    zoom: float | None = None,
    out: Path,
) -> int:
    """Segment an image in the window, write the results, and keep the window open until it is closed.

    Parameters
    ----------
    image
        File or folder of sections; None: the embedded EM stack.
    model
        Name or path of a model.
    pixel_size_nm
        Y and X of the image, where the file does not say it or is wrong.
    zoom
        Model-grid pixels per image pixel; beats the pixel size.
    out
        Folder for `probabilities.ome.tif`, `labels.ome.tif` and `screenshot.png`; made when it is missing.

    Returns
    -------
    code
        0. Without a display it returns as soon as the files are written.

    Raises
    ------
    InputError
        Image, model, numbers or display cannot be used; nothing was started.
    UNetSegError
        It was started and failed.
    Cancelled
        Ctrl-C, or the window was closed before the files were written.
    """
    PredictSettings(pixel_size_nm=pixel_size_nm, zoom=zoom)  # refuses impossible numbers
    if zoom is not None:
        checked_zoom(zoom, zoom)
    find_model(model)
    subject = sample(pixel_size_nm) if image is None else subject_of(image, pixel_size_nm)
    _make_folder(out)
    is_private = not has_display()
    if is_private:
        start_private_display()
    _check_viewer()
    with first_interrupt_asks_to_stop() as wish:
        say(f"Opening napari with '{subject.name}' …")
        window = open_window(subject)
        prediction = segment_all(window, model, zoom, wish)
        write_results(out, subject, prediction)
        show_result(window)
        write_atomically(out / "screenshot.png", png(picture(window)))
        _say_what_was_written(out, prediction)
        if is_private:
            window.viewer.close()
        else:
            _keep_open(window, wish)
    return 0


def sample(pixel_size_nm: float | None = None) -> Subject:
    """The embedded EM stack, with its truth as a hidden layer."""
    voxel = _voxel_size(EM_VOXEL_SIZE_NM, pixel_size_nm)
    space = layer_space("ZYX", voxel)
    layers = tuple((data, {**options, **space}, kind) for data, options, kind in em_stack())
    return Subject(layers[0][1]["name"], layers, voxel)


def subject_of(path: Path, pixel_size_nm: float | None = None) -> Subject:
    """An image from disk; of several channels the first is segmented.

    Raises
    ------
    InputError
        It cannot be read, or holds labels.
    """
    opened = opened_as_found(path)
    if opened.info.content == "labels":
        raise InputError(f"'{path}' holds labels, not an image: choose the image that they belong to.")
    voxel = _voxel_size(opened.voxel_size_nm or {}, pixel_size_nm)
    name = image_stem(path.resolve())
    layers = layers_of(replace(opened, voxel_size_nm=voxel), name=name)
    if len(layers) > 1:
        say(f"'{path}' has {len(layers)} channels: the first one, '{layers[0][1]['name']}', is segmented.")
    return Subject(name, tuple(layers), voxel)


def _voxel_size(known: Mapping[str, float], pixel_size_nm: float | None) -> dict[str, float]:
    return dict(known) if pixel_size_nm is None else {**known, "Y": pixel_size_nm, "X": pixel_size_nm}


def _make_folder(out: Path) -> None:
    """By trying: permission bits say nothing of read-only disks, or to the super-user."""
    try:
        out.mkdir(exist_ok=True)
        Path(tempfile.mkdtemp(dir=out)).rmdir()
    except OSError as error:
        raise OutputError(f"The folder '{out}' cannot be made or written to: {error.strerror}.") from error


def _check_viewer() -> None:
    """Load napari and Qt, which the package itself does not ask for."""
    try:
        importlib.import_module("napari")
        importlib.import_module("qtpy.QtWidgets")
    except ImportError as error:
        raise InputError(
            "The demo needs napari and Qt, and they are not installed: pip install 'napari-unet-seg[all]'."
        ) from error


def open_window(subject: Subject) -> DemoWindow:
    """Napari with the image and both docks, Segment in front."""
    import napari
    from napari.layers import Layer

    viewer = napari.Viewer(title="napari-unet-seg demo", show=True)
    viewer.window.resize(*WINDOW_PX)
    layers = [viewer.add_layer(Layer.create(*layer)) for layer in subject.layers]
    viewer.layers.selection.active = layers[0]
    _, open_dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Open")
    dock, segment_dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Segment", tabify=True)
    dock.raise_()
    return DemoWindow(viewer, open_dock, segment_dock)


def segment_all(
    window: DemoWindow, model: str, zoom: float | None = None, wish: StopWish | None = None
) -> Prediction:
    """Fill in the Segment dock, press its button, and wait while the window stays alive.

    Raises
    ------
    UNetSegError
        What the dock says.
    Cancelled
        Ctrl-C, or the window was closed.
    """
    dock, wish = window.segment_dock, wish or StopWish()
    if is_path(model):
        dock.model.add_file(model)
    else:
        dock.model.choose(model)
    dock.where.choose("stack")
    if zoom is not None:
        dock.scale.zoom.setValue(zoom)
    say(f"Segmenting with '{model}' …")
    dock.segment()
    job = dock.job
    if job is None:
        raise UNetSegError(dock.obstacle() or dock.message.sentence.text())
    with _when_asked(wish, job.cancel):
        job.wait()
    if job.error is not None:
        raise job.error
    if wish.is_asked or job.is_running or job.is_cancelled:
        raise Cancelled("Cancelled: nothing was written.")
    prediction: Prediction = job.result
    if not prediction.probabilities.size:
        raise UNetSegError("The image is too large to keep its probabilities at hand: use `predict`.")
    return prediction


@contextmanager
def _when_asked(wish: StopWish, act: Callable[[], object]) -> Iterator[None]:
    """Act once Ctrl-C was pressed, while Qt's loop runs: it would not let an exception through."""
    from qtpy.QtCore import QTimer

    # A timer, because Python sees signals only when some of its own code runs.
    timer = QTimer()
    timer.timeout.connect(lambda: act() if wish.is_asked else None)
    timer.start(_LOOK_FOR_CTRL_C_MS)
    yield
    timer.stop()


def write_results(out: Path, subject: Subject, prediction: Prediction) -> None:
    """Replace probabilities and labels in the folder."""
    from napari_unet_seg import __version__

    facts = {
        "software": f"napari-unet-seg {__version__}",
        "image": subject.name,
        "model": prediction.model_name,
        "zoom": list(prediction.zoom),
        "notes": list(prediction.notes),
    }
    write_probabilities(
        out / "probabilities.ome.tif",
        prediction.probabilities,
        axes=f"C{prediction.axes}",
        class_names=prediction.class_names,
        voxel_size_nm=subject.voxel_size_nm,
        metadata=facts,
        overwrite=True,
    )
    write_labels(
        out / "labels.ome.tif",
        prediction.labels,
        axes=prediction.axes,
        voxel_size_nm=subject.voxel_size_nm,
        metadata=facts,
        overwrite=True,
    )


def show_result(window: DemoWindow) -> None:
    """Let the image shine through the labels, and fit it to the canvas."""
    viewer = window.viewer
    labels = next(
        layer for layer in reversed(viewer.layers) if layer.visible and layer.name.endswith("labels")
    )
    labels.opacity = LABELS_OPACITY
    for _ in range(_LONGEST_WARM_UP_MS // _SETTLING_MS):
        settle()
        if window.segment_dock.why.text():  # the device is known
            break
    viewer.reset_view()  # now that the dock has grown by all that it says
    settle()


def settle(milliseconds: int = _SETTLING_MS) -> None:
    """Let the window draw itself."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def picture(window: DemoWindow) -> NDArray[np.uint8]:
    """The window (Y, X, RGBA)."""
    return np.asarray(window.viewer.screenshot(canvas_only=False, flash=False))


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _say_what_was_written(out: Path, prediction: Prediction) -> None:
    for note in prediction.notes:
        say(note)
    what = "A class map"
    if prediction.objects is not None:
        what = f"{int(prediction.objects.max(initial=0))} objects"
    say(
        f"{what} in {prediction.seconds:.1f} s with '{prediction.model_name}': probabilities.ome.tif, "
        f"labels.ome.tif and screenshot.png are in '{out}'."
    )


def _keep_open(window: DemoWindow, wish: StopWish) -> None:
    """Until it is closed, or Ctrl-C."""
    import napari

    say("Close the window to end.")
    with _when_asked(wish, window.viewer.close):
        napari.run()
