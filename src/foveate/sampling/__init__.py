r"""Attention sampling: draw cells of a map, weigh them, estimate the whole from the drawn.

An image has K cells, attention a_i with Σ a_i = 1, and a feature vector f_i of the patch behind each cell. What a
classifier wants is Φ = Σ_i a_i f_i; what it can afford is n patches. `draw` chooses a set S of cells and gives each a
weight w_s, constant in the backward pass, such that

.. math::
    \hat\Phi = \sum_{s \in S} a_s w_s f_s - \sum_{s \in S} (a_s - \mathrm{sg}\,a_s)\, w_s b_s,
    \qquad \mathbb{E}\,\hat\Phi = \Phi, \qquad \mathbb{E}\,\nabla\hat\Phi = \nabla\Phi

exactly, for the gradient of features and of attention (sg stops a gradient). The second sum, whose value is 0, takes
noise out of the attention's gradient: b_s is an estimate of Φ from the other cells.

By default cells are drawn without replacement (the n largest Gumbel keys) and weighed by Murthy's estimator, the mean
of 1/q_s over the key κ that separates drawn from not drawn. Weights are computed in float64, outside autocast.

Example:
    >>> import torch
    >>> from foveate.sampling import draw, expectation
    >>> attention = torch.tensor([[0.6, 0.3, 0.1]], requires_grad=True)
    >>> features = torch.tensor([[[1.0], [2.0], [4.0]]])
    >>> drawn = draw(attention.log(), 2, generator=torch.Generator().manual_seed(0))
    >>> read = features.gather(1, drawn.index[:, :, None])  # the two patches that are looked at
    >>> estimate = expectation(drawn, read, baseline="leave-one-out")
    >>> estimate.shape
    torch.Size([1, 1])
    >>> estimate.sum().backward()  # ordinary autograd
    >>> attention.grad.isfinite().all()
    tensor(True)

Files:

- `draw.py`: `draw`, `fetch` and `weigh`, the table of methods.
- `gumbel.py`: what cells are drawn from, checked; random keys; draws with and without replacement, and the top n.
- `exponential_race.py`: the same draws for accelerators, from few random numbers and without waiting.
- `tree.py`: `draw_tree`, the same draw from the leaves of a tree, of which only what is reached is looked at.
- `weights.py`: importance weights, and the integral over κ.
- `estimator.py`: `expectation`, its coefficients, baseline and variance; a control variate foretold from the view.
- `geometry.py`: which patch lies behind a cell.
- `attention_health.py`: whether a map has collapsed, sticks to the border or is uniform.
"""

from foveate.sampling.attention_health import REMEDIES, AttentionHealth, common_warnings, diagnose
from foveate.sampling.draw import beginning, draw, fetch, weigh
from foveate.sampling.estimator import (
    ControlVariate,
    coefficients,
    control_loss,
    expectation,
    log_coefficients,
    noise_left,
    variance,
)
from foveate.sampling.tree import Children, Descent, draw_tree

__all__ = [
    "REMEDIES",
    "AttentionHealth",
    "Children",
    "ControlVariate",
    "Descent",
    "beginning",
    "coefficients",
    "common_warnings",
    "control_loss",
    "diagnose",
    "draw",
    "draw_tree",
    "expectation",
    "fetch",
    "log_coefficients",
    "noise_left",
    "variance",
    "weigh",
]
