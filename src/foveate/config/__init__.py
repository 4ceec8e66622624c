"""Configuration: one frozen dataclass is the Python object, the YAML file and the flags.

`settings` and `augment` hold what may be set about data, models and augmentation, `training` about a run; the string
under a field is its help. `serial` turns dataclasses into plain values and back, and is the only place where types are
checked; `files` reads, merges and saves YAML, and knows the presets; `flags` makes argparse's flags of the same fields.
"""
