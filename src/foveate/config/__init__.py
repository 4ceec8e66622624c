"""Configuration: one frozen dataclass is the Python object, the YAML file and the flags."""
