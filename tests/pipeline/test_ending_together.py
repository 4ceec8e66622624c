"""Processes that no launcher looks after, as on several machines: when one ends early, the others do."""

import os
import socket
import subprocess
import sys

import pytest

WORK = """
import os, sys, time
from accelerate import PartialState
from foveate.pipeline.distributed import ending_together

state = PartialState(cpu=True)
with ending_together():
    print("in", flush=True)
    if state.process_index == 1:
        {fate}
    time.sleep({seconds} * (1 + state.process_index))
print("out", flush=True)
state.wait_for_everyone()
"""


def run_three(fate: str, seconds: float) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of three processes, the second of which meets its fate."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORK.format(fate=fate, seconds=seconds)],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    try:
        told = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def test_alone_nothing_happens() -> None:
    from foveate.pipeline.distributed import ending_together

    with ending_together():
        pass


@pytest.mark.slow
def test_all_leave_when_all_are_done() -> None:
    for code, told, error in run_three("pass", 0.1):
        assert (code, told, "foveate" in error) == (0, "in\nout\n", False)


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["os.kill(os.getpid(), 9)", "sys.exit(3)", "raise ValueError"])
def test_one_that_ends_early_ends_the_others(fate: str) -> None:
    """The others are at work for longer than the test waits."""
    first, second, third = run_three(fate, 600)
    assert second[0] != 0
    for code, told, error in (first, third):
        assert code != 0
        assert told == "in\n"
        assert "ended before the work was done" in error
