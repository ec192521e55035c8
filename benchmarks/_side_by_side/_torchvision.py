"""Makes torchvision importable beside a build of torch for which its compiled part was not made.

Where pip finds torch for the CPU but torchvision for CUDA only, importing the latter fails as it describes
operators (`torchvision::nms`) that it could not load. Augmentation, all that is needed of it here, is Python.
To be imported before torchvision is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_register_fake = torch.library.register_fake


def _register_unless_missing(name: str, *rest: Any, **named: Any) -> Callable[[Any], Any]:
    """As torch's, but nothing for torchvision's operators."""
    if name.startswith("torchvision::"):
        return lambda function: function
    register: Callable[[Any], Any] = _register_fake(name, *rest, **named)
    return register


torch.library.register_fake = _register_unless_missing
try:
    import torchvision  # noqa: F401
finally:
    torch.library.register_fake = _register_fake
