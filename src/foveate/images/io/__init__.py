"""Bytes of files, here or elsewhere, of which only what is asked for is read."""
