"""What the docks remember from one time to the next, in napari's settings for plugins (0.9 and newer)."""

from __future__ import annotations

from typing import Any

PLUGIN = "napari-unet-seg"


def remembered(section: str) -> dict[str, Any]:
    """What was remembered of a dock; empty where napari keeps no settings for us."""
    settings = _section(section)
    return {} if settings is None else dict(settings.model_dump())


def remember(section: str, **values: Any) -> None:
    """Remember these values; saved at once."""
    settings = _section(section)
    if settings is None:
        return
    for name, value in values.items():
        if getattr(settings, name) != value:
            setattr(settings, name, value)


def _section(name: str) -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), name)
    except (KeyError, ValueError, AttributeError):
        return None
