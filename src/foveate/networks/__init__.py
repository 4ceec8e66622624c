"""The layers: from a view to attention, from patches to features of constant norm."""

from foveate.networks.attention import AttentionNetwork, log_attention, receptive_field
from foveate.networks.features import ConstantNorm, FeatureNetwork, build_features
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
    "MilAttention",
    "build_features",
    "contrast_prior",
    "log_attention",
    "receptive_field",
]
