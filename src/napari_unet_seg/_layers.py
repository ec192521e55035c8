"""Between napari's layers and the core's values: what an image layer holds, and results as layers; no Qt.

Layers are duck-typed: whatever has napari's attributes will do. Everything here runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from napari.utils.transforms import Affine
from numpy.typing import NDArray

from napari_unet_seg.core.errors import InputError, SettingError

if TYPE_CHECKING:
    from napari_unet_seg.core.normalisation import ArrayLike
    from napari_unet_seg.core.prediction import Prediction

Index: TypeAlias = tuple[int, ...]
"""Of a plane: one number per axis before Y and X."""
Region: TypeAlias = tuple[int | slice, ...]
"""Part of an image: one number or slice per axis of its labels; Y and X are slices."""
Where: TypeAlias = str | Region
"""What to segment: "plane" (the one in view), "stack", (rows, columns) of the plane in view, or a region."""

METADATA = "napari-unet-seg"
"""Our entry in a layer's metadata."""

_LETTERS = {
    "t": "T", "time": "T", "frame": "T",
    "z": "Z", "slice": "Z", "plane": "Z", "section": "Z", "depth": "Z",
    "c": "C", "ch": "C", "channel": "C", "channels": "C",
    "y": "Y", "row": "Y", "rows": "Y",
    "x": "X", "col": "X", "column": "X", "columns": "X",
}  # fmt: skip
_LARGEST_COPY_BYTES = 64 * 1024 * 1024
"""Arrays up to this size are copied when a job takes them over; larger ones are read plane by plane."""


@dataclass(frozen=True)
class LayerImage:
    """What an image layer holds, level 0 of a pyramid.

    Attributes
    ----------
    data
        Lazy or not; not copied.
    axes
        One of T Z C Y X per axis of `data`, S for the colours of an RGB layer.
    voxel_size_nm
        The axes whose size is known.
    """

    name: str
    data: ArrayLike
    axes: str
    voxel_size_nm: dict[str, float]

    @property
    def label_axes(self) -> str:
        """Axes of what is made of it: without channels."""
        return self.axes.replace("C", "").replace("S", "")

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Length of each of the label axes."""
        return tuple(self.data.shape[self.axes.index(axis)] for axis in self.label_axes)

    @property
    def n_channels(self) -> int:
        """Number of channels or colours; 1 without such an axis."""
        return next((int(self.data.shape[self.axes.index(axis)]) for axis in "CS" if axis in self.axes), 1)

    @property
    def pixel_size_nm(self) -> tuple[float, float] | None:
        """(Y, X) when both are known."""
        size = self.voxel_size_nm
        return (size["Y"], size["X"]) if {"Y", "X"} <= size.keys() else None


def read_image(layer: Any, axes: str | None = None) -> LayerImage:
    """Read what an image layer says of itself.

    Parameters
    ----------
    layer
        An image layer of napari.
    axes
        One letter per axis of its data, where its axis labels do not say it.

    Raises
    ------
    InputError
        It is no image, or more than one of its axes are unknown.
    """
    if getattr(layer, "_type_string", "image") != "image" or not hasattr(layer, "rgb"):
        raise InputError(f"Layer '{layer.name}' is not an image: choose an image layer.")
    data = layer.data[0] if layer.multiscale else layer.data
    axes = axes or axes_of(layer)
    if len(axes) != len(data.shape):
        raise InputError(f"Axes '{axes}' name {len(axes)} axes, but '{layer.name}' has {len(data.shape)}.")
    if not axes.replace("C", "").replace("S", "").endswith("YX"):
        raise InputError(
            f"The axes of '{layer.name}' are {axes}, but Y and X have to come last: reorder its data, "
            "for example with numpy's moveaxis."
        )
    return LayerImage(str(layer.name), data, axes, _voxel_size_nm(layer, axes))


def axes_of(layer: Any) -> str:
    """One letter per axis of the layer's data, from its axis labels; one leading axis without a name is Z.

    Raises
    ------
    InputError
        More than one axis is unknown, or a name occurs twice.
    """
    labels = [str(label).strip().lower() for label in layer.axis_labels]
    letters = [_LETTERS.get(label, "?") for label in labels]
    for position, letter in ((-1, "X"), (-2, "Y")):
        if letters[position] == "?" and letter not in letters:
            letters[position] = letter
    if letters.count("?") == 1 and "Z" not in letters:
        letters[letters.index("?")] = "Z"
    axes = "".join(letters)
    if "?" in axes or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise SettingError(
            f"The {len(axes)} axes of '{layer.name}' are called {', '.join(labels)}: "
            "say what they are with letters T Z C Y X, such as TZYX.",
            "axes",
            "TZYX",
        )
    return axes + ("S" if layer.rgb else "")


def _voxel_size_nm(layer: Any, axes: str) -> dict[str, float]:
    """The axes whose scale has a unit of length."""
    sizes = {}
    for axis, scale, unit in zip(axes, layer.scale, layer.units, strict=False):
        if axis in "ZYX" and dict(unit.dimensionality) == {"[length]": 1}:
            sizes[axis] = abs(float((float(scale) * unit).to("nanometer").magnitude))
    return {axis: size for axis, size in sizes.items() if size > 0}


def region_of(image: LayerImage, where: Where, in_view: Index) -> Region:
    """The region that `where` means.

    Parameters
    ----------
    in_view
        The plane that is shown, one index per label axis before Y and X.

    Raises
    ------
    InputError
        It does not fit the image, or holds no pixel.
    """
    if where == "stack":
        return (slice(None),) * len(image.label_axes)
    if where == "plane":
        where = (slice(None), slice(None))
    if isinstance(where, str) or len(where) not in (2, len(image.label_axes)):
        raise InputError(f"Where to segment is {where!r}: choose plane, stack, or (rows, columns) as slices.")
    index = (*(in_view if len(where) == 2 else where[:-2]), *where[-2:])
    for axis, entry, length in zip(image.label_axes, index, image.label_shape, strict=True):
        if isinstance(entry, slice):
            is_empty = len(range(*entry.indices(length))) == 0 or entry.step not in (None, 1)
        else:
            is_empty = axis in "YX" or not 0 <= entry < length
        if is_empty:
            raise InputError(
                f"Nothing of '{image.name}' lies there ({axis} has {length} positions): choose another place."
            )
    return index


def box_of(image: LayerImage, region: Region) -> tuple[slice, slice]:
    """Rows and columns of a region, from where to where."""
    rows, columns = (
        slice(*entry.indices(length)[:2])
        for entry, length in zip(region[-2:], image.label_shape[-2:], strict=True)
        if isinstance(entry, slice)
    )
    return rows, columns


def plane_in_view(layer: Any, image: LayerImage, point: Sequence[float]) -> Index:
    """The plane at a point of the world, such as the viewer's `dims.point`."""
    position = layer.world_to_data(point)
    axes = image.axes.replace("S", "")
    found = []
    for axis in image.label_axes[:-2]:
        at, length = axes.index(axis), image.data.shape[axes.index(axis)]
        found.append(int(np.clip(round(float(position[at])), 0, length - 1)))
    return tuple(found)


