import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional

from foveate.config.settings import AttentionSettings
from foveate.errors import ImageError
from foveate.networks import AttentionNetwork, receptive_field

MNIST = AttentionSettings(widths=(8, 8), activation="tanh", padding="same", stride=1)
SPEED_LIMITS = AttentionSettings(widths=(8, 16, 32), activation="relu", padding="valid", stride=8, pool="max")
COLON_CANCER = AttentionSettings(widths=(8, 8), activation="relu", padding="same", stride=1)

WAYS = [("same", "max"), ("same", "mean"), ("same", "strided"), ("valid", "max"), ("valid", "mean")]
"""Paddings and poolings that go together."""


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("channels", "given", "count"),
    [
        # weights 9 · in · out and out biases, layer by layer
        (1, MNIST, (9 * 1 * 8 + 8) + (9 * 8 * 8 + 8) + (9 * 8 + 1)),
        (3, SPEED_LIMITS, (9 * 3 * 8 + 8) + (9 * 8 * 16 + 16) + (9 * 16 * 32 + 32) + (9 * 32 + 1)),
        (3, COLON_CANCER, (9 * 3 * 8 + 8) + (9 * 8 * 8 + 8) + (9 * 8 + 1)),
    ],
)
def test_papers_networks_have_their_parameters(channels: int, given: AttentionSettings, count: int) -> None:
    network = AttentionNetwork(channels, given)
    assert parameters(network) == count
    assert all(not layer.bias.any() for layer in network.layers)


def test_papers_maps_have_their_sizes() -> None:
    assert AttentionNetwork(1, MNIST)(torch.zeros(1, 1, 180, 90)).shape == (1, 180, 90)
    network = AttentionNetwork(3, SPEED_LIMITS)
    assert (network.field, network.stride) == (9, 8)
    assert network(torch.zeros(1, 3, 288, 384)).shape == (1, 35, 47)


def test_receptive_field_is_what_one_position_sees() -> None:
    given = AttentionSettings(widths=(4, 4), padding="valid", activation="tanh", stride=1)
    network = AttentionNetwork(1, given)
    view = torch.rand(1, 1, 15, 17, requires_grad=True)
    network(view)[0, 4, 6].backward()
    rows, columns = view.grad[0, 0].nonzero(as_tuple=True)
    assert receptive_field(given) == 7
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 10, 6, 12)


@pytest.mark.parametrize(("padding", "pool"), WAYS)
@pytest.mark.parametrize("stride", [1, 3, 8])
@settings(max_examples=6, deadline=None)
@given(height=st.integers(9, 20), width=st.integers(9, 20), below=st.integers(0, 9), right=st.integers(0, 9))
def test_padding_changes_no_logit(
    padding: str, pool: str, stride: int, height: int, width: int, below: int, right: int
) -> None:
    torch.manual_seed(height * 100 + width)
    network = AttentionNetwork(2, AttentionSettings((5, 3), "relu", padding, stride, pool))
    for layer in network.layers:
        torch.nn.init.normal_(layer.bias)  # a bias is what makes unmasked padding leak
    view = torch.rand(1, 2, height, width)
    inside = functional.pad(torch.ones(1, height, width, dtype=torch.bool), (0, right, 0, below))
    alone = network(view)
    padded = network(functional.pad(view, (0, right, 0, below)), inside)
    own = padded[:, : alone.shape[1], : alone.shape[2]]
    torch.testing.assert_close(own, alone, rtol=0, atol=1e-5)
    beyond = padded.clone()
    beyond[:, : alone.shape[1], : alone.shape[2]] = torch.finfo().min
    assert (beyond == torch.finfo().min).all()


@pytest.mark.parametrize(("padding", "pool"), WAYS)
def test_gradients_of_padded_views_are_finite_and_stop_at_the_border(padding: str, pool: str) -> None:
    network = AttentionNetwork(1, AttentionSettings((4,), "tanh", padding, 3, pool))
    view = torch.rand(2, 1, 12, 14, requires_grad=True)
    inside = torch.zeros(2, 12, 14, dtype=torch.bool)
    inside[0, :7, :9] = True
    inside[1] = True
    logits = network(view, inside)
    logits[:, :2, :2].sum().backward()
    assert view.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert view.grad[0, 0].masked_fill(inside[0], 0).abs().max() == 0


@pytest.mark.parametrize("pool", ["max", "mean"])
def test_pooling_by_hand_with_partial_windows(pool: str) -> None:
    network = AttentionNetwork(1, AttentionSettings((), "relu", "same", 2, pool))
    torch.nn.init.zeros_(network.layers[0].weight)
    network.layers[0].weight.data[0, 0, 1, 1] = 1.0  # the identity
    view = torch.tensor([[[[1.0, 2.0, 5.0], [3.0, 4.0, 7.0], [9.0, 8.0, 6.0]]]])
    expected = {"max": [[4.0, 7.0], [9.0, 6.0]], "mean": [[2.5, 6.0], [8.5, 6.0]]}[pool]
    assert network(view)[0].tolist() == expected


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_strided_cells_see_themselves_and_a_pixel_around(stride: int) -> None:
    network = AttentionNetwork(1, AttentionSettings((), "relu", "same", stride, "strided"))
    view = torch.rand(1, 1, 10, 7)
    weight, bias = network.layers[0].weight[0, 0], network.layers[0].bias
    around = functional.pad(view[0, 0], (1, 3, 1, 3))  # zeros, more than the last partial cells need
    rows, columns = -(-10 // stride), -(-7 // stride)
    side = stride + 2
    expected = [
        [((around[r * stride :, c * stride :][:side, :side] * weight).sum() + bias).item() for c in range(columns)]
        for r in range(rows)
    ]
    torch.testing.assert_close(network(view)[0], torch.tensor(expected), rtol=0, atol=1e-6)


def test_strided_network_tells_a_cell_from_its_neighbours() -> None:
    network = AttentionNetwork(1, AttentionSettings((4,), "tanh", "same", 3, "strided"))
    view = torch.rand(1, 1, 21, 27, requires_grad=True)
    network(view)[0, 3, 4].backward()
    rows, columns = view.grad[0, 0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (9 - 4, 11 + 4, 12 - 4, 14 + 4)


def test_runs_in_channels_last_and_under_autocast() -> None:
    network = AttentionNetwork(3, AttentionSettings((8,), stride=2)).to(memory_format=torch.channels_last)
    view = torch.rand(2, 3, 10, 13).contiguous(memory_format=torch.channels_last)
    exact = network(view)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = network(view, torch.ones(2, 10, 13, dtype=torch.bool))
    torch.testing.assert_close(rough.float(), exact, rtol=0, atol=0.05)


def test_view_smaller_than_the_field_is_refused_with_the_remedy() -> None:
    network = AttentionNetwork(3, SPEED_LIMITS)
    with pytest.raises(ImageError) as caught:
        network(torch.zeros(1, 3, 8, 40))
    assert str(caught.value) == (
        "a view of 8×40 pixels is smaller than the attention's receptive field of 9×9: "
        "enlarge model.view or set model.attention.padding to same"
    )
