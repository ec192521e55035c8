"""Scores of the label images that a tool wrote, and the table over tools: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet_seg.core._matching import Matches, match_objects

OVERLAPS = ("0.5", "0.7", "0.9")
REPEATS = 1000
Labels = NDArray[np.integer[Any]]
COLUMNS = (
    "tool", "F1 at IoU 0.5 (95 %)", "0.7", "0.9", "AP at 0.5", "steps", "training, s (CPU s)",
    "prediction, s (CPU s)", "memory, training, MB", "memory, prediction, MB",
)  # fmt: skip


def scores(pairs: Sequence[tuple[Labels, Labels]]) -> dict[str, Any]:
    """F1 and AP of (found, truth), both (Y, X), pooled over images, by IoU; 1 is best.

    The interval is that of F1 at IoU 0.5 when the images are drawn anew (bootstrap, 95 %). It says nothing
    about another training.
    """
    counts = [match_objects(found, truth.astype(np.int64)) for found, truth in pairs]
    pooled = reduce(add, counts)
    f1, ap = pooled.f1(), pooled.average_precision()
    return {
        "f1_at": {overlap: round(f1[overlap], 4) for overlap in OVERLAPS},
        "ap_at": {overlap: round(ap[overlap], 4) for overlap in OVERLAPS},
        "f1_at_0.5_interval": _interval(counts),
        "objects": pooled.n_predicted,
        "true_objects": pooled.n_true,
    }


def _interval(counts: Sequence[Matches]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = [
        reduce(add, (counts[i] for i in rng.integers(len(counts), size=len(counts)))).f1()["0.5"]
        for _ in range(REPEATS)
    ]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return round(float(low), 4), round(float(high), 4)


def best_of_others(
    tools: Mapping[str, Mapping[str, Any]], ours: str, overlap: str
) -> tuple[str, float] | None:
    """Who of the others has the highest F1 by its own objects, and how high; None where none has any."""
    found = {
        name: float(result["scores"]["f1_at"][overlap])
        for name, result in tools.items()
        if name != ours and "scores" in result
    }
    return max(found.items(), key=lambda item: item[1]) if found else None


def table(tools: Mapping[str, Mapping[str, Any]]) -> str:
    """One Markdown row per tool, and one more where our objects were made of its probabilities."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    for name, result in tools.items():
        if "error" in result:
            rows.append((name, f"failed: {_last_line(result['error'])}", *("" for _ in COLUMNS[2:])))
            continue
        train, predict = result["train"], result["predict"]
        steps = f"{train['trees']} trees" if "trees" in train else str(train["steps"])
        costs = (
            steps, f"{train['seconds']:.0f} ({train['cpu_seconds']:.0f})",
            f"{predict['seconds']:.1f} ({predict['cpu_seconds']:.0f})",
            str(train["peak_memory_mb"]), str(predict["peak_memory_mb"]),
        )  # fmt: skip
        rows.append((name, *_scores_of(result["scores"]), *costs))
        if "scores_with_our_objects" in result:
            label = f"{name}, objects by ours"
            rows.append((label, *_scores_of(result["scores_with_our_objects"]), *("" for _ in costs)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _scores_of(found: Mapping[str, Any]) -> tuple[str, ...]:
    low, high = found["f1_at_0.5_interval"]
    f1, ap = found["f1_at"], found["ap_at"]["0.5"]
    return f"{f1['0.5']:.3f} ({low:.3f}–{high:.3f})", f"{f1['0.7']:.3f}", f"{f1['0.9']:.3f}", f"{ap:.3f}"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].replace("|", "/") if lines else "no message"
