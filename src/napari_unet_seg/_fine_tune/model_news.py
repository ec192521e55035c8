"""Says that the models in the model folder are others now, so that every list of models can follow."""

from __future__ import annotations

from qtpy.QtCore import QObject, Signal


class ModelNews(QObject):  # type: ignore[misc]
    """Where docks listen.

    Attributes
    ----------
    changed
        Qt signal, after a model was saved or put back: its name, and the viewer whose docks choose it now.
    """

    changed = Signal(str, object)


NEWS = ModelNews()
