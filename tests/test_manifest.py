"""What napari.yaml promises to napari exists: its commands, the menus it hangs them in, its sample data."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManifest

# Taken from napari's own list; npe2 does not refuse a menu that napari will never show.
CONTRIBUTABLE_MENUS = {
    f"napari/{menu}/{name}"
    for menu, names in (
        ("file", ("new_layer", "io_utilities", "acquire")),
        (
            "layers",
            ("visualize", "annotate", "data", "metadata", "layer_type", "transform", "measure", "filter"),
        ),
        ("layers", ("register", "project", "segment", "track", "classify")),
    )
    for name in names
}


@pytest.fixture(scope="module")
def manifest(repository: Path) -> PluginManifest:
    return PluginManifest.from_file(repository / "src" / "napari_unet_seg" / "napari.yaml")


def test_manifest_is_valid_and_every_python_name_can_be_imported(manifest: PluginManifest) -> None:
    manifest.validate_imports()


def test_manifest_is_found_under_the_distribution_name() -> None:
    found = PluginManifest.from_distribution("napari-unet-seg")
    assert found.name == "napari-unet-seg"


def test_everything_that_names_a_command_names_one_that_exists(manifest: PluginManifest) -> None:
    contributions = manifest.contributions
    commands = {command.id for command in contributions.commands or ()}
    used = {
        item.command
        for kind in ("widgets", "readers", "writers", "sample_data")
        for item in getattr(contributions, kind) or ()
        if getattr(item, "command", None)
    }
    in_menus = {
        item.command
        for items in (contributions.menus or {}).values()
        for item in items
        if getattr(item, "command", None)
    }
    assert used | in_menus <= commands


def test_menus_are_ones_that_napari_shows(manifest: PluginManifest) -> None:
    submenus = {submenu.id for submenu in manifest.contributions.submenus or ()}
    assert set(manifest.contributions.menus or {}) <= CONTRIBUTABLE_MENUS | submenus


def test_every_command_has_a_title_of_its_own(manifest: PluginManifest) -> None:
    titles = [command.title for command in manifest.contributions.commands or ()]
    assert len(set(titles)) == len(titles)
