"""Finds a dock of ours in the window of a viewer, and opens or raises it; imports none of them."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-unet-seg"
"""As the console and the command line name us in the title of a dock."""
_IN_MENU = "U-Net segmentation"
"""As the menu does."""


def found_dock(viewer: Any, name: str) -> Any:
    """Our dock of that name, such as "Annotate"; None when it is not open, or there is no window."""
    docks = getattr(getattr(viewer, "window", None), "dock_widgets", {})
    titles = (f"{name} ({plugin})" for plugin in (PLUGIN, _IN_MENU))
    return next((docks[title] for title in titles if title in docks), None)


def raised_dock(viewer: Any, name: str) -> Any:
    """Our dock of that name, opened if it is not, in front of others; None when there is no window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    # Looked for first: napari opens a second one beside that of the menu, which has another title.
    dock = found_dock(viewer, name) or window.add_plugin_dock_widget(PLUGIN, name)[1]
    around = dock.parent()
    around.show()
    around.raise_()
    return dock
