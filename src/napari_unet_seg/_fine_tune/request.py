"""A wish to fine-tune on annotation layers, frozen on the main thread, and the steps that fulfil it; no Qt.

Labels are copied and images are read in the job's thread, plane by plane, where something counts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotate.layer import check_fit, image_layer_of, regions_layer_of
from napari_unet_seg._annotate.what_counts import AnnotationView, PlaneAnnotation, view_of
from napari_unet_seg._layers import Index, LayerImage, read_image
from napari_unet_seg.core._axes import PlaneView, understand
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError, TrainingDivergedError
from napari_unet_seg.core.model_store import ModelInfo, find_model, read_info
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.steps import STOP
from napari_unet_seg.core.training import TrainSettings, training_steps
from napari_unet_seg.core.training_messages import NewAnnotations

Channel = int | Literal["grey"] | None


@dataclass(frozen=True, eq=False)
class Source:
    """An annotation layer and its image, as they are now; neither is copied.

    Attributes
    ----------
    name
        Of the labels layer.
    """

    name: str
    said: AnnotationView
    image: LayerImage


@dataclass(frozen=True, eq=False)
class TrainingRequest:
    """Everything that a fine-tuning needs to know.

    Attributes
    ----------
    model
        Where to start, or its path.
    channel
        What a model that sees one channel looks at in images that have several.
    pixel_size_nm
        (Y, X) of the images that do not know their own.
    """

    sources: tuple[Source, ...]
    model: Model | str
    info: ModelInfo
    settings: TrainSettings
    channel: Channel = None
    pixel_size_nm: tuple[float, float] | None = None

    def channel_of(self, image: LayerImage) -> Channel:
        """What the model looks at in an image: of colours the grey, if nothing was chosen."""
        if image.n_channels == 1 or self.info.architecture.in_channels != 1:
            return None
        return "grey" if self.channel is None and "S" in image.axes else self.channel

    def pixel_size_of(self, image: LayerImage) -> tuple[float, float] | None:
        """(Y, X) in nm."""
        return image.pixel_size_nm or self.pixel_size_nm

    def zoom_of(self, image: LayerImage) -> float | None:
        """At which an image is seen where the pixel sizes do not tell it; None where they do."""
        is_told = self.info.pixel_size_nm is not None and self.pixel_size_of(image) is not None
        if is_told:
            return None
        return self.info.usual_zoom if self.settings.zoom is None else self.settings.zoom


@dataclass(frozen=True, eq=False)
class Painted:
    """Sent in: a source says something new.

    Attributes
    ----------
    number
        Of the source.
    planes
        Those in which labels are other than before; None: any may be.
    """

    number: int
    said: AnnotationView
    planes: frozenset[Index] | None = None


@dataclass(frozen=True)
class ReadingStep:
    """One more plane was looked at before training starts."""

    planes_done: int
    n_planes: int


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result: the model that it started from, and the best one that was met, which may be the same.

    Attributes
    ----------
    before
        Or where it is.
    problem
        Why training broke off before its end, or empty.
    """

    before: Model | str
    after: Model
    problem: str = ""

    @property
    def is_better(self) -> bool:
        """Whether a step scored better than the starting model."""
        return int(self.after.history[-1]["best_step"]) > 0


def source_of(labels_layer: Any, viewer_layers: Any) -> Source:
    """Look at an annotation layer, its rectangles and its image.

    Raises
    ------
    InputError
        There is no image for it, or they do not fit each other.
    """
    image_layer = image_layer_of(viewer_layers, labels_layer)
    if image_layer is None:
        raise InputError(
            f"No image in the viewer fits labels '{labels_layer.name}': open the image that they annotate."
        )
    image = read_image(image_layer)
    check_fit(labels_layer, image)
    said = view_of(labels_layer, regions_layer_of(viewer_layers, labels_layer))
    return Source(str(labels_layer.name), said, image)


def training_request(
    labels_layers: Sequence[Any],
    viewer_layers: Any,
    model: Model | ModelInfo | str,
    settings: TrainSettings | None = None,
    *,
    channel: Channel = None,
    pixel_size_nm: tuple[float, float] | None = None,
) -> TrainingRequest:
    """Freeze a wish.

    Parameters
    ----------
    labels_layers
        Annotations; each finds its image and its rectangles among the viewer's layers.
    model
        Where to start, or what is known of it, or its name or path.

    Raises
    ------
    InputError
        There is no annotation layer, or something does not fit.
    """
    if not labels_layers:
        raise InputError("Choose a layer to learn from: paint one in the Annotate dock first.")
    if not isinstance(model, Model | ModelInfo):
        model = read_info(*find_model(model))
    info = model.info if isinstance(model, Model) else model
    start = model if isinstance(model, Model) else str(model.path)
    sources = tuple(source_of(layer, viewer_layers) for layer in labels_layers)
    request = TrainingRequest(sources, start, info, settings or TrainSettings.quick(), channel, pixel_size_nm)
    for source in sources:
        _check_channels(request, source.image)
    return request


