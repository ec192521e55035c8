"""What a command says: results and JSON on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

EXIT_FAILED: Final = 1
EXIT_NOT_STARTED: Final = 2
EXIT_CANCELLED: Final = 130


class Cancelled(Exception):  # noqa: N818 - not an error: the person asked for it
    """Ctrl-C, with a sentence that says what was kept."""


def stderr() -> Console:
    """A console on stderr that never breaks a sentence into lines."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(sentence: str) -> None:
    """Say something on stderr, on one line."""
    stderr().print(" ".join(sentence.split()))


def print_json(value: dict[str, Any]) -> None:
    """Print exactly one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows on stdout, columns aligned and never cut, the first row being the header."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")
