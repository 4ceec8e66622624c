import pytest
import torch

from foveate.errors import ConfigError
from foveate.networks import MilAttention


@pytest.mark.parametrize("gated", [False, True])
def test_logits_are_those_of_the_paper(gated: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    attention = MilAttention(5, hidden=7, gated=gated).double()
    for parameter in attention.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    features = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    logits = attention(features)
    for image in range(2):
        for patch in range(4):
            h = features[image, patch]
            hidden = torch.tanh(torch.mv(attention.value.weight, h) + attention.value.bias)
            if gated:
                hidden = hidden * (1 + torch.exp(-torch.mv(attention.gate.weight, h) - attention.gate.bias)) ** -1
            expected = torch.dot(attention.score.weight[0], hidden) + attention.score.bias[0]
            torch.testing.assert_close(logits[image, patch], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("gated", "parameters"), [(False, 32 * 128 + 128 + 129), (True, 2 * (32 * 128 + 128) + 129)])
def test_parameters_are_those_of_their_code(gated: bool, parameters: int) -> None:
    attention = MilAttention(32, 128, gated)
    assert sum(parameter.numel() for parameter in attention.parameters()) == parameters
    assert not any(layer.bias.any() for layer in (attention.value, attention.score))
    limit = (6 / (32 + 128)) ** 0.5
    assert 0.95 * limit < float(attention.value.weight.detach().abs().max()) <= limit * (1 + 2**-23)


@pytest.mark.parametrize("gated", [False, True])
def test_patches_are_scored_alone_whatever_the_leading_axes(gated: bool) -> None:
    attention = MilAttention(6, 3, gated)
    features = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(attention(features[1, 2:4]), attention(features)[1, 2:4], rtol=0, atol=1e-6)
    (attention(features) ** 2).sum().backward()
    assert all(parameter.grad.any() for parameter in attention.parameters())


def test_a_hidden_layer_of_no_width_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        MilAttention(6, 0)
    assert str(caught.value) == "model.mil.hidden must be positive, got 0: set it to e.g. 128"
