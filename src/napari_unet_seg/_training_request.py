"""A wish to fine-tune on annotation layers, frozen on the main thread, and the steps that fulfil it; no Qt.

Labels are copied and images are read in the job's thread, plane by plane, where something counts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg._annotation_layer import (
    AnnotationView,
    PlaneAnnotation,
    check_fit,
    image_layer_of,
    regions_layer_of,
    view_of,
)
from napari_unet_seg._layers import Index, LayerImage, read_image
from napari_unet_seg.core._axes import PlaneView, understand
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.errors import InputError, TrainingDivergedError
from napari_unet_seg.core.model_store import ModelInfo, find_model, read_info
from napari_unet_seg.core.models import Model, load_model
from napari_unet_seg.core.steps import STOP, Note
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
    """The result: the model that it started from, and the best one that was met, which may be the same."""

    before: Model
    after: Model

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
    model: Model | str,
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

    Raises
    ------
    InputError
        There is no annotation layer, or something does not fit.
    """
    if not labels_layers:
        raise InputError("Choose a layer to learn from: paint one in the Annotate dock first.")
    info = model.info if isinstance(model, Model) else read_info(*find_model(model))
    sources = tuple(source_of(layer, viewer_layers) for layer in labels_layers)
    request = TrainingRequest(sources, model, info, settings or TrainSettings.quick(), channel, pixel_size_nm)
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
        self.notes: list[str] = []

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
        """One for each plane on which something counts.

        Raises
        ------
        InputError
            A network could not learn from them, or an image has no finite pixel.
        """
        self._check()
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
        pixels = PlaneView(image.data, layout, plane)[:, :, :]
        if pixels.dtype.kind == "f" and not (is_finite := np.isfinite(pixels)).all():
            place = f"Plane {', '.join(map(str, plane))} of '{image.name}'" if plane else f"'{image.name}'"
            if not is_finite.any(axis=(1, 2)).all():
                raise InputError(f"{place} has no finite pixel (all NaN or infinite): annotate other planes.")
            self.notes.append(f"{place} has NaN or infinite pixels: they became the plane's median.")
        return pixels

    # What a network can learn from

    def _check(self) -> None:
        drawn = [one for said in self._said for one in said.values()]
        names = " and ".join(f"'{source.name}'" for source in self._request.sources)
        if not drawn:
            raise InputError(f"Nothing is annotated in {names}: paint some objects and some background.")
        if self._request.info.task == "classes":
            ids = {int(label) for one in drawn for label in np.unique(one.labels[one.annotated])}
            if len(ids) == 1:
                raise InputError(
                    f"Only class {ids.pop()} is painted in {names}: paint at least one other class, too."
                )
            return
        if not any(_has_object(one) for one in drawn):
            raise InputError(f"No object is painted in {names}, only background: paint at least one object.")
        if not any(_has_border(one) or _has_background(one) for one in drawn):
            raise InputError(
                f"No background is painted in {names}: paint some around the objects, else everything "
                "becomes an object."
            )

    @property
    def has_one_object(self) -> bool:
        """Whether there is a single one."""
        if self._request.info.task != "instances":
            return False
        drawn = [one for said in self._said for one in said.values()]
        ids = [ids for one in drawn if (ids := one.labels[one.annotated & (one.labels > 0)]).size]
        return len(ids) == 1 and bool(ids[0].min() == ids[0].max())


def _has_object(drawn: PlaneAnnotation) -> bool:
    return bool((drawn.annotated & (drawn.labels > 0)).any())


def _has_background(drawn: PlaneAnnotation) -> bool:
    return bool((drawn.annotated & (drawn.labels == 0)).any())


def _has_border(drawn: PlaneAnnotation) -> bool:
    """Whether two objects touch: the gap between them is background."""
    labels, annotated = drawn.labels, drawn.annotated
    beside = (labels[:, 1:] != labels[:, :-1]) & annotated[:, 1:] & annotated[:, :-1]
    below = (labels[1:] != labels[:-1]) & annotated[1:] & annotated[:-1]
    return bool(beside.any() or below.any())


def training_job_steps(request: TrainingRequest) -> Generator[Any, Any, Tuned | None]:
    """Read the layers, load the model, train; runs in the job's thread.

    Steps of `training_steps` and `ReadingStep`; understands what it does, and `Painted`. None when it was
    stopped before it had begun.
    """
    reader = AnnotationReader(request)
    sent = yield from reader.reading_steps()
    if sent is None:
        return None
    annotations = reader.annotations()
    model = request.model if isinstance(request.model, Model) else load_model(request.model)
    steps = training_steps(model, annotations, request.settings)
    if reader.has_one_object:
        reader.notes.append("Only one object is painted: nothing can be held out. A few more help a lot.")
    try:
        after = yield from _with_reader(steps, reader, deque(sent))
    except TrainingDivergedError as error:
        yield Note(str(error))
        after = error.best
    return Tuned(model, _described(after, request))


def _with_reader(
    steps: Generator[Any, Any, Model], reader: AnnotationReader, sent: deque[Any]
) -> Generator[Any, Any, Model]:
    """The same steps, and the reader's notes; what was painted is read and handed on as annotations."""
    answer: Any = None
    with closing(steps):
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            answer = yield step
            while answer is not STOP and reader.notes:
                _keep(sent, answer)
                answer = yield Note(reader.notes.pop(0))
            if answer is None and sent:
                answer = sent.popleft()
            if isinstance(answer, Painted):
                answer = _as_annotations(answer, reader)


def _as_annotations(painted: Painted, reader: AnnotationReader) -> NewAnnotations | None:
    """What to learn from now; None, and a note, when nothing could be learned from it."""
    reader.take(painted)
    try:
        return NewAnnotations(reader.annotations())
    except InputError as error:
        reader.notes.append(f"{error} Until then training goes on with what there was.")
        return None


def _keep(sent: deque[Any], answer: Any) -> None:
    if answer is not None:
        sent.append(answer)


def _described(model: Model, request: TrainingRequest) -> Model:
    """The model with a description that says what it was fine-tuned on."""
    images = ", ".join(dict.fromkeys(source.image.name for source in request.sources))
    description = f"'{request.info.name}' fine-tuned on {images}"
    return replace(model, info=replace(model.info, description=description))
