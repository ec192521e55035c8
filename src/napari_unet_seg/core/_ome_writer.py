"""Results as OME-TIFF: complete under their final name, or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from napari_unet_seg.core._tiff_metadata import NAMESPACE
from napari_unet_seg.core.errors import InputError, OutputError, UNetSegError

TIFF_ENDINGS = (".ome.tif", ".ome.tiff", ".tif", ".tiff")
ProbabilityDtype = Literal["float32", "uint16", "uint8"]

_MAX_CLASSIC_TIFF = 2**32 - 2**26


def check_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike[str]] = (),
    endings: Sequence[str] = TIFF_ENDINGS,
) -> Path:
    """Say before any work starts whether `path` can be written; returns it as a Path.

    Raises
    ------
    OutputError
        Its folder is missing or not writable, its ending is not one of `endings`, it is one of the `inputs`
        (or one section of an input folder), it is a folder, or it exists and `overwrite` is False.
    """
    path = Path(path)
    if not path.name.lower().endswith(tuple(endings)):
        raise OutputError(f"The output '{path}' must end in {' or '.join(endings)}.")
    parent = path.parent
    if not parent.is_dir():
        raise OutputError(
            f"The folder '{parent}' for the output '{path.name}' does not exist: create it first."
        )
    for given in inputs:
        if _is_same_or_inside(path, Path(given)):
            raise OutputError(
                f"The output '{path}' is also the input, or among its sections: choose another place."
            )
    if path.is_dir():
        raise OutputError(f"The output '{path}' is a folder: name a file.")
    if path.exists() and not overwrite:
        raise OutputError(f"The output '{path}' exists already: choose another name or allow overwriting.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"The folder '{parent}' may not be written to: choose another.")
    return path


def _is_same_or_inside(path: Path, given: Path) -> bool:
    if given.is_dir() and path.parent.resolve() == given.resolve():
        return True
    if path.exists() and given.exists():
        return path.samefile(given)
    return path.resolve() == given.resolve()


@contextmanager
def replaced_when_complete(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary name beside `path`, moved there when the block ends well and removed when it does not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        if path.exists() and not overwrite:
            raise OutputError(f"The output '{path}' was made by someone else meanwhile: choose another name.")
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UNetSegError(f"'{path}' could not be written: {reason}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_labels(
    path: str | os.PathLike[str],
    labels: Any,
    *,
    axes: str,
    voxel_size_nm: Mapping[str, float] | None = None,
    overwrite: bool = False,
    metadata: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] | None = None,
    dtype: DTypeLike | None = None,
) -> Path:
    """Write integer labels as OME-TIFF: uint16 while the ids fit, else uint32.

    Parameters
    ----------
    path : path
        Ends in .tif, .tiff, .ome.tif or .ome.tiff.
    labels : array, or iterable of (Y, X) planes in the order of `axes`
        Array-likes are read plane by plane. An iterable needs `shape`, and `dtype` if not uint32.
    axes : str
        Of T Z C Y X, ending in YX.
    voxel_size_nm : mapping of axis to nm, optional
        Kept for Z, Y, X.
    metadata : mapping, optional
        JSON-like facts about how the labels were made; `read_provenance` gives them back.

    Raises
    ------
    OutputError
        As `check_output`.
    InputError
        Negative ids, or shape and axes that do not match.
    UNetSegError
        The disk is full or failed; nothing is left under `path`.
    """
    path = check_output(path, overwrite=overwrite)
    if shape is None:
        labels = _as_indexable(labels)
        shape, planes = tuple(labels.shape), _planes_of(labels)
        dtype = dtype or _label_dtype(labels)
    else:
        planes = iter(labels)
    target = np.dtype(dtype or np.uint32)
    return _write(
        path,
        (_as_ids(plane, target) for plane in planes),
        _Layout("labels", shape, target, axes, voxel_size_nm or {}, (), dict(metadata or {})),
        overwrite=overwrite,
    )


def write_probabilities(
    path: str | os.PathLike[str],
    probabilities: Any,
    *,
    axes: str,
    class_names: Sequence[str],
    dtype: ProbabilityDtype = "float32",
    voxel_size_nm: Mapping[str, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Path:
    """Write class probabilities (0..1) as OME-TIFF; the class axis is C, its channels are named.

    Parameters
    ----------
    probabilities : array (C, ..., Y, X), or iterable of (Y, X) planes in the order of `axes`
        An iterable needs `shape`.
    axes : str
        Of T Z C Y X, ending in YX; the axes of one class will do, then C comes first.
    dtype : {"float32", "uint16", "uint8"}
        The whole-number types hold round(p × their largest value).

    Raises
    ------
    OutputError, InputError, UNetSegError
        As `write_labels`; InputError also when the classes and names do not match.
    """
    path = check_output(path, overwrite=overwrite)
    axes = axes if "C" in axes else f"C{axes}"
    if shape is None:
        probabilities = _as_indexable(probabilities)
        shape, planes = tuple(probabilities.shape), _planes_of(probabilities)
    else:
        planes = iter(probabilities)
    target = np.dtype(dtype)
    notes = dict(metadata or {})
    if target.kind == "u":
        notes["probability_scale"] = int(np.iinfo(target).max)
    return _write(
        path,
        (_scaled(plane, target) for plane in planes),
        _Layout("probabilities", shape, target, axes, voxel_size_nm or {}, tuple(class_names), notes),
        overwrite=overwrite,
    )


def write_float_map(
    path: str | os.PathLike[str],
    values: Any,
    *,
    axes: str,
    voxel_size_nm: Mapping[str, float] | None = None,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a map of real numbers, such as a weight map, as float32 OME-TIFF; errors as `write_labels`."""
    path = check_output(path, overwrite=overwrite)
    values = _as_indexable(values)
    target = np.dtype(np.float32)
    layout = _Layout("map", tuple(values.shape), target, axes, voxel_size_nm or {}, (), dict(metadata or {}))
    return _write(path, (p.astype(target) for p in _planes_of(values)), layout, overwrite=overwrite)


