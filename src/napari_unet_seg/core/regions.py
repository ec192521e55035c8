"""The region table: where each object is, how large, of what shape, how bright; and its CSV file."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from napari_unet_seg.core._label_checks import by, check_labels
from napari_unet_seg.core.atomic import replacing
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.steps import STOP, Stop, run_to_end

Columns = dict[str, NDArray[Any]]

_NM_PER_UM = 1000
_GREY = ("mean", "min", "max", "std")


@dataclass(frozen=True)
class RegionTable:
    """One row per object, sorted by plane, then label; every column as an array by its name.

    label
        Id of the object.
    plane
        Only for a stack: its plane (plane_0, plane_1 where several axes come before Y and X).
    area_px, area_um2
        Number of pixels; the same in square micrometres where the spacing is known (volume_voxels,
        volume_um3).
    centroid_y_px, centroid_x_px
        Centre of gravity in pixel coordinates; centroid_y_um… where the spacing is known.
    bbox_y_min_px, bbox_y_max_px, …
        Bounding box in pixel indices, the end not included.
    equivalent_diameter_px, major_axis_px, minor_axis_px
        Diameter of the disk (ball) of the same area (volume), axes of the ellipse(-oid) of the same second
        moments; …_um where the spacing is known.
    eccentricity, solidity
        Planes only: of that ellipse (0 = circle), and the share of the convex hull that is filled.
    grey_mean, grey_min, grey_max, grey_std
        Only with an image: its values inside the object.
    grey_00_from_12.5, …
        Only with an image: number of pixels from this grey value up to the next column's. The edges go evenly
        from the smallest to the largest value of the whole image, the same for every object.
    """

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["label"])

    def rows(self) -> Iterator[dict[str, int | float]]:
        """Each object as a dict by column name."""
        for values in zip(*(column.tolist() for column in self.columns.values()), strict=True):
            yield dict(zip(self.columns, values, strict=True))


def region_table(
    labels: NDArray[np.integer[Any]],
    image: Any | None = None,
    *,
    spacing: Sequence[float] | None = None,
    unit: str = "pixel",
    histogram_bins: int = 16,
    volume: bool = False,
) -> RegionTable:
    """Measure every object, plane by plane, or as bodies in space.

    Parameters
    ----------
    labels
        Integer labels (..., Y, X), 0 = background.
    image
        Grey values of the same shape; may be lazy, one plane is read at a time (with `volume` everything).
    spacing
        Pixel size along each axis of `labels` (of its last ones: Y, X or Z, Y, X are enough).
    unit
        Unit of `spacing`; nm and µm come out as µm, "pixel" means that the size is not known.
    histogram_bins
        Number of grey-level bins; 0 for no histogram.
    volume
        Measure objects of a stack (Z, Y, X) in 3D instead of plane by plane.

    Raises
    ------
    InputError
        When labels are no labels, or image or spacing do not fit them.
    """
    steps = region_table_steps(
        labels, image, spacing=spacing, unit=unit, histogram_bins=histogram_bins, volume=volume
    )
    table = run_to_end(steps)
    if table is None:
        raise AssertionError("only who sends STOP gets nothing")
    return table


def region_table_steps(
    labels: NDArray[np.integer[Any]],
    image: Any | None = None,
    *,
    spacing: Sequence[float] | None = None,
    unit: str = "pixel",
    histogram_bins: int = 16,
    volume: bool = False,
) -> Generator[str, Stop | None, RegionTable | None]:
    """Measure plane by plane; yields what it does. Send `STOP` to give up, which returns None.

    As `region_table`.
    """
    labels = np.asarray(labels)
    check_labels(labels)
    _check_fit(labels, image, volume=volume)
    scale = _scale(spacing, unit, 3 if volume else 2)
    planes = [()] if volume else list(np.ndindex(labels.shape[:-2]))
    edges = None
    if image is not None:
        lowest, highest = np.inf, -np.inf
        for number, plane in enumerate(planes, start=1):
            if (yield f"Grey values of plane {number} of {len(planes)}") is STOP:
                return None
            low, high = _grey_range(_read(image, plane))
            lowest, highest = min(lowest, low), max(highest, high)
        edges = _grey_edges(lowest, highest, histogram_bins)
    parts = []
    for number, plane in enumerate(planes, start=1):
        if (yield f"Objects of plane {number} of {len(planes)}") is STOP:
            return None
        grey = None if image is None else _read(image, plane)
        ids, numbered = _numbered(labels[plane])
        measured = _measure(numbered, grey, scale) | _histogram(numbered, len(ids), grey, edges)
        parts.append({"label": ids, **_place(plane, len(ids)), **measured})
    return RegionTable({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def write_csv(table: RegionTable, path: str | Path) -> None:
    """Write the table as comma-separated values, UTF-8, replacing an existing file only when complete.

    Raises
    ------
    OutputError
        When the folder is missing, not writable, or full; nothing is left behind.
    """
    with replacing(Path(path)) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        for row in table.rows():
            writer.writerow(f"{v:.7g}" if isinstance(v, float) else v for v in row.values())


@dataclass(frozen=True)
class _Scale:
    """Size of a pixel along each measured axis, in `unit` (px where it is not known)."""

    per_axis: tuple[float, ...]
    unit: str


def _check_fit(labels: NDArray[Any], image: Any | None, *, volume: bool) -> None:
    if labels.ndim < 2 or (volume and labels.ndim != 3):
        needed = "a volume (Z, Y, X)" if volume else "an image (Y, X) or a stack of them"
        raise InputError(f"Labels are {by(labels.shape)}: give {needed}.")
    if image is not None and tuple(image.shape) != labels.shape:
        raise InputError(
            f"Labels are {by(labels.shape)} but the image is {by(image.shape)}: "
            "give one grey value per label pixel (of a colour image one channel)."
        )


def _scale(spacing: Sequence[float] | None, unit: str, n_axes: int) -> _Scale:
    if spacing is None or unit in {"pixel", "px"}:
        return _Scale((1.0,) * n_axes, "px")
    per_axis = tuple(float(s) for s in spacing)[-n_axes:]
    if len(per_axis) < n_axes or not all(0 < s < np.inf for s in per_axis):
        raise InputError(f"Spacing {tuple(spacing)} is no pixel size: give {n_axes} numbers above 0.")
    if unit in {"nm", "nanometer", "nanometre"}:
        return _Scale(tuple(s / _NM_PER_UM for s in per_axis), "um")
    return _Scale(
        per_axis, "um" if unit in {"µm", "μm", "um", "micron", "micrometer", "micrometre"} else unit
    )


def _read(image: Any, plane: tuple[int, ...]) -> NDArray[Any]:
    return np.asarray(image[(*plane, ...)])


def _numbered(labels: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Ids of the objects, and the labels with 1, 2, 3… instead (time and memory go with the largest)."""
    ids, places = np.unique(labels, return_inverse=True)
    n_background = int((ids == 0).sum())
    return ids[n_background:], (places.reshape(labels.shape) + 1 - n_background).astype(np.int32)


