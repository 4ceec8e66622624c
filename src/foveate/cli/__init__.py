"""Command line: one file per verb, none of which imports torch before it runs."""

from foveate.cli.dispatch import VERBS, main
from foveate.cli.parser import Parser

__all__ = ["VERBS", "Parser", "main"]
