"""The U-Net is the paper's, and its shape arithmetic is what the network does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet_seg.core.architecture import (
    Architecture,
    context_px,
    grid_px,
    margin_px,
    output_size,
    valid_input_size,
)
from napari_unet_seg.core.errors import InputError
from napari_unet_seg.core.network import UNet, class_probabilities

TINY = Architecture(base_channels=2, depth=2, dropout=0.0)


def test_the_default_network_has_the_papers_parameters() -> None:
    network = UNet(Architecture())
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
    assert len(convolutions) == 23


def test_572_pixels_become_388() -> None:
    assert output_size(572, Architecture()) == 388
    assert output_size(188, Architecture()) == 4
    thin = UNet(Architecture(base_channels=1)).eval()
    with torch.inference_mode():
        assert thin(torch.zeros(1, 1, 572, 572)).shape == (1, 2, 388, 388)


def test_context_is_92_pixels_at_depth_4() -> None:
    assert (context_px(4), grid_px(4), margin_px(4)) == (92, 16, 96)


def test_weights_are_drawn_with_he_deviation() -> None:
    network = UNet(Architecture())
    second_3x3_of_64 = network.down[0][2]
    assert second_3x3_of_64.weight.std().item() == pytest.approx(math.sqrt(2 / 576), rel=0.02)
    assert all(m.bias.count_nonzero() == 0 for m in network.modules() if isinstance(m, torch.nn.Conv2d))


def test_the_same_generator_seed_draws_the_same_weights() -> None:
    first, second = (UNet(TINY, torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_dropout_sits_at_the_end_of_the_contracting_path() -> None:
    network = UNet(Architecture(base_channels=2, depth=3, dropout=0.5)).train()
    calls: list[tuple[int, ...]] = []
    network.drop.register_forward_hook(lambda _module, _args, out: calls.append(tuple(out.shape[1:2])))
    size = valid_input_size(4, network.architecture)
    network(torch.zeros(1, 1, size, size))
    assert calls == [(8,), (16,)], "dropout acts on the last two levels of the contracting path"


@settings(max_examples=25)
@given(
    depth=st.integers(1, 4),
    at_least=st.integers(1, 60),
    padding=st.sampled_from(["valid", "same"]),
    batch_norm=st.booleans(),
    in_channels=st.integers(1, 3),
    out_channels=st.integers(1, 4),
)
def test_shape_arithmetic_is_what_the_network_does(
    depth: int, at_least: int, padding: str, batch_norm: bool, in_channels: int, out_channels: int
) -> None:
    architecture = Architecture(
        in_channels=in_channels,
        out_channels=out_channels,
        base_channels=1,
        depth=depth,
        batch_norm=batch_norm,
        padding=padding,  # type: ignore[arg-type]
    )
    size = valid_input_size(at_least, architecture)
    with torch.inference_mode():
        logits = UNet(architecture).eval()(torch.zeros(1, in_channels, size, size))
    assert logits.shape == (1, out_channels, output_size(size, architecture), output_size(size, architecture))
    assert output_size(size, architecture) >= at_least
    if size > grid_px(depth) and output_size(size, architecture) > 4:
        assert _smaller_would_not_do(size, at_least, architecture), "the smallest fitting size is given"


def _smaller_would_not_do(size: int, at_least: int, architecture: Architecture) -> bool:
    return output_size(size - grid_px(architecture.depth), architecture) < at_least


@pytest.mark.parametrize("size", [187, 189, 200, 100, 0])
def test_a_size_that_does_not_fit_is_refused_with_the_rule(size: int) -> None:
    with pytest.raises(InputError, match=r"188 \+ 16·n"):
        output_size(size, Architecture())


def test_one_sigmoid_output_stands_for_two_classes() -> None:
    logits = torch.tensor([[[[0.0, 2.0]]]])
    probabilities = class_probabilities(logits)
    assert probabilities.shape == (1, 2, 1, 2)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 1, 2))
    assert probabilities[0, 1, 0, 1].item() == pytest.approx(1 / (1 + math.exp(-2)))
    assert Architecture(out_channels=1).n_classes == 2


@pytest.mark.parametrize(
    "fields",
    [{"base_channels": 0}, {"depth": 9}, {"padding": "reflect"}, {"dropout": 1.0}, {"dimensions": 3}],
)
def test_an_impossible_architecture_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Architecture(**fields)  # type: ignore[arg-type]


def test_an_architecture_survives_json() -> None:
    architecture = Architecture(in_channels=2, out_channels=3, batch_norm=True, padding="same")
    assert Architecture.from_json(architecture.to_json()) == architecture
    with pytest.raises(InputError):
        Architecture.from_json({"colour": "blue"})
