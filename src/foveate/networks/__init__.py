r"""Networks: from a view to attention over its cells, from patches to features of constant norm.

.. math:: a = \mathrm{softmax}\bigl(\text{logits}(\text{view}) + \alpha \, \text{prior}(\text{view})\bigr), \qquad
          f_i = r \, \frac{\text{body}(\text{patch}_i)}{\lVert \text{body}(\text{patch}_i) \rVert}

Layers take and give tensors, and know nothing of files: views are (B, C, h, w), maps (B, rows, columns), patches
(M, C, h, w), features (M, D). None uses batch statistics, but for those of the paper and of timm that have BatchNorm.

Example:
    >>> import torch
    >>> from foveate.config.settings import FeatureSettings
    >>> from foveate.networks import build_features
    >>> features = build_features(FeatureSettings(), channels=3, patch=(40, 50))
    >>> features(torch.rand(2, 3, 40, 50)).norm(dim=1).round()  # whatever is in the patches
    tensor([16., 16.], grad_fn=<RoundBackward0>)

Files:

- `attention.py`: the attention network, a logit per cell; the smoothed, masked log distribution that is drawn from.
- `prior.py`: the contrast prior added to its logits.
- `features.py`: a feature network by its name, of constant norm; what the view foretells of its features.
- `cnn.py`: foveate's own feature networks, those of the paper, and how they are initialised.
- `timm.py`: those of the library timm, pretrained or not.
- `stages.py`: their feature maps, as they are or pooled, and layers left as they are up to one.
- `runtime.py`: a frozen backbone computed by onnxruntime on a CPU.
- `weights.py`: pretrained weights of a file, or those that are installed with foveate.
- `custom.py`: a user's own, measured by running it on zeros.
- `mil.py`: attention over the patches of a bag, for deep multiple-instance learning.
- `normalise.py`: bands of any unit brought to mean 0 and deviation 1.
"""

from foveate.networks.attention import AttentionNetwork, count_cells, log_attention, receptive_field
from foveate.networks.features import ConstantNorm, FeatureNetwork, ForetoldFeatures, build_features
from foveate.networks.mil import MilAttention
from foveate.networks.normalise import BandNormalisation, BandStatistics
from foveate.networks.prior import ContrastPrior, contrast_prior

__all__ = [
    "AttentionNetwork",
    "BandNormalisation",
    "BandStatistics",
    "ConstantNorm",
    "ContrastPrior",
    "FeatureNetwork",
    "ForetoldFeatures",
    "MilAttention",
    "build_features",
    "contrast_prior",
    "count_cells",
    "log_attention",
    "receptive_field",
]
