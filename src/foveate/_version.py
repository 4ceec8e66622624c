"""Version of foveate, and nothing else, so that every file may say it."""

__all__ = ["__version__"]

__version__ = "0.1.0"
