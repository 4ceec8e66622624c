"""Export of trained models to ONNX and torch.export: graphs and weights that need no foveate.

A model of foveate looks, reads and answers, so what travels is three graphs, between which somebody else reads images:

======  ======================================  ==============================================
graph   takes                                   gives
======  ======================================  ==============================================
view    view (B, C, h, w) in the unit range     log_prob (B, rows, columns): log attention
        guide (B, h, w): 0 anywhere, −inf       over the cells, prior, masks and smoothing
        never, below 0 for less                 as the model has them; first (B, classes),
        footprint (2): (height, width) of a     foretold (B, K, D) of models that have them
        patch in view pixels
patch   patches (M, C, height, width)           features (M, D)
head    log_prob, index (B, S, n) drawn,        probabilities (B, classes), averaged over
        features (B, S, n, D); threshold,       S draws; weights (B, S, n) of the cells
        first, foretold where there are such
======  ======================================  ==============================================

Models that read no patch (`cnn`, `evidence`) are the view graph alone, which gives probabilities; deep MIL, which has
no view, is a patch graph and a head of features (B, K, D) and read (B, K). Normalisation of bands is in the graphs.
Numbers of images, draws and patches are free, and so are the sizes of views, where a model's layers allow it.

A seed becomes draws as it does in foveate on a CPU: `predict.py` makes the numbers of torch's generator with NumPy, so
the patches of a seed are the same; with method "top" there is nothing to draw. Probabilities agree within 1e-4.

- `graphs.py`: what each graph computes, by the model's own layers
- `dynamic.py`: what models do with sizes that are numbers, for sizes that are none yet
- `write.py`: the files, `preprocess.json` and the program `predict.py` beside them
"""

from foveate.export.graphs import graphs_of
from foveate.export.write import ExportedModel, export_model, preprocess, program, push_to_hub

__all__ = [
    "ExportedModel",
    "export_model",
    "graphs_of",
    "preprocess",
    "program",
    "push_to_hub",
]
