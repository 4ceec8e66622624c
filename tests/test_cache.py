"""LRU cache: bounded, least recently used first, no entry made twice at a time, nothing of owners that are gone."""

import copy
import gc
import os
import pickle
import threading
import weakref
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate import cache as caches
from foveate.cache import DECODED, ENCODED, OVERHEAD, TILES, Cache, Owner

small_sizes = st.integers(0, 3000)


def value(size: int) -> bytes:
    return bytes(size)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 7), max_size=4), st.booleans()), max_size=40),
    st.lists(small_sizes, min_size=8, max_size=8),
    st.integers(0, 9000),
)
def test_what_is_held_is_what_a_simple_lru_would_hold(
    asked: list[tuple[int, list[int], bool]], sizes: list[int], limit: int
) -> None:
    cache: Cache[bytes] = Cache("", limit)
    owners = [Owner(cache) for _ in range(3)]
    model: OrderedDict[tuple[int, int], int] = OrderedDict()
    for who, keys, keep in asked:
        missing = [key for key in dict.fromkeys(keys) if (who, key) not in model]
        made: list[list[int]] = []

        def make(some: list[int], made: list[list[int]] = made) -> list[bytes]:
            made.append(list(some))
            return [value(sizes[key]) for key in some]

        found = owners[who].get_many(keys, make, keep)
        assert [len(one) for one in found] == [sizes[key] for key in keys]
        assert made == ([missing] if missing else [])
        for key in keys:
            if (who, key) in model:
                model.move_to_end((who, key))
        for key in missing if keep else ():
            model[who, key] = OVERHEAD + sizes[key]
            while sum(model.values()) > limit and len(model) > 1:
                model.popitem(last=False)
        numbers = [owner._number for owner in owners]
        assert [(numbers.index(number), key) for number, key in cache._held] == list(model)
        assert cache.memory == sum(model.values())
        assert cache.memory <= limit or len(model) == 1


@given(st.lists(small_sizes, min_size=1, max_size=12), st.integers(0, 20_000))
def test_a_new_limit_holds_at_once(sizes: list[int], limit: int) -> None:
    cache: Cache[bytes] = Cache("", 10**9)
    owner = Owner(cache)
    for key, size in enumerate(sizes):
        owner.get(key, lambda size=size: value(size))
    cache.set_limit(limit)
    left = [key for key in range(len(sizes)) if owner.holds(key)]
    assert left == list(range(len(sizes) - len(left), len(sizes))), "the oldest went"
    assert cache.memory == sum(OVERHEAD + sizes[key] for key in left)
    assert cache.memory <= limit or len(left) == 1
    bigger = cache.memory + (OVERHEAD + sizes[left[0] - 1] if left[0] else 0)
    assert left[0] == 0 or bigger > limit, "and none too many"


def test_arrays_count_by_their_bytes_and_what_has_none_by_its_length() -> None:
    cache: Cache[Any] = Cache("", 10**6)
    owner = Owner(cache)
    owner.get("array", lambda: np.zeros((3, 5, 2), np.float32))
    assert cache.memory == 120 + OVERHEAD
    owner.get("empty", lambda: np.zeros((3, 0)))
    owner.get("bytes", lambda: b"1234567")
    assert cache.memory == 127 + 3 * OVERHEAD


def test_eight_threads_make_every_key_once() -> None:
    cache: Cache[bytes] = Cache("", 10**6)
    owner, made, at_once = Owner(cache), Counter[int](), threading.Barrier(8)

    def make(keys: list[int]) -> list[bytes]:
        made.update(keys)
        threading.Event().wait(0.002)  # others come meanwhile
        return [value(key) for key in keys]

    def work(first: int) -> None:
        at_once.wait(20)
        for round_ in range(20):
            keys = [20 * round_ + (first + step) % 20 for step in range(13)]
            assert [len(one) for one in owner.get_many(keys, make)] == keys

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert made == dict.fromkeys(range(400), 1)
    assert not cache._flights


def test_own_keys_are_made_before_others_are_waited_for() -> None:
    owner, begun, go_on = Owner[bytes](Cache("", 10**6)), threading.Event(), threading.Event()

    def first() -> bytes:
        begun.set()
        assert go_on.wait(20)  # until the others have made theirs
        return b"x"

    def others(keys: list[str]) -> list[bytes]:
        go_on.set()
        return [key.encode() for key in keys]

    with ThreadPoolExecutor(1) as pool:
        maker = pool.submit(owner.get, "x", first)
        assert begun.wait(20)
        assert owner.get_many(["x", "y", "x", "z", "y"], others) == [b"x", b"y", b"x", b"z", b"y"]
        assert maker.result(20) == b"x"


def test_who_waits_gets_what_is_made_though_it_is_not_kept() -> None:
    owner, begun, go_on = Owner[bytes](Cache("", 10**6)), threading.Event(), threading.Event()

    def slow(_: list[str]) -> list[bytes]:
        begun.set()
        assert go_on.wait(20)
        return [b"theirs"]

    with ThreadPoolExecutor(2) as pool:
        maker = pool.submit(owner.get_many, ["a"], slow, keep=False)
        assert begun.wait(20)
        waiter = pool.submit(owner.get, "a", lambda: b"mine")
        threading.Event().wait(0.05)
        go_on.set()
        assert maker.result(20) == [b"theirs"]
        assert waiter.result(20) == b"theirs"
    assert not owner.holds("a")


