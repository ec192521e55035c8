"""Predicting the images of a `predict` call one by one, and writing what comes of each."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg import __version__
from napari_unet_seg._cli._console import Cancelled, say
from napari_unet_seg._cli._options import voxel_size_nm, with_option
from napari_unet_seg._cli._outputs import staged
from napari_unet_seg._cli._plane_file import PlaneFile
from napari_unet_seg._cli._predict_jobs import Job
from napari_unet_seg._cli._progress import ProgressBar, first_interrupt_asks_to_stop
from napari_unet_seg.core.errors import InputError, UNetSegError
from napari_unet_seg.core.image_files import OpenedImage, open_image, write_labels, write_probabilities
from napari_unet_seg.core.models import Model
from napari_unet_seg.core.prediction import (
    PlaneDone,
    Prediction,
    PredictionStarted,
    PredictionStep,
    PredictSettings,
    TileDone,
    prediction_steps,
)
from napari_unet_seg.core.steps import Note

Steps = Generator[PredictionStep, Any, Prediction]


@dataclass(frozen=True)
class Wishes:
    """What holds for every image of one call."""

    settings: PredictSettings
    pixel_size_nm: tuple[float, ...] | None
    axes: str | None
    channel: str | None
    probability_dtype: Literal["float32", "uint16", "uint8"]
    overwrite: bool


@dataclass(frozen=True)
class Done:
    """What came of one image; `n_objects` is None where there are classes only."""

    job: Job
    prediction: Prediction
    n_objects: int | None

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        result = self.prediction
        return {
            "input": str(self.job.image),
            "outputs": [str(path) for path in self.job.outputs.wanted],
            "device": result.device,
            "tile": result.tile_px,
            "tiles": result.n_tiles,
            "zoom": result.zoom[0] if result.zoom[0] == result.zoom[1] else list(result.zoom),
            "objects": self.n_objects,
            "notes": list(result.notes),
            "seconds": round(result.seconds, 3),
        }


class Batch:
    """Images one after the other; where there are several, one that fails does not stop the rest."""

    def __init__(self, model: Model, wishes: Wishes, jobs: Sequence[Job]) -> None:
        self._model, self._wishes, self._jobs = model, wishes, jobs
        self._done: list[Done] = []
        self._failed: list[tuple[Job, UNetSegError]] = []
        self._said: set[str] = set()

    def run(self) -> None:
        """Predict every image.

        Raises
        ------
        InputError
            Not one could be started.
        UNetSegError
            The only one failed.
        Cancelled
            Ctrl-C; images that are complete stay.
        """
        try:
            for job in self._jobs:
                self._run_one(job)
        except KeyboardInterrupt as error:
            n_done = f"{len(self._done)} of {len(self._jobs)} images are done"
            raise Cancelled(f"Cancelled: {n_done if self._done else 'nothing was written'}.") from error
        errors = [error for _, error in self._failed]
        if len(self._jobs) == 1 and errors:
            raise errors[0]
        if len(errors) == len(self._jobs) and all(isinstance(error, InputError) for error in errors):
            raise InputError(f"None of the {len(errors)} images can be used; the last one: {errors[-1]}")

    def conclude(self) -> None:
        """Say how a batch went.

        Raises
        ------
        UNetSegError
            Some images failed; the sentence says which.
        """
        if not self._failed:
            if len(self._jobs) > 1:
                say(f"All {len(self._done)} images are done.")
            return
        names = ", ".join(f"'{job.image.name}'" for job, _ in self._failed[:5])
        more = f" and {len(self._failed) - 5} more" if len(self._failed) > 5 else ""
        raise UNetSegError(
            f"{len(self._failed)} of {len(self._jobs)} images failed: {names}{more}; "
            f"the last one: {self._failed[-1][1]}"
        )

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Everything that came of it; a value that differs between images is null."""
        images = [done.as_json() for done in self._done]
        same = {key: _common([image[key] for image in images]) for key in ("device", "tile", "zoom")}
        is_counted = self._model.task == "instances" or bool(self._model.info.object_class)
        return {
            "outputs": [path for image in images for path in image["outputs"]],
            "model": self._model.name,
            "device": same["device"],
            "tile": same["tile"],
            "tiles": sum(image["tiles"] for image in images),
            "zoom": same["zoom"],
            "objects": sum(image["objects"] for image in images) if is_counted else None,
            "seconds": round(seconds, 3),
            "images": images,
            "failed": [{"input": str(job.image), "error": str(error)} for job, error in self._failed],
        }

    def _run_one(self, job: Job) -> None:
        try:
            done = predict_one(job, self._model, self._wishes, self._say_once)
        except UNetSegError as error:
            self._failed.append((job, error))
            if len(self._jobs) > 1:
                say(str(error))
            return
        self._done.append(done)
        objects = "" if done.n_objects is None else f": {done.n_objects} object{'s' * (done.n_objects != 1)}"
        say(f"'{job.image}' to '{job.outputs.labels}'{objects}, in {done.prediction.seconds:.1f} s.")

    def _say_once(self, sentence: str) -> None:
        """What holds for every image of a batch need not be said for each."""
        if sentence not in self._said:
            self._said.add(sentence)
            say(sentence)


