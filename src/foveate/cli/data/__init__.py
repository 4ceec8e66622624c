"""`foveate data ACTION`: make data sets, check manifests, split them; a module per action."""

from foveate.cli.data.actions import ACTIONS, EPILOG, SUMMARY, add_arguments, run

__all__ = ["ACTIONS", "EPILOG", "SUMMARY", "add_arguments", "run"]