@pytest.mark.parametrize("helps", [True, False])
def test_who_waits_for_a_failure_makes_it_itself_or_fails_with_its_own_error(helps: bool) -> None:
    owner, begun, go_on = Owner[bytes](Cache("", 10**6)), threading.Event(), threading.Event()

    def fails() -> bytes:
        begun.set()
        assert go_on.wait(20)
        raise OSError("the maker's")

    def works() -> bytes:
        if not helps:
            raise ValueError("the waiter's")
        return b"works"

    with ThreadPoolExecutor(4) as pool:
        maker = pool.submit(owner.get, "a", fails)
        assert begun.wait(20)
        waiters = [pool.submit(owner.get, "a", works) for _ in range(3)]
        go_on.set()
        with pytest.raises(OSError, match="the maker's"):
            maker.result(20)
        for waiter in waiters:
            if helps:
                assert waiter.result(20) == b"works"
            else:
                with pytest.raises(ValueError, match="the waiter's"):
                    waiter.result(20)
    assert owner.holds("a") is helps
    assert not owner.cache._flights


def test_a_maker_that_gives_too_few_values_fails_and_nothing_is_held() -> None:
    owner = Owner[bytes](Cache("", 10**6))
    with pytest.raises(ValueError, match="shorter"):
        owner.get_many(["a", "b"], lambda _: [b"a"])
    assert owner.cache.memory == 0
    assert not owner.cache._flights


@pytest.mark.parametrize("leave", ["close", "collect", "collect in a cycle"])
def test_nothing_is_held_of_an_owner_that_is_gone(leave: str) -> None:
    cache: Cache[bytes] = Cache("", 10**6)
    stays, goes = Owner(cache), Owner(cache)
    stays.get("a", lambda: b"stays")
    goes.get("a", lambda: b"goes")
    if leave == "close":
        goes.close()
        goes.close()
        assert goes.get("b", lambda: b"made") == b"made"
        assert not goes.holds("b")
    else:
        cycle: list[Any] = [goes]
        if leave != "collect":
            cycle.append(cycle)
        del goes, cycle
        gc.collect()
    assert stays.holds("a")
    assert cache.memory == 5 + OVERHEAD
    assert len(cache._owned) == 1


def test_what_is_being_made_while_its_owner_leaves_is_not_held() -> None:
    cache: Cache[bytes] = Cache("", 10**6)
    owner = Owner(cache)

    def make() -> bytes:
        owner.close()
        return b"late"

    assert owner.get("a", make) == b"late"
    assert cache.memory == 0
    assert not cache._held
    assert not cache._owned


def test_an_owner_is_collected_while_its_thread_is_in_the_cache_and_nobody_waits() -> None:
    cache: Cache[bytes] = Cache("", 10**6)
    stays, goes = Owner(cache), Owner(cache)
    goes.get("a", lambda: b"goes")
    with cache._lock:  # Python may collect at any time
        del goes
        gc.collect()
        assert cache.memory == 4 + OVERHEAD
    stays.holds("a")
    assert stays.get("a", lambda: b"new") == b"new"
    assert cache.memory == 3 + OVERHEAD


def test_owners_that_come_and_go_in_many_threads_leave_nothing() -> None:
    cache: Cache[bytes] = Cache("", 50 * OVERHEAD)

    def work(seed: int) -> None:
        for step in range(200):
            owner = Owner(cache)
            owner.get_many([(seed + step + i) % 7 for i in range(5)], lambda keys: [b"12" for _ in keys])
            if step % 3:
                owner.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    gc.collect()
    assert cache.memory == 0
    assert not cache._held
    assert not cache._owned


def test_the_cache_holds_no_owner() -> None:
    owner = Owner[bytes](Cache("", 10**6))
    owner.get("a", lambda: b"a")
    known = weakref.ref(owner)
    gc.disable()
    try:
        del owner
        assert known() is None
    finally:
        gc.enable()


def test_copies_and_pickles_own_nothing_yet_in_the_same_cache() -> None:
    owner = Owner(ENCODED)
    owner.get("a", lambda: b"123")
    before = ENCODED.memory
    for other in (pickle.loads(pickle.dumps(owner)), copy.copy(owner), copy.deepcopy(owner)):
        assert other.cache is ENCODED
        assert not other.holds("a")
        assert other.get("a", lambda: b"4567") == b"4567"
        assert ENCODED.memory == before + 4 + OVERHEAD
        other.close()
    assert owner.get("a", lambda: b"new") == b"123"


def test_the_caches_of_the_process_go_by_their_names_and_have_these_limits() -> None:
    named = {name: one for name, one in vars(caches).items() if isinstance(one, Cache)}
    assert named == {"TILES": TILES, "DECODED": DECODED, "ENCODED": ENCODED}
    assert [pickle.loads(pickle.dumps(one)) for one in named.values()] == list(named.values())
    assert [one.limit for one in named.values()] == [2**28, 2**30, 2**26]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("locked", [True, False])
def test_a_child_forked_while_entries_are_made_starts_empty_and_makes_them(locked: bool) -> None:
    cache: Cache[bytes] = Cache("", 10**6)
    owner, begun, go_on = Owner(cache), threading.Event(), threading.Event()
    owner.get("old", lambda: b"old")

    def slow() -> bytes:
        begun.set()
        assert go_on.wait(20)
        return b"parent"

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(owner.get, "a", slow)
        assert begun.wait(20)
        if locked:
            cache._lock.acquire()  # as another thread might
        child = os.fork()
        if child == 0:
            right = not owner.holds("old") and cache.memory == 0 and owner.get("a", lambda: b"child") == b"child"
            os._exit(0 if right and owner.holds("a") and cache.memory == 5 + OVERHEAD else 1)
        if locked:
            cache._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        go_on.set()
        assert making.result(20) == b"parent"
    assert owner.holds("old")
    assert owner.holds("a")
