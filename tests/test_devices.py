"""What a process is told of its machine, unless its user says otherwise: freed memory stays, waiting threads sleep."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from contextlib import nullcontext
from foveate.devices import CHOSEN, keep_freed_memory, keeping_large_blocks
done = keep_freed_memory() if "keep" in sys.argv else None
if "ask" in sys.argv:
    sys.exit(print(done, 0))
large = "large" in sys.argv
layer = torch.nn.Conv2d(8, 8, 3, padding=1)
def step():
    values = torch.ones(80 if large else 32, 8, 120, 120)  # 37 or 15 MB, and so is every activation
    with keeping_large_blocks() if "context" in sys.argv else nullcontext():
        for _ in range(2):
            values = layer(values).relu()
        values.sum().backward()
for _ in range(3):  # the heap has grown to what a step needs at most
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    step()
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*arguments: str, **environment: str) -> tuple[str, int]:
    """What `keep_freed_memory` answered, and the page faults of two steps."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=clean | environment,
    )
    done, count = run.stdout.split()
    return done, int(count)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_the_next_step_finds_the_memory_of_the_last() -> None:
    done, kept = faults("keep")
    _, given_back = faults()
    assert done == "True"
    assert given_back > 10 * (kept + 100)  # some 35,000 pages of 4 kB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.slow
def test_blocks_of_any_size_are_kept_in_their_context_alone() -> None:
    _, kept = faults("keep", "large", "context")
    _, mapped = faults("keep", "large")
    _, not_asked_for = faults("large", "context")
    assert min(mapped, not_asked_for) > 10 * (kept + 100)  # hundreds of thousands of pages


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_the_users_own_choice_stands(name: str) -> None:
    value = "glibc.malloc.perturb=0" if name == "GLIBC_TUNABLES" else "131072"
    assert faults("keep", "ask", **{name: value})[0] == "False"


SLEEP = """
import os, sys
if "torch" in sys.argv:
    import torch
from foveate.devices import let_waiting_threads_sleep
print(let_waiting_threads_sleep(), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, "True PASSIVE"),
        (["torch"], {}, "False None"),
        ([], {"OMP_WAIT_POLICY": "ACTIVE"}, "False ACTIVE"),
        ([], {"GOMP_SPINCOUNT": "1000"}, "False None"),
    ],
)
def test_waiting_threads_sleep_unless_the_user_says_otherwise_or_it_is_too_late(
    arguments: list[str], environment: dict[str, str], expected: str
) -> None:
    clean = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    run = subprocess.run(
        [sys.executable, "-c", SLEEP, *arguments], check=True, capture_output=True, text=True, env=clean | environment
    )
    assert run.stdout.strip() == expected
