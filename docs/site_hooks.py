"""Hooks of the site: pages that foveate itself can tell, its verbs and its settings; and equations without scripts."""

import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from latex2mathml.converter import convert

from foveate.cli import VERBS, main
from foveate.cli.data import ACTIONS
from foveate.config.flags import list_settings

GENERATED = "reference/command-line.md", "reference/settings.md"
SETTINGS_BEGIN = "Everything that determines a run:"
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAYED = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for name, text in zip(GENERATED, (command_line(), settings()), strict=True):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(page_html: str, **_: Any) -> str:
    """Turn equations into MathML, which browsers draw by themselves."""
    page_html = INLINE.sub(lambda found: convert(html.unescape(found[1])), page_html)
    return DISPLAYED.sub(lambda found: convert(html.unescape(found[1]), display="block"), page_html)


def command_line() -> str:
    """Page of every verb's help."""
    parts = [
        "# Command line",
        "What `foveate VERB --help` prints. The flags of settings are on [a page of their own](settings.md).",
    ]
    for verb, summary in VERBS.items():
        parts += [f"## foveate {verb}", f"{summary[0].upper()}{summary[1:]}.", f"```text\n{help_of(verb)}\n```"]
        if verb == "data":
            for action in ACTIONS:
                parts += [f"### foveate data {action}", f"```text\n{help_of(verb, action)}\n```"]
    return "\n\n".join(parts) + "\n"


def help_of(*words: str) -> str:
    """Help of a verb, without the settings that it takes as flags."""
    printed = io.StringIO()
    with redirect_stdout(printed), _columns(100):
        main([*words, "--help"])
    return printed.getvalue().split(SETTINGS_BEGIN)[0].strip()


@contextmanager
def _columns(width: int) -> Iterator[None]:
    """Terminal of so many columns, wherever the site is built."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    yield
    os.environ.pop("COLUMNS")
    if before is not None:
        os.environ["COLUMNS"] = before


def settings() -> str:
    """Page of every setting, its type, default and meaning, section by section."""
    parts = [
        "# Settings",
        "Keys of a configuration file and, with two dashes, flags of `foveate train`: of the key `model.patches` the "
        "flag `--model.patches 10`.",
    ]
    rows: list[str] = []
    for key, one in list_settings().items():
        if hasattr(one.default, "__dataclass_fields__"):
            parts += ["\n".join(rows)] if rows else []
            parts += [f"## {key}", _escaped(one.text), "| key | default | what |\n|---|---|---|"]
            rows = []
        else:
            parts_of_row = f"`{key}`", f"`{_plain(one.default)}`", _escaped(one.text)
            row = f"| {' | '.join(parts_of_row)} |"
            if len(parts) == 2:
                parts.append("| key | default | what |\n|---|---|---|")
            parts[-1] += f"\n{row}"
    return "\n\n".join(parts) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


def _escaped(text: str) -> str:
    """Help text that says nothing to Markdown."""
    return re.sub(r"[|\[\]<]", r"\\\g<0>", text)
