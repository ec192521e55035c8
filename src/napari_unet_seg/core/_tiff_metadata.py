"""Voxel size, channel names and our own notes out of a TIFF's metadata; no pixels here."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

NAMESPACE = "napari-unet-seg"
"""Namespace of the OME MapAnnotation that our own files carry."""

_NM_PER_UNIT = {
    "fm": 1e-6, "pm": 1e-3, "å": 0.1, "angstrom": 0.1, "ångström": 0.1,
    "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "nanometers": 1.0, "nanometres": 1.0,
    "µm": 1e3, "um": 1e3, "micron": 1e3, "microns": 1e3, "micrometer": 1e3, "micrometre": 1e3,
    "micrometers": 1e3, "micrometres": 1e3,
    "mm": 1e6, "millimeter": 1e6, "millimetre": 1e6, "cm": 1e7, "centimeter": 1e7, "centimetre": 1e7,
    "dm": 1e8, "m": 1e9, "meter": 1e9, "metre": 1e9, "in": 2.54e7, "inch": 2.54e7, "inches": 2.54e7,
}  # fmt: skip
_TIFF_UNITS = {2: "inch", 3: "cm"}
_PRINT_DPI = (72, 96, 150, 200, 300, 400, 600, 1200, 2400)


def nm_per_unit(unit: str | None) -> float | None:
    """Nanometres in one `unit` as OME, ImageJ or TIFF write it; None for "pixel" and the unknown."""
    if not unit:
        return None
    name = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ")
    name = name.replace("\\u00C5", "Å").replace("\\u00c5", "Å")
    return _NM_PER_UNIT.get(name.lower())


def _usable(size: float) -> bool:
    return math.isfinite(size) and size > 0


def _tidy(size: float) -> float:
    """Without the digits that a TIFF's fractions cannot hold anyway."""
    return float(f"{size:.7g}")


def size_from_resolution(pixels_per_unit: tuple[float, float], unit: str | None) -> dict[str, float]:
    """Pixel size (nm) of Y and X from a resolution (y, x); empty when it says nothing about the object.

    Print resolutions (72, 300 dpi, ...) are what programs write when they know nothing: they are ignored.
    """
    nm = nm_per_unit(unit)
    if nm is None or not all(_usable(p) for p in pixels_per_unit):
        return {}
    dots_per_inch = pixels_per_unit[1] * 2.54e7 / nm
    if nm >= 1e6 and any(math.isclose(dots_per_inch, dpi, rel_tol=0.005) for dpi in _PRINT_DPI):
        return {}
    return {axis: _tidy(nm / p) for axis, p in zip("YX", pixels_per_unit, strict=True)}


def resolution_of_page(tags: Any) -> tuple[tuple[float, float], str | None]:
    """Resolution (y, x) in pixels per unit and the unit of a TIFF page; 0 where it is not given."""

    def ratio(name: str) -> float:
        value = tags.valueof(name, default=(0, 1))
        top, bottom = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
        return float(top) / float(bottom) if bottom else 0.0

    unit = _TIFF_UNITS.get(int(tags.valueof("ResolutionUnit", default=2)))
    return (ratio("YResolution"), ratio("XResolution")), unit


def sem_pixel_size(fei: Mapping[str, Any] | None, zeiss: Mapping[str, Any] | None) -> dict[str, float]:
    """Pixel size (nm) that an FEI/Thermo or Zeiss electron microscope noted, empty if none did."""
    scan = (fei or {}).get("Scan", {})
    sizes = {axis: scan.get(f"Pixel{name}") for axis, name in (("Y", "Height"), ("X", "Width"))}
    nm: float | None = 1e9
    if zeiss and "ap_image_pixel_size" in zeiss:
        _, size, unit = zeiss["ap_image_pixel_size"]
        sizes, nm = {"Y": size, "X": size}, nm_per_unit(unit)
    if nm is None or not all(isinstance(s, int | float) and _usable(float(s)) for s in sizes.values()):
        return {}
    return {axis: _tidy(float(size) * nm) for axis, size in sizes.items()}


def imagej_voxel_size(metadata: Mapping[str, Any], tags: Any) -> dict[str, float]:
    """Voxel size (nm) of an ImageJ file, per axis that is known."""
    resolution, tiff_unit = resolution_of_page(tags)
    unit = str(metadata.get("unit") or tiff_unit or "")
    sizes = size_from_resolution(resolution, unit)
    nm, spacing = nm_per_unit(unit), metadata.get("spacing")
    if sizes and nm is not None and isinstance(spacing, int | float) and _usable(abs(float(spacing))):
        sizes["Z"] = _tidy(abs(float(spacing)) * nm)
    return sizes


def imagej_channel_names(metadata: Mapping[str, Any], n_channels: int) -> tuple[str, ...]:
    """Names of an ImageJ file's channels from its slice labels, if they name each once."""
    labels = [str(label) for label in metadata.get("Labels") or ()]
    names = tuple(labels[:n_channels])
    return names if len(set(names)) == n_channels and n_channels > 1 else ()


def _pixels(ome_xml: str | None) -> ET.Element | None:
    root = _parsed(ome_xml)
    return None if root is None else root.find(".//{*}Pixels")


def _parsed(ome_xml: str | None) -> ET.Element | None:
    if not ome_xml:
        return None
    try:
        return ET.fromstring(ome_xml)  # noqa: S314 (tifffile has parsed the same text before us)
    except ET.ParseError:
        return None


def ome_voxel_size(ome_xml: str | None) -> dict[str, float]:
    """Voxel size (nm) of an OME file, per axis that is known."""
    pixels = _pixels(ome_xml)
    sizes: dict[str, float] = {}
    if pixels is None:
        return sizes
    for axis in "ZYX":
        nm = nm_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        try:
            size = float(pixels.get(f"PhysicalSize{axis}", "nan")) * (nm or math.nan)
        except ValueError:
            continue
        if _usable(size):
            sizes[axis] = size
    return sizes


def ome_channel_names(ome_xml: str | None) -> tuple[str, ...]:
    """Names of the channels of an OME file; empty unless every channel has one."""
    pixels = _pixels(ome_xml)
    if pixels is None:
        return ()
    names = [channel.get("Name", "") for channel in pixels.findall("{*}Channel")]
    return tuple(names) if names and all(names) else ()


def our_notes(ome_xml: str | None) -> dict[str, Any]:
    """What this package wrote into an OME file: "axes", "content", "provenance"; empty for foreign files."""
    root = _parsed(ome_xml)
    if root is None:
        return {}
    for annotation in root.iter():
        if annotation.tag.endswith("MapAnnotation") and annotation.get("Namespace") == NAMESPACE:
            pairs = {m.get("K", ""): m.text or "" for m in annotation.iter() if m.tag.endswith("}M")}
            return {**pairs, "provenance": _json_object(pairs.get("provenance", ""))}
    return {}


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
