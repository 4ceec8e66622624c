"""Manifests: your own images, listed in a CSV file or sorted into class folders."""
