"""The device is what exists here, and the reason is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from napari_unet_seg.core.devices import choose_device
from napari_unet_seg.core.errors import InputError


def test_without_a_gpu_auto_is_the_cpu_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    choice = choose_device("auto")
    assert choice.device.type == "cpu"
    assert choice.reason.startswith("CPU, because")


def test_with_a_gpu_auto_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU")
    assert choose_device("auto").reason == "GPU: Test GPU"


@pytest.mark.parametrize("wish", ["cuda", "cuda:7", "mps"])
def test_a_device_that_is_absent_is_refused_with_a_way_out(
    wish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="choose auto or cpu"):
        choose_device(wish)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(InputError, match="unknown"):
        choose_device("abacus")


def test_threads_wait_for_each_other_briefly_unless_the_person_says_otherwise() -> None:
    code = "import os, napari_unet_seg.core; print(os.environ.get('GOMP_SPINCOUNT'))"
    said = {}
    for policy in ("", "ACTIVE"):
        environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
        environment.pop("OMP_WAIT_POLICY", None)
        if policy:
            environment["OMP_WAIT_POLICY"] = policy
        said[policy] = subprocess.check_output(
            [sys.executable, "-c", code], env=environment, text=True
        ).strip()
    assert said == {"": "2000", "ACTIVE": "None"}
