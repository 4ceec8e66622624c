"""Teacher of evidence: several small networks trained at once on the cells of images, by the images' labels alone."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from foveate.config.training import FindSettings
from foveate.models import Evidence
from foveate.models.evidence import attended
from foveate.models.losses import cross_entropies
from foveate.models.preprocess import label_tensor
from foveate.networks.evidence import ALL_CELLS, EvidenceHead, attention_logits
from foveate.seeds import derive_seed
from foveate.training.bags import Bags
from foveate.training.novelty import Novelty
from foveate.training.shortlist import Shortlist
from foveate.types import Label

FAILED = 0.2
"""A start has failed if its training loss is above the lowest by more than this share of what the lowest has learnt."""


TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.7, 8.0)
"""Divisors of logits that are tried before images that were not trained on judge."""

ANEW = 5
"""Every so many epochs, and in the first ones, all cells are asked; in the others, those that were best then."""

BEGINNING = 0.2
"""Share of the steps in which some starts keep to cells that are least like those of background images: one an image at
first, then ever more."""

WARM_UP = 0.1
"""Share of the steps over which the learning rate rises."""


@dataclass(frozen=True)
class Question:
    """What is asked of cells: the evidence settings that are tried.

    Attributes:
        background: class against which evidence is sought; None seeks evidence of every class.
        top: k.
    """

    background: str | None
    top: float

    @property
    def linear(self) -> bool:
        """Whether all cells answer, by a linear model of their mean."""
        return self.top >= ALL_CELLS

    def logits(self, classes: Sequence[str]) -> int:
        """Logits per cell: one against a background class, else one for every class."""
        return 1 if self.background is not None else len(classes)


def kept_starts(losses: Sequence[float], chance: float = math.log(2)) -> tuple[int, ...]:
    """Starts that have not failed, by their training losses, and that of an answer that knows nothing.

    Example:
        >>> kept_starts([0.43, 0.23, 0.24, 0.22])
        (1, 2, 3)
    """
    least = min(losses)
    limit = least + FAILED * max(chance - least, 0.0)
    return tuple(number for number, loss in enumerate(losses) if loss <= limit)


def one_cycle(share: float) -> float:
    """Factor of the learning rate after a share of all steps: up within a tenth of them, and down along a cosine.

    Example:
        >>> one_cycle(0.0), one_cycle(0.1), round(one_cycle(0.55), 2)
        (0.04, 1.0, 0.5)
    """
    if share < WARM_UP:
        return 0.04 + 0.96 * share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


class Teacher:
    r"""Teacher of evidence: small networks, trained at once on the cells of images.

    .. math:: L = -\log \sigma\bigl(\pm(\tfrac1k \textstyle\sum_{i \in \mathrm{top}_k} z_i + b)\bigr)

    on "background or not", or the cross-entropy of evidence of every class. The k cells are chosen without dropout and
    without gradient, which then is computed of these alone: a step costs one pass over all cells. Some of the networks
    begin with the cell that is least like those of background images, and choose among ever more: what is small and
    rare is hard to hit upon by chance. Where all cells answer, as for what a whole image is made of, the network is a
    linear model of their mean, which has one optimum.

    Arguments:
        settings: starts, epochs, learning rate.
        model: of evidence, whose head tells what is to be made.
        moments: (2, D) mean and deviation of the features of the training images' cells.
        seed: of the run.
        classes: names.
        multi_label: whether an image may have several labels.
    """

    def __init__(
        self,
        settings: FindSettings,
        model: Evidence,
        moments: Float[Tensor, "2 feature"],
        seed: int,
        classes: Sequence[str],
        multi_label: bool,
    ) -> None:
        self.settings, self.moments, self.seed = settings, moments, seed
        self.classes, self.multi_label = classes, multi_label
        self.attention, self.device = model.settings.attention, model.device
        self._novelties: dict[tuple[str, int], Novelty] = {}
        self._taught: dict[tuple[Question, int, int], tuple[EvidenceHead, Tensor]] = {}

    def taught(self, question: Question, bags: Bags, starts: int) -> tuple[EvidenceHead, Float[Tensor, " start"]]:
        """Heads of some starts, taught a question by some images, and the training loss of each; taught but once."""
        known = (question, id(bags), starts)
        if known not in self._taught:
            taught = self._fit(question, bags) if question.linear else self._teach(question, bags, starts)
            self._taught[known] = taught
        head, losses = self._taught[known]
        return copy.deepcopy(head), losses

    def _teach(self, question: Question, bags: Bags, starts: int) -> tuple[EvidenceHead, Float[Tensor, " start"]]:
        settings = self.settings
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "find"))
        head = self._head(question, starts, generator)
        optimizer = torch.optim.AdamW(head.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        steps = max(settings.least_steps, settings.epochs * math.ceil(len(bags) / settings.batch))
        novelty = self._novelty(question, bags)
        beginning = round(settings.novel * starts)
        shortlist = Shortlist(head, bags, question.top, self.device, generator, novelty, beginning)
        counted, total = 0, torch.zeros(starts, device=self.device)
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(derive_seed(self.seed, "find dropout"))
            for step, rows in enumerate(self._batches(len(bags), steps, generator)):
                optimizer.param_groups[0]["lr"] = settings.learning_rate * one_cycle(step / steps)
                targets = self.targets(question, [bags.labels[row] for row in rows]).to(self.device)
                epoch = step * settings.batch // len(bags)
                shortlist.widen(step / (BEGINNING * steps))
                losses = self._losses(head, shortlist, rows, epoch < ANEW or epoch % ANEW == 0, targets)
                optimizer.zero_grad()
                losses.sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if step >= 0.75 * steps:
                    total, counted = total + losses.detach(), counted + 1
        return head.eval(), (total / max(counted, 1)).cpu()

    def _novelty(self, question: Question, bags: Bags) -> Novelty | None:
        """Novelty of cells, if there are background images and starts that are to begin with it; measured but once."""
        if question.background is None or not self.settings.novel:
            return None
        none = self.classes.index(question.background)
        background = [row for row, label in enumerate(bags.labels) if label == none]
        if not background:
            return None
        known = (question.background, id(bags))
        if known not in self._novelties:
            self._novelties[known] = Novelty(bags, background)
        return self._novelties[known]

    def _head(self, question: Question, members: int, generator: torch.Generator | None = None) -> EvidenceHead:
        """Head that has been taught nothing, but what features are like."""
        asked = question.logits(self.classes)
        width, own = len(self.moments[0]), self.attention
        head = EvidenceHead(width, own.hidden, asked, members, own.dropout, generator)
        head.mean.copy_(self.moments[0])
        head.deviation.copy_(self.moments[1])
        return head.to(self.device)

    @torch.no_grad()
    def _fit(self, question: Question, bags: Bags) -> tuple[EvidenceHead, Float[Tensor, "1"]]:
        """Head that is linear in the mean of an image's cells, and its training loss."""
        head = self._head(question, members=1).eval()
        means = torch.cat([head.standardised(bags.batch([row], self.device)[0]).mean(1) for row in range(len(bags))])
        targets = self.targets(question, bags.labels).to(self.device)
        weight, bias = self._logistic(means, targets, head.bias.shape[1])
        # relu(x) − relu(−x) = x: two hidden numbers a question.
        pairs = torch.stack([weight, -weight], 2).flatten(1)
        head.first.zero_()[0, :, : pairs.shape[1]] = pairs
        head.first_bias.zero_()
        own = torch.eye(len(bias), device=self.device)
        head.second.zero_()[0, : pairs.shape[1]] = torch.stack([own, -own], 1).flatten(0, 1)
        head.bias[0] = bias
        return head, self._loss(means @ weight + bias, targets).mean().cpu()[None]

    @torch.enable_grad()
    def _logistic(
        self, means: Float[Tensor, "image feature"], targets: Tensor, asked: int
    ) -> tuple[Float[Tensor, "feature question"], Float[Tensor, " question"]]:
        r"""Weights and biases of the least :math:`\sum L + \frac12 |W|^2`, of features at deviation 1 over images."""
        center, scale = means.mean(0), means.std(0, correction=0).clamp(min=1e-6)
        inputs = (means - center) / scale
        weight = torch.zeros(inputs.shape[1], asked, device=self.device, requires_grad=True)
        bias = torch.zeros(asked, device=self.device, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

        def objective() -> Tensor:
            optimizer.zero_grad()
            loss = self._loss(inputs @ weight + bias, targets).sum() + 0.5 * weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(objective)  # type: ignore[no-untyped-call]
        own = weight.detach() / scale[:, None]
        return own, bias.detach() - center @ own

    def _batches(self, count: int, steps: int, generator: torch.Generator) -> Iterator[list[int]]:
        done = 0
        while done < steps:
            order = torch.randperm(count, generator=generator).tolist()
            for start in range(0, count, self.settings.batch):
                if done < steps:
                    yield order[start : start + self.settings.batch]
                done += 1

    def _losses(
        self, head: EvidenceHead, shortlist: Shortlist, rows: Sequence[int], anew: bool, targets: Tensor
    ) -> Float[Tensor, " start"]:
        """Loss of every start, with dropout, of the cells that each finds without."""
        cells, share = shortlist.best(rows, anew)
        starts, batch, asked, most, _ = cells.shape
        logits = head.of_standardised(cells.flatten(1, 3)).view(starts, batch, asked, most, asked)
        of_own = logits.diagonal(dim1=2, dim2=4)  # (S, B, k, E): of each question, its own logit
        pooled = (of_own * share[:, :, None]).sum(2) + head.bias[:, None]
        repeated = targets.repeat(starts, *[1] * (targets.ndim - 1))
        return self._loss(pooled.flatten(0, 1), repeated).view(starts, -1).mean(1)

    def _loss(self, evidence: Float[Tensor, "row question"], targets: Tensor) -> Float[Tensor, " row"]:
        """Loss of images by the evidence of them."""
        if evidence.shape[1] == 1 and not self.multi_label:
            return functional.binary_cross_entropy_with_logits(evidence[:, 0], targets, reduction="none")
        return cross_entropies(evidence, targets)

    def targets(self, question: Question, labels: Sequence[Label]) -> Tensor:
        """What a question's answers should be: 1 for "not background", or the classes."""
        if question.background is not None:
            background = self.classes.index(question.background)
            return torch.tensor([float(label != background) for label in labels])
        return label_tensor(labels, len(self.classes) if self.multi_label else None)

    def chance(self, question: Question) -> float:
        """Loss of an answer that knows nothing, in nats."""
        return math.log(2 if question.background is not None or self.multi_label else len(self.classes))

    def loss(self, question: Question, seen: Bags, held: Bags, starts: int) -> float:
        """Mean loss on held-out images of the starts that have not failed, together, at the best temperature.

        Of two questions the one that was learnt by heart is the surer of itself, and that is not what is to be judged.
        """
        head, losses = self.taught(question, seen, starts)
        head.keep(kept_starts(losses.tolist(), self.chance(question)))
        targets = self.targets(question, held.labels).to(self.device)
        with torch.no_grad():
            pooled = torch.cat([held.pooled(head, [row], question.top, self.device) for row in range(len(held))])
            return min(float(self._loss(pooled / hot, targets).mean()) for hot in TEMPERATURES)

    def teach_kinds(self, model: Evidence, bags: Bags) -> None:
        """Tell the kinds apart that are no background, by what the attention sees in the images of each."""
        if model.background is None or len(self.classes) == 2:
            return
        rows = [row for row, label in enumerate(bags.labels) if label != model.background]
        with torch.no_grad():
            inputs = torch.cat([_attended(model, bags, row) for row in rows])
        labels = torch.tensor([bags.labels[row] for row in rows], device=self.device)
        optimizer = torch.optim.AdamW(model.head.parameters(), 1e-2, weight_decay=1.0)
        others = torch.arange(len(self.classes), device=self.device) == model.background
        with torch.random.fork_rng([] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(derive_seed(self.seed, "find kinds"))
            for _ in range(self.settings.kind_steps):
                logits = model.head(functional.dropout(inputs, 0.5)).masked_fill(others, -torch.inf)
                optimizer.zero_grad()
                functional.cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
                optimizer.step()


def _attended(model: Evidence, bags: Bags, row: int) -> Float[Tensor, "1 feature"]:
    cells, _ = bags.batch([row], model.device)
    head, top = model.attention.head, model.settings.evidence.top
    return attended(head, cells, attention_logits(head(cells), top).log_softmax(1))
