"""How weights begin."""

from torch import nn

__all__ = ["glorot_", "he_"]


def glorot_(module: nn.Module) -> None:
    """Glorot uniform weights and zero bias in every convolution and linear layer, as Keras begins.

    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks" (AISTATS 2010).

    Arguments:
        module: changed in place; draws from torch's global generator, which `build_model` forks and seeds.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def he_(module: nn.Module) -> None:
    """He uniform weights and zero bias in every convolution and linear layer, for networks of ReLUs.

    He et al., "Delving Deep into Rectifiers" (ICCV 2015).

    Arguments:
        module: changed in place; draws from torch's global generator, which `build_model` forks and seeds.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
