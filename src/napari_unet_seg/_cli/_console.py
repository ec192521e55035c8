"""What a command says: results and JSON on stdout, progress and sentences on stderr."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from rich.console import Console

EXIT_FAILED: Final = 1
EXIT_NOT_STARTED: Final = 2
EXIT_CANCELLED: Final = 130


def stderr() -> Console:
    """Return a console on stderr that never breaks a sentence into lines."""
    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def complain(sentence: str) -> None:
    """Say what went wrong, as the last line of stderr."""
    stderr().print(sentence)


def print_json(value: dict[str, Any]) -> None:
    """Print exactly one JSON object on stdout."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")
