"""The documentation names what is there: every command and option, no file that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from napari_unet_seg._cli import app

_COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def _section(page: str, heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", page, flags=re.MULTILINE | re.DOTALL)
    return found.group(1) if found else ""


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_option_of_a_command_is_in_its_section_and_no_other(name: str, repository: Path) -> None:
    section = _section((repository / "docs" / "command-line.md").read_text(encoding="utf-8"), name)
    options = {o for p in _COMMANDS[name].params for o in p.opts if o.startswith("--")} - {"--help"}
    rows = re.findall(r"^\| (`--.*?) \|", section, flags=re.MULTILINE)
    documented = set(re.findall(r"--[a-z0-9-]+", " ".join(rows)))
    synopsis = set(re.findall(r"--[a-z0-9-]+", section))
    assert options <= documented | synopsis, f"not documented: {options - documented - synopsis}"
    assert documented <= options, f"documented but not there: {documented - options}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_to_files_lead_somewhere(page: str, repository: Path) -> None:
    text = (repository / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    missing = [target for target in targets if not (repository / target).exists()]
    assert not missing
