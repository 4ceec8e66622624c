"""Soak: training and prediction that are killed (SIGKILL) at any moment and go on, until time is up.

`python tests/soak.py --minutes 60` says how often it killed, and whether anything was lost: the weights, the metrics
and the answers must be those of runs that nobody disturbed, and no unfinished file may stay.

Processes are forked off one that has imported foveate: imports take longer than such a training, and hardly a kill
would fall into the training itself.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from tiny import tiny_config, write_coloured

SAVING = "saving"
"""Kills that fall into the writing of a state."""

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    ["foveate.training.loop", "foveate.predict", "sklearn.metrics", "scipy.stats", "torch._dynamo", "accelerate"]
)


def verb(words: list[str], folder: Path, said: Path) -> None:
    """Run a verb in this process, with what it says in a file."""
    from foveate.__main__ import main

    os.chdir(folder)
    with Path(os.devnull).open("w") as nowhere, said.open("w") as file:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main(words))


@dataclass
class Soak:
    """Soak of one run: its folder, and what was seen so far.

    Attributes:
        folder: of images, runs and tables.
        random: when to kill.
        kills: how many processes were killed, by what they were doing.
        faults: what was lost, in words.
    """

    folder: Path
    random: random.Random
    kills: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """That a verb takes from beginning to end, undisturbed, at the least seen so far."""

    def prepare(self) -> None:
        """Make images, and train and predict once without being disturbed."""
        write_coloured(self.folder, 24)
        (self.folder / "tiny.yaml").write_text(tiny_config(epochs=6))
        self.start(["--version"]).join()  # what others are forked off is there, and its imports are not measured
        for words in (self.training("whole"), self.predicting("whole.csv")):
            started = time.monotonic()
            self.run(words)
            self.seconds[words[0]] = time.monotonic() - started

    def training(self, run: str) -> list[str]:
        files = ["--config", "tiny.yaml", "--data", "images.csv", "--out", run, "--resume"]
        return ["train", *files, "--data.validation=0.2", "--data.cache=off", "--training.threads=1"]

    def predicting(self, table: str) -> list[str]:
        return ["predict", "whole", "images.csv", "--out", table, "--resume", "--threads", "1"]

    def start(self, words: list[str]) -> ForkServerProcess:
        process = FORKED.Process(target=verb, args=(words, self.folder, self.said))
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # for the process that others are forked off, which starts with the first
        process.start()
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
        return process

    @property
    def said(self) -> Path:
        """What the latest process said."""
        return self.folder / "said.txt"

    def run(self, words: list[str]) -> None:
        """Run a verb to its end."""
        process = self.start(words)
        process.join()
        self._check(words, process, (0,))

    def kill_once(self, words: list[str], saving: Path | None, fresh: bool) -> bool:
        """Run a verb and kill it at a random moment, or while it writes a state; whether it was still at work."""
        process, started = self.start(words), time.monotonic()
        moment = self.random.uniform(0.02, 0.9) * self.seconds[words[0]]
        while process.is_alive():
            if saving is None:
                if time.monotonic() - started > moment:
                    break
                time.sleep(0.01)
            elif time.monotonic() - started > 0.3 * moment and any(saving.glob(".*.part")):
                break
        process.kill()
        process.join()
        at_work = process.exitcode == -signal.SIGKILL
        self._check(words, process, (0, -signal.SIGKILL))
        if not at_work and fresh:
            self.seconds[words[0]] = min(self.seconds[words[0]], time.monotonic() - started)
        if at_work:
            what = SAVING if saving is not None else words[0]
            self.kills[what] = self.kills.get(what, 0) + 1
        return at_work

    def _check(self, words: list[str], process: ForkServerProcess, codes: tuple[int, ...]) -> None:
        if process.exitcode not in codes:
            self.faults.append(f"{words[0]} ended with {process.exitcode}: {self.said.read_text()[-500:]}")

    def train(self, run: str, kills: int, saving: bool = False) -> None:
        """Train with so many kills at most, then to the end; the weights must be those of the run without any."""
        state = self.folder / run / "state" if saving else None
        for kill in range(kills):
            if not self.kill_once(self.training(run), state, kill == 0):
                break
        self.run(self.training(run))
        for name in ("whole", run):
            if not (self.folder / name / "model" / "model.safetensors").exists():
                self.faults.append(f"{name} has no model")
                return
        weights = {self._digest(name) for name in ("whole", run)}
        if len(weights) > 1:
            self.faults.append(f"{run} has other weights")
        if self._steps("whole") != self._steps(run):
            self.faults.append(f"{run} has other metrics")
        self._no_leftovers()

    def predict(self, table: str, kills: int) -> None:
        """Predict with so many kills at most, then to the end; the table must be that of the call without any."""
        for kill in range(kills):
            if not self.kill_once(self.predicting(table), None, kill == 0):
                break
        self.run(self.predicting(table))
        if self._answers("whole.csv") != self._answers(table):
            self.faults.append(f"{table} has other answers")
        self._no_leftovers()

    def _digest(self, run: str) -> str:
        return hashlib.sha256((self.folder / run / "model" / "model.safetensors").read_bytes()).hexdigest()

    def _steps(self, run: str) -> list[tuple[int, float]]:
        records = map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines())
        return [(record["step"], record["loss"]) for record in records if record["kind"] == "step"]

    def _answers(self, table: str) -> list[list[str]]:
        path = self.folder / table
        return [row[:4] for row in csv.reader(path.read_text().splitlines())] if path.exists() else []

    def _no_leftovers(self) -> None:
        left = [str(path.relative_to(self.folder)) for path in self.folder.rglob("*.part*")]
        if left:
            self.faults.append(f"left over: {', '.join(left)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    end, rounds = time.monotonic() + 60 * options.minutes, 0
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), random.Random(options.seed))
        soak.prepare()
        while time.monotonic() < end and len(soak.faults) < 20:
            soak.train(f"run-{rounds}", kills=6)
            soak.train(f"saved-{rounds}", kills=3, saving=True)
            soak.predict(f"table-{rounds}.csv", kills=3)
            rounds += 1
    for fault in soak.faults:
        print(fault)
    told = ", ".join(f"{count} while {what}" for what, count in soak.kills.items()) or "none"
    print(f"{rounds} rounds, killed: {told}; {len(soak.faults)} faults")
    return int(bool(soak.faults))


if __name__ == "__main__":
    sys.exit(main())
