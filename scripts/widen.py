"""A network with more channels that computes what a narrower one does, to train on from there.

After Chen, Goodfellow, Shlens (2016), Net2Net, arXiv 1511.05641: channels are repeated, and what reads a
repeated channel reads each copy with a part of its weight. The parts are unequal, so that training tells the
copies apart.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet_seg.core.models import Model, new_model

_PARTS = (0.3, 0.7)


def widened(model: Model, base_channels: int, seed: int) -> Model:
    """Return the model with so many channels in its first level, at least as many as it has.

    Predictions are the same but for rounding. What is known of the model stays.
    """
    wanted = replace(model.architecture, base_channels=base_channels)
    wide = new_model(wanted, seed=seed).network
    narrow_state, state = model.network.state_dict(), wide.state_dict()
    rng = np.random.default_rng(seed)
    result = {name: _widened(name, narrow_state[name], state[name], rng) for name in state}
    wide.load_state_dict(result)
    return Model(replace(model.info, architecture=wanted), wide.eval())


def _widened(name: str, narrow: Tensor, wide: Tensor, rng: np.random.Generator) -> Tensor:
    if not narrow.ndim:
        return narrow
    made, read = (1, 0) if name.startswith("up.") and narrow.ndim > 1 else (0, 1)
    result = narrow.index_select(made, torch.from_numpy(_copies(narrow.shape[made], wide.shape[made])))
    if narrow.ndim < 2:
        return result
    # What the way down has left and what comes up are read side by side, each repeated for itself.
    parts = 2 if name.startswith("merge.") and name.endswith(".0.weight") else 1
    n_before, n_after = narrow.shape[read] // parts, wide.shape[read] // parts
    sources = np.concatenate([_copies(n_before, n_after) + part * n_before for part in range(parts)])
    shares = np.concatenate([_shares(n_before, n_after, rng) for _ in range(parts)])
    along = [1] * result.ndim
    along[read] = len(shares)
    factors = torch.from_numpy(shares.astype(np.float32)).reshape(along)
    return result.index_select(read, torch.from_numpy(sources)) * factors


def _copies(n_before: int, n_after: int) -> NDArray[np.int64]:
    """Old channel of each new one: all of them, then the first ones again."""
    return np.arange(n_after, dtype=np.int64) % n_before


def _shares(n_before: int, n_after: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Part of the weight for each copy, which add up to 1 for each old channel."""
    copies = _copies(n_before, n_after)
    if n_after == n_before:
        return np.ones(n_after)
    drawn = rng.uniform(*_PARTS, n_after)
    return drawn / np.bincount(copies, drawn)[copies]
