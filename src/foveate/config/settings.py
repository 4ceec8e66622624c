"""Settings of data and models: a frozen dataclass each, the same in Python, in YAML and as flags.

The string under each field is its help text. Nothing here imports torch.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from foveate.config.heads import HeadSettings, MilSettings
from foveate.config.resolutions import ScaleSettings, ZoomSettings
from foveate.config.rivals import GmicSettings, PerturbedSettings
from foveate.errors import ConfigError
from foveate.hooks import Own
from foveate.types import Size

Method = Literal["iid", "des_raj", "priority", "murthy", "uniform", "top"] | Own
"""How cells are drawn; see `foveate.sampling.draw`."""

ModelName = (
    Literal[
        "attention-sampling",
        "uniform",
        "cnn",
        "deep-mil",
        "ips",
        "evidence",
        "multi-scale",
        "zoom",
        "top-k",
        "perturbed-top-k",
        "gmic",
    ]
    | Own
)
"""Models; see `foveate.models.build`."""


@dataclass(frozen=True)
class ViewSettings:
    """View: the low-resolution image a model looks at first; set exactly one of the three."""

    longest_side: int | None = None
    """Longest side of the view, in pixels; smaller images are not enlarged."""
    scale: float | None = None
    """View pixels per full-resolution pixel, in (0, 1]."""
    mpp: float | None = None
    """Microns per pixel of the view; needs images whose microns per pixel are known."""


@dataclass(frozen=True)
class GuideSettings:
    """Masks, missing data and tissue: what is made of what is known of an image's parts before any network looks."""

    given: Literal["mask", "prior", "ignore"] = "mask"
    """Parts without data (nodata) and outside the manifest's mask: "mask" never looks there, "prior" lowers their
    logits, "ignore" treats them like any other. What is missing is never seen, whatever this says."""
    tissue: Literal["mask", "prior", "ignore"] = "ignore"
    """The same of parts that are no tissue, which is told by colour (Otsu's threshold on saturation, H&E)."""
    strength: float = 4.0
    """By how much "prior" lowers the logits, in nats: 4 makes a draw there 50 times less likely."""


@dataclass(frozen=True)
class InputSettings:
    """Preprocessing: what a model makes of the pixels it is given, the same in training and in prediction."""

    colour: Literal["auto", "rgb", "grey"] = "auto"
    """"rgb" and "grey" convert; "auto" takes grey images as RGB where the training images have both."""
    bands: tuple[int | str, ...] = ()
    """Bands to use, in this order, by number, 0 the first of the file, or by name: [red, nir]; all if empty."""
    normalise: Literal["auto", "none", "bands", "image"] = "auto"
    """"auto" is "none" for 8-bit grey and RGB, else "bands", for nobody knows the range. "bands" subtracts each band's
    mean and divides by its standard deviation, measured on the training images and kept with the model. "none" divides
    uint8 by 255, uint16 by 65535, and takes others as they are. "image" takes each image's own mean and deviation:
    where light or stain differ from image to image and mean nothing."""
    mpp: float | None = None
    """Microns per pixel that every image is brought to, so that a patch of p pixels is p · mpp microns wide, whatever
    the scanner; needs images whose microns per pixel are known. None takes images as they are."""
    guide: GuideSettings = field(default_factory=GuideSettings)
    """What is made of masks, missing data and tissue."""


