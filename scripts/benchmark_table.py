"""The Markdown table of all results in benchmarks/results, which the documentation shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
HEAD = "| what | measured | target | met | machine | date |\n|---|---|---|---|---|---|"


def table(folder: Path = RESULTS) -> str:
    """One row per result file, in alphabetical order of their names."""
    rows = [_row(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    return "\n".join([HEAD, *rows]) if rows else "Nothing has been measured yet: `make bench` does it."


def _row(result: dict[str, Any]) -> str:
    met = {True: "yes", False: "**no**", None: ""}[result.get("met")]
    machine = result.get("machine", {})
    where = machine.get("gpu") or f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores"
    value = f"{result.get('value', 'see file')} {result.get('unit', '')}".strip()
    cells = [result.get("what", result.get("name", "?")), value, result.get("target", ""), met, where]
    return (
        "| "
        + " | ".join(str(cell).replace("|", "\\|") for cell in [*cells, result.get("measured", "")])
        + " |"
    )


if __name__ == "__main__":
    print(table())
