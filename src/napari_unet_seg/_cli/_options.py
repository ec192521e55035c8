"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

import typer

from napari_unet_seg.core.errors import InputError, NotOneStackError, SettingError, UNetSegError


class TaskChoice(StrEnum):
    """What the labels mean."""

    instances = "instances"
    classes = "classes"


class Coding(StrEnum):
    """What 0 means in the labels."""

    dense = "dense"
    scribbles = "scribbles"


class ProbabilityDtype(StrEnum):
    """How probabilities are stored; whole numbers hold them scaled to their range."""

    float32 = "float32"
    uint16 = "uint16"
    uint8 = "uint8"


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing results.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda (cuda:1, ...) or mps.")]
Volume = Annotated[bool, typer.Option("--volume", help="Take a stack as one 3D volume, not plane by plane.")]
CodingOption = Annotated[
    Coding,
    typer.Option(
        help="dense: 0 is background; scribbles: 0 is not annotated, 1 background, 2 and up objects."
    ),
]


def parse_pixel_size(text: str | None) -> tuple[float, ...] | None:
    """Sizes in nm, for (Y, X) or (Z, Y, X), from `4`, `4,4` or `50,4,4`.

    Raises
    ------
    InputError
        It is none of these, or not positive.
    """
    if text is None:
        return None
    try:
        sizes = tuple(float(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not 1 <= len(sizes) <= 3 or not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"The pixel size '{text}' is not understood: "
            "give nm as one number, as Y,X or as Z,Y,X, such as 50,4,4."
        )
    return sizes * 2 if len(sizes) == 1 else sizes


def parse_zoom(text: str | None) -> float | Literal["auto"] | None:
    """A factor, or "auto".

    Raises
    ------
    InputError
        It is neither; whether the factor is possible is not checked.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"The zoom '{text}' is not understood: give a number, 2 enlarges twofold, or auto."
        ) from None


def with_option(error: UNetSegError) -> str:
    """What an error says, and the option of `predict` that is the way out."""
    option = ""
    if isinstance(error, SettingError):
        option = f" (--{error.setting} {error.value})"
    elif isinstance(error, NotOneStackError):
        option = " (--each)"
    return f"{str(error).removesuffix('.')}{option}." if option else str(error)


def voxel_size_nm(
    given: tuple[float, ...] | None, of_file: Mapping[str, float] | None, axes: str
) -> dict[str, float]:
    """The size along each known axis, in nm: what was given beats what the file says."""
    known = {axis: size for axis, size in (of_file or {}).items() if axis in axes}
    if given is not None:
        known |= {axis: size for axis, size in zip("ZYX"[-len(given) :], given, strict=True) if axis in axes}
    return known