@dataclass(frozen=True)
class AttentionSettings:
    """Attention network, which turns a view into one logit per cell."""

    widths: tuple[int, ...] = (8, 8)
    """Channels of the hidden 3×3 convolutions."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Nonlinearity of the hidden convolutions."""
    padding: Literal["same", "valid"] = "same"
    """"same" keeps the view's size; "valid" gives up the border the receptive field cannot cover."""
    stride: int | None = None
    """View pixels per cell, pooled; 1 pools nothing. None is about half a patch, or 1 if microns set the view."""
    pool: Literal["max", "mean", "strided"] = "max"
    """How view pixels become cells: "max" and "mean" pool the logits over a cell; "strided" takes strides in the first
    convolution, which is cheaper, and lets a cell know its neighbours. It needs padding "same"."""
    smoothing: float = 1e-5
    """Share of uniform probability mixed into the attention, over valid cells."""
    name: str = "convolutional"
    """"convolutional": foveate's own, from pixels; or "timm:NAME": evidence read off the maps of a pretrained backbone,
    which `training.find` teaches; or your own (docs/hooks.md). `widths` to `pool` are the first's, but for `stride`."""
    weights: str | None = None
    """Pretrained weights of a backbone, as `features.weights`."""
    stages: tuple[int, ...] = (3, 4)
    """Stages of a backbone whose maps are averaged over each cell: s is its last map of stride 2^s."""
    maxima: bool = False
    """Whether a cell has the maxima of these maps beside their averages: for what is much smaller than a cell."""
    hidden: int = 64
    """Width of the hidden layer between a cell's features and its evidence."""
    dropout: float = 0.2
    """Dropout of that layer and of its inputs, in training."""
    members: int = 1
    """Small networks whose evidence is averaged; `training.find` sets it to the starts that have not failed."""
    frozen: bool = True
    """Leave the backbone as it is: what it says of an image is computed once and kept (`data.cache`)."""
    runtime: Literal["auto", "torch", "onnxruntime"] = "auto"
    """What computes a frozen backbone on a CPU: "onnxruntime" takes half the time where foveate[onnx] is installed
    (torch is used elsewhere); "auto" is that for training views of 100 million pixels together, or more."""
    learning_rate: float | None = None
    """Peak learning rate of the attention network; that of the others if None."""


@dataclass(frozen=True)
class EvidenceSettings:
    """Evidence: how what speaks for something in single cells becomes an answer for the image."""

    top: float = 3.0
    """k, cells with the most evidence, whose mean is the image's; below 1 a share of all, from 1e9 on all, alike."""
    background: str | None = None
    """Class that shows nothing, against which evidence is sought; None seeks that of all. `data.background` sets it."""
    share: float = 0.0
    """Share w of the first answer, evidence as it was found, in the answers of attention sampling: its logits are
    (1 − w) times those of the patches and w times those of the evidence. `training.find.share` sets it."""


@dataclass(frozen=True)
class PriorSettings:
    """Prior of the attention: what it knows before it has learnt anything."""

    contrast: float = 0.0
    """Strength α of the contrast prior α·log((σ_i + ε) / mean(σ + ε)); 0 switches it off."""
    epsilon: float = 1e-2
    """ε of the contrast prior, as a share of the view's valid range."""


