"""Data sets: where images and labels come from, and which images train, validate and test.

A data set is anything with `classes`, `multi_label`, `examples` and `open(index)`, which gives a
`foveate.images.Source` and reads no pixel (the protocol `ImageDataset`). Every example has an id, which names it in
draws and reports, a label, a split and a group, which no split divides. One that knows what lies where has
`objects(index)` as well: ground truth, by which attention is judged and never trained.

| file                         | what is in it                                                                        |
| ---------------------------- | ------------------------------------------------------------------------------------ |
| types.py                     | `Example`, and the protocol `ImageDataset`                                           |
| open.py                      | `open_dataset`: settings → data set with all splits; where a new source is added     |
| splits.py                    | train, validation and test splits, k folds, groups that cross splits                 |
| stratify.py                  | iterative stratification of grouped, multi-label examples, on which splits.py stands |
| manifest/rows.py, folders.py | a CSV file, or class folders, as rows with their faults                              |
| manifest/dataset.py          | `read_manifest`: rows → data set                                                     |
| manifest/objects.py          | ground truth beside a manifest: objects.csv                                          |
| manifest/check.py, report.py | `foveate data check`: what is wrong with a manifest, and how it is told              |
| manifest/write.py            | manifests and image files, written; a stopped call is resumed                        |
| megapixel_mnist/dataset.py   | Megapixel MNIST: canvases of digits among noise, of any size                         |
| megapixel_mnist/digits.py    | the digits: scikit-learn's, MNIST, or an .npz file                                   |
| megapixel_mnist/strokes.py   | the noise strokes, and the random stream of everything drawn                         |
| published/circuit_boards.py  | circuit boards of any size, put together of the tiles and defects of DeepPCB          |
| published/deep_pcb.py        | DeepPCB: pairs of pictures, and boxes of defects                                     |
| published/archive.py         | files of a published folder or zip archive                                           |
| published/colon_cancer.py    | CRCHistoPhenotypes: is there an epithelial nucleus                                   |
| published/swedish.py         | Swedish Traffic Signs; published/download.py fetches it                              |
| published/german.py          | German Traffic Sign Detection Benchmark                                              |
| published/scenes.py          | what these two read: road scenes with speed limits, and images made smaller          |
"""

from foveate.datasets.manifest.dataset import ManifestDataset, read_manifest
from foveate.datasets.megapixel_mnist.dataset import MegapixelMnist, megapixel_mnist
from foveate.datasets.open import open_dataset
from foveate.datasets.published.circuit_boards import CircuitBoards, circuit_boards
from foveate.datasets.published.colon_cancer import ColonCancer, colon_cancer
from foveate.datasets.published.german import german_speed_limits
from foveate.datasets.published.scenes import SignScenes
from foveate.datasets.published.swedish import swedish_traffic_signs
from foveate.datasets.splits import fill_splits, k_folds

__all__ = [
    "CircuitBoards",
    "ColonCancer",
    "ManifestDataset",
    "MegapixelMnist",
    "SignScenes",
    "circuit_boards",
    "colon_cancer",
    "fill_splits",
    "german_speed_limits",
    "k_folds",
    "megapixel_mnist",
    "open_dataset",
    "read_manifest",
    "swedish_traffic_signs",
]
