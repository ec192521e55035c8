"""The device is what exists here, and the reason is said."""

from __future__ import annotations

import os

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


def test_threads_sleep_while_they_wait_unless_the_person_says_otherwise() -> None:
    assert os.environ["OMP_WAIT_POLICY"], "or a busy window makes a training step take ten times as long"