@dataclass(frozen=True)
class FeatureSettings:
    """Feature network, which turns a full-resolution patch into a feature vector of constant norm."""

    name: str = "convolutional"
    """A feature network: "convolutional", "residual", one of the paper's ("megapixel-mnist-paper",
    "speed-limits-paper", "colon-cancer-paper"), "timm:NAME", or "package.module:function", which is called
    with the number of channels and gives an nn.Module of your own."""
    width: int = 32
    """Channels of the default networks."""
    norm: float = 16.0
    """Euclidean norm of every feature vector; 1 starves the classifier of gradient."""
    pretrained: bool = True
    """Start a timm network from its pretrained weights."""
    weights: str | None = None
    """Pretrained weights of a timm network: null for those that timm downloads, "bundled" for those that are installed
    with foveate (timm:tf_efficientnet_lite0), or a path to a .safetensors file or a state dict."""
    stages: tuple[int, ...] = ()
    """Stages of a timm network that features are taken from, side by side: s is its last map of stride 2^s, 0 its own
    last features, which it is alone if empty. "timm:tf_efficientnet_lite0" has stages 1 to 5 of 16, 24, 40, 112, 320
    numbers, and 1280 last features. Layers that no stage needs are dropped."""
    pool: Literal["mean", "max", "both"] = "mean"
    """How a stage's map becomes one vector: its mean, its maximum, or one after the other."""
    frozen: bool = False
    """Leave the feature network as it is, and train the rest. What it says of a patch of an unchanged image is then
    computed once, and kept in memory."""
    enlarge: float = 1.0
    """Factor by which patches are enlarged, bilinearly, for a feature network that tells more of more pixels."""
    project: int = 0
    """Features that a trained layer makes of a network's own, which it sees standardised; 0 leaves these as they are.
    With a pretrained network it is what keeps few labels from being learnt by heart."""
    dropout: float = 0.0
    """Dropout of the inputs of that layer, in training."""
    frozen_stages: int = 0
    """Leave a timm network as it is up to this stage, and train what comes after it; 0 trains all of it."""
    batch_norm: Literal["batch", "running"] = "batch"
    """Statistics of BatchNorm while the feature network is trained: those of a batch, or always the stored ones, so
    that no image is seen differently for those beside it."""
    learning_rate: float | None = None
    """Peak learning rate of the feature network; that of the others if None."""


@dataclass(frozen=True)
class ModelSettings:
    """Model: a classifier of large images."""

    RETIRED: ClassVar[dict[str, Any]] = {"gradient": "exact"}
    name: ModelName = "attention-sampling"
    """Which model: attention sampling (ATS-N), uniform sampling (U-N), one network over the whole view (CNN), attention
    over all patches of a grid (Deep MIL) or over the best of them (ips), evidence of the view's cells, attention that
    chooses how large as well as where (multi-scale), attention level by level (zoom), or a rival (docs/rivals.md): the
    most attended patches (top-k), mixtures of what may be these (perturbed-top-k), or patches of saliency maps
    (gmic)."""
    input: InputSettings = field(default_factory=InputSettings)
    """What is made of the pixels before anything else."""
    view: ViewSettings = field(default_factory=lambda: ViewSettings(longest_side=512))
    """The low-resolution view."""
    patch: Size = (100, 100)
    """(height, width) of a patch, in full-resolution pixels; with `input.mpp`, in pixels of that size."""
    patches: int = 10
    """Patches read per image and draw."""
    method: Method = "murthy"
    """How cells are drawn in training and, unless told otherwise, in prediction."""
    baseline: Literal["leave-one-out", "none"] = "leave-one-out"
    """Baseline of the attention's gradient in training."""
    control: bool = False
    """Learnt control variate: features of patches are foretold from the cells of the view, and only what they differ by
    is estimated by draws. It saves draws, and changes no expectation; it needs an attention network with a backbone."""
    attention: AttentionSettings = field(default_factory=AttentionSettings)
    """The attention network."""
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    """What evidence of cells says of an image, where the attention network gives any."""
    prior: PriorSettings = field(default_factory=PriorSettings)
    """The prior added to the attention logits."""
    features: FeatureSettings = field(default_factory=FeatureSettings)
    """The feature network."""
    head: HeadSettings = field(default_factory=HeadSettings)
    """How patches become one vector, and that the classes."""
    mil: MilSettings = field(default_factory=MilSettings)
    """Grid of all patches and, of Deep MIL, its attention."""
    scales: ScaleSettings = field(default_factory=ScaleSettings)
    """How large patches of the model multi-scale are."""
    zoom: ZoomSettings = field(default_factory=ZoomSettings)
    """The levels of the model zoom."""
    perturbed: PerturbedSettings = field(default_factory=PerturbedSettings)
    """The noise of the model perturbed-top-k."""
    gmic: GmicSettings = field(default_factory=GmicSettings)
    """The saliency maps of the model gmic."""

    @property
    def own_code(self) -> tuple[str, ...]:
        """Functions that would be imported and called to build it: none of a model of foveate's and timm's networks."""
        names = (self.features.name, self.attention.name, self.method, self.name)
        return tuple(name for name in names if ":" in name and not name.startswith("timm:"))