def _measure(labels: NDArray[np.int32], grey: NDArray[Any] | None, scale: _Scale) -> Columns:
    """Columns of one plane or volume; scikit-image's names become names that tell axis and unit."""
    axes = "zyx"[-labels.ndim :]
    is_plane = labels.ndim == 2
    names = ["area", "num_pixels", "centroid", "bbox", "equivalent_diameter_area"]
    names += ["axis_major_length", "axis_minor_length"] + ["eccentricity", "solidity"] * is_plane
    names += [f"intensity_{name}" for name in _GREY] * (grey is not None)
    found = regionprops_table(labels, grey, properties=names, spacing=scale.per_axis)
    unit = scale.unit
    columns = {"area_px" if is_plane else "volume_voxels": found["num_pixels"].astype(np.int64)}
    if unit != "px":
        columns[f"area_{unit}2" if is_plane else f"volume_{unit}3"] = found["area"]
    columns |= {f"centroid_{axis}_{unit}": found[f"centroid-{i}"] for i, axis in enumerate(axes)}
    for i, axis in enumerate(axes):
        columns[f"bbox_{axis}_min_px"] = found[f"bbox-{i}"]
        columns[f"bbox_{axis}_max_px"] = found[f"bbox-{i + labels.ndim}"]
    columns[f"equivalent_diameter_{unit}"] = found["equivalent_diameter_area"]
    columns[f"major_axis_{unit}"] = found["axis_major_length"]
    columns[f"minor_axis_{unit}"] = found["axis_minor_length"]
    columns |= {name: found[name] for name in ("eccentricity", "solidity") if name in found}
    return columns | {f"grey_{name}": found[f"intensity_{name}"] for name in _GREY if grey is not None}


def _place(plane: tuple[int, ...], n_rows: int) -> Columns:
    names = ["plane"] if len(plane) == 1 else [f"plane_{i}" for i in range(len(plane))]
    return {name: np.full(n_rows, index) for name, index in zip(names, plane, strict=True)}


def _grey_range(grey: NDArray[Any]) -> tuple[float, float]:
    """Smallest and largest grey value, NaN and infinity aside; from infinity to its negative without any."""
    finite = grey[np.isfinite(grey)]
    return (float(finite.min()), float(finite.max())) if finite.size else (np.inf, -np.inf)


def _grey_edges(lowest: float, highest: float, n_bins: int) -> NDArray[np.float64]:
    """Edges of the grey-level bins over the whole image."""
    if not lowest < highest:
        lowest, highest = (lowest, lowest + 1) if np.isfinite(lowest) else (0.0, 1.0)
    return np.linspace(lowest, highest, n_bins + 1)


def _histogram(
    labels: NDArray[np.int32], n_objects: int, grey: NDArray[Any] | None, edges: NDArray[np.float64] | None
) -> Columns:
    """Number of pixels of each object in each bin; the last bin holds the largest value too."""
    if grey is None or edges is None:
        return {}
    n_bins = len(edges) - 1
    is_counted = (labels > 0) & np.isfinite(grey) & (n_bins > 0)
    bins = np.clip(np.searchsorted(edges, grey[is_counted], side="right") - 1, 0, n_bins - 1)
    objects = labels[is_counted] - 1
    counts = np.bincount(objects * n_bins + bins, minlength=n_objects * n_bins).reshape(n_objects, n_bins)
    return {f"grey_{i:02d}_from_{edges[i]:.4g}": counts[:, i] for i in range(n_bins)}
