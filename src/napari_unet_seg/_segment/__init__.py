"""Segmenting a layer of the viewer, and the layer that its result fills."""
