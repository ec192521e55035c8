"""`napari-unet-seg train`: image files and label files to a model file."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from napari_unet_seg._cli._console import Cancelled, print_json, say
from napari_unet_seg._cli._options import AsJson, Coding, CodingOption, Device, Overwrite, TaskChoice
from napari_unet_seg._cli._outputs import check_writable
from napari_unet_seg._cli._progress import ProgressBar, first_interrupt_asks_to_stop
from napari_unet_seg.core.errors import InputError, OutputError, TrainingBrokenOffError, UNetSegError

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_unet_seg.core.annotation import Annotation
    from napari_unet_seg.core.models import Model
    from napari_unet_seg.core.training import AnyStep, TrainSettings

DEFAULT_WIDTH: Final = 16


class Preset(StrEnum):
    """How long and how a network is trained."""

    quick = "quick"
    thorough = "thorough"
    paper = "paper"


def train(
    images: Annotated[Path, typer.Option(help="Image file, or folder of images.")],
    labels: Annotated[Path, typer.Option(help="Label file, or folder of labels with the same names.")],
    out: Annotated[str, typer.Option(help="Model to write: a .safetensors file, or a bare name.")],
    start: Annotated[
        str | None, typer.Option("--from", help="Model to start from; none: from scratch.")
    ] = None,
    preset: Annotated[Preset, typer.Option(help="How long and how.")] = Preset.thorough,
    task: Annotated[
        TaskChoice | None,
        typer.Option(help="What the labels mean; none: instances, or as --from.", show_default=False),
    ] = None,
    coding: CodingOption = Coding.dense,
    annotated: Annotated[
        Path | None, typer.Option(help="Mask file or folder: labels count where it is not 0.")
    ] = None,
    val_images: Annotated[Path | None, typer.Option(help="Images to validate on.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Labels to validate on.")] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Part to hold out when no validation images are given; none: 0.2.")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="weighted-cross-entropy, bce, dice or bce+dice.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="sgd, adam or adamw.")] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to train on; none: the preset's.")] = None,
    width: Annotated[int | None, typer.Option(help="Channels of the first level, from scratch.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="Pixel size of the images in nm.")] = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="The same seed gives the same model.", min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a U-Net on images and labels.

    From scratch, or from another model; the best one met is kept. Ctrl-C stops and saves it.
    """
    started = time.perf_counter()
    _refuse_contradictions(start, width, val_images, val_labels, val_fraction)
    target = _target(out, resume=resume, overwrite=overwrite)

    from napari_unet_seg._cli._annotations import read_annotations
    from napari_unet_seg.core.devices import choose_device

    settings = _settings(
        preset,
        device=device,
        seed=seed,
        validation_fraction=val_fraction,
        loss=loss,
        optimizer=optimizer,
        steps=steps,
    )
    say(f"Training on {choose_device(device).reason}.")
    annotations = read_annotations(images, labels, annotated, coding, pixel_size)
    validation = []
    if val_images is not None and val_labels is not None:
        validation = read_annotations(val_images, val_labels, None, coding, pixel_size)
    model = (
        _new_model(annotations, task or TaskChoice.instances, preset, width, pixel_size, seed)
        if start is None
        else _model_to_start_from(start, task)
    )
    trained = _train(model, annotations, validation, settings, target)
    score = trained.history[-1]["score"]
    if as_json:
        print_json(
            {
                "model": str(target.path),
                "score": score,
                "steps": trained.history[-1]["steps"],
                "seconds": round(time.perf_counter() - started, 3),
            }
        )
    scored = f": {score['name']} {score['value']:.3f} on {score['measured_on']}" if score else ""
    say(f"Saved '{target.path}'{scored}.")


@dataclass(frozen=True)
class _Target:
    """Where the model and, until it is complete, the checkpoint are written."""

    path: Path
    may_replace: bool
    resume: bool

    @property
    def checkpoint(self) -> Path:
        """Beside the model."""
        return _checkpoint_of(self.path)

    def save(self, model: Model) -> None:
        """Write the model; failing now is no longer a matter of wrong input."""
        try:
            model.save(self.path, overwrite=self.may_replace)
        except OutputError as error:
            raise UNetSegError(
                f"{error} The training is kept in '{self.checkpoint}': go on with --resume."
            ) from error


def _checkpoint_of(path: Path) -> Path:
    return path.with_name(f"{path.stem}.checkpoint")


def _refuse_contradictions(
    start: str | None,
    width: int | None,
    val_images: Path | None,
    val_labels: Path | None,
    val_fraction: float | None,
) -> None:
    if (val_images is None) != (val_labels is None):
        raise InputError("Validation needs both --val-images and --val-labels.")
    if val_images is not None and val_fraction is not None:
        raise InputError("Give either --val-images with --val-labels, or --val-fraction.")
    if start is not None and width is not None:
        raise InputError("--width is for training from scratch: a model given with --from keeps its own.")


