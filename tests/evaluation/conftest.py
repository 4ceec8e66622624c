"""The task of squares, which the tests of this folder share with those of its neighbours."""

from squares import colours, plain_run, settings_of, squares, squares_of, tensors_of, unchecked

__all__ = ["colours", "plain_run", "settings_of", "squares", "squares_of", "tensors_of", "unchecked"]
