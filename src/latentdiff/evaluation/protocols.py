"""What numbers are called, and the protocols of the paper's tables as data.

A number's name says what it depends on: `fid[inception-2015, tf-resize, 50000, train]` is a Fréchet distance of the
published Inception's features, of images resized as TensorFlow 1 does, between 50,000 samples and the training set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentdiff.errors import InputError
from latentdiff.registry import nearest


@dataclass(frozen=True)
class Result:
    """A number, with all that it depends on.

    Attributes:
        metric: What is measured, such as "fid".
        protocol: What it depends on, as it stands in the brackets of the name.
        value: The number.
        std: Its standard deviation over subsets or splits; None for a number that has none.
    """

    metric: str
    protocol: Sequence[str]
    value: float
    std: float | None = None

    @property
    def name(self) -> str:
        """The metric and its protocol."""
        return f"{self.metric}[{', '.join(self.protocol)}]"


@dataclass(frozen=True)
class Report:
    """What an evaluation found.

    Attributes:
        results: The numbers.
        facts: What was evaluated, and what the protocol fixes.
        notes: Lines that say what was left out, and why.
    """

    results: Sequence[Result]
    facts: Mapping[str, object]
    notes: Sequence[str] = field(default_factory=list)

    def value(self, metric: str) -> float:
        """The value of a metric, such as "fid".

        Raises:
            InputError: If it was not computed.
        """
        for result in self.results:
            if result.metric == metric:
                return result.value
        raise InputError(f"{metric} was not computed; known: {', '.join(found.metric for found in self.results)}")


@dataclass(frozen=True)
class Preset:
    """The protocol of a table of the paper (Rombach et al. 2022).

    Attributes:
        source: The table.
        evaluates: What is evaluated: "samples", "pairs" or "first-stage".
        count: How many images; None takes all of the data that the table names.
        metrics: What is computed.
        reference: What numbers call the reference that the table names.
        words: What has to be given, in words.
    """

    source: str
    evaluates: str
    count: int | None
    metrics: Sequence[str]
    reference: str
    words: str


PRESETS: Mapping[str, Preset] = {
    "unconditional": Preset(
        "table 1", "samples", 50_000, ("fid", "precision", "recall"), "train", "samples against the training set"
    ),
    "text-to-image": Preset(
        "table 2", "samples", 30_000, ("fid", "is"), "coco-val", "an image of each of 30,000 captions of MS-COCO"
    ),
    "class-conditional": Preset(
        "table 3",
        "samples",
        50_000,
        ("fid", "sfid", "is", "precision", "recall"),
        "train",
        "samples of all classes against ADM's file of statistics",
    ),
    "super-resolution": Preset(
        "table 5", "pairs", None, ("fid", "is", "psnr", "ssim"), "val", "upscaled images, originals"
    ),
    "inpainting": Preset("table 7", "pairs", None, ("fid", "lpips"), "test", "crops of 512 pixels and their masks"),
    "first-stage": Preset(
        "table 8", "first-stage", None, ("rfid", "psnr", "psim", "ssim"), "val", "reconstructed validation images"
    ),
    "layout": Preset("table 9", "samples", 2_048, ("fid",), "coco-val", "an image of each of 2,048 layouts of MS-COCO"),
}
"""Protocols by name; whatever features are given, what they fix stays."""

MASK_SHARES: Sequence[tuple[float, float]] = ((0.4, 0.5), (0.0, 1.0))
"""Shares of an image that are masked, for which numbers of inpainting are given: 40 to 50 %, and all (table 7)."""


def find_preset(name: str, evaluates: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: If there is none, or it is of another kind of evaluation.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; {nearest(name, PRESETS)}")
    preset = PRESETS[name]
    if preset.evaluates != evaluates:
        raise InputError(f"preset {name} ({preset.source}) evaluates {preset.evaluates}, not {evaluates}")
    return preset