class Part:
    """A region of an image that is read when it is asked for: an axis is at one index, or cut to a slice."""

    def __init__(self, data: ArrayLike, axes: str, region: dict[str, int | slice]) -> None:
        self._data = data
        lengths = dict(zip(axes, data.shape, strict=True))
        self._index = {axis: region.get(axis, slice(None)) for axis in axes}
        self.axes = "".join(axis for axis, entry in self._index.items() if isinstance(entry, slice))
        self._ranges = {axis: range(*self._index[axis].indices(lengths[axis])) for axis in self.axes}  # type: ignore[union-attr]
        self.shape = tuple(len(self._ranges[axis]) for axis in self.axes)
        self.dtype = np.dtype(data.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            at = keys.index(Ellipsis)
            keys = (*keys[:at], *[slice(None)] * (len(self.shape) - len(keys) + 1), *keys[at + 1 :])
        index = dict(self._index)
        for axis, entry in zip(self.axes, keys, strict=False):
            chosen = self._ranges[axis][entry]
            is_range = isinstance(chosen, range)
            index[axis] = slice(chosen.start, chosen.stop, chosen.step) if is_range else chosen
        return np.asarray(self._data[tuple(index.values())])


def take(image: LayerImage, region: Region) -> tuple[ArrayLike, str]:
    """A region of the image for a thread, and its axes: copied when it is small, else read when needed."""
    part = Part(image.data, image.axes, dict(zip(image.label_axes, region, strict=True)))
    n_bytes = int(np.prod(part.shape)) * part.dtype.itemsize
    is_resident = isinstance(image.data, np.ndarray) and not isinstance(image.data, np.memmap)
    if is_resident and n_bytes <= _LARGEST_COPY_BYTES:
        return np.array(part[(slice(None),) * len(part.axes)]), part.axes
    return part, part.axes


def placement(layer: Any, axes: str, kept: str, corner: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Where a layer lies, as arguments for a new layer at the same place.

    Parameters
    ----------
    axes
        Of the layer, without S.
    kept
        Those of the new layer, in the same order.
    corner
        Index in the layer of the new layer's first pixel, by axis; 0 where it does not say.
    """
    at = [axes.index(axis) for axis in kept]
    own = Affine(
        scale=layer.scale, translate=layer.translate, rotate=layer.rotate, shear=layer.shear, ndim=len(axes)
    )
    first = np.asarray(own(np.array([float((corner or {}).get(axis, 0)) for axis in axes])))
    part = Affine(linear_matrix=own.linear_matrix[np.ix_(at, at)], translate=first[at], ndim=len(at))
    n_shears = len(at) * (len(at) - 1) // 2
    rows = [*at, len(axes)]
    return {
        "scale": part.scale,
        "translate": part.translate,
        "rotate": part.rotate,
        # napari 0.9 gives transforms without any a shear of another length, and refuses it.
        "shear": part.shear if len(part.shear) == n_shears else np.zeros(n_shears),
        "affine": np.asarray(layer.affine.affine_matrix)[np.ix_(rows, rows)],
        "units": [layer.units[i] for i in at],
        "axis_labels": [layer.axis_labels[i] for i in at],
    }


def rectangle_of(shapes: Any, image_layer: Any, image: LayerImage) -> tuple[slice, slice] | None:
    """Rows and columns that a drawn shape covers: the selected one, else the last; None when there is none.

    The pixels that its bounding box touches, cut at the image's edge; None when nothing is left.
    """
    if not len(shapes.data):
        return None
    selected = sorted(shapes.selected_data)
    corners = np.asarray(shapes.data[selected[0] if len(selected) == 1 else -1], float)
    axes = image.axes.replace("S", "")
    inside = np.array([image_layer.world_to_data(shapes.data_to_world(corner)) for corner in corners])
    spans = []
    for axis in "YX":
        places = inside[:, axes.index(axis)]
        length = image.data.shape[image.axes.index(axis)]
        first, last = int(np.floor(places.min() + 0.5)), int(np.ceil(places.max() - 0.5))
        spans.append(slice(max(0, first), min(length, last + 1)))
    rows, columns = spans
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def add_prediction(
    viewer: Any, prediction: Prediction, *, like: Any, probabilities: bool = False
) -> list[Any]:
    """Add a prediction's labels to a viewer where its image lies.

    Parameters
    ----------
    prediction
        Of the layer, or of some of its planes: its axes may be fewer.
    like
        The image layer, whose scale, translate, rotate, shear, affine, units and axis labels are taken over.
    probabilities
        Add the probability of each class but the background, too.

    Returns
    -------
    layers
        Those that were added: labels first, then the objects of a class task that has some.

    Raises
    ------
    InputError
        The prediction does not belong to the layer: other axes, or another size.
    """
    image = read_image(like)
    if not set(prediction.axes) <= set(image.label_axes):
        raise InputError(
            f"The prediction has axes {prediction.axes} and '{image.name}' has {image.label_axes}: "
            "name the image that it was made of."
        )
    lengths = dict(zip(image.label_axes, image.label_shape, strict=True))
    expected = tuple(lengths[axis] for axis in prediction.axes)
    if prediction.labels.shape != expected:
        raise InputError(
            f"The prediction is {_by(prediction.labels.shape)} but image '{image.name}' is {_by(expected)}: "
            "name the image that it was made of."
        )
    where = placement(like, image.axes.replace("S", ""), prediction.axes)
    base = f"{image.name} › {prediction.model_name}"
    kinds = {"labels": prediction.labels}
    if prediction.task == "classes" and prediction.objects is not None:
        kinds["objects"] = prediction.objects
    added = []
    for kind, ids in kinds.items():
        narrow = ids.astype(label_dtype(int(ids.max(initial=0))))
        added.append(viewer.add_labels(narrow, name=unused_name(viewer, f"{base} › {kind}"), **where))
    for name, values in zip(prediction.class_names[1:], prediction.probabilities[1:], strict=True):
        if probabilities:
            added.append(add_probability(viewer, values, unused_name(viewer, f"{base} › P({name})"), where))
    return added


def add_probability(viewer: Any, values: NDArray[np.float32], name: str, where: Mapping[str, Any]) -> Any:
    """Add the probability of one class as an image from 0 to 1."""
    look = {"colormap": "viridis", "contrast_limits": (0.0, 1.0), "visible": False}
    return viewer.add_image(values, name=name, metadata={METADATA: {}}, **look, **where)


def unused_name(viewer: Any, base: str) -> str:
    """The name itself, or with #2, #3… when a layer has it."""
    names = {str(layer.name) for layer in viewer.layers}
    number, name = 1, base
    while name in names:
        number += 1
        name = f"{base} #{number}"
    return name


def is_made_here(image_layer: Any) -> bool:
    """Whether an image layer shows something of ours, such as probabilities, and was not opened."""
    said = image_layer.metadata.get(METADATA)
    return said is not None and "path" not in said


def behind_proxy(thing: Any) -> Any:
    """What is behind the proxy that napari hands to plugins."""
    return getattr(thing, "__wrapped__", thing)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def label_dtype(largest: int) -> type[np.uint16 | np.int32]:
    """16 bits while the ids fit: napari refreshes them 40 times faster."""
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.int32