def _check_channels(request: TrainingRequest, image: LayerImage) -> None:
    wanted, there = request.info.architecture.in_channels, image.n_channels
    is_colour = "S" in image.axes and there >= wanted and wanted in (3, 4)
    if wanted == there or is_colour or request.channel_of(image) is not None:
        return
    way_out = "choose one of its channels" if wanted == 1 else "choose another model"
    raise InputError(
        f"Image '{image.name}' has {there} channel(s) and model '{request.info.name}' takes {wanted}: "
        f"{way_out}."
    )


class AnnotationReader:
    """Reads what a request's layers say; each plane of an image once."""

    def __init__(self, request: TrainingRequest) -> None:
        self._request = request
        self._said: list[dict[Index, PlaneAnnotation]] = [{} for _ in request.sources]
        self._images: dict[tuple[int, Index], NDArray[Any]] = {}

    def reading_steps(self) -> Generator[ReadingStep, Any, list[Any] | None]:
        """Look through all planes; returns what was sent in meanwhile, None when it was stopped."""
        n_planes = [math.prod(source.image.label_shape[:-2]) for source in self._request.sources]
        n_done, sent = 0, []
        for number, source in enumerate(self._request.sources):
            for plane in np.ndindex(*source.image.label_shape[:-2]):
                self._take(number, source.said, plane)
                n_done += 1
                answer = yield ReadingStep(n_done, sum(n_planes))
                if answer is STOP:
                    return None
                if answer is not None:
                    sent.append(answer)
        return sent

    def take(self, painted: Painted) -> None:
        """Read again what was painted in."""
        known, shape = self._said[painted.number], self._request.sources[painted.number].image.label_shape
        planes = painted.planes if painted.planes is not None else np.ndindex(*shape[:-2])
        for plane in planes:
            known.pop(plane, None)
            self._take(painted.number, painted.said, plane)

    def _take(self, number: int, said: AnnotationView, plane: Index) -> None:
        if said.reaches(plane):
            drawn = said.read(plane)
            if drawn.annotated.any():
                self._said[number][plane] = drawn

    def annotations(self) -> list[Annotation]:
        """One for each plane on which something counts."""
        return [
            self._annotation(number, plane, drawn)
            for number, said in enumerate(self._said)
            for plane, drawn in sorted(said.items())
        ]

    def _annotation(self, number: int, plane: Index, drawn: PlaneAnnotation) -> Annotation:
        image = self._request.sources[number].image
        if (number, plane) not in self._images:
            self._images[number, plane] = self._read(image, plane)
        pixel_size_nm = self._request.pixel_size_of(image)
        return Annotation(self._images[number, plane], drawn.labels, drawn.annotated, "CYX", pixel_size_nm)

    def _read(self, image: LayerImage, plane: Index) -> NDArray[Any]:
        """(C, Y, X) as the network sees it."""
        layout = understand(
            image.data.shape,
            image.data.dtype,
            axes=image.axes,
            channel=self._request.channel_of(image),
            in_channels=self._request.info.architecture.in_channels,
        )
        return PlaneView(image.data, layout, plane)[:, :, :]


def training_job_steps(request: TrainingRequest) -> Generator[Any, Any, Tuned | None]:
    """Read the layers, load the model, train; runs in the job's thread.

    Steps of `training_steps` and `ReadingStep`; understands what it does, and `Painted`. None when it was
    stopped before it had begun.
    """
    reader = AnnotationReader(request)
    sent = yield from reader.reading_steps()
    if sent is None:
        return None
    model = request.model if isinstance(request.model, Model) else load_model(request.model)
    steps = training_steps(model, reader.annotations(), request.settings)
    problem = ""
    try:
        after = yield from _with_reader(steps, reader, deque(sent))
    except TrainingDivergedError as error:
        problem, after = str(error), error.best
    return Tuned(model, after, problem)


def _with_reader(
    steps: Generator[Any, Any, Model], reader: AnnotationReader, sent: deque[Any]
) -> Generator[Any, Any, Model]:
    """The same steps; what was painted is read and handed on as annotations.

    Parameters
    ----------
    sent
        What came before there was anybody to take it.
    """
    answer: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            answer = yield step
            if answer is None and sent:
                answer = sent.popleft()
            if isinstance(answer, Painted):
                reader.take(answer)
                answer = NewAnnotations(reader.annotations())
