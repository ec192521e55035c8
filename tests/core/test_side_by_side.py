"""Scores and table of benchmarks/side_by_side.py, without any of the tools that it compares."""

from typing import Any

import numpy as np
import pytest
from benchmarks._side_by_side import _figures


def plane(*boxes: tuple[int, int]) -> np.ndarray:
    """Labels (20, 20): box i + 1 fills rows a to b, all columns but the last."""
    labels = np.zeros((20, 20), np.int32)
    for i, (a, b) in enumerate(boxes):
        labels[a:b, :-1] = i + 1
    return labels


def result(f1: float, **train: Any) -> dict[str, Any]:
    """What is kept of a tool that worked."""
    found = {
        "f1_at": {"0.5": f1, "0.7": f1 / 2, "0.9": 0.0},
        "ap_at": {"0.5": f1, "0.7": 0.0, "0.9": 0.0},
        "f1_at_0.5_interval": (f1 - 0.1, f1 + 0.1),
    }
    return {
        "scores": found,
        "train": {"seconds": 59.6, "cpu_seconds": 100.0, "peak_memory_mb": 800, **train},
        "predict": {"seconds": 3.21, "cpu_seconds": 6.0, "peak_memory_mb": 400},
    }


def test_objects_are_pooled_over_images() -> None:
    truth = plane((0, 5), (10, 15))
    halved = plane((0, 5))
    found = _figures.scores([(truth, truth), (halved, truth)])
    assert found["true_objects"] == 4
    assert found["objects"] == 3
    assert found["f1_at"] == {overlap: pytest.approx(6 / 7, abs=1e-4) for overlap in ("0.5", "0.7", "0.9")}
    assert found["ap_at"]["0.5"] == pytest.approx(3 / 4)
    low, high = found["f1_at_0.5_interval"]
    assert low == pytest.approx(2 / 3, abs=1e-4)
    assert high == 1


def test_overlap_decides_what_counts_as_found() -> None:
    found = _figures.scores([(plane((0, 6)), plane((0, 10)))])  # IoU 0.6
    assert found["f1_at"] == {"0.5": 1, "0.7": 0, "0.9": 0}


def test_the_best_of_the_others_is_none_of_ours_and_none_that_failed() -> None:
    tools = {"ours": result(0.9), "a": result(0.5), "b": result(0.7), "c": {"error": "no wheel"}}
    assert _figures.best_of_others(tools, "ours", "0.5") == ("b", 0.7)
    assert _figures.best_of_others({"ours": result(0.9)}, "ours", "0.5") is None


def test_the_table_has_a_row_per_tool_and_tells_what_failed() -> None:
    forest = result(0.5, trees=100)
    forest["scores_with_our_objects"] = result(0.6)["scores"]
    error = "Traceback\n  File\nRuntimeError: a | b"
    rows = _figures.table(
        {"ours": result(0.9, steps=12), "forest": forest, "other": {"error": error}}
    ).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {len(_figures.COLUMNS)}
    assert [row[0] for row in cells[2:]] == ["ours", "forest", "forest, objects by ours", "other"]
    assert cells[2][1:] == [
        "0.900 (0.800–1.000)", "0.450", "0.000", "0.900", "12", "60 (100)", "3.2 (6)", "800", "400",
    ]  # fmt: skip
    assert cells[3][5] == "100 trees"
    assert cells[5][1] == "failed: RuntimeError: a / b"
