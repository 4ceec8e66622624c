"""Training and evaluation: import from `foveate.config.training`, `.loop` and `.evaluation`.

Nothing is re-exported, so that `foveate.config.training` stays free of torch.
"""

__all__: list[str] = []
