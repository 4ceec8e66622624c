"""What a user types."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil


def command(*words: object) -> list[str]:
    """A command's words, as the shell would hand them over."""
    return [str(word) for word in words]


def launch(*words: object, folder: Path | None = None) -> subprocess.Popen[str]:
    """A verb in two processes, started as a user would."""
    # Without accelerators, accelerate starts several processes only when told `--multi_gpu`.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return subprocess.Popen(
        [*launcher, "-m", "foveate", *command(*words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def ended(launched: subprocess.Popen[str], timeout: float = 280) -> subprocess.CompletedProcess[str]:
    """What a command printed, and its exit code."""
    try:
        told, error = launched.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        for process in [*psutil.Process(launched.pid).children(recursive=True), launched]:
            process.kill()
        raise
    return subprocess.CompletedProcess(launched.args, launched.returncode, told, error)


def killed(launched: subprocess.Popen[str], rank: int) -> float:
    """Seconds that a launcher and its processes take to end after one of them is killed (SIGKILL)."""
    processes = psutil.Process(launched.pid).children(recursive=True)
    (victim,) = [one for one in processes if one.environ().get("RANK") == str(rank)]
    victim.kill()
    started = time.monotonic()
    ended(launched, timeout=60)
    left = psutil.wait_procs(processes, timeout=60)[1]
    assert left == []
    return time.monotonic() - started
