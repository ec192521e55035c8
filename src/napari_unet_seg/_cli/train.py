"""`napari-unet-seg train`: image files and label files to a model file."""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_unet_seg._cli._console import print_json, stderr
from napari_unet_seg.core.errors import InputError, TrainingDivergedError

if TYPE_CHECKING:
    from napari_unet_seg.core.annotation import Annotation
    from napari_unet_seg.core.models import Model
    from napari_unet_seg.core.training import TrainSettings


class Preset(StrEnum):
    """How long and how a network is trained."""

    quick = "quick"
    thorough = "thorough"
    paper = "paper"


class TaskChoice(StrEnum):
    """What the labels mean."""

    instances = "instances"
    classes = "classes"


class Coding(StrEnum):
    """What 0 means in the labels."""

    dense = "dense"
    scribbles = "scribbles"


DEFAULT_WIDTH = 16


def train(
    images: Annotated[Path, typer.Option(help="Image file, or folder of images.")],
    labels: Annotated[Path, typer.Option(help="Label file, or folder of labels with the same names.")],
    out: Annotated[str, typer.Option(help="Model to write: a .safetensors file, or a bare name.")],
    start: Annotated[str | None, typer.Option("--from", help="Model to start from; none: from scratch.")] = None,
    preset: Annotated[Preset, typer.Option(help="How long and how.")] = Preset.thorough,
    task: Annotated[TaskChoice, typer.Option(help="Whether labels are objects or classes.")] = TaskChoice.instances,
    coding: Annotated[Coding, typer.Option(help="dense: 0 is background; scribbles: 0 is not annotated.")] = Coding.dense,
    annotated: Annotated[Path | None, typer.Option(help="Mask file or folder: labels count where it is not 0.")] = None,
    val_images: Annotated[Path | None, typer.Option(help="Images to validate on.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Labels to validate on.")] = None,
    val_fraction: Annotated[float, typer.Option(help="Part to hold out when no validation images are given.")] = 0.2,
    loss: Annotated[str | None, typer.Option(help="weighted-cross-entropy, bce, dice or bce+dice.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train on.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first level, from scratch.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Pixel size of the images in nm.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Train a U-Net on images and labels, from scratch or from another model; the best one met is kept."""
    from napari_unet_seg.core.models import model_output_path
    from napari_unet_seg.core.steps import STOP

    started = time.perf_counter()
    target = model_output_path(out, overwrite=overwrite or resume)
    chosen = {"loss": loss, "optimizer": optimizer, "steps": steps}
    settings = replace(
        _preset(preset),
        device=device,
        seed=seed,
        validation_fraction=val_fraction,
        **{name: value for name, value in chosen.items() if value is not None},  # type: ignore[arg-type]
    )
    annotations = _annotations(images, labels, annotated, coding, pixel_size)
    if (val_images is None) != (val_labels is None):
        raise InputError("Validation needs both --val-images and --val-labels.")
    validation = (
        [] if val_images is None or val_labels is None else _annotations(val_images, val_labels, None, coding, pixel_size)
    )
    model = _start_model(start, annotations, task, preset, width, pixel_size, seed)
    checkpoint = target.with_name(f"{target.stem}.checkpoint")
    try:
        trained, interrupted = _run(model, annotations, validation, settings, checkpoint, resume=resume, stop=STOP)
    except TrainingDivergedError as error:
        error.best.save(target, overwrite=overwrite or resume)
        raise
    path = trained.save(target, overwrite=overwrite or resume)
    if interrupted:
        stderr().print(f"Stopped. The best model so far is in '{path}'; go on with --resume.")
        raise KeyboardInterrupt
    checkpoint.unlink(missing_ok=True)
    score = trained.history[-1]["score"]
    if as_json:
        seconds = round(time.perf_counter() - started, 3)
        print_json({"model": str(path), "score": score, "steps": trained.history[-1]["steps"], "seconds": seconds})
    stderr().print(f"Saved '{path}'" + (f": {score['name']} {score['value']:.3f} on {score['measured_on']}." if score else "."))


def _preset(preset: Preset) -> TrainSettings:
    from napari_unet_seg.core.training import TrainSettings

    return {
        Preset.quick: TrainSettings.quick,
        Preset.thorough: TrainSettings.thorough,
        Preset.paper: TrainSettings.paper,
    }[preset]()


def _start_model(
    start: str | None,
    annotations: list[Annotation],
    task: TaskChoice,
    preset: Preset,
    width: int | None,
    pixel_size_nm: float | None,
    seed: int,
) -> Model:
    from napari_unet_seg.core.architecture import Architecture
    from napari_unet_seg.core.models import load_model, new_model

    if start is not None:
        return load_model(start)
    first = annotations[0]
    channels = first.image.shape[first.axes.index("C")] if "C" in first.axes else 1
    n_classes = 2
    if task is TaskChoice.classes:
        n_classes = max(2, 1 + max(int(annotation.labels.max()) for annotation in annotations))
    if preset is Preset.paper:
        architecture = Architecture(in_channels=channels, out_channels=n_classes, base_channels=width or 64)
    else:
        architecture = Architecture(
            in_channels=channels,
            out_channels=n_classes,
            base_channels=width or DEFAULT_WIDTH,
            batch_norm=True,
            padding="same",
            dropout=0.0,
        )
    return new_model(architecture, seed=seed, task=task.value, pixel_size_nm=pixel_size_nm)


def _annotations(
    images: Path, labels: Path, annotated: Path | None, coding: Coding, pixel_size_nm: float | None
) -> list[Annotation]:
    import numpy as np

    from napari_unet_seg.core.annotation import Annotation
    from napari_unet_seg.core.image_files import open_image, pair_by_name

    masks = dict(pair_by_name(images, annotated)) if annotated is not None else {}
    result = []
    for image_path, label_path in pair_by_name(images, labels):
        opened = open_image(image_path)
        coded = np.asarray(open_image(label_path).data[...])
        sizes = opened.voxel_size_nm or {}
        size = pixel_size_nm if pixel_size_nm is not None else ((sizes["Y"], sizes["X"]) if "X" in sizes else None)
        image = np.asarray(opened.data[...])
        try:
            if coding is Coding.scribbles:
                annotation = Annotation.scribbles(image, coded, axes=opened.axes, pixel_size_nm=size)
            else:
                annotation = Annotation.dense(image, coded, axes=opened.axes, pixel_size_nm=size, may_be_empty=True)
            if image_path in masks:
                mask = np.asarray(open_image(masks[image_path]).data[...]) != 0
                annotation = replace(annotation, annotated=mask & annotation.annotated_mask)
        except InputError as error:
            raise InputError(f"'{label_path}': {error}") from error
        result.append(annotation)
    return result


def _run(
    model: Model,
    annotations: list[Annotation],
    validation: list[Annotation],
    settings: TrainSettings,
    checkpoint: Path,
    *,
    resume: bool,
    stop: object,
) -> tuple[Model, bool]:
    """Train with a progress bar; Ctrl-C stops after the current step and keeps the best model."""
    from napari_unet_seg.core.steps import Note
    from napari_unet_seg.core.training import TrainStep, training_steps

    steps = training_steps(model, annotations, settings, validation=validation, checkpoint=checkpoint, resume=resume)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", total=settings.steps)
        answer: object = None
        interrupted = False
        while True:
            try:
                step = steps.send(answer)  # type: ignore[arg-type]
                if isinstance(step, TrainStep):
                    progress.update(bar, completed=step.step, description=f"loss {step.loss:.4f}")
                elif isinstance(step, Note):
                    console.print(step.message)
                else:
                    best = " (best so far)" if step.is_best else ""
                    console.print(f"step {step.step}: {step.score.name} {step.score.value:.4f}{best}")
            except StopIteration as end:
                return end.value, interrupted
            except KeyboardInterrupt:
                interrupted = True
            answer = stop if interrupted else None