class _Layout:
    """How an array lies in an OME-TIFF; refuses what OME cannot say."""

    def __init__(
        self,
        content: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        axes: str,
        voxel_size_nm: Mapping[str, float],
        channel_names: tuple[str, ...],
        provenance: dict[str, Any],
    ) -> None:
        if len(axes) != len(shape) or not axes.endswith("YX") or set(axes) - set("TZCYX"):
            raise InputError(f"The axes '{axes}' do not describe a result of shape {shape}.")
        if len(set(axes)) != len(axes) or 0 in shape:
            raise InputError(f"A result of shape {shape} with axes '{axes}' cannot be written.")
        n_channels = shape[axes.index("C")] if "C" in axes else 0
        if channel_names and len(channel_names) != n_channels:
            raise InputError(f"{n_channels} classes do not match the names {', '.join(channel_names)}.")
        self.content, self.shape, self.dtype, self.axes = content, shape, dtype, axes
        self.voxel_size_nm, self.channel_names, self.provenance = voxel_size_nm, channel_names, provenance

    @property
    def is_big(self) -> bool:
        """Whether it may not fit into a classic TIFF."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize > _MAX_CLASSIC_TIFF

    def ome_metadata(self) -> dict[str, Any]:
        """The metadata as tifffile takes it."""
        ome: dict[str, Any] = {"axes": self.axes}
        for axis, size in self.voxel_size_nm.items():
            if axis in "ZYX":
                ome[f"PhysicalSize{axis}"] = float(size)
                ome[f"PhysicalSize{axis}Unit"] = "nm"
        if self.channel_names:
            ome["Channel"] = {"Name": list(self.channel_names)}
        provenance = json.dumps(self.provenance, default=_plain, sort_keys=True)
        ome["MapAnnotation"] = {
            "Namespace": NAMESPACE,
            "content": self.content,
            "axes": self.axes,
            "provenance": provenance,
        }
        return ome


def _write(path: Path, planes: Iterator[NDArray[Any]], layout: _Layout, *, overwrite: bool) -> Path:
    with (
        replaced_when_complete(path, overwrite=overwrite) as temporary,
        tifffile.TiffWriter(temporary, bigtiff=layout.is_big, ome=True) as tif,
    ):
        tif.write(
            planes,
            shape=layout.shape,
            dtype=layout.dtype,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1 if layout.dtype.kind == "f" else 3},
            metadata=layout.ome_metadata(),
        )
    return path


def _as_indexable(values: Any) -> Any:
    return values if hasattr(values, "shape") and hasattr(values, "dtype") else np.asarray(values)


def _planes_of(values: Any) -> Iterator[NDArray[Any]]:
    """The (Y, X) planes of an array in order, read one at a time."""
    for index in np.ndindex(*values.shape[:-2]):
        yield np.asarray(values[index])


def _label_dtype(labels: Any) -> np.dtype[Any]:
    largest = max((int(plane.max(initial=0)) for plane in _planes_of(labels)), default=0)
    return np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)


def _as_ids(plane: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    plane = np.asarray(plane)
    if plane.dtype.kind not in "biu":
        raise InputError(f"Labels must be whole numbers, not {plane.dtype}.")
    if plane.size and (int(plane.min()) < 0 or int(plane.max()) > np.iinfo(dtype).max):
        raise InputError(f"Labels from {plane.min()} to {plane.max()} cannot be saved as {dtype}.")
    return plane.astype(dtype, copy=False)


def _scaled(plane: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    plane = np.asarray(plane, dtype=np.float32)
    if dtype.kind == "f":
        return plane
    scaled: NDArray[Any] = np.rint(np.clip(np.nan_to_num(plane), 0, 1) * np.iinfo(dtype).max).astype(dtype)
    return scaled


def _plain(value: object) -> object:
    """Numpy values, paths and the like as JSON knows them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)
