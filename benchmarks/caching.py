"""What feature caching saves and costs: `python -m benchmarks caching [MODEL ...] [--branch 0] [--centers 0.3]`.

Each MODEL is a folder, a hub id or "builtin:NAME" of a text-to-image, class-conditional or unconditional model. Batches
of the same seeds are made at every interval in turn, in one process, the order turning from batch to batch; printed are

- the share of a full evaluation's floating-point operations that one with cached features takes;
- seconds per image, the median over the batches, and how many times faster that is than interval 1 (median of ratios);
- the distance of the same seeds: mean absolute difference of pixels, of 255, to interval 1;
- the Frechet distance of `efficientnet_lite0` features to as many images of interval 1 of *other* seeds (or to those in
  the folder --reference), so that interval 1 has one, too: what distance is left to chance. It falls with the number
  of images and compares only at the same one. It isn't FID.

`--picture FILE` shows the first seeds, a row each, at each interval, a column each. `--operations` prints the share of
every branch for networks of published sizes instead, and takes seconds.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import latentdiff
from benchmarks.measuring import parser_of
from latentdiff import ClassToImagePipeline, TextToImagePipeline, UnconditionalPipeline
from latentdiff.caching import POWER
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.moments import Moments, frechet, moments_of
from latentdiff.viz import image_grid

COLOURS = ("red", "green", "blue", "yellow", "pink", "orange")
THINGS = ("apple", "car", "star", "cat", "fish", "house", "tree", "hat", "cup", "rocket")
PAIRS = 30  # the least common multiple of the two
SHOWN = 6
TOKENS = 77
TALL = {"block_out_channels": (320, 640, 1280, 1280), "attention_levels": (True, True, True, False)}
SIZES = {
    "builtin:emoji": {
        "sample_size": 16,
        "in_channels": 8,
        "block_out_channels": (64, 128, 128),
        "layers_per_block": 1,
        "attention_levels": (False, True, True),
        "cross_attention_dim": 192,
        "num_head_channels": 32,
    },
    "txt2img-1.45B": {**TALL, "sample_size": 32, "cross_attention_dim": 1280, "num_attention_heads": 8},
    "Stable Diffusion 1": {**TALL, "sample_size": 64, "cross_attention_dim": 768, "num_attention_heads": 8},
    "cin256": {
        "sample_size": 64,
        "in_channels": 3,
        "block_out_channels": (192, 384, 576, 960),
        "attention_levels": (False, True, True, True),
        "cross_attention_dim": 512,
        "num_head_channels": 32,
    },
}


@dataclass(frozen=True)
class Way:
    """What is cached: the interval, and the center of a schedule that isn't even."""

    interval: int
    center: float | None = None

    def options(self, args: argparse.Namespace) -> dict[str, object]:
        """The options of a call."""
        if self.interval == 1:
            return {}
        power = None if self.center is None else args.power
        return {
            "cache_interval": self.interval,
            "cache_branch": args.branch,
            "cache_center": self.center,
            "cache_power": power,
        }

    def __str__(self) -> str:
        return str(self.interval) if self.center is None else f"{self.interval}, center {self.center:g}"


EXACT = Way(1)


def inputs(pipe: latentdiff.DiffusionPipeline, prompts: list[str], seeds: range) -> dict[str, object]:
    """What a call makes the images of some seeds of: prompts or classes in turn."""
    match pipe:
        case TextToImagePipeline():
            return {"prompt": [prompts[seed % len(prompts)] for seed in seeds]}
        case ClassToImagePipeline():
            classes = pipe.class_embedder.config.num_classes - (pipe.class_embedder.config.null_class is not None)
            return {"class_labels": [seed % classes for seed in seeds]}
        case UnconditionalPipeline():
            return {"batch_size": len(seeds)}
    raise SystemExit(
        f"{type(pipe).__name__} takes images; give a model of prompts, of classes, or an unconditional one"
    )


def make(pipe: latentdiff.DiffusionPipeline, seeds: range, way: Way, args: argparse.Namespace) -> np.ndarray:
    """The images of some seeds, uint8 (B, H, W, 3)."""
    options = {"num_inference_steps": args.steps, "seed": list(seeds), **way.options(args)}
    return np.stack([np.asarray(image) for image in pipe(**inputs(pipe, args.prompts, seeds), **options).images])


