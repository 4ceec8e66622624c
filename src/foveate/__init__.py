"""Train and run image classifiers on images too large for a network, by attention sampling."""

__version__ = "0.1.0"
