"""Every error that this package raises on purpose; each message is one sentence for the person.

A message says what happened, to which layer or file, and what to try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet_seg.core.models import Model


class UNetSegError(Exception):
    """Base of all errors of this package: catching it catches them all."""


class InputError(UNetSegError):
    """What was given cannot be used; nothing was started."""


class SettingError(InputError):
    """A setting is missing or does not fit; `setting` = `value` would be a way out."""

    def __init__(self, message: str, setting: str, value: str) -> None:
        super().__init__(message)
        self.setting, self.value = setting, value


class NotOneStackError(InputError):
    """The files of a folder are no sections of one stack; each may well be an image of its own."""


class ModelFileError(InputError):
    """A model file is unknown, damaged, or not one of ours."""


class OutputError(InputError):
    """A result cannot be written where it was asked for; nothing was started."""


class OutOfMemoryError(UNetSegError):
    """Not even the smallest tile or batch fits the memory of the device."""


class TrainingBrokenOffError(UNetSegError):
    """A training could not go on; `best` is the best model until then."""

    def __init__(self, message: str, best: Model) -> None:
        super().__init__(message)
        self.best = best


class TrainingDivergedError(TrainingBrokenOffError):
    """The loss or a gradient became NaN or infinite."""


class DeviceLostError(TrainingBrokenOffError):
    """The GPU stopped working, or is gone."""


class TrainingOutOfMemoryError(TrainingBrokenOffError, OutOfMemoryError):
    """Memory ran out while training, even for the smallest batch."""
