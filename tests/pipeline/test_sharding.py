"""Which process sees which image: every one exactly once, in an order that nothing else decides."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.datasets.types import Example
from foveate.pipeline.loader import epoch_order, shares, split_indices

sizes = st.integers(1, 60)
worlds = st.integers(1, 7)


@settings(deadline=None, max_examples=80)
@given(n=sizes, batch=st.integers(1, 20), world=worlds)
def test_shares_of_a_batch_are_disjoint_and_make_it_whole(n: int, batch: int, world: int) -> None:
    order = [10 * i for i in range(n)]
    plans = [shares(order, batch, rank, world) for rank in range(world)]
    alone = shares(order, batch)
    assert {len(plan) for plan in plans} == {len(alone)}
    for step, whole in enumerate(alone):
        parts = [plan[step] for plan in plans]
        counted = [index for part in parts for index in part.indices[: part.counted]]
        assert tuple(counted) == whole.indices
        assert {part.whole for part in parts} == {len(whole.indices)}
        lengths = [part.counted for part in parts]
        assert max(lengths) - min(lengths) <= 1


@settings(deadline=None, max_examples=40)
@given(n=sizes, batch=st.integers(1, 20), world=worlds)
def test_every_process_has_an_image_in_every_step(n: int, batch: int, world: int) -> None:
    for rank in range(world):
        for share in shares(range(n), batch, rank, world):
            assert len(share.indices) == max(share.counted, 1)


def test_the_last_partial_batch_is_used() -> None:
    assert [share.whole for share in shares(range(7), 3)] == [3, 3, 1]


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    indices = tuple(range(40))
    orders = [epoch_order(indices, seed, epoch) for seed in (0, 1) for epoch in (1, 2)]
    assert all(Counter(order) == Counter(indices) for order in orders)
    assert len(set(orders)) == 4


def test_the_order_follows_ids_not_rows() -> None:
    class Rows:
        classes = ("a", "b")

        def __init__(self, ids: list[str]) -> None:
            self.examples = [Example(name, 0, "train") for name in ids]

        def ids(self) -> list[str]:
            order = epoch_order(split_indices(self, "train"), seed=5, epoch=2)  # type: ignore[arg-type]
            return [self.examples[index].id for index in order]

    names = [f"{number}.png" for number in range(20)]
    assert Rows(names).ids() == Rows(names[::-1]).ids()