def features(extractor: FeatureExtractor, images: np.ndarray) -> np.ndarray:
    """Pooled features (B, D) of images uint8 (B, H, W, 3)."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    return torch.cat([extractor.of_block(block)["pool"] for block in pixels.split(extractor.block)]).numpy()


def batches(first: int, args: argparse.Namespace) -> Iterator[range]:
    """The seeds of the images, in batches."""
    for start in range(first, first + args.images, args.batch_size):
        yield range(start, min(start + args.batch_size, first + args.images))


def reference(pipe: latentdiff.DiffusionPipeline, extractor: FeatureExtractor, args: argparse.Namespace) -> Moments:
    """The moments of the features that all intervals are compared with."""
    if args.reference is None:
        parts = (make(pipe, seeds, EXACT, args) for seeds in batches(args.images, args))
    else:
        files = sorted(file for file in args.reference.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg"))
        parts = (np.asarray(Image.open(file).convert("RGB"))[None] for file in files[: args.images])
    return moments_of((features(extractor, part) for part in parts), extractor.dims["pool"])


@torch.no_grad()
def share(unet: latentdiff.UNet2DConditionModel, branch: int) -> float:
    """The operations of an evaluation with cached features, as a share of those of a full one; guided, if it can be."""
    config, device = unet.config, unet.device
    sample = torch.empty(1, config.in_channels, config.sample_size, config.sample_size, device=device)
    width = config.cross_attention_dim
    context = () if width is None else (unet.prepare_context(torch.empty(2, TOKENS, width, device=device)),)
    timestep = unet.prepare_timesteps(torch.zeros(2, device=device))[0]
    with FlopCounterMode(display=False) as full:
        kept = unet(sample, timestep, *context, cache_branch=branch).features
    with FlopCounterMode(display=False) as cached:
        unet(sample, timestep, *context, cache_branch=branch, cached_features=kept)
    return cached.get_total_flops() / full.get_total_flops()


def print_operations() -> None:
    """The share of every branch, for networks of published sizes, which have no weights here."""
    print("| network | " + " | ".join(f"branch {branch}" for branch in range(12)) + " |")
    print("|" + "---|" * 13)
    for name, options in SIZES.items():
        with torch.device("meta"):
            unet = latentdiff.UNet2DConditionModel(**options)
        shares = [f"{share(unet, branch):.0%}" for branch in range(unet.cache_branches)]
        print(f"| {name} | " + " | ".join([*shares, *[""] * (12 - len(shares))]) + " |")


def measure(name: str, extractor: FeatureExtractor | None, args: argparse.Namespace) -> None:
    """Print the table of one model, and save its picture."""
    pipe = latentdiff.DiffusionPipeline.from_pretrained(name)
    pipe.set_progress_bar_config(disable=True)
    if args.scheduler:
        pipe.set_scheduler(args.scheduler)
    target = None if extractor is None else reference(pipe, extractor, args)
    ways = [EXACT, *(Way(n, center) for n in args.intervals[1:] for center in (None, *args.centers))]
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    found: dict[Way, list[np.ndarray]] = {way: [] for way in ways}
    apart: dict[Way, list[float]] = {way: [] for way in ways}
    shown: dict[Way, list[Image.Image]] = {way: [] for way in ways}
    for number, seeds in enumerate(batches(0, args)):
        turn = number % len(ways)
        made = {}
        for way in (*ways[turn:], *ways[:turn]):
            start = time.perf_counter()
            made[way] = make(pipe, seeds, way, args)
            seconds[way].append((time.perf_counter() - start) / len(seeds))
        for way, images in made.items():
            if extractor is not None:
                found[way].append(features(extractor, images))
            apart[way].append(np.abs(images.astype(int) - made[EXACT]).mean())
            shown[way] += [Image.fromarray(image) for image in images[: SHOWN - len(shown[way])]]
    scheduler = type(pipe.scheduler).__name__
    print(
        f"{name}: {args.images} images, {args.steps} steps of {scheduler}, batches of {args.batch_size}, "
        f"power {args.power:g} where there is a center, "
        f"branch {args.branch} of 0 to {pipe.unet.cache_branches - 1}, {torch.get_num_threads()} threads; an "
        f"evaluation with cached features takes {share(pipe.unet, args.branch):.1%} of the operations of a full one"
    )
    print("| interval | s per image | times faster | pixels apart, of 255 | frechet[efficientnet_lite0] |")
    print("|---|---|---|---|---|")
    for way in ways:
        faster = statistics.median(a / b for a, b in zip(seconds[EXACT], seconds[way], strict=True))
        distance = ""
        if extractor is not None and target is not None:
            distance = f"{frechet(moments_of(found[way], extractor.dims['pool']), target):.4f}"
        print(
            f"| {way} | {statistics.median(seconds[way]):.3f} | {faster:.2f} | "
            f"{statistics.mean(apart[way]):.2f} | {distance} |",
            flush=True,
        )
    if args.picture is not None:
        rows = list(itertools.chain(*zip(*shown.values(), strict=True)))
        captions = [f"interval {way}" for way in ways] * min(SHOWN, args.images)
        sheet = image_grid(rows, columns=len(ways), captions=captions, scale=2, margin=4)
        place = (
            args.picture
            if len(args.models) == 1
            else args.picture.with_stem(f"{args.picture.stem}-{args.models.index(name)}")
        )
        sheet.save(place)
        print(f"picture: {place}")


def main(words: Sequence[str]) -> None:
    """Read the flags, and measure each model."""
    parser = parser_of(__doc__)
    parser.add_argument("models", nargs="*", default=["builtin:emoji"])
    parser.add_argument("--intervals", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--branch", type=int, default=0)
    parser.add_argument("--centers", type=float, nargs="+", default=[], help="cache_center of further lines")
    parser.add_argument("--power", type=float, default=POWER, help="cache_power (default: %(default)s)")
    parser.add_argument("--no-distance", action="store_true", help="pixels alone, which few images will do for")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--scheduler", help="a name of the registry; the model's own by default")
    parser.add_argument("--prompts", type=Path, help="a file with a prompt on each line")
    parser.add_argument("--reference", type=Path, help="a folder of images to compare with")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--operations", action="store_true")
    args = parser.parse_args(words)
    if args.operations:
        print_operations()
        return
    if args.intervals[0] != 1 or args.images < 2:
        parser.error("--intervals must begin with 1, which the others are compared with, and --images be at least 2")
    lines = [] if args.prompts is None else args.prompts.read_text(encoding="utf-8").splitlines()
    pairs = zip(itertools.cycle(COLOURS), itertools.cycle(THINGS), strict=True)
    made = [f"a {colour} {thing}" for colour, thing in itertools.islice(pairs, PAIRS)]
    args.prompts = [line for line in lines if line.strip()] or made
    extractor = None if args.no_distance else load_extractor("efficientnet_lite0")
    for name in args.models:
        measure(name, extractor, args)