def _common(values: list[Any]) -> Any:
    return values[0] if values and all(value == values[0] for value in values) else None


def predict_one(job: Job, model: Model, wishes: Wishes, say_once: Callable[[str], None]) -> Done:
    """Predict one image and put all its results in place together, at the very end.

    Raises
    ------
    InputError
        The image cannot be used; nothing was started.
    UNetSegError
        It was started and failed; nothing was written.
    """
    with _naming(job.image):
        opened = open_image(job.image, axes=wishes.axes, channel=wishes.channel)
    voxel = voxel_size_nm(wishes.pixel_size_nm, opened.voxel_size_nm, opened.axes)
    pixel_size = (voxel["Y"], voxel["X"]) if {"Y", "X"} <= set(voxel) else None
    settings = replace(wishes.settings, axes=opened.axes, pixel_size_nm=pixel_size)
    with _naming(job.image):
        steps = prediction_steps(opened.data, model, settings, keep_probabilities=False)
        started = next(step for step in steps if isinstance(step, PredictionStarted))
    with staged(job.outputs.wanted, overwrite=wishes.overwrite) as temporary:
        scratch = _scratch(temporary, job, started)
        with _naming(job.image):
            prediction = _run(steps, started, job.image.name, scratch, say_once)
        try:
            _write(temporary, job, opened, voxel, prediction, scratch, wishes)
        except InputError as error:
            raise UNetSegError(str(error)) from error
    n_objects = None if prediction.objects is None else int(prediction.objects.max(initial=0))
    return Done(job, prediction, n_objects)


@contextmanager
def _naming(image: Path) -> Iterator[None]:
    """Put the file's name before errors that do not have it, and the option after those that have one."""
    try:
        yield
    except UNetSegError as error:
        said = with_option(error)
        kind = InputError if isinstance(error, InputError) else UNetSegError
        raise kind(said if image.name in said else f"'{image}': {said}") from error
    except MemoryError as error:
        raise UNetSegError(
            f"'{image}' does not fit the memory: close other programs, or work on a smaller part of it."
        ) from error


def _scratch(temporary: Mapping[Path, Path], job: Job, started: PredictionStarted) -> PlaneFile | None:
    """Where probabilities wait until all planes are there, because the file has the class axis first."""
    if job.outputs.probabilities is None:
        return None
    path = temporary[job.outputs.probabilities].with_name("planes")
    return PlaneFile(path, (len(started.class_names), *started.shape))


