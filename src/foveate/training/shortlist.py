"""Short lists of cells: those with the most evidence, so that not every step has to ask all cells of an image."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from foveate.networks.evidence import EvidenceHead, cells_of_top
from foveate.training.bags import Bags
from foveate.training.novelty import Novelty

LISTED = 48
"""Cells on an image's list, at least; and of those that are pooled, the most that a step learns from."""


class Shortlist:
    r"""Short lists of the cells that each start finds for each question: S · E lists an image.

    The k cells with the most evidence are looked for among all cells, or among those that were best when that was last
    done, whose evidence is computed anew. Neither takes a gradient; nothing is dropped. Of more than `LISTED` cells
    that are pooled so many are taken by lot, whose mean is theirs in the mean. The lists of the first starts may begin
    with the most novel cell alone, which `widen` makes more and at last all.

    Arguments:
        head: S members and E questions; as it is whenever it is asked.
        bags: of the images.
        top: k, or if less than 1 a share of an image's cells.
        device: where the head is.
        generator: of the lots.
        novelty: of cells; None where all starts find their own.
        beginning: number of starts that begin with the most novel cell.

    Example:
        >>> bags, head = Bags(10**6), EvidenceHead(1, 1, 1)
        >>> for parameter in head.parameters():
        ...     _ = parameter.data.fill_(1.0)
        >>> bags.add(torch.tensor([[1.0], [5.0], [3.0]]))
        >>> cells, share = Shortlist(head, bags, top=2.0, device=torch.device("cpu")).best([0], anew=True)
        >>> cells.flatten().tolist(), share.tolist()
        ([5.0, 3.0], [[0.5, 0.5]])
    """

    def __init__(
        self,
        head: EvidenceHead,
        bags: Bags,
        top: float,
        device: torch.device,
        generator: torch.Generator | None = None,
        novelty: Novelty | None = None,
        beginning: int = 0,
    ) -> None:
        self._novelty, self._beginning, self._reach = novelty, beginning, 1
        self._novel: dict[int, Int[Tensor, " place"]] = {}
        self._head, self._bags, self._device, self._generator = head, bags, device, generator
        counts = torch.tensor([bags.cells(row) for row in range(len(bags))])
        self._counts = counts
        self._wanted = torch.tensor([cells_of_top(top, count) for count in counts.tolist()])
        self._lists: list[Int[Tensor, "start question place"] | None] = [None] * len(bags)

    @torch.no_grad()
    def best(
        self, rows: Sequence[int], anew: bool
    ) -> tuple[Float[Tensor, "start batch question best feature"], Float[Tensor, "batch best"]]:
        """Standardised features of the cells with the most evidence, and each one's share in the mean of them.

        Arguments:
            rows: B images.
            anew: whether to look at all cells.
        """
        training = self._head.training
        self._head.eval()
        if anew or any(self._lists[row] is None for row in rows):
            self._look(rows)
        lists = [self._by_lot(one) for row in rows if (one := self._lists[row]) is not None]
        longest = max(one.shape[2] for one in lists)
        index = torch.stack([torch.nn.functional.pad(one, (0, longest - one.shape[2])) for one in lists])
        listed = torch.tensor([one.shape[2] for one in lists])
        cells = self._head.standardised(self._bags.some(rows, index).to(self._device)).transpose(0, 1)
        starts, batch, questions, _, width = cells.shape
        logits = self._head.of_standardised(cells.flatten(1, 3)).view(starts, batch, questions, longest, questions)
        own = logits.diagonal(dim1=2, dim2=4).transpose(2, 3)  # (S, B, E, m): of each question, its own logit
        there = torch.arange(longest) < listed[:, None]
        own = own.masked_fill(~there[:, None].to(self._device), -torch.inf)
        wanted = self._wanted[list(rows)].clamp(max=LISTED)
        most = int(wanted.max())
        if self._novelty is not None:
            own[: self._beginning, :, :, max(self._reach, most) :] = -torch.inf
        best = own.topk(most, 3).indices
        found = cells.gather(3, best[..., None].expand(-1, -1, -1, -1, width))
        share = (torch.arange(most) < wanted[:, None]) / wanted[:, None]
        self._head.train(training)
        return found, share.to(self._device)

    def _by_lot(self, listed: Int[Tensor, "start question place"]) -> Int[Tensor, "start question _"]:
        if listed.shape[2] <= LISTED:
            return listed
        return listed[:, :, torch.randperm(listed.shape[2], generator=self._generator)[:LISTED]]

    def _look(self, rows: Sequence[int]) -> None:
        """Ask all cells of some images."""
        cells, allowed = self._bags.batch(rows, self._device)
        found = self._head.each(cells).masked_fill(~allowed[:, :, None], -torch.inf)
        for place, row in enumerate(rows):
            size = min(int(self._counts[row]), max(LISTED, int(self._wanted[row])))
            listed = found[:, place].topk(size, 1).indices.transpose(1, 2).cpu()
            if self._novelty is not None:
                if row not in self._novel:
                    self._novel[row] = self._novelty.most(self._bags, row, size)
                listed[: self._beginning] = self._novel[row]
            self._lists[row] = listed

    def widen(self, share: float) -> None:
        """Let starts that began with novelty choose among more cells: 48^share of the most novel, or all from 1 on."""
        self._reach = round(LISTED**share)
        if share >= 1 and self._novelty is not None:
            self._novelty, self._lists = None, [None] * len(self._bags)
