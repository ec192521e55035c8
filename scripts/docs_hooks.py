"""Fills the pages from what the repository already says: benchmark results, model cards, changelog."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the comments `<!-- benchmark table -->`, `<!-- model cards -->` and `<!-- changelog -->`."""
    fillings = {"benchmark table": _benchmark_table, "model cards": _model_cards, "changelog": _changelog}
    for name, text in fillings.items():
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, text())
    return markdown


def _benchmark_table() -> str:
    spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "scripts" / "benchmark_table.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError("scripts/benchmark_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.table())


def _model_cards() -> str:
    cards = sorted((ROOT / "src" / "napari_unet_seg" / "weights").glob("*.md"))
    return "\n\n".join(_one_level_down(card.read_text(encoding="utf-8")) for card in cards)


def _changelog() -> str:
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _one_level_down(markdown: str) -> str:
    """A card is a page of its own in the package, and a section here."""
    return re.sub(r"^(#+) ", r"#\1 ", markdown, flags=re.MULTILINE)