def _run(
    steps: Steps,
    started: PredictionStarted,
    name: str,
    scratch: PlaneFile | None,
    say_once: Callable[[str], None],
) -> Prediction:
    """Run to the end with a progress bar; what fails once a tile is done has been started."""
    say_once(f"Running on {started.device_reason}.")
    say_once(f"Zoom {_zoom_in_words(started.zoom)}, tiles of {started.tile_px} px.")
    for sentence in started.notes:
        say_once(sentence)
    collector = None if scratch is None else _PlaneCollector(scratch, started)
    is_under_way = False
    # Not by an exception in the middle of a tile: one that strikes inside a callback of PyTorch is lost.
    with first_interrupt_asks_to_stop() as wish, ProgressBar("tiles") as bar, closing(steps):
        bar.show(name, 0, started.n_tiles)
        while True:
            if wish.is_asked:
                raise KeyboardInterrupt
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            except InputError as error:
                if is_under_way:
                    raise UNetSegError(str(error)) from error
                raise
            if isinstance(step, TileDone):
                is_under_way = True
                bar.show(name, step.tiles_done, step.n_tiles)
            elif isinstance(step, Note):
                bar.note(step.message)
            if collector is not None:
                collector.take(step)


def _zoom_in_words(zoom: tuple[float, float]) -> str:
    return f"{zoom[0]:.3g}" if zoom[0] == zoom[1] else f"{zoom[0]:.3g} (Y), {zoom[1]:.3g} (X)"


class _PlaneCollector:
    """Puts the tiles of one plane together and stores the plane when it is complete."""

    def __init__(self, scratch: PlaneFile, started: PredictionStarted) -> None:
        self._scratch = scratch
        self._shape = (len(started.class_names), *started.shape[-2:])
        self._plane = self._empty()

    def take(self, step: PredictionStep) -> None:
        """Look at a step of the prediction."""
        if isinstance(step, TileDone):
            self._plane[(slice(None), *step.box)] = step.probabilities
        elif isinstance(step, PlaneDone):
            self._scratch.put(step.plane, self._plane)
            self._plane = self._empty()

    def _empty(self) -> NDArray[np.float32]:
        """A plane of certain background, which is what a plane without a finite pixel stays."""
        plane = np.zeros(self._shape, np.float32)
        plane[0] = 1
        return plane


def _write(
    temporary: Mapping[Path, Path],
    job: Job,
    opened: OpenedImage,
    voxel_size_nm: Mapping[str, float],
    prediction: Prediction,
    scratch: PlaneFile | None,
    wishes: Wishes,
) -> None:
    """Write all results under their temporary names."""
    outputs, facts = job.outputs, _provenance(job, prediction, wishes)
    write_labels(
        temporary[outputs.labels],
        prediction.labels,
        axes=prediction.axes,
        voxel_size_nm=voxel_size_nm,
        metadata=facts,
    )
    if outputs.probabilities is not None and scratch is not None:
        write_probabilities(
            temporary[outputs.probabilities],
            scratch,
            axes=f"C{prediction.axes}",
            class_names=prediction.class_names,
            dtype=wishes.probability_dtype,
            voxel_size_nm=voxel_size_nm,
            metadata=facts,
        )
    if outputs.table is not None:
        _write_table(temporary[outputs.table], opened, voxel_size_nm, prediction)


def _write_table(
    path: Path, opened: OpenedImage, voxel_size_nm: Mapping[str, float], prediction: Prediction
) -> None:
    from napari_unet_seg.core.regions import region_table, write_csv

    spacing = [voxel_size_nm[axis] for axis in "YX"] if {"Y", "X"} <= set(voxel_size_nm) else None
    grey = None if "C" in opened.axes else opened.data
    regions = prediction.labels if prediction.objects is None else prediction.objects
    table = region_table(regions, grey, spacing=spacing, unit="nm" if spacing else "pixel")
    write_csv(table, path)


def _provenance(job: Job, prediction: Prediction, wishes: Wishes) -> dict[str, Any]:
    """How the result was made, for its own file."""
    planes = [{"plane": list(plane), **found.to_json()} for plane, found in prediction.statistics.items()]
    settings = wishes.settings
    return {
        "software": f"napari-unet-seg {__version__}",
        "image": job.image.name,
        "model": prediction.model_name,
        "task": prediction.task,
        "classes": list(prediction.class_names),
        "zoom": list(prediction.zoom),
        "pixel_size_nm": prediction.pixel_size_nm,
        "channel": wishes.channel,
        "invert": settings.invert,
        "test_time_averaging": settings.tta,
        "normalisation": {**prediction.normalisation.to_json(), "planes": planes},
        "objects": asdict(prediction.object_settings),
        "notes": list(prediction.notes),
    }
