"""Arrays, network, weights, training, prediction, objects, metrics, models.

Nothing in here imports napari, Qt or magicgui.
"""
