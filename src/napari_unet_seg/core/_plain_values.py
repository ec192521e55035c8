"""Settings as plain values, as the header of a file holds them, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

from napari_unet_seg.core.errors import InputError


@dataclass(frozen=True)
class PlainValues:
    """Base of settings whose fields are numbers, strings, truth values or None."""

    KIND: ClassVar[str]
    """What they are, in the person's words."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError
            A field is unknown, or has an impossible value.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise InputError(f"This version does not know {cls.KIND} such as {fields!r}.") from error
