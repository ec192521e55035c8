"""Networks that get more channels: they go on computing what they did."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scripts.widen import widened

from napari_unet_seg.core.architecture import Architecture
from napari_unet_seg.core.models import new_model

NARROW = Architecture(base_channels=4, depth=2, batch_norm=True, padding="same", dropout=0.0)


@pytest.mark.parametrize("architecture", [NARROW, replace(NARROW, in_channels=2, out_channels=3, depth=3)])
@pytest.mark.parametrize("base_channels", [4, 6, 8])
def test_a_wider_network_computes_the_same(architecture: Architecture, base_channels: int) -> None:
    model = new_model(architecture, seed=1, description="Known")
    model.network.eval()
    wide = widened(model, base_channels, seed=2)
    image = torch.rand(1, architecture.in_channels, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(wide.network(image), model.network(image), rtol=1e-4, atol=1e-5)
    assert wide.architecture.base_channels == base_channels
    assert wide.info.description == "Known"


def test_the_copies_of_a_channel_are_read_with_unequal_weights() -> None:
    wide = widened(new_model(NARROW, seed=1), 6, seed=2).network.state_dict()
    read = wide["down.0.3.weight"]
    assert not torch.allclose(read[:, 0], read[:, 4])
