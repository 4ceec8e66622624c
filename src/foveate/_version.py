"""Version of foveate, and nothing else, so that every file may say it."""

__version__ = "0.1.0"
