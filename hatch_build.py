"""Puts OpenSeadragon, the deep zoom of `foveate view`, into what is built; without npm or a network it is left out."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class OpenSeadragonHook(BuildHookInterface):
    """Takes it from the source tree, from its package beside this file, or from npm, in that order."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Fetch it, unless this is an editable installation, which must not wait for a network.

        Arguments:
            version: what is built: "standard" or "editable".
            build_data: what hatchling is told; nothing has to be.
        """
        if version == "editable":
            return
        root = Path(self.root)
        tool = runpy.run_path(str(root / "src" / "foveate" / "view" / "openseadragon.py"))
        if tool["is_there"]():
            return
        archive = root / tool["ARCHIVE"]
        try:
            tool["fetch"](archive=archive if archive.is_file() else None)
        except OSError as error:
            self.app.display_warning(f"foveate view is left without its page: {error}")
