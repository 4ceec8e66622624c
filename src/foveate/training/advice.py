"""Advice on a configuration: values for images as a survey found them and for the means at hand, with reasons."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from foveate.config.files import Value, changed_keys, merge_settings, preset
from foveate.config.flags import list_settings
from foveate.config.serial import to_plain
from foveate.config.training import RunSettings
from foveate.datasets.manifest.survey import Kind, Survey
from foveate.models.evidence import guess_background

THAWED = 0.4
"""Seconds of one core an image and epoch where the feature network learns, too: 0.27 to 0.47 on German scenes."""

SEEN = 0.28
"""Seconds of one core in which the eyes see a view of 768 × 1024 (docs/performance.md)."""

TAUGHT = 2.0
"""Minutes in which evidence is taught, of a few hundred images."""

ENOUGH = 100
"""Training images fewer than which a feature network that learns would learn them by heart."""

FINDABLE = 12
"""View pixels that a thing must measure to be found; 15 were enough for defects on photographs (docs/results.md)."""

PROCESS = 0.9
"""Gigabytes of a process that trains, before a batch is in it."""

PER_PATCH = {True: 0.0095, False: 0.032}
"""Gigabytes that a step needs for a patch that the network sees as 128 × 128, frozen or not."""

PER_VIEW = 0.10
"""Gigabytes that the eyes need for a view of 768 × 1024, one at a time and thread."""

MOST_CELLS = 8000
"""Cells of a view, at the most: evidence is taught, and kept, of all of them."""

LEAST_STEPS = 300
"""Steps of optimisation that a run should have, if the images are few."""

VALIDATION = ((300, 0.1), (100, 0.2), (0, 0.3))
"""Images from which on a share of them validates: fewer need a larger part for their error to say anything."""


@dataclass(frozen=True)
class Means:
    """Means that a run may use.

    Attributes:
        memory: in 10⁹ bytes.
        minutes: of training.
        cores: of the processor.
        smallest: pixels that the smallest thing measures that tells the classes apart; None if nobody knows.
    """

    memory: float = 8.0
    minutes: float = 60.0
    cores: int = 1
    smallest: int | None = None


@dataclass(frozen=True)
class Advice:
    """Advice on a configuration.

    Attributes:
        kind: which preset it began with.
        why: that one.
        choices: every value that is not the default, with its reason, in the order of the settings.
    """

    kind: Kind
    why: str
    choices: tuple[Value, ...]

    @property
    def settings(self) -> RunSettings:
        """The configuration."""
        nested: dict[str, Any] = {}
        for key, value, _ in self.choices:
            *sections, last = key.split(".")
            place = nested
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        return merge_settings(RunSettings(), nested)


def advise(found: Survey, means: Means, kind: Kind | None = None) -> Advice:
    """Configuration for surveyed images.

    Arguments:
        found: what is known of them; with labels.
        means: memory, time and cores.
        kind: what they are of; guessed if None.
    """
    guessed, why = found.kind
    planner = _Planner(found, means, kind or guessed)
    chosen = {key: (key, value, reason) for key, value, reason in planner.choices()}
    base = planner.base
    for key in changed_keys(RunSettings(), base):
        if key not in chosen and not key.startswith("model.view."):
            chosen[key] = key, _value(base, key), _BEHIND.get(key, f"as in the preset {planner.based_on}")
    order = {key: number for number, key in enumerate(list_settings())}
    return Advice(
        kind or guessed,
        why if kind is None else "as you said",
        tuple(sorted(chosen.values(), key=lambda one: order[one[0]])),
    )


def _value(settings: RunSettings, key: str) -> Any:
    value: Any = to_plain(settings)
    for part in key.split("."):
        value = value[part]
    return value


class _Planner:
    """Planner of one configuration: what it begins with, and what it changes."""

    def __init__(self, found: Survey, means: Means, kind: Kind) -> None:
        self.found, self.means, self.kind = found, means, kind
        known = sorted(mpp for mpp in found.mpps if mpp is not None)
        self.known = known if kind == "pathology" else []
        scaled = known[len(known) // 2] / known[-1] if len(self.known) == len(found.mpps) else 1.0  # by model.input.mpp
        self.height, self.width = (max(1, round(side * scaled)) for side in found.typical)
        self.longest = max(self.height, self.width)
        held = 0.0 if found.splits["test"] else 0.2
        self.validation = next(share for least, share in VALIDATION if found.images >= least)
        self.training = max(1, round(found.splits["train"] or found.images * (1 - held) * (1 - self.validation)))
        self.thaws, self.why = self._thaws()
        self.based_on = "photographs" if self.thaws else "manifest" if kind == "photographs" else kind
        self.base = preset(self.based_on)

    def _thaws(self) -> tuple[bool, str]:
        epochs = preset("photographs").training.epochs
        cores = min(4, self.means.cores)
        minutes, finding = epochs * self.training * THAWED / 60 / cores, TAUGHT + self.found.images * SEEN / 60 / cores
        told = f"{epochs} epochs of about {self.training} images would take about {minutes:.0f} minutes of these cores"
        if self.training < ENOUGH:
            return False, f"about {self.training} training images would be learnt by heart"
        return 2 * (self.means.minutes - finding) >= minutes, f"{told}, {self.means.minutes:g} are given"

    def choices(self) -> Iterator[Value]:
        """Every value that the data, or the means, have a say in."""
        yield from self._data()
        yield from self._input()
        yield from self._looking()
        yield from self._features()
        yield from self._training()

    def _data(self) -> Iterator[Value]:
        found = self.found
        background = None if found.multi_label else guess_background(found.classes)
        if found.multi_label:
            yield "data.multi_label", True, "labels have | between several names"
        elif background is not None:
            yield "data.background", background, "called like a class that shows nothing: evidence is against it"
        else:
            both = "either of the two is tried" if len(found.classes) == 2 else "evidence of every class is sought"
            yield (
                "data.background",
                "auto",
                f"no class is called like one that shows nothing: {both}; name it if one does",
            )
        if not found.splits["validation"]:
            n = round(self.training / (1 - self.validation) * self.validation)
            stay = f"; {found.groups} groups stay together" if found.groups else ""
            yield (
                "data.validation",
                self.validation,
                f"about {n} images choose the model, and say what it is worth{stay}",
            )
        if not found.splits["test"]:
            more = "" if found.groups else "; column group: what belongs together"
            yield "data.test", 0.2, f"about {round(0.2 * found.images)} images for foveate evaluate{more}"
        kept = round(min(1.0, self.means.memory / 8), 2)
        yield "data.memory_gigabytes", kept, "an eighth of the memory, at most 1, keeps views and features"
        if found.whole:
            yield "data.cache", "disk", f"{found.whole} of {found.looked} images are decoded whole: once, and kept"

    def _input(self) -> Iterator[Value]:
        found, channels = self.found, {c for c, _ in self.found.kinds}
        told = " and ".join(f"{n} of {t} with {c} band{'s'[: c - 1]}" for (c, t), n in sorted(found.kinds.items()))
        if found.shared_bands:
            yield "model.input.bands", list(found.shared_bands), "images differ in their bands: those that all have"
        elif len(channels) > 1 and channels <= {1, 3, 4}:
            yield "model.input.colour", "rgb", f"grey, RGB or opacity are mixed ({told}): all become RGB"
        elif len(channels) > 1:
            yield "model.input.bands", list(range(min(channels))), f"images are mixed ({told}): the bands that all have"
        plain = {t for _, t in found.kinds} <= {"uint8", "bool"} and channels <= {1, 3, 4}
        why = "the range is known" if plain else "each band by its mean and deviation over the training images"
        yield "model.input.normalise", "none" if plain else "bands", f"{told}: {why}"
        given = "neither missing data nor masks: it changes nothing"
        if found.missing or found.masks:
            given = f"{found.missing} of {found.looked} images have missing data, {found.masks} a mask: never looked at"
        yield "model.input.guide.given", "mask", given
        if self.kind == "pathology":
            yield from self._slides()

    def _slides(self) -> Iterator[Value]:
        known = self.known
        if len(known) == len(self.found.mpps):
            spread = f"{known[0]:.3g} in all" if known[-1] <= 1.01 * known[0] else f"{known[0]:.3g} to {known[-1]:.3g}"
            why = f"microns per pixel: {spread}; the coarsest, so that the scanner does not matter"
            yield "model.input.mpp", round(known[-1], 4), why
        else:
            lacking = f"microns per pixel are known of {len(known)} of {len(self.found.mpps)} images"
            yield "model.input.mpp", None, f"{lacking}: a column mpp says them where files do not"
        shares, why = sorted(self.found.tissue), "no glass is told from tissue on thumbnails: it changes nothing there"
        if shares:
            why = f"tissue covers {shares[len(shares) // 2]:.0%} of thumbnails (median of {len(shares)}): less of glass"
        yield "model.input.guide.tissue", "prior", why

    def _view(self) -> tuple[int, str]:
        """Longest side of the view, and why."""
        smallest, longest = self.means.smallest, self.longest
        wanted = 1024 if longest <= 4096 else 2048
        if smallest is not None:
            wanted = max(1024, 64 * math.ceil(FINDABLE * longest / smallest / 64))
        each = SEEN * self.height * self.width / longest**2 / 0.75 / 1024**2  # seconds, by the square of its side
        quarter = self.means.minutes * 60 / 4 * min(4, self.means.cores)
        affordable = max(512, 64 * int(math.sqrt(quarter / (self.found.images * each)) / 64))
        side = max(256, min(wanted, longest, affordable, 4096))
        told = (
            f"images are {self.height:,}×{self.width:,} in the median; 1 view pixel is {longest / side:.1f} of theirs"
        )
        if side == longest:
            return side, f"{told}: nothing is lost"
        if smallest is None and side > longest:
            return side, f"{told}: nothing is lost, and small images are made larger"
        if smallest is None:
            return side, f"{told}; enlarge it if what matters cannot be guessed at in it, or give --object PIXELS"
        short = "" if side >= wanted else f", where {FINDABLE} are wanted: more would take too long to see"
        return side, f"{told}, and {smallest} pixels are {smallest * side / longest:.0f} in it{short}"

    def _looking(self) -> Iterator[Value]:
        side, why = self._view()
        yield "model.view.longest_side", side, why
        scale, smallest, shorter = side / self.longest, self.means.smallest, min(self.height, self.width)
        patch = 64 if smallest is None else max(32, 8 * math.ceil(2 * smallest / 8))
        fine = math.sqrt(side * side * shorter / self.longest / MOST_CELLS)
        stride = max(8, 8 * math.ceil(fine / 8), min(24, 8 * round(0.75 * patch * scale / 8)))
        cell = stride / scale
        told = "about twice what tells the classes apart; 64 where that is not known"
        if smallest is not None:
            told = f"twice {smallest} pixels"
        elif cell > patch:
            patch = min(256, 8 * math.ceil(cell / 8))
            told = f"as large as a cell ({cell:.0f} pixels): nothing lies between patches"
        patch = max(16, min(patch, 320, 8 * (shorter // 16)))
        if cell > 1.5 * patch:
            told = f"a cell is {cell:.0f} pixels, of which it shows {patch}: what is smaller may be missed"
        self.patch, self.side = patch, side
        yield "model.patch", [patch, patch], told
        cells = math.ceil(self.height / cell) * math.ceil(self.width / cell)
        patches = max(1, min(10, cells))
        share = min(1.0, patches * patch**2 / (self.height * self.width))
        yield "model.patches", patches, f"of {cells:,} cells, {share:.1%} of the pixels; ten were best in equal time"
        yield "model.attention.stride", stride, f"view pixels a cell, {cell:.0f} of the image; a patch is {patch}"
        why = "none: evidence says where to look first; a contrast prior is for networks that begin with nothing"
        yield "model.prior.contrast", 0.0, why
        drawn = max(1, min(5, patches))
        yield "training.anneal.patches.first", drawn, "a step: half the cost of ten, and what they teach is unbiased"
        yield "training.anneal.patches.last", drawn, "likewise, to the end"

    @property
    def _enlarge(self) -> float:
        return 2.0 if self.patch <= 96 else 1.0

    def _features(self) -> Iterator[Value]:
        shown = f"the network sees {self.patch * self._enlarge:.0f} pixels for {self.patch}"
        yield "model.features.enlarge", self._enlarge, shown
        if not self.thaws:
            yield "model.features.frozen", True, f"{self.why}: it is left as it is, and its words are kept"
            yield "augment.flip", False, "nothing is changed: what is said of a patch is computed once"
            return
        yield "model.features.frozen_stages", 2, f"it goes on learning after its second stage: {self.why}"
        if self.kind != "photographs":
            yield "augment.patch_turn", 15.0, "no direction is up; every patch for itself, so that views are seen once"
        if self.kind == "remote-sensing":
            for key, still in (("patch_gain", [1.0, 1.0]), ("patch_bias", [0.0, 0.0]), ("patch_colour", 0.0)):
                yield f"augment.{key}", still, "unchanged: bands mean something"

    def _training(self) -> Iterator[Value]:
        base, memory, found = self.base.training, self.means.memory, self.found
        drawn = 5 * (self.patch * self._enlarge / 128) ** 2 * PER_PATCH[not self.thaws]
        fixed = PROCESS + PER_VIEW * min(4, self.means.cores) * (self.side / 1024) ** 2 + min(1.0, memory / 8)
        wanted = min(base.batch, max(4, self.training // 8))
        batch = max(1, min(wanted, int((0.8 * memory - fixed) / drawn)))
        told = f"about {fixed + batch * drawn:.1f} of {memory:g} GB in a step; foveate doctor --config measures it"
        yield "training.batch", batch, told
        steps = math.ceil(self.training / batch)
        epochs = base.epochs if base.epochs * steps >= LEAST_STEPS else min(100, math.ceil(LEAST_STEPS / steps))
        yield "training.epochs", epochs, f"{epochs * steps:,} steps of {batch} images, at the most"
        yield "training.max_minutes", float(self.means.minutes), "the learning rate has come down when they are over"
        counts = sorted(found.labels.values())
        told = f"{counts[0]:,} to {counts[-1]:,} images" if counts[0] < counts[-1] else f"{counts[0]:,} images each"
        told = f"classes have {told}: each class counts the same"
        yield "training.class_weights", "balanced", told
        if found.faults:
            names = ", ".join(_name(one) for one in found.faults[:3]) + (", …" if len(found.faults) > 3 else "")
            yield "training.on_error", "skip", f"{len(found.faults)} cannot be read ({names}); RUN/skipped.csv will say"
            share = len(found.faults) / max(found.looked, len(found.faults))
            limit = round(min(1.0, max(0.05, 1.5 * share)), 3)
            yield "training.skip_limit", limit, f"{share:.1%} of those looked at; a run ends above this share"


def _name(fault: str) -> str:
    return fault.partition(":")[0].rpartition("/")[2]


_BEHIND = {
    "model.attention.name": "a network that has seen pictures before: a few hundred labels are too few to learn that",
    "model.attention.weights": "installed with foveate, nothing is downloaded",
    "model.attention.stages": "maps of stride 8 and 16 of the view",
    "model.attention.learning_rate": "moves slowly from the evidence it begins with",
    "model.features.name": "the same network describes patches",
    "model.features.weights": "installed with foveate, nothing is downloaded",
    "model.features.stages": "its last features, and those of the middle, which few labels suffice for",
    "model.features.pool": "the strongest answer in a patch, wherever in it",
    "model.features.batch_norm": "few images: no statistics of a batch",
    "model.features.learning_rate": "slowly, for it knows much already",
    "model.features.project": "a narrow layer, so that few labels are not learnt by heart",
    "model.features.dropout": "likewise",
    "model.features.norm": "1 would starve the classifier of gradient",
    "augment.patch_shift": "pixels by which a patch is read beside its place",
    "augment.patch_scale": "sizes vary",
    "augment.patch_gain": "light varies",
    "augment.patch_bias": "light varies",
    "augment.patch_colour": "white balance varies",
    "training.optimizer": "Adam with weight decay apart",
    "training.learning_rate": "its peak",
    "training.warm_up": "share of the schedule until its peak",
    "training.weight_decay": "against learning by heart",
    "training.patience": "epochs without a better validation, then it ends",
    "training.watch": "validation images whose maps are kept: foveate explain RUN --evolution",
}
"""Setting of a preset → why."""
