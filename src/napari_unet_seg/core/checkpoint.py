"""Everything needed to go on with a training, in one safetensors file; no pickle, written atomically."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from napari_unet_seg.core.atomic import write_atomically
from napari_unet_seg.core.errors import ModelFileError

_HEADER_ENTRY = "napari_unet_seg_checkpoint"
_FORMAT = 5


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training between two steps.

    Batches and dropout depend on the seed and the step alone: these are the whole random state.

    Parameters
    ----------
    weights, averaged_weights, best_weights
        State of the network now, of its moving average (empty when there is none), and at its best score.
    optimizer
        `state_dict` of the optimiser.
    progress
        Plain values: step, seed, optimiser, best score, plateau counters.
    """

    weights: dict[str, Tensor]
    averaged_weights: dict[str, Tensor]
    best_weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    progress: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically; the previous checkpoint stays until this one is complete.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    tensors = {f"weights/{key}": tensor for key, tensor in checkpoint.weights.items()}
    tensors |= {f"averaged/{key}": tensor for key, tensor in checkpoint.averaged_weights.items()}
    tensors |= {f"best/{key}": tensor for key, tensor in checkpoint.best_weights.items()}
    for number, state in checkpoint.optimizer["state"].items():
        tensors |= {
            f"optimizer/{number}/{key}": value for key, value in state.items() if isinstance(value, Tensor)
        }
    header = {
        "format": _FORMAT,
        "progress": checkpoint.progress,
        "param_groups": checkpoint.optimizer["param_groups"],
    }
    stored = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    write_atomically(path, save(stored, metadata={_HEADER_ENTRY: json.dumps(header)}))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises
    ------
    ModelFileError
        The file is not a checkpoint, or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {})[_HEADER_ENTRY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"'{path}' is not a checkpoint, or it is damaged: start without resuming."
        ) from error
    if header["format"] != _FORMAT:
        raise ModelFileError(f"'{path}' was written by another version: start without resuming.")
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _below("optimizer", tensors).items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = tensor
    return Checkpoint(
        weights=_below("weights", tensors),
        averaged_weights=_below("averaged", tensors),
        best_weights=_below("best", tensors),
        optimizer={"state": state, "param_groups": header["param_groups"]},
        progress=header["progress"],
    )


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{prefix}/")}
