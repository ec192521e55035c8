"""Made-up microscope images whose truth is known: a stack of neural tissue in EM, and fluorescent nuclei.

Grey levels, membrane profile and noise of the EM stack follow FIB-SEM of Drosophila medulla.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label

EM_VOXEL_SIZE_NM = {"Z": 40.0, "Y": 8.0, "X": 8.0}
NUCLEI_PIXEL_SIZE_NM = {"Y": 650.0, "X": 650.0}

_Z_STEP_PX = EM_VOXEL_SIZE_NM["Z"] / EM_VOXEL_SIZE_NM["X"]
_Float = NDArray[np.float32]


class Sample(NamedTuple):
    """An image and its truth: instance ids, 0 = membrane or background; voxel size in nm per axis."""

    image: NDArray[Any]
    truth: NDArray[np.uint16]
    voxel_size_nm: dict[str, float]


def synthetic_em(shape: tuple[int, int, int] = (5, 256, 256), seed: int = 0) -> Sample:
    """A stack (Z, Y, X) of neural tissue, uint8: bright cells, dark membranes, mitochondria, vesicles, noise.

    Truth is uint16, one id per cell through the stack, 0 on the membranes. Same seed, same stack.
    """
    rng = np.random.default_rng(seed)
    cells = _cells(shape, rng)
    depth = np.stack([_distance_to_border(plane) for plane in cells])
    image = _cytoplasm(cells, rng)
    _add_vesicles(image, depth, cells, rng)
    _add_mitochondria(image, depth, cells, rng)
    image -= 54 * np.exp(-((depth / 2.2) ** 2))
    image = ndimage.gaussian_filter(image, (0, 0.8, 0.8))
    image += rng.normal(0, 2.5, (shape[0], 1, 1))
    image += ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, 0.45, 0.45)) * 10
    truth = np.where(depth > 1.5, cells, 0).astype(np.uint16)
    return Sample(np.clip(image, 0, 255).astype(np.uint8), truth, dict(EM_VOXEL_SIZE_NM))


def _smooth_noise(shape: tuple[int, ...], length_px: float, rng: np.random.Generator) -> _Float:
    """Noise of standard deviation about 1 that changes over `length_px`, also between planes."""
    steps = [_Z_STEP_PX if len(shape) == 3 and axis == 0 else 1.0 for axis in range(len(shape))]
    spacing = [max(1.0, length_px / step) for step in steps]
    coarse = rng.standard_normal([int(np.ceil(n / s)) + 3 for n, s in zip(shape, spacing, strict=True)])
    at = [np.arange(n) / s + 1 for n, s in zip(shape, spacing, strict=True)]
    for axis, positions in enumerate(at):
        coarse = _interpolated(coarse, positions, axis)
    return np.asarray(coarse * 1.3 ** len(shape), dtype=np.float32)


def _interpolated(values: NDArray[Any], positions: NDArray[Any], axis: int) -> NDArray[Any]:
    """Cubic B-spline through the grid `values` along one axis, without prefilter: smooth and bounded."""
    base = np.floor(positions).astype(int)
    t = positions - base
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    form = [-1 if a == axis else 1 for a in range(values.ndim)]
    picked = (
        np.take(values, base + i - 1, axis, mode="clip") * (w / 6).reshape(form)
        for i, w in enumerate(weights)
    )
    return np.asarray(sum(picked))


def _cells(shape: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.int32]:
    """Ids from 1 of warped, unevenly large cells that fill the volume: a power diagram, some cells merged."""
    size = np.array([shape[0] * _Z_STEP_PX, shape[1], shape[2]], dtype=np.float32)
    margin = np.array([25, 40, 40], dtype=np.float32)
    box = size + 2 * margin
    seeds = (rng.random((int(np.prod(box) / 33**3) + 2, 3), dtype=np.float32) * box - margin).astype(
        np.float32
    )
    weights = (rng.random(len(seeds), dtype=np.float32) ** 2 * 1500).astype(np.float32)
    offset = (seeds**2).sum(axis=1) - weights
    owner = np.arange(len(seeds))
    gaps = np.linalg.norm(seeds[:, None] - seeds[None], axis=-1) + 1e6 * np.eye(len(seeds))
    merged = rng.random(len(seeds)) < 0.4
    owner[merged] = np.argmin(gaps, axis=1)[merged]
    warps = [12 * _smooth_noise(shape, 48, rng) + 3.2 * _smooth_noise(shape, 20, rng) for _ in range(3)]
    ids = np.empty(shape, dtype=np.int32)
    for z, y in np.ndindex(shape[:2]):
        at = np.full((shape[2], 3), (z * _Z_STEP_PX, y, 0), dtype=np.float32)
        at[:, 2] = np.arange(shape[2])
        at += np.stack([warp[z, y] for warp in warps], axis=-1)
        ids[z, y] = owner[np.argmin(offset - 2 * at @ seeds.T, axis=1)]
    ids = np.unique(ids, return_inverse=True)[1].reshape(shape).astype(np.int32) + 1
    return np.stack([_without_specks(plane) for plane in ids])


def _without_specks(plane: NDArray[np.int32], min_size_px: int = 60) -> NDArray[np.int32]:
    """The plane with pieces below `min_size_px` given to their neighbours, borders rounded."""
    plane = ndimage.median_filter(plane, 5)
    pieces = label(plane, connectivity=1)
    small = np.bincount(pieces.ravel())[pieces] < min_size_px
    if small.all():
        return plane
    nearest = ndimage.distance_transform_edt(small, return_distances=False, return_indices=True)
    return np.asarray(plane[tuple(nearest)])


def _distance_to_border(plane: NDArray[np.int32]) -> _Float:
    """Distance of each pixel to the nearest line between two ids (px)."""
    inner = np.ones((2 * plane.shape[0] - 1, 2 * plane.shape[1] - 1), dtype=bool)
    inner[1::2, ::2] = plane[1:] == plane[:-1]
    inner[::2, 1::2] = plane[:, 1:] == plane[:, :-1]
    if inner.all():
        return np.full(plane.shape, 1e3, dtype=np.float32)
    return np.asarray(ndimage.distance_transform_edt(inner)[::2, ::2] / 2, dtype=np.float32)


def _cytoplasm(cells: NDArray[np.int32], rng: np.random.Generator) -> _Float:
    """Each cell has its grey level and its coarseness; grains and filaments in it."""
    n = int(cells.max()) + 1
    level = rng.normal(148, 19, n).clip(112, 186)
    coarseness = rng.uniform(0.5, 1.3, n)
    grains = ndimage.gaussian_filter(rng.standard_normal(cells.shape, dtype=np.float32), (0.4, 1.5, 1.5)) * 40
    grains = np.minimum(grains, 6)
    image = level[cells] + coarseness[cells] * grains + 4 * _smooth_noise(cells.shape, 20, rng)
    return np.asarray(image, dtype=np.float32)


def _add_vesicles(image: _Float, depth: _Float, cells: NDArray[np.int32], rng: np.random.Generator) -> None:
    """Pale bubbles with a dark rim, 40 to 90 nm across, many in some cells and few in the others."""
    crowding = np.where(rng.random(int(cells.max()) + 1) < 0.3, 1.0, 0.12)
    places = np.argwhere((depth > 7) & (rng.random(cells.shape) < crowding[cells] / 170))
    y, x = np.mgrid[-7:8, -7:8]
    for z, row, column in places.tolist():
        radius = rng.uniform(2.4, 5.2)
        if not (7 <= row < image.shape[1] - 7 and 7 <= column < image.shape[2] - 7):
            continue
        r = np.hypot(y, x * rng.uniform(0.8, 1.25))
        bubble = 14 * (r < radius) - 38 * np.exp(-((r - radius) ** 2))
        image[z, row - 7 : row + 8, column - 7 : column + 8] += rng.uniform(0.5, 1) * bubble


def _add_mitochondria(
    image: _Float, depth: _Float, cells: NDArray[np.int32], rng: np.random.Generator
) -> None:
    """Dark, long bodies with an outline and pale cristae, apart from each other inside large cells."""
    room = depth + rng.uniform(0, 6, depth.shape)
    z, y, x = np.ogrid[: image.shape[0], : image.shape[1], : image.shape[2]]
    wobble = 0.14 * _smooth_noise(image.shape, 20, rng)
    stripes = np.sin(_smooth_noise(image.shape, 24, rng) * 8)
    for _ in range(max(1, image[0].size // 4500)):
        centre = np.unravel_index(int(np.argmax(room)), room.shape)
        if room[centre] < 13:
            break
        radius = min(rng.uniform(0.4, 0.62) * float(depth[centre]), 13.0)
        angle, stretch = rng.uniform(0, np.pi), rng.uniform(1.2, 2.4)
        dz, dy, dx = (z - centre[0]) * _Z_STEP_PX, y - centre[1], x - centre[2]
        along = np.cos(angle) * dx + np.sin(angle) * dy
        across = -np.sin(angle) * dx + np.cos(angle) * dy
        far = np.sqrt((along / (radius * stretch)) ** 2 + (across / radius) ** 2 + (dz / (radius * 1.8)) ** 2)
        body = np.minimum((1 - far + wobble) * radius, depth - 5)
        inside = (body > 0) & (cells == cells[centre])
        image[inside] = (
            84 + 7 * stripes[inside] - 14 * np.exp(-((body[inside] / 1.7) ** 2)) + rng.normal(0, 4)
        )
        room[far < 2.6] = 0


def synthetic_nuclei(shape: tuple[int, int] = (256, 256), seed: int = 0) -> Sample:
    """An image (Y, X) of fluorescent nuclei, uint16: some touch, uneven light, haze, shot and read noise.

    Truth is uint16, one id per nucleus. The same seed gives the same image.
    """
    rng = np.random.default_rng(seed)
    truth = _nuclei(shape, rng)
    n = int(truth.max()) + 1
    brightness = np.append(0, rng.lognormal(-0.25, 0.35, n - 1).clip(0.3, 1.6))
    chromatin = 1 + 0.16 * _smooth_noise(shape, 4, rng) + 0.1 * _smooth_noise(shape, 9, rng)
    rim = np.minimum(1, 0.55 + 0.11 * _distance_to_border(truth.astype(np.int32)))
    light = brightness[truth] * np.clip(chromatin, 0.4, 1.6) * rim
    light = ndimage.gaussian_filter(light, 1.1) + 0.12 * ndimage.gaussian_filter(light, 18) + 0.035
    photons = 260 * light * _uneven_light(shape, rng)
    counts = 6.0 * rng.poisson(photons) + 110 + rng.normal(0, 7, shape)
    image = np.clip(counts, 0, 65535).astype(np.uint16)
    return Sample(image, truth, dict(NUCLEI_PIXEL_SIZE_NM))


def _uneven_light(shape: tuple[int, int], rng: np.random.Generator) -> _Float:
    """A lamp that is off centre: 1 at its middle, about 0.6 in the far corner."""
    middle = rng.uniform(0.3, 0.7, 2)
    y, x = ((np.arange(n) / max(n, 1) - m) ** 2 for n, m in zip(shape, middle, strict=True))
    return np.asarray(np.exp(-0.7 * (y[:, None] + x[None])), dtype=np.float32)


def _nuclei(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Rounded bodies, about a third of them in touching pairs; none lies on another."""
    truth = np.zeros(shape, dtype=np.uint16)
    wanted, tries = max(1, shape[0] * shape[1] // 2300), 0
    n, last = 0, (0.0, 0.0, 0.0)
    while n < wanted and tries < 12 * wanted:
        tries += 1
        radius = min(max(rng.normal(11.0, 1.6), 7.5), 15.0)
        centre = rng.random(2) * shape
        if n and rng.random() < 0.35:
            angle, reach = rng.uniform(0, 2 * np.pi), (last[2] + radius) * 0.93
            centre = np.array([last[0] + reach * np.sin(angle), last[1] + reach * np.cos(angle)])
        body = _body(shape, centre, radius, rng)
        free = body & (truth == 0)
        if free.sum() < max(20, 0.85 * body.sum()) or free.sum() < 0.3 * np.pi * radius**2:
            continue
        n, last = n + 1, (float(centre[0]), float(centre[1]), radius)
        truth[free] = n
    return truth


def _body(
    shape: tuple[int, int], centre: NDArray[Any], radius: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """An ellipse with a slightly irregular outline."""
    y, x = np.arange(shape[0])[:, None] - centre[0], np.arange(shape[1])[None] - centre[1]
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
    along = (np.cos(turn) * x + np.sin(turn) * y) / np.sqrt(stretch)
    across = (-np.sin(turn) * x + np.cos(turn) * y) * np.sqrt(stretch)
    angle = np.arctan2(across, along)
    phases = rng.uniform(0, 2 * np.pi, 2)
    outline = 1 + 0.05 * np.sin(2 * angle + phases[0]) + 0.035 * np.sin(3 * angle + phases[1])
    return np.asarray(np.hypot(along, across) < radius * outline)
