"""Wrappers: sources that make something else of another source's pixels."""
