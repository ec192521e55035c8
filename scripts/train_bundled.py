"""Train the models that ship with the package, on the `train/` folders only, with the project's own command.

    python scripts/train_bundled.py prepare em-boundaries   # data as files, into .scratch/
    python scripts/train_bundled.py train em-boundaries     # resumable; writes into .scratch/
    python scripts/train_bundled.py bundle em-boundaries    # float16, credit, licence; into the package

`train` prints the command that it runs. Scores are measured afterwards with `napari-unet-seg predict` and
`evaluate`; the model cards beside the weights say how.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from skimage.measure import label as connected_pieces
from skimage.segmentation import find_boundaries

REPOSITORY = Path(__file__).resolve().parents[1]
SCRATCH = REPOSITORY / ".scratch"
DATA = Path(os.environ.get("NAPARI_UNET_SEG_DATA", REPOSITORY.parent / "shared" / "data"))
WEIGHTS = REPOSITORY / "src" / "napari_unet_seg" / "weights"


@dataclass(frozen=True)
class Recipe:
    """How one bundled model is made."""

    prepare: Callable[[Path], None]
    stages: tuple[tuple[str, ...], ...]  # arguments of `train`; each stage starts from the one before
    info: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)


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


NUCLEI = (
    f"--images={DATA}/nuclei-dsb2018/train/fluo/images",
    f"--labels={DATA}/nuclei-dsb2018/train/fluo/labels",
)

RECIPES = {
    "nuclei-fluorescence": Recipe(
        prepare=no_preparation,
        stages=(
            (*NUCLEI, "--preset=thorough", "--steps=3600"),
            (*NUCLEI, "--preset=thorough", "--steps=2400", "--val-fraction=0.15"),
        ),
        info={
            "class_names": ("background", "nucleus"),
            "licence": "CC0",
            "credit": "Data Science Bowl 2018 (BBBC038), Caicedo et al. 2019",
            "description": "Fluorescent nuclei, bright on dark; Data Science Bowl 2018, many microscopes",
        },
        objects={"threshold": 0.3, "split_touching": 0.35},
    ),
    "em-boundaries": Recipe(
        prepare=prepare_flyem,
        stages=(
            (
                f"--images={SCRATCH}/em-boundaries/train/images",
                f"--labels={SCRATCH}/em-boundaries/train/labels",
                f"--val-images={SCRATCH}/em-boundaries/val/images",
                f"--val-labels={SCRATCH}/em-boundaries/val/labels",
                "--preset=thorough",
                "--steps=5000",
                "--pixel-size=10",
            ),
        ),
        info={
            "class_names": ("membrane", "cell"),
            "licence": "CC BY 4.0",
            "credit": "HHMI Janelia FlyEM, Drosophila medulla FIB-SEM (Takemura et al. 2015)",
            "description": "Cell interiors and membranes in EM of neural tissue; FIB-SEM at 10 nm/px",
        },
        objects={"split_touching": 0.25},
    ),
    "cells-phase-contrast": Recipe(
        prepare=prepare_phase,
        stages=(
            (
                f"--images={SCRATCH}/cells-phase-contrast/train/images",
                f"--labels={SCRATCH}/cells-phase-contrast/train/labels",
                f"--val-images={SCRATCH}/cells-phase-contrast/val/images",
                f"--val-labels={SCRATCH}/cells-phase-contrast/val/labels",
                "--preset=thorough",
                "--steps=5000",
            ),
        ),
        info={
            "class_names": ("background", "cell"),
            "licence": "MIT",
            "credit": "OIST, Usiigaci: Tsai et al. 2019 (T98G glioblastoma, phase contrast)",
            "description": "Adherent cells in phase contrast; T98G glioblastoma",
        },
    ),
    "axons-sem": Recipe(
        prepare=no_preparation,
        stages=(
            (
                f"--images={DATA}/axons-sem/train/images",
                f"--labels={DATA}/axons-sem/train/labels",
                "--task=classes",
                "--preset=thorough",
                "--steps=5000",
            ),
        ),
        info={
            "class_names": ("background", "myelin", "axon"),
            "licence": "MIT",
            "credit": "AxonDeepSeg, rat spinal cord SEM (doi 10.5281/zenodo.5498378)",
            "description": "Myelin and axons in scanning EM of white matter; 0.1 to 0.18 µm/px",
        },
    ),
}


def train(name: str) -> None:
    """Run the project's own command for each stage, going on with an interrupted run."""
    start: Path | None = None
    for number, arguments in enumerate(RECIPES[name].stages, start=1):
        out = stage_file(name, number)
        if not out.exists():
            command = [str(Path(sys.executable).with_name("napari-unet-seg")), "train", *arguments]
            command += [f"--out={out}", "--resume", *([f"--from={start}"] if start else [])]
            print(shlex.join(command), flush=True)
            subprocess.run(command, check=True)
        start = out


def stage_file(name: str, number: int) -> Path:
    """Return the model that a stage leaves."""
    return SCRATCH / f"{name}.{number}.safetensors"


def bundle(name: str) -> None:
    """Store the trained model in the package as float16, with everything that a person should know of it."""
    from napari_unet_seg.core.models import load_model
    from napari_unet_seg.core.objects import ObjectSettings

    recipe = RECIPES[name]
    model = load_model(stage_file(name, len(recipe.stages)))
    finished = model.copy(name=name, objects=ObjectSettings(**recipe.objects), **recipe.info)
    print(finished.save(WEIGHTS / f"{name}.safetensors", overwrite=True, half=True))


def main() -> None:
    """Run one step of one recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["prepare", "train", "bundle"])
    parser.add_argument("model", choices=sorted(RECIPES))
    arguments = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    if arguments.step == "prepare":
        RECIPES[arguments.model].prepare(SCRATCH / arguments.model)
    elif arguments.step == "train":
        train(arguments.model)
    else:
        bundle(arguments.model)


if __name__ == "__main__":
    main()