def _target(out: str, *, resume: bool, overwrite: bool) -> _Target:
    """Check where the model goes, before anything is read."""
    from napari_unet_seg.core.models import model_output_path

    try:
        path = model_output_path(out, overwrite=True)
        if not (overwrite or (resume and _checkpoint_of(path).exists())):
            model_output_path(out, overwrite=False)
    except OutputError as error:
        raise OutputError(str(error).replace("allow overwriting", "give --overwrite")) from error
    check_writable(path.parent)
    checkpoint = _checkpoint_of(path)
    if checkpoint.exists() and not (resume or overwrite):
        raise OutputError(
            f"An interrupted training is kept in '{checkpoint}': "
            "go on with --resume, or begin anew with --overwrite."
        )
    if resume and not checkpoint.exists():
        say(f"There is no interrupted training '{checkpoint}': this one begins at step 0.")
    return _Target(path, may_replace=overwrite or (resume and checkpoint.exists()), resume=resume)


def _settings(preset: Preset, **chosen: Any) -> TrainSettings:
    from napari_unet_seg.core.training import TrainSettings

    settings = {
        Preset.quick: TrainSettings.quick,
        Preset.thorough: TrainSettings.thorough,
        Preset.paper: TrainSettings.paper,
    }[preset]()
    return replace(settings, **{name: value for name, value in chosen.items() if value is not None})


def _model_to_start_from(name: str, task: TaskChoice | None) -> Model:
    from napari_unet_seg.core.models import load_model

    model = load_model(name)
    if task is not None and task.value != model.task:
        raise InputError(
            f"Model '{name}' is for {model.task}, not {task.value}: leave --task out, or train from scratch."
        )
    return model


def _new_model(
    annotations: list[Annotation],
    task: TaskChoice,
    preset: Preset,
    width: int | None,
    pixel_size_nm: float | None,
    seed: int,
) -> Model:
    """An untrained model with as many channels and classes as the annotations have."""
    from napari_unet_seg.core.architecture import Architecture
    from napari_unet_seg.core.models import new_model

    first = annotations[0]
    channels = first.image.shape[first.axes.index("C")] if "C" in first.axes else 1
    n_classes = 2 if task is not TaskChoice.classes else _n_classes(annotations)
    if preset is Preset.paper:
        architecture = Architecture(in_channels=channels, out_channels=n_classes, base_channels=width or 64)
    else:
        architecture = Architecture(
            in_channels=channels,
            out_channels=n_classes,
            base_channels=DEFAULT_WIDTH if width is None else width,
            batch_norm=True,
            padding="same",
            dropout=0.0,
        )
    return new_model(architecture, seed=seed, task=task.value, pixel_size_nm=pixel_size_nm)


def _n_classes(annotations: list[Annotation]) -> int:
    """How many classes the labels have, the background included; some may not occur."""
    import numpy as np

    occurring: set[int] = set().union(*(np.unique(each.labels).tolist() for each in annotations)) - {0}
    largest = max(occurring, default=1)
    if largest > 2 * max(1, len(occurring)):
        few = ", ".join(str(each) for each in sorted(occurring)[:3])
        raise InputError(
            f"Classes are numbered 0, 1, 2 …, but the labels hold {few}{', …' * (len(occurring) > 3)}: "
            "number them anew, or leave --task out if these are objects."
        )
    return 1 + largest


def _train(
    model: Model,
    annotations: list[Annotation],
    validation: list[Annotation],
    settings: TrainSettings,
    target: _Target,
) -> Model:
    """Train and save the best model met, also when it is stopped or diverges.

    Raises
    ------
    Cancelled
        Ctrl-C: the best model so far is saved, the checkpoint is kept.
    """
    from napari_unet_seg.core.training import training_steps

    steps = training_steps(
        model,
        annotations,
        settings,
        validation=validation,
        checkpoint=target.checkpoint,
        resume=target.resume,
    )
    try:
        trained, is_stopped = _run(steps, settings.steps)
    except TrainingBrokenOffError as error:
        target.save(error.best)
        raise UNetSegError(f"{error} The best model is in '{target.path}'.") from error
    except KeyboardInterrupt as error:
        kept = "go on with --resume" if target.checkpoint.exists() else "nothing was written"
        raise Cancelled(f"Cancelled: {kept}.") from error
    target.save(trained)
    if is_stopped:
        raise Cancelled(f"Stopped: the best model so far is in '{target.path}'; go on with --resume.")
    target.checkpoint.unlink(missing_ok=True)
    return trained


def _run(steps: Generator[AnyStep, Any, Model], n_steps: int) -> tuple[Model, bool]:
    """The trained model and whether Ctrl-C ended it."""
    from napari_unet_seg.core.steps import STOP, Note
    from napari_unet_seg.core.training import TrainStep, ValidationStep

    is_told, is_under_way = False, False
    with first_interrupt_asks_to_stop() as wish, ProgressBar("steps") as bar, closing(steps):
        while True:
            if wish.is_asked and not is_told:
                bar.note("Stopping after this step; Ctrl-C again stops at once.")
                is_told = True
            try:
                step = steps.send(STOP if wish.is_asked and is_under_way else None)
            except StopIteration as end:
                return end.value, wish.is_asked
            except InputError as error:
                if is_under_way:
                    raise UNetSegError(str(error)) from error
                raise
            if isinstance(step, TrainStep):
                bar.show(f"loss {step.loss:.4f}", step.step, n_steps)
            elif isinstance(step, Note):
                bar.note(step.message)
            elif isinstance(step, ValidationStep):
                best = " (best so far)" if step.is_best else ""
                bar.note(f"step {step.step}: {step.score.name} {step.score.value:.4f}{best}")
            is_under_way = True
