"""Heads of models: how features become one vector, and that the classes; and which settings of that make sense."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from foveate.config.heads import HeadSettings
from foveate.config.settings import ModelSettings
from foveate.errors import ConfigError
from foveate.networks.cnn import glorot_
from foveate.networks.cross_attention import CrossAttention
from foveate.networks.number import NumberHead
from foveate.networks.ordinal import OrdinalHead
from foveate.sampling import log_coefficients
from foveate.types import Draw


def build_head(settings: HeadSettings, dimension: int, classes: Sequence[str]) -> nn.Linear:
    """Layer from features to logits: linear, ordinal, or of one number.

    Arguments:
        settings: of the head.
        dimension: features of an image.
        classes: names of the classes.
    """
    if settings.kind == "ordinal":
        return OrdinalHead(dimension, order_of(settings, classes))
    if settings.numeric:
        return NumberHead(dimension, settings.huber)
    head = nn.Linear(dimension, len(classes))
    glorot_(head)
    return head


def order_of(settings: HeadSettings, classes: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the classes, the lowest grade first; empty where they have no order.

    Example:
        >>> order_of(HeadSettings(kind="ordinal", order=("low", "high")), ("high", "low"))
        (1, 0)
    """
    return tuple(classes.index(name) for name in settings.order or classes) if settings.kind == "ordinal" else ()


def build_pool(settings: HeadSettings, dimension: int) -> CrossAttention | None:
    """Pooling of a model that draws patches: cross-attention, or None for the importance-weighted mean.

    Arguments:
        settings: of the head.
        dimension: features per patch.
    """
    if settings.pool == "mean":
        return None
    return CrossAttention(dimension, settings.heads, settings.hidden, settings.dropout)


def pooled(
    pool: CrossAttention, drawn: Draw, features: Float[Tensor, "rows draw feature"]
) -> Float[Tensor, "rows feature"]:
    r"""Cross-attention over the patches drawn, with log(a_s w_s) beside its scores z, so that it sees

    .. math:: \frac{\sum_s a_s w_s e^{z_s} v_s}{\sum_s a_s w_s e^{z_s}}
              \quad \text{for} \quad \frac{\sum_i a_i e^{z_i} v_i}{\sum_i a_i e^{z_i}}, \qquad v_i = W^V f_i

    Sum by sum that is unbiased, their ratio is not; it is exact where all cells are drawn, and its error shrinks as
    draws grow. Constant scores leave the importance-weighted mean over the sum of the weights a_s w_s, which is 1 but
    for "priority", and for "uniform" where attention is not. Attention gets its gradient through log a_s, by which what
    a patch shows is compared with what the others show together: such a ratio is its own baseline.

    Arguments:
        pool: of `build_pool`.
        drawn: the cells drawn.
        features: (rows, n, D) of the patches behind them; finite in slots that are not valid.

    Source: Hesterberg, "Weighted Average Importance Sampling and Defensive Mixture Distributions" (1995): the ratio.
    """
    estimate: Tensor = pool(features, log_coefficients(drawn))
    return estimate


def grade_order(model: nn.Module) -> tuple[int, ...]:
    """Numbers of a model's classes, the lowest grade first; empty where they have no order."""
    head = getattr(model, "head", None)
    return head.order if isinstance(head, OrdinalHead) else ()


def check_head(settings: ModelSettings, draws: bool, classes: Sequence[str], multi_label: bool) -> None:
    """Head settings check: those that make no sense are refused.

    Arguments:
        settings: of a model.
        draws: whether a model of that name draws patches.
        classes: names of its classes.
        multi_label: whether an image may have several labels.

    Raises:
        ConfigError: they are.
    """
    head = settings.head
    if head.kind == "ordinal" and (multi_label or settings.name == "evidence"):
        reason = "an image has several labels" if multi_label else "the model evidence has no head"
        raise ConfigError(f"model.head.kind ordinal needs one grade an image, but {reason}: set it to classes")
    if head.numeric:
        _check_number(settings, classes, multi_label)
    elif head.huber is not None:
        raise ConfigError(
            f"model.head.huber belongs to model.head.kind number, got {head.huber} with {head.kind}: leave it out"
        )
    if head.order and (head.kind != "ordinal" or sorted(head.order) != sorted(classes)):
        raise ConfigError(
            f"model.head.order must name each of the classes {', '.join(classes)} once, and needs model.head.kind "
            f"ordinal, got {', '.join(head.order)}: correct it, or leave it out"
        )
    if head.heads < 1 or head.hidden < 0:
        raise ConfigError(
            f"model.head.heads must be at least 1 and model.head.hidden at least 0, got {head.heads} and "
            f"{head.hidden}: leave them out"
        )
    if not 0 <= head.dropout < 1:
        raise ConfigError(f"model.head.dropout must be in [0, 1), got {head.dropout}: set it to e.g. 0.1")
    if head.pool == "mean" or settings.name == "ips":
        return
    if not draws:
        raise ConfigError(
            f"model.head.pool cross-attention pools patches that are drawn, and the model {settings.name} draws none: "
            "set it to mean"
        )
    if settings.control:
        raise ConfigError(
            "model.control belongs to a mean of patches, got model.head.pool cross-attention: set one to false, or the "
            "other to mean"
        )
    if settings.patches < 2 and settings.name != "uniform":
        raise ConfigError(
            f"cross-attention over {settings.patches} patch teaches attention nothing: set model.patches to 2 or more, "
            "or model.head.pool to mean"
        )


def _check_number(settings: ModelSettings, classes: Sequence[str], multi_label: bool) -> None:
    """Refuse what a number has not: classes, evidence of them, and a threshold that is none."""
    of_classes = {
        f"the classes {', '.join(classes)}": classes,
        "several labels": multi_label,
        f"the model {settings.name}": settings.name in ("evidence", "gmic"),
        "model.evidence.background": settings.evidence.background is not None,
        "model.evidence.share": settings.evidence.share,
    }
    for what in (what for what, there in of_classes.items() if there):
        raise ConfigError(
            f"model.head.kind number answers with a number, got {what}, of classes: leave it out, or set "
            "model.head.kind to classes"
        )
    delta = settings.head.huber
    if delta is not None and not 0 < delta < float("inf"):
        raise ConfigError(f"model.head.huber must be positive, got {delta}: set it to e.g. 1.5, or leave it out")


def check_settling(pool: CrossAttention | None, head: nn.Linear) -> None:
    """Refuse to draw until an answer is settled where no variance of it is known.

    Raises:
        ConfigError: the patches are pooled by cross-attention, the classes are grades, or there are none.
    """
    if isinstance(head, OrdinalHead):
        raise ConfigError(
            "max_patches needs logits that are linear, and model.head.kind is ordinal: leave max_patches out"
        )
    if isinstance(head, NumberHead):
        raise ConfigError("max_patches draws until a class is settled, and a number is none: leave max_patches out")
    if pool is not None:
        raise ConfigError(
            "max_patches needs the variance of a mean, and model.head.pool is cross-attention: leave max_patches out"
        )
