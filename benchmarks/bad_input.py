"""What the bundled models make of bad input: spoilt test images, empty fields, tiny and very large ones.

    python benchmarks/bad_input.py                         # some minutes, most of them for the large image
    python benchmarks/bad_input.py --only nuclei --side 0  # without that one; nothing is recorded

Every input is made from test images by a pure function with a fixed seed. The score is compared with that of
the same images as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.transform import resize

import napari_unet_seg as nus
from _common import seconds, write_result
from _test_sets import TEST_SETS, Image, Labels, TestSet
from napari_unet_seg.core.errors import UNetSegError
from napari_unet_seg.core.prediction import PredictSettings

N_IMAGES = 5
"""Of each test set, the first ones."""
LARGEST_PX = 512
"""Larger images are cropped to this, from their middle."""
SIDE_PX = 8192
EMPTY_PX, FAR_PX = 96, 8
"""Side of a field without objects that is cut from an image, and how far from the next object it stays."""
FULL_PX = 256


@dataclass(frozen=True)
class Input:
    """An image (Y, X), its truth, and what is told of its size: as the test set says, or nothing."""

    image: Image
    truth: Labels
    is_size_known: bool = True


Spoil = Callable[[Image, Labels], Input | None]
"""Makes a bad input; None where an image does not lend itself to it."""


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unspoilt(image: Image, truth: Labels) -> Input:
    return Input(image, truth)


def inverted(image: Image, truth: Labels) -> Input:
    """Within the range that the image has."""
    return Input(image.min() + (image.max() - image), truth)


def twelve_bits(image: Image, truth: Labels) -> Input:
    """0 to 4095 in 16 bits."""
    grey = image.astype(float)
    return Input(np.rint(4095 * (grey - grey.min()) / np.ptp(grey)).astype(np.uint16), truth)


def overexposed(image: Image, truth: Labels) -> Input:
    """The brightest quarter of the grey values is at the maximum."""
    top = image.min() + 0.75 * (float(image.max()) - image.min())
    return Input(np.minimum(image, top).astype(image.dtype), truth)


def saturated(image: Image, truth: Labels) -> Input:
    """The brightest quarter of the pixels is at the maximum."""
    return Input(np.minimum(image, np.percentile(image, 75)).astype(image.dtype), truth)


def with_nan(image: Image, truth: Labels) -> Input:
    """One pixel in twenty, and a square of 20 px."""
    holed = np.where(rng().random(image.shape) < 0.05, np.nan, image).astype(np.float32)
    holed[40:60, 40:60] = np.nan
    return Input(holed, truth)


def noise(image: Image, truth: Labels) -> Input:
    """Camera noise: 100 photons a pixel."""
    return Input(rng().poisson(100, image.shape).astype(np.uint16), np.zeros_like(truth), is_size_known=False)


def constant(image: Image, truth: Labels) -> Input:
    return Input(np.full_like(image, 100), np.zeros_like(truth), is_size_known=False)


def empty_part(image: Image, truth: Labels) -> Input | None:
    """The first field of an image that is far from every object."""
    far = ndimage.distance_transform_edt(truth == 0) >= FAR_PX if truth.any() else truth == 0
    for top in range(0, image.shape[0] - EMPTY_PX + 1, 8):
        for left in range(0, image.shape[1] - EMPTY_PX + 1, 8):
            box = np.s_[top : top + EMPTY_PX, left : left + EMPTY_PX]
            if far[box].all():
                return Input(image[box], np.zeros_like(truth[box]))
    return None


def one_object(image: Image, truth: Labels) -> Input | None:
    """The box around the largest object, enlarged to fill the field; nothing is said of the size."""
    if not truth.any():
        return None
    largest = int(np.bincount(truth[truth > 0]).argmax())
    parts, _ = ndimage.label(truth == largest)
    box = ndimage.find_objects(parts)[np.bincount(parts.ravel())[1:].argmax()]
    enlarged = resize(image[box].astype(float), (FULL_PX, FULL_PX), order=1, preserve_range=True)
    labels = resize(truth[box], (FULL_PX, FULL_PX), order=0, preserve_range=True, anti_aliasing=False)
    return Input(np.rint(enlarged).astype(image.dtype), labels.astype(truth.dtype), is_size_known=False)


def tiny(image: Image, truth: Labels) -> Input:
    """32x32 px with the most of objects."""
    covered = ndimage.uniform_filter((truth > 0).astype(float), 32)[16:-15, 16:-15]
    top, left = np.unravel_index(covered.argmax(), covered.shape)
    box = np.s_[top : top + 32, left : left + 32]
    return Input(image[box], truth[box])


INPUTS: dict[str, Spoil] = {
    "as it is": unspoilt,
    "inverted contrast": inverted,
    "16 bits of which 12 are used": twelve_bits,
    "brightest quarter of the grey values clipped": overexposed,
    "brightest quarter of the pixels clipped": saturated,
    "NaN in 5 % of the pixels and in a square": with_nan,
    "empty field, camera noise": noise,
    "empty field, one grey value": constant,
    "empty field cut from the image": empty_part,
    "one object fills the field": one_object,
    "32×32 px": tiny,
}
HAVE_NOTHING = ("empty field, camera noise", "empty field, one grey value")


def examples(test_set: TestSet) -> Iterator[tuple[Image, Labels]]:
    """Some images and truths, none too large."""
    for _, image, truth in islice(test_set.images(), N_IMAGES):
        middle = tuple(
            slice((length - min(length, LARGEST_PX)) // 2, (length + min(length, LARGEST_PX)) // 2)
            for length in image.shape
        )
        yield image[middle], truth[middle]


def predicted(given: Input, model: nus.Model, test_set: TestSet) -> tuple[Labels, tuple[str, ...]]:
    """Labels and sentences; an error of ours is a sentence too."""
    settings = test_set.settings() if given.is_size_known else PredictSettings(device="cpu")
    try:
        result = nus.predict(given.image, model, settings)
    except UNetSegError as error:
        return np.zeros_like(given.truth), (str(error),)
    return result.labels, result.notes


def measured(spoil: Spoil, model: nus.Model, test_set: TestSet, before: list[float]) -> dict[str, Any] | None:
    """Mean score of all images, objects found and true, and in how many of them each sentence was said."""
    rows, notes = [], Counter[str]()
    for (image, truth), score_before in zip(examples(test_set), before, strict=True):
        if (given := spoil(image, truth)) is None:
            continue
        found, said = predicted(given, model, test_set)
        n_found, n_true = n_objects(found, test_set), n_objects(given.truth, test_set)
        rows.append((score_before, test_set.of(found, given.truth), n_found, n_true))
        notes.update(said)
    if not rows:
        return None
    before_it, after, n_found, n_true = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "n_images": len(rows),
        "score_as_it_is": round(float(before_it.mean()), 3),
        "score": round(float(after.mean()), 3),
        "n_found": int(n_found.sum()),
        "n_true": int(n_true.sum()),
        "sentences": dict(sorted(notes.items())),
    }


def n_objects(labels: Labels, test_set: TestSet) -> int:
    """Instances, or connected pieces of all classes."""
    if test_set.score == "Dice":
        return int(ndimage.label(labels > 0)[1])
    return np.unique(labels[labels > 0]).size


def very_large(test_set: TestSet, side_px: int) -> dict[str, Any]:
    """A mosaic of the images, in a process of its own: its time, and its memory beyond image and labels."""
    command = [sys.executable, __file__, "--only", test_set.name, "--side", str(side_px), "--mosaic"]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(child.stdout)
    return result


def mosaic(test_set: TestSet, side_px: int) -> dict[str, Any]:
    """Measured in this process."""
    image, _ = next(examples(test_set))
    n_rows, n_columns = (-(-side_px // length) for length in image.shape)
    large = np.tile(image, (n_rows, n_columns))[:side_px, :side_px]
    model, labels = nus.load_model(test_set.model), np.ones(large.shape, np.int32)
    labels[:] = 0
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is used now
    before = _peak_mb()
    steps = nus.prediction_steps(
        large, model, test_set.settings(), keep_probabilities=False, labels_out=labels
    )
    taken = seconds(lambda: [None for _ in steps])
    return {
        "side_px": side_px,
        "seconds": round(taken, 1),
        "peak_mb_beyond_image_and_labels": round(_peak_mb() - before),
        "probabilities_mb": round(4 * model.architecture.n_classes * large.size / 2**20),
        "n_found": n_objects(labels, test_set),
        "n_found_in_one_part": n_objects(nus.predict(image, model, test_set.settings()).labels, test_set),
        "n_parts": round(large.size / image.size, 2),
    }


def _peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def report(test_set: TestSet, side_px: int) -> dict[str, Any]:
    """All inputs for one model."""
    model = nus.load_model(test_set.model)
    rows: dict[str, Any] = {}
    before = [
        test_set.of(predicted(Input(image, truth), model, test_set)[0], truth)
        for image, truth in examples(test_set)
    ]
    for name, spoil in INPUTS.items():
        if (row := measured(spoil, model, test_set, before)) is not None:
            rows[name] = row
            print(f"{test_set.model}, {name}: {row}", flush=True)
    if side_px:
        rows["very large"] = very_large(test_set, side_px)
        print(f"{test_set.model}, very large: {rows['very large']}", flush=True)
    return {"test_set": test_set.name, "score": test_set.score, "inputs": rows}


def test_sets() -> list[TestSet]:
    """The first test set of each model that is there."""
    there = {info.name for info in nus.list_models() if info.source == "bundled"}
    chosen = {test_set.model: test_set for test_set in reversed(TEST_SETS) if test_set.model in there}
    return [chosen[name] for name in sorted(chosen)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of the name of a test set")
    parser.add_argument("--side", type=int, default=SIDE_PX, help="of the very large image; 0: none")
    parser.add_argument("--mosaic", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = [test_set for test_set in test_sets() if arguments.only in test_set.name]
    if arguments.mosaic:
        print(json.dumps(mosaic(chosen[0], arguments.side)))
        return
    models = {test_set.model: report(test_set, arguments.side) for test_set in chosen}
    if arguments.only or not arguments.side:
        return
    n_found = sum(models[name]["inputs"][empty]["n_found"] for name in models for empty in HAVE_NOTHING)
    write_result(
        "bad_input",
        {
            "what": "bad input: objects that the bundled models find in fields of noise or of one grey value",
            "value": n_found,
            "unit": "",
            "target": "0",
            "met": n_found == 0,
            "models": models,
        },
    )


if __name__ == "__main__":
    main()
