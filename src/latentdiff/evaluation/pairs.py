"""Images against their originals, one by one: the Python side of `latentdiff evaluate pairs`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from latentdiff import __version__
from latentdiff.bulk.threads import one_thread
from latentdiff.errors import InputError, LatentDiffError
from latentdiff.evaluation.features import FeatureExtractor
from latentdiff.evaluation.image_sets import ChosenImages, FileImages, ImageSet, open_images
from latentdiff.evaluation.metrics import MS_SSIM_SMALLEST, WINDOW, ms_ssim
from latentdiff.evaluation.perceptual import load_lpips, load_psim
from latentdiff.evaluation.protocols import MASK_SHARES, Report, Result
from latentdiff.evaluation.references import Reference
from latentdiff.evaluation.samples import DEFAULT_FEATURES, SamplesEvaluation
from latentdiff.evaluation.set_metrics import SET_METRICS
from latentdiff.io.inputs import read_mask
from latentdiff.models.lpips import SMALLEST, PerceptualDistance
from latentdiff.registry import METRICS, nearest
from latentdiff.types import Array

Compare = Callable[[Tensor, Tensor], Tensor]
"""From images and originals (1, 3, H, W) in [0, 1] to a number for each."""

PERCEPTUAL = {"lpips": load_lpips, "psim": load_psim}
SET_NAMES = [
    name for metric in SET_METRICS if not metric.of_clip for name in (*metric.names, *(metric.otherwise or ()))
]
"""Metrics that compare the images with the originals as sets."""

SIDES = {"ssim": WINDOW, "ms_ssim": MS_SSIM_SMALLEST, **dict.fromkeys(PERCEPTUAL, SMALLEST)}
"""The shortest side in pixels of images that a metric takes."""


@dataclass(frozen=True)
class Perceptual:
    """The files of weights that perceptual metrics need.

    Attributes:
        vgg16: torchvision's VGG16; None takes it from torch's hub cache, if it is there.
        heads: LPIPS's heads; None takes them from the package lpips, if it is installed.
    """

    vgg16: str | None = None
    heads: str | None = None


USUAL_FILES = Perceptual()


def evaluate_pairs(
    images: str | Path | ImageSet,
    originals: str | Path | ImageSet,
    *,
    masks: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    perceptual: Perceptual = USUAL_FILES,
    resolution: int | None = None,
    shares: Sequence[tuple[float, float]] = MASK_SHARES,
    device: torch.device | str = "cpu",
    done: Callable[[int], None] = lambda images: None,
    features: str | FeatureExtractor = DEFAULT_FEATURES,
    cache: str | Path | None = None,
) -> Report:
    """Compare each image with its original, which in a folder is the file of its name, whatever the suffix.

    Args:
        images: Images, as `open_images` takes them.
        originals: As many images of the same sizes.
        masks: A folder of masks with the images' names, white where pixels were made anew; then numbers are given for
            each of `shares`.
        metrics: "psnr" (dB), "ssim", "ms_ssim", "lpips", "psim" and whatever else is in the registry `METRICS`; None
            takes all of these that sizes and weights allow. Those of samples against a reference, such as "fid" and
            "is", compare the images with the originals as sets, and are computed only if they are asked for.
        perceptual: Files of weights.
        resolution: The side of the squares that both are cropped and resized to, as in training; None takes them as
            they are.
        shares: Least and greatest share of an image that is masked.
        device: Where networks compute.
        done: Hears how many images each step had.
        features: The feature extractor for metrics of sets, as `load_extractor` takes it, or a loaded one.
        cache: Where features are kept; None is `default_cache()`.

    Returns:
        Numbers of sets; means over the images, with their standard deviations.

    Raises:
        InputError: If numbers, names or sizes differ, or a metric that is asked for can't be computed.
        CheckpointError: If weights that are asked for are missing or damaged.
    """
    first, second = (
        open_images(source, resolution) if isinstance(source, (str, Path)) else source for source in (images, originals)
    )
    numbers = _matched(first, second)
    masked = None if masks is None else _mask_files(first, Path(masks))
    of_sets = [name for name in metrics or () if name in SET_NAMES]
    of_pairs = None if metrics is None else [name for name in metrics if name not in of_sets]
    compare: Mapping[str, Compare] = {}
    notes: list[str] = []
    if of_pairs or not of_sets:
        compare, notes = choose(of_pairs, perceptual, min(first.pixels(0).shape[:2]), torch.device(device))
    sets = None
    if of_sets:
        reference = Reference(_called(second), ChosenImages(second, numbers))
        sets = SamplesEvaluation(first, reference, metrics=of_sets, features=features, device=device, cache=cache)
    rows, held = [], []
    for number, other in enumerate(numbers):
        pair = [first.pixels(number), second.pixels(other)]
        if pair[0].shape != pair[1].shape:
            sizes = " and ".join(f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in pair)
            raise InputError(f"image {number} of {first.name} and its original are {sizes}; give equal sizes")
        if masked is not None:
            held.append(float(read_mask(masked[number], size=pair[0].shape[:2]).float().mean()))
        x, y = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 for pixels in pair)
        with torch.no_grad(), one_thread():
            rows.append([float(function(x, y)[0]) for function in compare.values()])
        done(1)
    facts = {"images": first.name, "originals": second.name, "count": len(first), "resolution": resolution}
    facts |= {"masks": masks and str(masks), "latentdiff": __version__, "torch": torch.__version__}
    values, shares_of = np.array(rows), np.array(held)
    results: list[Result] = []
    if sets is not None:
        sets.compute(done=done)
        facts |= {"features": sets.extractor.name, "weights_sha256": sets.extractor.identity}
    groups: list[tuple[str, Array | None]] = [("" if masked is None else "all", None)]
    for low, high in shares if masked is not None else ():
        if (low, high) != (0.0, 1.0):  # those are all, which come first
            within = np.flatnonzero((shares_of >= low) & (shares_of <= high))
            groups.append((f"{100 * low:g}-{100 * high:g} % masked", within))
    for what, places in groups:
        if places is not None and not len(places):
            notes.append(f"{what} left out: no mask covers so much")
            continue
        results += _results(list(compare), values if places is None else values[places], _called(second), what)
        if sets is not None:
            results += sets.results(places, what)
    return Report(results, facts, [*notes, *(sets.notes if sets is not None else ())])


def _called(originals: ImageSet) -> str:
    """What numbers call the originals."""
    return Path(originals.name).stem or originals.name


def _results(names: Sequence[str], values: Array, originals: str, what: str) -> Iterator[Result]:
    """The mean and the standard deviation of each column of the values (N, metrics)."""
    protocol = [str(len(values)), originals, *filter(None, [what])]
    for name, column in zip(names, values.T, strict=True):
        finite = np.isfinite(column).all()  # PSNR of equal images is infinite
        yield Result(name, protocol, float(column.mean()), float(column.std()) if finite else None)


def choose(
    names: Sequence[str] | None, perceptual: Perceptual, side: int, device: torch.device
) -> tuple[Mapping[str, Compare], list[str]]:
    """The metrics of pairs by name, and notes about those that can't be computed.

    Args:
        names: What is asked for; None takes all that can be computed.
        perceptual: Files of weights.
        side: The shortest side of the images, in pixels.
        device: Where networks compute.

    Raises:
        InputError: If a name is unknown, or the images are too small for a metric that is asked for.
        CheckpointError: If weights for such a metric are missing or damaged.
    """
    known = dict.fromkeys([*METRICS.names(), "ms_ssim", *PERCEPTUAL])
    if names is not None and not names:
        raise InputError(f"no metric is given; known: {', '.join(known)}")
    for name in names or ():
        if name not in known:
            raise InputError(f"unknown metric {name!r} of pairs; {nearest(name, [*known, *SET_NAMES])}")
    chosen: dict[str, Compare] = {}
    notes = []
    for name in names or known:
        try:
            if side < SIDES.get(name, 1):
                raise InputError(f"{name} needs sides of at least {SIDES[name]} pixels, the images have {side}")
            if name in PERCEPTUAL:
                network = PERCEPTUAL[name](perceptual.vgg16, perceptual.heads).to(device)
                chosen[name] = _in_minus_one_to_one(network, device)
            else:
                chosen[name] = ms_ssim if name == "ms_ssim" else METRICS.get(name)
        except LatentDiffError as error:
            if names is not None:
                raise
            notes.append(f"{name} left out: {error}")
    return chosen, notes


def _in_minus_one_to_one(network: PerceptualDistance, device: torch.device) -> Compare:
    return lambda images, targets: network(images.to(device) * 2 - 1, targets.to(device) * 2 - 1).cpu()


def _matched(first: ImageSet, second: ImageSet) -> list[int]:
    """The number of each image's original: by name where both have files of a folder, else by order."""
    if len(first) != len(second):
        raise InputError(
            f"{first.name} has {len(first)} images, {second.name} {len(second)}; pairs need as many of both"
        )
    names = [_names(images) for images in (first, second)]
    if names[0] is None or names[1] is None:
        return list(range(len(first)))
    places = {name: number for number, name in enumerate(names[1])}
    absent = [name for name in names[0] if name not in places]
    if absent:
        raise InputError(f"{second.name} has no {absent[0]}, of which {first.name} has an image; give both equal names")
    return [places[name] for name in names[0]]


def _names(images: ImageSet) -> list[str] | None:
    """The names of the files of a folder, without suffix."""
    if not isinstance(images, FileImages) or not all(isinstance(file, Path) for file in images.records.files):
        return None
    root = images.records.root
    return [Path(str(file)).relative_to(root).with_suffix("").as_posix() for file in images.records.files]


def _mask_files(images: ImageSet, folder: Path) -> list[Path]:
    """The mask of each image."""
    names = _names(images)
    if names is None:
        raise InputError(f"masks are given, but {images.name} is no folder of images, whose names masks could have")
    if not folder.is_dir():
        raise InputError(f"masks is {folder}, which is no folder; give one with masks of the images' names")
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in folder.rglob("*") if path.is_file()}
    absent = [name for name in names if name not in found]
    if absent:
        raise InputError(f"{len(absent)} of {len(names)} images have no mask in {folder}, the first is {absent[0]}")
    return [found[name] for name in names]
