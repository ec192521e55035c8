"""Arrays, network, weights, training, prediction, objects, metrics, models.

Nothing in here imports napari, Qt or magicgui.
"""

import os

# Read once, when PyTorch is loaded, by GNU's OpenMP. Its threads wait for each other by counting, for so long
# that, where a window or another program wants a core too, a step of training takes three times as long; when
# they sleep at once, it takes twice as long on an idle machine. So many counts cost little of either.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
