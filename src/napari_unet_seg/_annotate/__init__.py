"""Annotation layers: what counts in them, what is seen of them, the weight map that follows the brush."""
