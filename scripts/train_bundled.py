"""Train the models that ship with the package, on the `train/` folders only, with the project's own training.

    python scripts/train_bundled.py prepare em-boundaries   # data as files, into .scratch/
    python scripts/train_bundled.py train em-boundaries     # resumable; writes into .scratch/
    python scripts/train_bundled.py bundle em-boundaries    # float16, credit, licence; into the package

Scores are measured afterwards by `benchmarks/model_scores.py`; the model cards beside the weights hold them.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skimage.measure import label as connected_pieces
from skimage.segmentation import find_boundaries

from napari_unet_seg._cli._annotations import read_annotations
from napari_unet_seg._cli._options import Coding
from napari_unet_seg.core.annotation import Annotation
from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.augment_settings import AugmentSettings
from napari_unet_seg.core.models import Model, load_model, new_model
from napari_unet_seg.core.objects import ObjectSettings
from napari_unet_seg.core.steps import Note
from napari_unet_seg.core.training import TrainSettings, TrainStep, ValidationStep, training_steps

REPOSITORY = Path(__file__).resolve().parents[1]
SCRATCH = REPOSITORY / ".scratch"
DATA = Path(os.environ.get("NAPARI_UNET_SEG_DATA", REPOSITORY.parent / "shared" / "data"))
WEIGHTS = REPOSITORY / "src" / "napari_unet_seg" / "weights"


@dataclass(frozen=True)
class Stage:
    """One training: from scratch, or from the stage before.

    Attributes
    ----------
    train, validation
        Folder, or folders, with `images` and `labels`; without validation, a part of `train` is held out.
    width
        Channels of the first level, where it starts from scratch.
    """

    settings: TrainSettings
    train: Path
    validation: Path | None = None
    width: int = 16


@dataclass(frozen=True)
class Recipe:
    """How one bundled model is made."""

    prepare: Callable[[Path], None]
    stages: tuple[Stage, ...]
    info: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)

    @property
    def n_classes(self) -> int:
        """Classes of the softmax."""
        return len(self.info["class_names"])


def no_preparation(_: Path) -> None:
    """The files are used as they are."""


def prepare_flyem(folder: Path) -> None:
    """Cut the FIB-SEM block along all three axes, which its isotropic voxels allow.

    The last 20 sections are kept for validation, and no plane to learn from crosses them. Objects are the
    connected pieces of each neuron in a plane, with a membrane of 2 px between them.
    """
    block = DATA / "em-flyem-medulla" / "train"
    image, labels = tifffile.imread(block / "images.tif"), tifffile.imread(block / "labels.tif")
    for name, part, directions in (("train", slice(0, 130), "zyx"), ("val", slice(130, None), "z")):
        for kind in ("images", "labels"):
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
        for direction in directions:
            axis = "zyx".index(direction)
            planes = zip(np.moveaxis(image[part], axis, 0), np.moveaxis(labels[part], axis, 0), strict=True)
            for number, (grey, ids) in enumerate(planes):
                file = f"{direction}_{number:03}.tif"
                tifffile.imwrite(
                    folder / name / "images" / file, np.ascontiguousarray(grey), compression="zlib"
                )
                tifffile.imwrite(folder / name / "labels" / file, with_membrane(ids), compression="zlib")


def prepare_phase(folder: Path) -> None:
    """Shrink the fields to half size: cells are about 25 px wide then, and a patch sees their surroundings.

    The last 4 fields are kept for validation.
    """
    stack = DATA / "cells-phase-usiigaci" / "train"
    image, labels = tifffile.imread(stack / "images.tif"), tifffile.imread(stack / "labels.tif")
    for name, part in (("train", slice(0, -4)), ("val", slice(-4, None))):
        for kind, planes in (("images", image[part]), ("labels", labels[part])):
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
            for number, plane in enumerate(planes):
                half = halved(plane) if kind == "images" else plane[::2, ::2]
                tifffile.imwrite(folder / name / kind / f"{number:02}.tif", half, compression="zlib")


def halved(plane: np.ndarray) -> np.ndarray:
    """Return the plane at half size, averaged over 2 × 2 pixels."""
    pixels = plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2)
    return np.rint(pixels.mean(axis=(1, 3))).astype(plane.dtype)


def with_membrane(ids: np.ndarray) -> np.ndarray:
    """Return the 4-connected pieces of each id, with 0 on both sides of every border between them."""
    pieces = connected_pieces(ids, connectivity=1)
    pieces[find_boundaries(pieces, mode="thick", connectivity=1)] = 0
    return pieces.astype(np.uint16)


def prepare_axons(folder: Path) -> None:
    """Keep the smallest image for validation; two others are of the same animal."""
    for kind in ("images", "labels"):
        for file in sorted((DATA / "axons-sem" / "train" / kind).iterdir()):
            name = "val" if "rat3_sample-data9" in file.name else "train"
            (folder / name / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / name / kind / file.name)


def carrying_over(**changes: Any) -> AugmentSettings:
    """Augmentation for other microscopes: more magnifications, more noise and blur, sometimes inverted."""
    return AugmentSettings(
        scale_range=(0.5, 2.0), noise_sigma=0.08, blur_sigma_px=1.2, invert_probability=0.1, **changes
    )


NUCLEI = DATA / "nuclei-dsb2018" / "train" / "fluo"

RECIPES = {
    "nuclei-fluorescence": Recipe(
        prepare=no_preparation,
        stages=(
            Stage(TrainSettings.thorough(steps=3600), NUCLEI),
            Stage(TrainSettings.thorough(steps=2400, validation_fraction=0.15), NUCLEI),
            Stage(
                TrainSettings.thorough(
                    steps=12000,
                    patch_px=128,
                    learning_rate=2e-3,
                    validation_fraction=0.15,
                    validate_every=500,
                    averaging=0.999,
                    augmentation=AugmentSettings(
                        scale_range=(0.6, 1.7),
                        gamma=(0.55, 1.8),
                        contrast=(0.65, 1.4),
                        invert_probability=0.1,
                    ),
                ),
                NUCLEI,
            ),
        ),
        info={
            "class_names": ("background", "nucleus"),
            "object_diameter_px": 20.4,  # median of the training images
            "licence": "CC0",
            "credit": "Data Science Bowl 2018 (BBBC038), Caicedo et al. 2019",
            "description": "Fluorescent nuclei, bright on dark; Data Science Bowl 2018, many microscopes",
        },
        objects={"threshold": 0.5, "split_touching": 0.35, "border_w0": 10.0},
    ),
    "em-boundaries": Recipe(
        prepare=prepare_flyem,
        stages=(
            Stage(
                TrainSettings.thorough(steps=5000),
                SCRATCH / "em-boundaries" / "train",
                SCRATCH / "em-boundaries" / "val",
            ),
            Stage(
                TrainSettings.thorough(
                    steps=4000,
                    patch_px=128,
                    learning_rate=2e-3,
                    validate_every=400,
                    averaging=0.998,
                    augmentation=AugmentSettings(
                        scale_range=(0.65, 1.5),
                        gamma=(0.55, 1.8),
                        contrast=(0.6, 1.5),
                        noise_sigma=0.07,
                        blur_sigma_px=1.2,
                        invert_probability=0.1,
                    ),
                ),
                SCRATCH / "em-boundaries" / "train",
                SCRATCH / "em-boundaries" / "val",
            ),
        ),
        info={
            "class_names": ("membrane", "cell"),
            "pixel_size_nm": 10.0,
            "object_diameter_px": 18.0,  # of what it finds: 20 in FlyEM, 16 in ISBI 2012 (train)
            "licence": "CC BY 4.0",
            "credit": "HHMI Janelia FlyEM, Drosophila medulla FIB-SEM (Takemura et al. 2015)",
            "description": "Cell interiors and membranes in EM of neural tissue; FIB-SEM at 10 nm/px",
        },
        objects={"threshold": 0.3, "split_touching": 0.1, "border_w0": 0.0},  # membranes stay visible
    ),
    "cells-phase-contrast": Recipe(
        prepare=prepare_phase,
        stages=(
            Stage(
                TrainSettings.thorough(steps=4000, averaging=0.998, augmentation=carrying_over()),
                SCRATCH / "cells-phase-contrast" / "train",
                SCRATCH / "cells-phase-contrast" / "val",
            ),
            Stage(
                TrainSettings.thorough(
                    steps=4000,
                    patch_px=128,
                    validate_every=400,
                    averaging=0.998,
                    augmentation=carrying_over(crop_contrast_probability=0.3),
                ),
                SCRATCH / "cells-phase-contrast" / "train",
                SCRATCH / "cells-phase-contrast" / "val",
            ),
        ),
        info={
            "class_names": ("background", "cell"),
            "licence": "MIT",
            "credit": "OIST, Usiigaci: Tsai et al. 2019 (T98G glioblastoma, phase contrast)",
            "description": "Adherent cells in phase contrast; T98G glioblastoma",
            "object_diameter_px": 21.0,  # of what it finds in the held-out fields
        },
        objects={"threshold": 0.5, "split_touching": 0.2, "min_size_px": 100, "border_w0": 10.0},
    ),
    "axons-sem": Recipe(
        prepare=prepare_axons,
        stages=(
            Stage(
                TrainSettings.thorough(steps=3000, averaging=0.998, augmentation=carrying_over()),
                SCRATCH / "axons-sem" / "train",
                SCRATCH / "axons-sem" / "val",
            ),
        ),
        info={
            "task": "classes",
            "object_class": "axon",
            "object_diameter_px": 15.3,  # median of the axons that lie wholly in a training image
            "class_names": ("background", "myelin", "axon"),
            "licence": "MIT",
            "credit": "AxonDeepSeg, rat spinal cord SEM (doi 10.5281/zenodo.5498378)",
            "description": "Myelin and axons in scanning EM of white matter; 0.1 to 0.18 µm/px",
        },
    ),
}


def train(name: str, *, seed: int) -> None:
    """Run each stage, going on with an interrupted one."""
    recipe, model = RECIPES[name], None
    for number, stage in enumerate(recipe.stages, start=1):
        out = stage_file(name, number)
        if not out.exists():
            run(stage, model or untrained(recipe, stage, seed), out, seed)
        model = load_model(out)


def untrained(recipe: Recipe, stage: Stage, seed: int) -> Model:
    """The network of the recipe, before its first stage."""
    architecture = Architecture(
        out_channels=recipe.n_classes,
        base_channels=stage.width,
        batch_norm=True,
        padding="same",
        dropout=0.0,
    )
    return new_model(architecture, seed=seed, **recipe.info)


def run(stage: Stage, start: Model, out: Path, seed: int) -> None:
    """Train one stage, saying what it does every hundredth step, and write its best model."""
    checkpoint = out.with_suffix(".checkpoint")
    size = start.info.pixel_size_nm
    steps = training_steps(
        start,
        annotations_of(stage.train, size),
        replace(stage.settings, seed=seed),
        validation=[] if stage.validation is None else annotations_of(stage.validation, size),
        checkpoint=checkpoint,
        resume=True,
    )
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            print(end.value.save(out, overwrite=True), flush=True)
            checkpoint.unlink(missing_ok=True)  # else another recipe would find itself done
            return
        if isinstance(step, Note):
            print(step.message, flush=True)
        elif isinstance(step, ValidationStep):
            kept = ", kept" * step.is_best
            print(f"step {step.step}: {step.score.name} {step.score.value:.4f}{kept}", flush=True)
        elif isinstance(step, TrainStep) and step.step % 100 == 0:
            print(
                f"step {step.step} of {step.n_steps}: loss {step.loss:.4f}, {step.seconds:.2f} s", flush=True
            )


def annotations_of(folder: Path, pixel_size_nm: float | None) -> list[Annotation]:
    """What a folder of images and a folder of labels hold."""
    return read_annotations(folder / "images", folder / "labels", None, Coding.dense, pixel_size_nm)


def stage_file(name: str, number: int) -> Path:
    """Return the model that a stage leaves."""
    return SCRATCH / f"{name}.{number}.safetensors"


def bundle(name: str) -> None:
    """Store the trained model in the package as float16, with everything that a person should know of it."""
    recipe = RECIPES[name]
    model = load_model(stage_file(name, len(recipe.stages)))
    # Stages see the images as they are: no zoom was learned that later images would have to be brought to.
    history = tuple({key: value for key, value in entry.items() if key != "zoom"} for entry in model.history)
    finished = model.copy(name=name, history=history, objects=ObjectSettings(**recipe.objects), **recipe.info)
    print(finished.save(WEIGHTS / f"{name}.safetensors", overwrite=True, half=True))


def main() -> None:
    """Run one step of one recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["prepare", "train", "bundle"])
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    if arguments.step == "prepare":
        RECIPES[arguments.model].prepare(SCRATCH / arguments.model)
    elif arguments.step == "train":
        train(arguments.model, seed=arguments.seed)
    else:
        bundle(arguments.model)


if __name__ == "__main__":
    main()
