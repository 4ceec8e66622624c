"""Training says when its attention stays wrong, once, and keeps it in metrics.jsonl."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from foveate.config.settings import AttentionSettings, DataSettings, ModelSettings, ViewSettings
from foveate.config.training import RunSettings, TrainingSettings
from foveate.sampling import REMEDIES
from foveate.training.loop import train
from foveate.training.progress import LineProgress

SETTINGS = RunSettings(
    data=DataSettings(
        source="megapixel-mnist", canvas=(120, 170), train_images=16, test_images=2, noise=2, validation=0.25
    ),
    model=ModelSettings(
        view=ViewSettings(scale=0.25), patch=(30, 26), patches=3, attention=AttentionSettings(widths=(4,), stride=4)
    ),
    training=TrainingSettings(epochs=3, batch=8, learning_rate=1e-6),
)


def test_an_attention_that_stays_uniform_is_said_once_and_kept_every_epoch(tmp_path: Path) -> None:
    stream = io.StringIO()
    train(SETTINGS, tmp_path / "run", progress=LineProgress(stream))
    lines = stream.getvalue().splitlines()
    warned = [line for line in lines if line.startswith("warning: ")]
    assert len(warned) == 1
    assert [line.split()[0] for line in lines[lines.index(warned[0]) - 2 :]] == ["epoch", "epoch", "warning:", "epoch"]
    assert warned[0].startswith("warning: in 3 of 3 images attention is as good as uniform, it is spread over ")
    assert warned[0].endswith(REMEDIES["uniform"])
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["kind"] == "epoch"]
    assert [list(record["attention_warnings"]) for record in epochs] == [["uniform"]] * 3


@pytest.mark.parametrize("name", ["cnn", "uniform"])
def test_a_model_without_attention_is_not_judged(name: str, tmp_path: Path) -> None:
    stream = io.StringIO()
    model = replace(SETTINGS.model, name=name)
    train(replace(SETTINGS, model=model), tmp_path / "run", progress=LineProgress(stream))
    assert "warning" not in stream.getvalue()
