"""`foveate doctor`: check this installation."""

import argparse
import json
from dataclasses import asdict

from foveate.cli.health import Check, State, checks

__all__ = ["EPILOG", "SUMMARY", "add_arguments", "run"]

SUMMARY = "check this installation and say what to do about what is wrong"

EPILOG = "The exit code is 0 if all is well, 2 if something needs your hand, 1 if foveate itself computes wrongly."

COLOURS: dict[State, str] = {"ok": "green", "absent": "dim", "low": "yellow", "wrong": "red", "fault": "red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `foveate doctor` takes."""
    parser.add_argument("--json", action="store_true", help="print one JSON object a check, one a line")


def run(arguments: argparse.Namespace) -> int:
    """Print every check, and say by the exit code whether all is well."""
    report = list(checks())
    if arguments.json:
        print("\n".join(json.dumps(asdict(check)) for check in report))
    else:
        _print_table(report)
    states = {check.state for check in report}
    return 1 if "fault" in states else 2 if "wrong" in states else 0


def _print_table(report: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", "what to do")
    for check in report:
        table.add_row(check.name, Text(check.state, COLOURS[check.state]), Text(check.found), Text(check.remedy))
    Console().print(table)
