"""Feature network: from a full-resolution patch to a feature vector of constant norm; what a view foretells of it."""

import difflib
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from foveate.config.settings import FeatureSettings
from foveate.errors import ConfigError
from foveate.hooks import REGISTERED
from foveate.networks.cnn import (
    Body,
    colon_cancer_paper,
    convolutional,
    megapixel_mnist_paper,
    residual,
    speed_limits_paper,
)
from foveate.networks.custom import OwnNetwork, import_network, own_body
from foveate.networks.normalise import BATCH_NORMS
from foveate.networks.timm import PREFIX, BackboneChoice, timm_body
from foveate.types import Size

CLAMP = 6.0
"""Largest distance of a feature from its mean, in deviations: beyond it lies what no training image showed."""

BODIES: dict[str, Callable[[int, int, Size | None], Body]] = {
    "colon-cancer-paper": colon_cancer_paper,
    "convolutional": convolutional,
    "megapixel-mnist-paper": megapixel_mnist_paper,
    "residual": residual,
    "speed-limits-paper": speed_limits_paper,
}
"""Name → (channels, width, patch) → layers from (M, C, h, w) to (M, D)."""


class ConstantNorm(nn.Module):
    r"""Constant norm: every vector scaled to one length, so that no patch speaks louder than another.

    .. math:: y = r \, x / \sqrt{\|x\|^2 + \varepsilon^2}

    With features of constant norm, drawing from the attention has the smallest variance among independent draws
    (Katharopoulos & Fleuret, ICML 2019, section 3.3); any constant will do, and 16 feeds the classifier gradients
    that 1 does not. Computed in float32, also under autocast; a zero vector stays zero and its gradient is finite,
    r / ε at most.

    Arguments:
        norm: r, the length; positive.
        epsilon: ε, below which a vector counts as zero.

    Raises:
        ConfigError: if the norm is not positive.

    Example:
        >>> ConstantNorm(10.0)(torch.tensor([[3.0, 4.0]]))
        tensor([[6., 8.]])
    """

    def __init__(self, norm: float, epsilon: float = 1e-3) -> None:
        super().__init__()
        if not norm > 0:
            raise ConfigError(f"model.features.norm must be positive, got {norm}: set it to e.g. 16")
        self.norm, self.epsilon = norm, epsilon

    def forward(self, vectors: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch feature"]:
        """Scale the last axis of (…, D) vectors; returns float32 or better."""
        with torch.autocast(vectors.device.type, enabled=False):
            values = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
            # Divided by its largest entry first: the square of a float32 above 1e19 is infinite.
            scale = values.detach().abs().amax(-1, keepdim=True).clamp(min=1)
            values = values / scale
            length = (values.square().sum(-1, keepdim=True) + (self.epsilon / scale).square()).sqrt()
            return self.norm * values / length


def standardised(
    features: Float[Tensor, "*any feature"], mean: Float[Tensor, " feature"], deviation: Float[Tensor, " feature"]
) -> Float[Tensor, "*any feature"]:
    """Features in deviations from their means, none further than `CLAMP`."""
    return ((features - mean) / deviation).clamp(-CLAMP, CLAMP)


class Projection(nn.Module):
    r"""Projection: a trained layer on features as they are measured, which it sees standardised, with dropout.

    .. math:: y = W \, \mathrm{dropout}\bigl(\mathrm{clamp}_{\pm 6}((x - \mu) / \sigma)\bigr) + b

    Arguments:
        inputs: D, features of the network.
        dimension: D', those made of them.
        dropout: of the inputs, in training.

    Attributes:
        mean, deviation: (D,) μ and σ; 0 and 1 until they are measured.

    Example:
        >>> Projection(5, 3)(torch.zeros(2, 4, 5)).shape
        torch.Size([2, 4, 3])
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, dimension: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(inputs, dimension)

    def forward(self, features: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch projected"]:
        """Map (…, D) to (…, D')."""
        projected: Tensor = self.linear(self.dropout(standardised(features, self.mean, self.deviation)))
        return projected


class FeatureNetwork(nn.Module):
    """Feature network: layers that end in a vector of constant norm per patch.

    Arguments:
        body: its layers.
        settings: norm, what is frozen, enlargement and projection.

    Attributes:
        layers: from patches to features.
        projection: what is made of these, or None.
        dimension: D, features per patch.
        smallest: least height and width it can take.
        frozen: whether the layers are left as they are: without gradients, and in evaluation mode even while others are
            trained.
        running: whether BatchNorm uses its stored statistics even in training, and leaves them as they are.
    """

    def __init__(self, body: Body, settings: FeatureSettings) -> None:
        super().__init__()
        self.layers = body.layers
        self.enlarge = settings.enlarge
        self.constant_norm = ConstantNorm(settings.norm)
        self.projection = None
        if settings.project:
            self.projection = Projection(body.dimension, settings.project, settings.dropout)
        self.dimension = settings.project or body.dimension
        self.smallest = math.ceil(body.smallest / settings.enlarge)
        self.frozen, self.running = settings.frozen, settings.batch_norm == "running"
        if self.frozen:
            self.layers.requires_grad_(False)
        if self.frozen or self.running:
            self.train(self.training)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Training or evaluation mode; what is frozen, and BatchNorm of stored statistics, stay in evaluation mode."""
        super().train(mode and not (self.frozen and self.projection is None))
        if self.frozen:
            self.layers.eval()
        if self.running:
            for layer in self.modules():
                if isinstance(layer, BATCH_NORMS):
                    layer.eval()
        return self

    def raw(self, patches: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch raw"]:
        """What the layers make of (M, C, h, w) patches in the unit range, before the projection and the norm."""
        if self.enlarge != 1:
            size = enlarged((patches.shape[2], patches.shape[3]), self.enlarge)
            patches = functional.interpolate(patches, size, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.layers(patches.contiguous(memory_format=torch.channels_last))
        return features

    def finished(self, raw: Float[Tensor, "*batch raw"]) -> Float[Tensor, "*batch feature"]:
        """Features of norm r that are made of `raw` ones."""
        features: Tensor = self.constant_norm(raw if self.projection is None else self.projection(raw))
        return features

    def forward(self, patches: Float[Tensor, "patch channel height width"]) -> Float[Tensor, "patch feature"]:
        """Map (M, C, h, w) patches in the unit range to (M, D) features of norm r."""
        return self.finished(self.raw(patches))


def enlarged(size: Size, factor: float) -> Size:
    """(height, width) of a patch that is enlarged, at least one pixel each."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


class ForetoldFeatures(nn.Module):
    r"""Features as the view foretells them: of every cell, from what the view shows there, before any patch is read.

    .. math:: g_i = V v_i + c \qquad \text{or} \qquad g_i = V \max(0, U v_i + b) + c

    They are the values of a `foveate.sampling.ControlVariate`, learn by its `control_loss`, and have no norm of their
    own: what foretells the mean best is shorter than the features are. V and c are 0 at first, so that an estimate
    begins as the one without them.

    Arguments:
        inputs: E, numbers that the view gives of a cell.
        dimension: D, features per patch.
        hidden: of the one hidden layer; 0 for none.

    Raises:
        ConfigError: if a number is too small.

    Example:
        >>> foretold = ForetoldFeatures(inputs=5, dimension=32, hidden=16)
        >>> foretold(torch.ones(2, 30, 5)).shape, bool(foretold(torch.ones(2, 30, 5)).any())
        (torch.Size([2, 30, 32]), False)
    """

    def __init__(self, inputs: int, dimension: int, hidden: int = 0) -> None:
        super().__init__()
        if min(inputs, dimension) < 1 or hidden < 0:
            raise ConfigError(
                "foretold features need inputs and dimension of at least 1 and hidden of at least 0, got "
                f"{inputs}, {dimension} and {hidden}: set hidden to 0 for a linear map"
            )
        self.hidden = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU()) if hidden else nn.Identity()
        self.last = nn.Linear(hidden or inputs, dimension)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, cells: Float[Tensor, "batch cell input"]) -> Float[Tensor, "batch cell feature"]:
        """Map (B, K, E) numbers of cells to (B, K, D) features. Detach what is not to learn to foretell."""
        foretold: Tensor = self.last(self.hidden(cells))
        return foretold


