"""Draws the gallery of the documentation: best and worst results of each bundled model (make gallery).

What is shown is chosen by score, not by eye. Pictures go to docs/images/gallery; tables and captions between
the markers of docs/gallery.md, where the rest is written by hand. The test images are needed, as described in
benchmarks/_common.py; a model without any, or whose weights are absent, is skipped with a sentence.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import bad_input  # noqa: E402
import napari_unet_seg as nus  # noqa: E402
from _common import RESULTS  # noqa: E402
from _test_sets import TEST_SETS, Labels, TestSet  # noqa: E402
from napari_unet_seg.core.atomic import write_atomically  # noqa: E402

PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "images" / "gallery"
CROP_PX = 224
FEWEST_OBJECTS = 5
"""True or found, in a crop that is ranked: with fewer, one object decides."""
PLANES_APART = 10
SMALLEST_PX = 96
"""A smaller image is not shown."""
TINT = 0.28
LARGEST_BYTES = 150_000
BAD_PX = 168
GREEN, MAGENTA, YELLOW = (60, 220, 90), (255, 70, 220), (255, 225, 0)

Rgb = NDArray[np.uint8]
Box = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class Case:
    """A crop of a test image, which has a number and a name, with its truth, the result, and its score."""

    number: int
    image_name: str
    place: str
    image: NDArray[Any]
    truth: Labels
    found: Labels
    score: float


def main() -> None:
    """Draw everything, and fill the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a model's name, or 'bad input': draw this part only")
    only = parser.parse_args().only
    PICTURES.mkdir(parents=True, exist_ok=True)
    there = [info.name for info in nus.list_models() if info.source == "bundled"]
    for model in there:
        sets = [test_set for test_set in TEST_SETS if test_set.model == model]
        if not sets:
            print(f"{model} is skipped: benchmarks/_test_sets.py names no test images for it.")
        elif only in ("", model):
            fill_page(model, "\n\n".join(section(test_set) for test_set in sets))
    for model in sorted({test_set.model for test_set in TEST_SETS} - set(there)):
        print(f"{model} is skipped: its weights are not there.")
    if only in ("", "bad input"):
        fill_page("bad input", bad_input_section())


def fill_page(name: str, text: str) -> None:
    """Replace a marked part of the page; one that is not there yet comes before the bad input."""
    page = PAGE.read_text(encoding="utf-8")
    write_atomically(PAGE, filled(page, name, text).encode())


