"""Kept features: what a frozen feature network said of a patch is not computed twice."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class KeptFeatures:
    """Kept features of patches, by image and cell: found again as long as the image, unchanged, has a key.

    Once they take as many bytes as they may, no more are kept: in the next epoch a part of them is found, where making
    room for the latest would leave none.

    Arguments:
        limit: bytes that they may take.

    Example:
        >>> kept, cells = KeptFeatures(10**6), torch.tensor([[4, 2]])
        >>> kept.known(["a"], cells).tolist()
        [[False, False]]
        >>> first = kept.completed(["a"], cells, torch.tensor([[True, False]]), torch.tensor([[[1.0], [0.0]]]))
        >>> kept.known(["a"], cells).tolist(), kept.known([None], cells).tolist()
        ([[True, False]], [[False, False]])
        >>> kept.completed(["a"], cells, torch.tensor([[False, True]]), torch.tensor([[[0.0], [7.0]]]))
        tensor([[[1.],
                 [7.]]])
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._places: dict[tuple[Hashable, int], int] = {}
        self._blocks = torch.zeros(0, 0)

    def __len__(self) -> int:
        return len(self._places)

    def known(self, keys: Sequence[Hashable | None], cells: Int[Tensor, "rows draw"]) -> Bool[Tensor, "rows draw"]:
        """Which patches' features are kept.

        Arguments:
            keys: of the images, one per row; None for one that is changed or not known again.
            cells: (rows, n) which patches.
        """
        found = [[(key, cell) in self._places for cell in row] for key, row in zip(keys, cells.tolist(), strict=True)]
        return torch.tensor(found, dtype=torch.bool).view(cells.shape)

    def completed(
        self,
        keys: Sequence[Hashable | None],
        cells: Int[Tensor, "rows draw"],
        computed: Bool[Tensor, "rows draw"],
        features: Float[Tensor, "rows draw feature"],
    ) -> Float[Tensor, "rows draw feature"]:
        """Features with those that are kept put in; those that were computed are kept from now on.

        Arguments:
            keys: as in `known`.
            cells: likewise.
            computed: (rows, n) which of the features were computed now.
            features: (rows, n, D), anything where they were not.
        """
        result = features.detach().clone()
        flat, fresh = result.view(-1, result.shape[-1]), computed.flatten().tolist()
        names = [(key, cell) for key, row in zip(keys, cells.tolist(), strict=True) for cell in row]
        there = [place for place, name in enumerate(names) if name in self._places and not fresh[place]]
        if there:
            rows = torch.tensor([self._places[names[place]] for place in there])
            flat[torch.tensor(there, device=flat.device)] = self._blocks[rows].to(flat)
        new = {
            name: place
            for place, name in enumerate(names)
            if fresh[place] and name[0] is not None and name not in self._places
        }
        self._keep(new, flat)
        return result

    def _keep(self, new: dict[tuple[Hashable, int], int], flat: Float[Tensor, "patch feature"]) -> None:
        width = flat.shape[1]
        room = self.limit // (4 * width) - len(self._places)
        chosen = dict(list(new.items())[: max(room, 0)])
        if not chosen:
            return
        begin, end = len(self._places), len(self._places) + len(chosen)
        if end > len(self._blocks):
            with torch.inference_mode(False):  # or what is kept of an evaluation could not be trained on
                grown = torch.zeros(min(max(2 * end, 1024), self.limit // (4 * width)), width)
            if begin:
                grown[:begin] = self._blocks[:begin]
            self._blocks = grown
        self._blocks[begin:end] = flat[torch.tensor(list(chosen.values()), device=flat.device)].float().cpu()
        self._places |= {name: begin + place for place, name in enumerate(chosen)}
