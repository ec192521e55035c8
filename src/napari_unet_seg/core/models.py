"""A model: a U-Net with everything that is needed to use it again; made, saved and loaded here."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.atomic import write_atomically
from napari_unet_seg.core.errors import ModelFileError, OutputError
from napari_unet_seg.core.model_store import (
    HEADER_ENTRY,
    SUFFIX,
    ModelInfo,
    Task,
    bundled_folder,
    find_model,
    is_path,
    list_models,
    read_info,
    saved_path,
)
from napari_unet_seg.core.network import UNet
from napari_unet_seg.core.normalisation import Normalisation
from napari_unet_seg.core.objects import ObjectSettings

__all__ = ["Model", "ModelInfo", "ModelLike", "as_model", "list_models", "load_model", "new_model"]


@dataclass(frozen=True, eq=False)
class Model:
    """A U-Net (float32, on the CPU, in eval mode) and what is known of it.

    Parameters
    ----------
    info
        Name, architecture, task, classes, pixel size, normalisation, history, licence.
    network
        The module; whoever trains or moves it works on a copy.
    """

    info: ModelInfo
    network: UNet

    @property
    def name(self) -> str:
        """What the model is called in lists."""
        return self.info.name

    @property
    def architecture(self) -> Architecture:
        """What its network is made of."""
        return self.info.architecture

    @property
    def task(self) -> Task:
        """What the network was trained to tell: "instances" or "classes"."""
        return self.info.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, class 0 first."""
        return self.info.class_names

    @property
    def pixel_size_nm(self) -> float | None:
        """Pixel size that it was trained at, in nm."""
        return self.info.pixel_size_nm

    @property
    def object_diameter_px(self) -> float | None:
        """Typical object diameter in pixels of its training grid."""
        return self.info.object_diameter_px

    @property
    def normalisation(self) -> Normalisation:
        """How grey values are mapped before the network sees them."""
        return self.info.normalisation

    @property
    def objects(self) -> ObjectSettings:
        """How its probabilities become objects unless the person says otherwise."""
        return self.info.objects

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """One entry per training, oldest first."""
        return self.info.history

    def copy(self, **changes: Any) -> Model:
        """Return an independent copy, with some fields of `info` changed."""
        return Model(replace(self.info, **changes), deepcopy(self.network))

    def save(
        self, name_or_path: str | os.PathLike[str], *, overwrite: bool = False, half: bool = False
    ) -> Path:
        """Write the model atomically and return its file.

        Parameters
        ----------
        name_or_path
            A path (with a folder or ending in `.safetensors`), or a bare name: a file in the model folder.
        overwrite
            Replace an existing file.
        half
            Store the weights as float16, half the size.

        Raises
        ------
        OutputError
            The file exists, or its folder is missing or not writable.
        """
        path = model_output_path(name_or_path, overwrite=overwrite)
        info = replace(self.info, name=path.name.removesuffix(SUFFIX))
        tensors = {key: _stored(tensor, half=half) for key, tensor in self.network.state_dict().items()}
        content = save(tensors, metadata={HEADER_ENTRY: json.dumps(info.to_json())})
        write_atomically(path, content)
        return path


ModelLike: TypeAlias = Model | str | os.PathLike[str]
"""A model, or the name or path of one."""


def new_model(
    architecture: Architecture | None = None,
    *,
    name: str = "new",
    seed: int = 0,
    **info: Any,
) -> Model:
    """Make an untrained model with He-initialised weights; `info` are fields of `ModelInfo`.

    Raises
    ------
    InputError
        The number of class names does not fit the architecture.
    """
    architecture = architecture or Architecture()
    if "class_names" not in info and architecture.n_classes > 2:
        objects = (f"class {number}" for number in range(1, architecture.n_classes))
        info["class_names"] = ("background", *objects)
    network = _built(architecture, torch.Generator().manual_seed(seed))
    return Model(ModelInfo(name=name, architecture=architecture, **info), network.eval())


def load_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Load a bundled model, a saved one, or a file; no pickle is ever read.

    Raises
    ------
    ModelFileError
        There is no such model, or the file is foreign, damaged or cut off.
    """
    path, source = find_model(name_or_path)
    info = read_info(path, source)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"Model file '{path}' is damaged or cut off: get the file again.") from error
    network = _built(info.architecture)
    expected = network.state_dict()
    for key, tensor in expected.items():
        if key not in tensors or tensors[key].shape != tensor.shape:
            raise ModelFileError(
                f"The weights in model file '{path}' do not fit its own description: get it again."
            )
    finite = all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())
    if not finite or len(tensors) != len(expected):
        raise ModelFileError(f"The weights in model file '{path}' are damaged: get the file again.")
    network.load_state_dict({key: tensor.to(expected[key].dtype) for key, tensor in tensors.items()})
    return Model(info, network.eval())


def as_model(model: ModelLike) -> Model:
    """The model itself, or the one of this name or path (`load_model`)."""
    return model if isinstance(model, Model) else load_model(model)


def _built(architecture: Architecture, generator: torch.Generator | None = None) -> UNet:
    """Build a network without touching torch's global random state, from which its layers draw at first."""
    with torch.random.fork_rng(devices=[]):
        return UNet(architecture, generator)


def model_output_path(name_or_path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Return the file that `Model.save` would write, after checking that it may.

    Raises
    ------
    OutputError
        The file exists, or its folder is missing or not writable.
    """
    if is_path(name_or_path):
        path = Path(name_or_path)
        if path.suffix != SUFFIX:
            raise OutputError(f"A model's file ends in {SUFFIX}: '{path}' does not.")
    else:
        path = saved_path(str(name_or_path))
        if (bundled_folder() / path.name).exists():
            raise OutputError(f"'{path.stem}' is the name of a bundled model: choose another one.")
        _make_model_folder(path.parent)
    if not path.parent.is_dir():
        raise OutputError(f"The folder '{path.parent}' does not exist: create it, or choose another place.")
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: choose another name.")
    if path.exists() and not overwrite:
        raise OutputError(f"'{path}' exists already: choose another name, or allow overwriting.")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"The folder '{path.parent}' is not writable: choose another place.")
    return path


def _make_model_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The model folder '{folder}' cannot be created: {error.strerror}.") from error


def _stored(tensor: Tensor, *, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor
