"""Flags of settings: what is taken, as it was when jsonargparse took it, and what is said of the rest."""

from typing import Any

import pytest

from foveate.cli.train import read_arguments
from foveate.config.files import preset
from foveate.config.flags import list_settings
from foveate.config.serial import to_plain
from foveate.errors import ConfigError


def changed(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in after.items():
        if isinstance(value, dict):
            found |= changed(before[key], value, f"{prefix}{key}.")
        elif (value, type(value)) != (before[key], type(before[key])):
            found[prefix + key] = value
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # several values
        (["--model.patch", "50", "60"], {"model.patch": [50, 60]}),
        (["--model.patch=[50,60]"], {"model.patch": [50, 60]}),
        (["--model.patch", "[50, 60]"], {"model.patch": [50, 60]}),
        (["--model.patch", "[50", "60]"], {"model.patch": [50, 60]}),
        (["--model.patch", "50,60"], {"model.patch": [50, 60]}),
        (["--model.patch", "[50,60]", "--seed", "1"], {"model.patch": [50, 60], "seed": 1}),
        (["--model.attention.widths"], {"model.attention.widths": []}),
        (["--model.attention.widths", "[]"], {"model.attention.widths": []}),
        (["--model.attention.widths", "8"], {"model.attention.widths": [8]}),
        (["--augment.bias", "-0.1", "0.1"], {"augment.bias": [-0.1, 0.1]}),
        (["--augment.bias", "-1e-3", "1e-3"], {"augment.bias": [-0.001, 0.001]}),
        (["--augment.bias", "[-.1, 1e-2]"], {"augment.bias": [-0.1, 0.01]}),
        (["--model.head.order", "0", "1", "low"], {"model.head.order": ["0", "1", "low"]}),
        (["--model.head.order", "[0, 1]"], {"model.head.order": ["0", "1"]}),
        (["--augment.gain", "1", "2"], {"augment.gain": [1.0, 2.0]}),
        # null
        (["--training.max_steps", "null"], {"training.max_steps": None}),
        (["--training.max_steps=~"], {"training.max_steps": None}),
        (["--data.manifest", "null"], {}),
        (["--data.digits", "null"], {"data.digits": "null"}),
        (["--model.baseline", "none"], {"model.baseline": "none"}),
        # true and false
        (["--augment.flip", "true"], {"augment.flip": True}),
        (["--augment.flip=True"], {"augment.flip": True}),
        (["--augment.flip", "yes"], {"augment.flip": True}),
        (["--model.features.pretrained", "off"], {"model.features.pretrained": False}),
        # numbers
        (["--training.learning_rate", "1e-5"], {"training.learning_rate": 1e-5}),
        (["--training.learning_rate=.1"], {"training.learning_rate": 0.1}),
        (["--training.learning_rate", "1"], {"training.learning_rate": 1.0}),
        (["--training.epochs", "010"], {"training.epochs": 10}),
        (["--training.epochs", "0x10"], {"training.epochs": 16}),
        (["--training.epochs", "1_001"], {"training.epochs": 1001}),
        (["--training.anneal.prior.first", "2"], {"training.anneal.prior.first": 2.0}),
        (["--training.anneal.prior.first", "-2"], {"training.anneal.prior.first": -2.0}),
        (["--data.channels", "1"], {"data.channels": 1}),
        # words
        (["--training.mixed_precision", "no"], {}),
        (["--training.mixed_precision", "bf16"], {"training.mixed_precision": "bf16"}),
        (["--data.digits", "123"], {"data.digits": "123"}),
        (["--data.digits", "[a, b]"], {"data.digits": "[a, b]"}),
        (["--data.digits="], {"data.digits": ""}),
        (["--model.features.name", "my.module:function"], {"model.features.name": "my.module:function"}),
        (["--model.features.name", "a: b"], {"model.features.name": "a: b"}),
        # one after another
        (["--seed", "1", "--seed", "2"], {"seed": 2}),
        (["--model", "{patches: 5}", "--model.patch", "3", "4"], {"model.patches": 5, "model.patch": [3, 4]}),
        (["--model", "{patches: 5}", "--model.patches", "6"], {"model.patches": 6}),
        (["--model.patches", "6", "--model", "{patches: 5}"], {"model.patches": 5}),
        # sections
        (["--model", '{"patches": 5}'], {"model.patches": 5}),
        (["--model=patches: 5"], {"model.patches": 5}),
        (["--model", "{}"], {}),
        (["--model", "{view: {scale: 0.5}}"], {"model.view.longest_side": None, "model.view.scale": 0.5}),
        (["--model", "{view.scale: 0.5}"], {"model.view.longest_side": None, "model.view.scale": 0.5}),
        (
            ["--model", "{features: {width: 3}}", "--model", "{features: {norm: 3}}"],
            {"model.features.width": 3, "model.features.norm": 3.0},
        ),
        (["--training.anneal", "{prior: {first: 2}}"], {"training.anneal.prior.first": 2.0}),
        (["--training", "{learning_rate: 1e-5}"], {"training.learning_rate": 1e-5}),
    ],
    ids=" ".join,
)
def test_what_was_taken_is_taken(words: list[str], expected: dict[str, Any]) -> None:
    _, settings = read_arguments(["smoke", *words])
    assert changed(to_plain(preset("smoke")), to_plain(settings)) == expected


def test_a_preset_may_come_last() -> None:
    assert read_arguments(["--seed", "1", "smoke"])[1] == read_arguments(["smoke", "--seed=1"])[1]


def test_two_halves_of_a_setting_are_checked_together() -> None:
    words = ["--training.anneal.prior.hold", "0.7", "--training.anneal.prior.over", "0.3"]
    prior = read_arguments(["smoke", *words])[1].training.anneal.prior
    assert (prior.hold, prior.over) == (0.7, 0.3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.patchs", "3"], "unknown key model.patchs: did you mean model.patches?"),
        (["--model.attention.strid=3"], "unknown key model.attention.strid: did you mean model.attention.stride?"),
        (["--patches", "3"], "unknown option patches: did you mean model.patches?"),
        (["--xyz", "1"], "unknown option xyz: `foveate train --help` lists them"),
        (["--model", "{patchs: 5}"], "unknown key model.patchs: did you mean model.patches? See foveate train --help"),
        (["--model", "{patches: {a: 1}}"], "model.patches must be an integer, got {'a': 1}. See foveate train --help"),
        (["--model", "mine.yaml"], "model must be a mapping of keys to values, got 'mine.yaml'. See foveate train --"),
        (["--training.epochs", "many"], "training.epochs must be an integer, got 'many'. See foveate train --help"),
        (["--training.epochs", "5.5"], "training.epochs must be an integer, got 5.5. See foveate train --help"),
        (["--training.epochs", ""], "training.epochs must be an integer, got ''. See foveate train --help"),
        (["--training.epochs"], "--training.epochs: expected one argument. See foveate train --help"),
        (["--training.epochs", "5", "6"], "one argument too many, '6'. See foveate train --help"),
        (["--training.learning_rate", "fast"], "training.learning_rate must be a number, got 'fast'. See foveate tr"),
        (["--augment.flip", "1"], "augment.flip must be true or false, got 1. See foveate train --help"),
        (["--model.view.scale", ""], "model.view.scale must be a number, got ''. See foveate train --help"),
        (["--model.patch", "50"], "model.patch must have 2 values, got 1: [50]. See foveate train --help"),
        (["--model.patch", "[50"], "model.patch must be a list, got '[50'. See foveate train --help"),
        (["--model.patch", "a", "b"], "model.patch[0] must be an integer, got 'a'. See foveate train --help"),
        (
            ["--training.schedule", "cosin"],
            "training.schedule must be one of one-cycle, cosine, constant, step, got 'cosin': did you mean cosine? "
            "See foveate train --help",
        ),
        (["--folds", "x"], "--folds: invalid int value: 'x'. See foveate train --help"),
        (["--resume=1"], "--resume: ignored explicit argument '1'. See foveate train --help"),
        (["-x"], "unknown option -x. See foveate train --help"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_fault_is_one_line_that_names_the_key(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_arguments(["smoke", *words])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_every_setting_has_its_help_its_type_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_arguments(["--help"])
    _, printed = " ".join(capsys.readouterr().out.split()).split("Everything that determines a run:")
    for key, setting in list_settings().items():
        assert setting.text, key
        assert (f"--{key} " in printed) is not isinstance(to_plain(setting.default), dict), key
    assert "--model.view.scale NUMBER|null View pixels per full-resolution pixel, in (0, 1]. (default: null)" in printed
    assert "--model.patch INTEGER INTEGER (height, width) of a patch" in printed
    assert "--model.attention.widths INTEGER … Channels of the hidden 3×3 convolutions. (default: 8 8)" in printed
    assert "--training.optimizer {adam,adamw,sgd} Adam, AdamW, or" in printed
    assert (
        "--augment.flip {true,false} Flip upside down and left to right, each with probability ½. (default: f"
        in printed
    )
