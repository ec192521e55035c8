"""Arrays, network, weights, training, prediction, objects, metrics, models.

Nothing in here imports napari, Qt or magicgui.
"""

import os

# Read once, when PyTorch is loaded. Its threads otherwise wait for each other by counting: where a window or
# another program wants a core too, that took nine tenths of the time of a training step.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