def build_features(
    settings: FeatureSettings,
    channels: int,
    patch: Size | None,
    module: nn.Module | None = None,
    pretrained: bool = True,
    standardised: bool = False,
) -> FeatureNetwork:
    """Feature network by its name: one of foveate's by its name, one of timm's, or one of yours.

    Parameters and multiply-adds of one 50×50 patch, at width 32 (the paper's networks have fixed widths):

    =======================  ========  ===================  =============  ====================================
    name                     channels  parameters           multiply-adds  ends in
    =======================  ========  ===================  =============  ====================================
    convolutional            1         23,552               3.8 million    global maximum
    residual                 1         59,104               17.1 million   global average
    megapixel-mnist-paper    1         29,344               47.3 million   global maximum
    speed-limits-paper       3         59,680               18.6 million   global average
    colon-cancer-paper       3         252,070 at 27×27     2.2 million    one linear layer, so one patch size
    =======================  ========  ===================  =============  ====================================

    (the last at its own 27×27). "convolutional" halves the resolution twice where the paper's Megapixel MNIST network
    keeps it; "residual" is the speed-limits network with GroupNorm in the place of BatchNorm. The `-paper` networks
    follow Katharopoulos & Fleuret (ICML 2019) and their code, Keras's initialisation, padding and BatchNorm constants
    included; "speed-limits-paper" alone uses batch statistics.

    "timm:NAME" is a network of timm without its classifier, "package.module:function" a function of yours
    that is called with the number of channels and gives an `nn.Module` (M, C, h, w) → (M, D) or (M, D, rows, columns),
    the latter averaged over its positions. All end in `ConstantNorm`.

    Arguments:
        settings: name, width (channels of foveate's own default networks), norm, what of it is frozen; of a timm
            network its stages and where its pretrained weights come from.
        channels: channels of a patch.
        patch: (height, width) of a patch, in pixels; None for inputs of any size.
        module: a network of yours, instead of the one that the settings name and describe; used as it is, not copied.
        pretrained: False loads no pretrained weights whatever the settings say, for a saved model's take their place.
        standardised: whether pixels come with mean 0 and deviation 1 per band; else a pretrained timm network brings
            them there by the constants it was trained with.

    Returns:
        A network (M, C, h, w) → (M, D), with its D as `.dimension`.

    Raises:
        ConfigError: if the name is unknown, a number is not positive, the patch too small or of a size that the network
            does not take, a function or module of yours not what it should be, or pretrained weights cannot be had or
            do not fit; if settings that are for networks of timm are set for another.
        MissingExtra: if timm is needed and not installed.

    Example:
        >>> network = build_features(FeatureSettings("convolutional", width=8), channels=3, patch=(30, 40))
        >>> network(torch.zeros(2, 3, 30, 40)).shape, network.dimension
        (torch.Size([2, 8]), 8)
        >>> yours = nn.Sequential(nn.Conv2d(3, 12, 5), nn.ReLU())
        >>> build_features(FeatureSettings(), channels=3, patch=(30, 40), module=yours).dimension
        12
    """
    if not settings.enlarge > 0:
        raise ConfigError(f"model.features.enlarge must be positive, got {settings.enlarge}: set it to e.g. 2")
    name, patch = settings.name, None if patch is None else enlarged(patch, settings.enlarge)
    if module is not None:
        body = own_body(module, channels, patch)
    elif name.startswith(PREFIX):
        choice = BackboneChoice(
            name,
            channels,
            pretrained=settings.pretrained,
            weights=settings.weights,
            load=pretrained,
            standardised=standardised,
            frozen_stages=settings.frozen_stages,
        )
        body = timm_body(choice, patch, settings.stages, settings.pool)
    elif settings.weights is not None or settings.stages or settings.frozen_stages:
        raise ConfigError(
            f"model.features.weights, stages and frozen_stages are for networks of timm, and model.features.name is "
            f"{name}: set them to null, [] and 0, or the name to e.g. {PREFIX}tf_efficientnet_lite0"
        )
    elif ":" in name or ("features", name) in REGISTERED:
        body = own_body(import_network(name, channels), channels, patch, name)
    else:
        body = _named_body(settings, channels, patch)
    network = FeatureNetwork(body, settings)
    return network if isinstance(body.layers, OwnNetwork) else network.to(memory_format=torch.channels_last)


def _named_body(settings: FeatureSettings, channels: int, patch: Size | None) -> Body:
    if settings.name not in BODIES:
        close = difflib.get_close_matches(settings.name, BODIES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]}?" if close else "choose one, or write timm:NAME or package.module:function"
        raise ConfigError(f"no feature network {settings.name!r}, there are {', '.join(sorted(BODIES))}: {hint}")
    if settings.width < 1:
        raise ConfigError(f"model.features.width must be positive, got {settings.width}: set it to e.g. 32")
    body = BODIES[settings.name](channels, settings.width, patch)
    if patch is not None and min(patch) < body.smallest:
        raise ConfigError(
            f"the feature network {settings.name} needs patches of at least {body.smallest}×{body.smallest} "
            f"pixels, got {patch[0]}×{patch[1]}: enlarge model.patch"
        )
    return body