@dataclass(frozen=True)
class DataSettings:
    """Data: where images and labels come from."""

    source: Literal[
        "manifest", "megapixel-mnist", "circuit-boards", "colon-cancer", "speed-limits", "german-speed-limits"
    ] = "manifest"
    """"manifest": your images (see `manifest`); "megapixel-mnist": canvases generated from handwritten digits;
    "circuit-boards": boards generated from the tiles and defects of DeepPCB (see `published`); the others are published
    data sets (see `published`)."""
    manifest: str | None = None
    """A CSV file (path,label[,split][,group][,mpp]) or a folder with one folder per class."""
    columns: tuple[str, ...] = ()
    """Other names of the manifest's columns: slide_id=path patient=group."""
    images: str | None = None
    """Folder that the manifest's paths are relative to; its own if None."""
    published: str | None = None
    """Where the files of a published data set lie: a folder, or the zip file of colon cancer or of DeepPCB."""
    multi_label: bool = False
    """Whether an image may have several labels, or none: in a manifest, separated by |."""
    background: str | None = "auto"
    """The class of images that show nothing, such as "none" or "ok", against which evidence is sought first; "auto"
    looks for such a name and says what it found, null seeks evidence of every class."""
    allow_crossing_groups: bool = False
    """Accept groups with images in training and in test, whose test error then says little."""
    validation: float = 0.1
    """Share of the training images held out to choose the model, where the data name no validation split."""
    test: float = 0.2
    """Share of the images held out for testing, where the data name no test split."""
    digits: str = "bundled"
    """Handwritten digits to generate from: "bundled" (scikit-learn's), "mnist" (downloaded once), or an .npz file."""
    canvas: Size = (1500, 1500)
    """(height, width) of a generated canvas."""
    board: Size = (2560, 2560)
    """(height, width) of a generated circuit board; at least those of a tile, 640 640."""
    channels: Literal[1, 3] = 1
    """Channels of a generated canvas: 1 is grey, 3 is the same written as RGB."""
    train_images: int = 5000
    """Generated training canvases or boards, validation included."""
    test_images: int = 1000
    """Generated test canvases or boards, from digits or tiles that no training image shows."""
    noise: int = 50
    """Noise strokes per canvas."""
    noise_over_digits: bool = True
    """True pastes strokes over digits, as the original code; False under them, as its successors."""
    strokes: Literal["bank", "fresh", "varied"] = "bank"
    """"bank" chooses them from fifty for training and fifty for testing, as published; "fresh" draws every canvas its
    own, so that none can be learnt by heart; "varied" does so, and two thirds of them are of other kinds."""
    generator_seed: int = 0
    """Seed of the generated canvases or boards; a seed determines every pixel."""
    cache: Literal["off", "memory", "disk"] = "disk"
    """What is kept of images from epoch to epoch: "memory" keeps their views; "disk" also what JPEG, PNG and the like
    are decoded to, for the next run, too; "off" neither, but for what was decoded last. No result depends on it."""
    cache_folder: str | None = None
    """Where "disk" keeps it; "images" in $FOVEATE_CACHE, or in the user's cache folder, if None."""
    cache_gigabytes: float = 50.0
    """Most that may lie there, in 10⁹ bytes; the least recently used make room, and some of the disk stays free."""
    memory_gigabytes: float = 1.0
    """Most memory for decoded images and for views, in 10⁹ bytes a process."""
    tile_gigabytes: float = 0.25
    """Most memory for decoded tiles, in 10⁹ bytes a process."""

    def __post_init__(self) -> None:
        for name in ("cache_gigabytes", "memory_gigabytes", "tile_gigabytes"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"data.{name} must be 0 or more, got {getattr(self, name)}: set it to e.g. 1.0")