def filled(page: str, name: str, text: str) -> str:
    """The page with a marked part replaced, or added."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if begin not in page:
        before, heading, after = page.partition("## Bad input")
        page = f"{before}## {name}\n\n{begin}\n{end}\n\n{heading}{after}"
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)


def section(test_set: TestSet) -> str:
    """The figures of a test set, and where that is allowed its best, middle and worst crops."""
    model = nus.load_model(test_set.model)
    scores, cases = [], []
    for number, (name, image, truth) in enumerate(test_set.images()):
        found = nus.predict(image, model, test_set.settings()).labels
        scores.append(test_set.of(found, truth))
        whole = Case(number, name, "", image, truth, found, scores[-1])
        cases += list(crops(whole, test_set))
    print(f"{test_set.model}, {test_set.name}: {len(scores)} images, {len(cases)} crops", flush=True)
    parts = [figures(test_set, np.array(scores)), test_set.credit + "."]
    if test_set.may_be_shown:
        parts += [shown(test_set, rank, case) for rank, case in chosen(cases, test_set)]
    return "\n\n".join(parts)


def figures(test_set: TestSet, scores: NDArray[np.floating[Any]]) -> str:
    """A table of the scores of single images."""
    worst, tenth, middle, best = np.percentile(scores, [0, 10, 50, 100])
    images = "1 image" if len(scores) == 1 else f"{len(scores)} images"
    what = {"F1": "F1 at IoU 0.5", "V_rand": "V_rand, thinned", "Dice": "mean Dice of the classes"}
    return (
        f"| {test_set.name}: {what[test_set.score]} per image | worst | lowest tenth | median | best |\n"
        f"|---|---|---|---|---|\n"
        f"| {images} | {worst:.2f} | {tenth:.2f} | {middle:.2f} | {best:.2f} |"
    )


def crops(whole: Case, test_set: TestSet) -> Iterator[Case]:
    """Crops side by side over the whole image, those with too few objects to be ranked left out."""
    for box in boxes(whole.truth.shape):
        truth, found = whole.truth[box], whole.found[box]
        n_objects = max(np.unique(labels[labels > 0]).size for labels in (truth, found))
        if test_set.score == "Dice" or n_objects >= FEWEST_OBJECTS:
            place = f"rows {box[0].start} to {box[0].stop}, columns {box[1].start} to {box[1].stop}"
            score = test_set.of(found, truth)
            yield replace(whole, place=place, image=whole.image[box], truth=truth, found=found, score=score)


def boxes(shape: Sequence[int]) -> Iterator[Box]:
    """As many crops as fit, evenly spread; an image that is smaller is one crop."""
    starts = []
    for length in shape:
        n = max(1, length // CROP_PX)
        starts.append([(length - CROP_PX) * i // max(1, n - 1) for i in range(n)] if n > 1 else [0])
    for top in starts[0]:
        for left in starts[1]:
            yield slice(top, min(top + CROP_PX, shape[0])), slice(left, min(left + CROP_PX, shape[1]))


def chosen(cases: list[Case], test_set: TestSet) -> Iterator[tuple[str, Case]]:
    """The best, the middle one, and the two worst, of different images, or of distant planes of a volume."""
    apart = PLANES_APART if test_set.score == "V_rand" else 1
    large = [case for case in cases if min(case.image.shape) >= SMALLEST_PX]
    ranked = sorted(large, key=lambda case: (case.score, case.number, case.place))
    others = [case for case in ranked[1:] if abs(case.number - ranked[0].number) >= apart]
    worst = [ranked[0], *(others or ranked[1:])[:1]]
    yield from zip(("worst", "second worst"), worst, strict=False)
    yield "middle", ranked[len(ranked) // 2]
    yield "best", ranked[-1]


def shown(test_set: TestSet, rank: str, case: Case) -> str:
    """Draw a case, and return the Markdown that shows it."""
    file = f"{test_set.model}-{test_set.name.split('/')[0]}-{rank.replace(' ', '-')}.png"
    keep(PICTURES / file, panels(case, test_set))
    what = f"{rank} of the crops of {test_set.name}: {test_set.score} {case.score:.2f}"
    text = f"**{rank.capitalize()} crop**, {test_set.score} {case.score:.2f}: {explained(case, test_set)}"
    return f"![Image, truth and result; {what}](images/gallery/{file})\n\n{text}"


def explained(case: Case, test_set: TestSet) -> str:
    """What is in the picture, counted."""
    where = f"({case.image_name}, {case.place})"
    if test_set.score == "Dice":
        share = float((case.found != case.truth).mean())
        return f"{share:.0%} of the pixels have another class than in the truth {where}."
    found_again, right = matched(case)
    n_true, n_found = (np.unique(labels[labels > 0]).size for labels in (case.truth, case.found))
    return (
        f"{n_true} objects, {n_true - len(found_again)} of them not found as they are; "
        f"{n_found} found, {n_found - len(right)} of them wrong {where}."
    )


def matched(case: Case) -> tuple[set[int], set[int]]:
    """Ids of true and of found objects that share at least half of their union with one of the others."""
    pairs, overlap = np.unique(np.stack([case.truth.ravel(), case.found.ravel()]), axis=1, return_counts=True)
    true_sizes, found_sizes = (np.bincount(labels.ravel()) for labels in (case.truth, case.found))
    true_ids, found_ids = pairs
    union = true_sizes[true_ids] + found_sizes[found_ids] - overlap
    same = (overlap >= 0.5 * union) & (true_ids > 0) & (found_ids > 0)
    return set(true_ids[same].tolist()), set(found_ids[same].tolist())


def panels(case: Case, test_set: TestSet) -> Rgb:
    """Image, true outlines and found ones beside each other, errors yellow."""
    grey = as_grey(case.image)
    if test_set.score == "Dice":
        truth = outlined(grey, case.truth, GREEN)
        found = outlined(tinted(grey, case.found != case.truth), case.found, MAGENTA)
    else:
        found_again, right = matched(case)
        truth = with_errors(grey, case.truth, GREEN, found_again)
        found = with_errors(grey, case.found, MAGENTA, right)
    gap = np.full((grey.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([grey, gap, truth, gap, found], axis=1)


def as_grey(image: NDArray[Any]) -> Rgb:
    """(Y, X, 3), stretched as the network sees it, NaN black."""
    low, high = np.nanpercentile(image, [1, 99.8])
    stretched = np.clip((image - low) / max(high - low, 1e-9), 0, 1) if high > low else image * 0.0 + 0.4
    return np.repeat((255 * np.nan_to_num(stretched)).astype(np.uint8)[..., np.newaxis], 3, axis=-1)


def with_errors(grey: Rgb, labels: Labels, colour: tuple[int, int, int], right: set[int]) -> Rgb:
    """Outlines of the right objects in a colour; the others tinted, with yellow outlines."""
    is_wrong = (labels > 0) & ~np.isin(labels, list(right))
    drawn = outlined(tinted(grey, is_wrong), np.where(is_wrong, 0, labels), colour)
    return outlined(drawn, np.where(is_wrong, labels, 0), YELLOW)


def outlined(picture: Rgb, labels: Labels, colour: tuple[int, int, int]) -> Rgb:
    """A copy with the inner outlines of objects."""
    drawn = picture.copy()
    drawn[find_boundaries(labels, mode="inner", background=0)] = colour
    return drawn


def tinted(picture: Rgb, mask: NDArray[np.bool_]) -> Rgb:
    """A copy, yellowish where the mask is."""
    drawn = picture.copy()
    drawn[mask] = ((1 - TINT) * picture[mask] + TINT * np.array(YELLOW)).astype(np.uint8)
    return drawn


def keep(path: Path, picture: Rgb) -> None:
    """Write an 8-bit PNG, with fewer colours where it is too large."""
    for n_greys in (48, 32, 20):
        small = Image.fromarray(picture).quantize(palette=palette(n_greys), dither=Image.Dither.NONE)
        stream = io.BytesIO()
        small.save(stream, "png", optimize=True)
        if len(stream.getvalue()) < LARGEST_BYTES:
            break
    write_atomically(path, stream.getvalue())


def palette(n_greys: int) -> Image.Image:
    """The colours of outlines, greys, and half as many tinted greys."""
    grey, fewer = (
        np.repeat(np.linspace(0, 255, n)[:, np.newaxis], 3, axis=1) for n in (n_greys, n_greys // 2)
    )
    tinted_grey = TINT * np.array(YELLOW) + (1 - TINT) * fewer
    colours = np.concatenate([[GREEN, MAGENTA, YELLOW], grey, tinted_grey]).astype(np.uint8)
    image = Image.new("P", (1, 1))
    image.putpalette(colours.tobytes())
    return image


def bad_input_section() -> str:
    """A row of pictures per model whose images may be shown, and the table of what was measured."""
    rows = [bad_row(test_set) for test_set in bad_input.test_sets() if test_set.may_be_shown]
    path = RESULTS / "bad_input.json"
    if path.exists():
        rows.append(bad_table(json.loads(path.read_text(encoding="utf-8"))))
    else:
        print("The table of bad input is left out: benchmarks/bad_input.py has not been run.")
    return "\n\n".join(rows)


def bad_row(test_set: TestSet) -> str:
    """Draw what a model finds in each bad input made from its first test image that lends itself to all."""
    model = nus.load_model(test_set.model)
    tiles = []
    for number, (name, spoil) in enumerate(bad_input.INPUTS.items(), start=1):
        given = next((g for i, t in bad_input.examples(test_set) if (g := spoil(i, t)) is not None), None)
        if given is None:
            continue
        found, _ = bad_input.predicted(given, model, test_set)
        tiles.append((number, drawn_small(given.image, found)))
        print(f"{test_set.model}, {name}: drawn", flush=True)
    file = f"{test_set.model}-bad-input.png"
    keep(PICTURES / file, mosaic([numbered(tile, number) for number, tile in tiles]))
    names = ", ".join(f"{number} {list(bad_input.INPUTS)[number - 1]}" for number, _ in tiles)
    text = f"**{test_set.model}**: {names}."
    return f"![{test_set.model}: bad input and what is found in it](images/gallery/{file})\n\n{text}"


def drawn_small(image: NDArray[Any], found: Labels) -> Rgb:
    """The middle of an image with what was found, in a square of a fixed size."""
    side = min(256, *image.shape)
    top, left = ((length - side) // 2 for length in image.shape)
    box = np.s_[top : top + side, left : left + side]
    steps = ((np.arange(BAD_PX) + 0.5) * side / BAD_PX).astype(int)
    return outlined(as_grey(image[box])[np.ix_(steps, steps)], found[box][np.ix_(steps, steps)], MAGENTA)


def numbered(tile: Rgb, number: int) -> Rgb:
    """A copy with a number in its corner."""
    picture = Image.fromarray(tile)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 17, 14), fill=(0, 0, 0))
    draw.text((3, 1), str(number), fill=(255, 255, 255))
    return np.asarray(picture)


def mosaic(tiles: list[Rgb], n_columns: int = 6) -> Rgb:
    """Tiles in rows, 4 px apart."""
    n_rows = -(-len(tiles) // n_columns)
    step = BAD_PX + 4
    out = np.full((n_rows * step - 4, n_columns * step - 4, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // n_columns) * step, (number % n_columns) * step
        out[top : top + BAD_PX, left : left + BAD_PX] = tile
    return out


def bad_table(result: dict[str, Any]) -> str:
    """One row per model and input."""
    lines = ["| model | input | score, as it is → spoilt | objects found (true) | what it says |"]
    lines.append("|---|---|---|---|---|")
    for model, measured in result["models"].items():
        for name, row in measured["inputs"].items():
            if name not in ("as it is", "very large"):
                lines.append(f"| {model} | {name} | {compared(name, row, measured['score'])} |")
    return "\n".join(lines) + "\n\n" + large_table(result)


def compared(name: str, row: dict[str, Any], score: str) -> str:
    """The cells of one input."""
    has_score = not name.startswith("empty")
    scores = f"{score} {row['score_as_it_is']:.2f} → {row['score']:.2f}" if has_score else ""
    said = " ".join(
        sentence if n == row["n_images"] else f"{sentence} (in {n} of {row['n_images']})"
        for sentence, n in row["sentences"].items()
    )
    return f"{scores} | {row['n_found']} ({row['n_true']}) | {said}"


def large_table(result: dict[str, Any]) -> str:
    """Time and memory of the very large image."""
    lines = ["| model | very large image | time | memory beyond image and labels | objects found |"]
    lines.append("|---|---|---|---|---|")
    for model, measured in result["models"].items():
        row = measured["inputs"]["very large"]
        memory = f"{row['peak_mb_beyond_image_and_labels']} MB, {row['probabilities_mb']} of it probabilities"
        found = f"{row['n_found']}; {row['n_found_in_one_part']} in the image that is repeated"
        lines.append(f"| {model} | {row['side_px']}² | {row['seconds']:.0f} s | {memory} | {found} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
