"""Training and evaluation: import from `foveate.training.config`, `.loop` and `.evaluation`.

Nothing is re-exported, so that `foveate.training.config` stays free of torch.
"""

__all__: list[str] = []
