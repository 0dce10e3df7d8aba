"""Tuned steps against twice as many untuned: the Fréchet distance from real images, and the time that an image takes.

    latentdiff tune-steps builtin:emoji --prompts prompts.txt --scheduler deis --output emoji-tuned
    python -m benchmarks tuned-steps emoji-tuned data/emoji/validation --scheduler deis --samples 1000

The reference is a folder of images; prompts are its captions, and classes are taken in turn. All ways to sample make
the same images, by seed and condition, a batch each in turn, so that what else is at work slows all alike. A line for
each way has the median and the range over --repeats sets of seeds. The features are those of `latentdiff evaluate
samples --features efficientnet_lite0`; with --teacher, the last column is the distance from the latents of 80 steps:
the mean over images of the root mean square.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import parser_of
from latentdiff import DiffusionPipeline
from latentdiff.cli.commands.labels import all_labels
from latentdiff.evaluation.features import FeatureExtractor, load_extractor
from latentdiff.evaluation.image_sets import ImageSet, open_images
from latentdiff.evaluation.moments import Moments, MomentSums, frechet
from latentdiff.pipelines.codec import decode
from latentdiff.pipelines.run_state import default_guidance_scale
from latentdiff.tuning import TEACHER, TEACHER_STEPS


class Way:
    """A way to sample, and what it has made so far.

    Args:
        pipe: The model.
        name: What it is called in the table.
        scheduler: The solver's name.
        steps: The steps, as a pipeline takes them.
        options: Options of the solver.
    """

    def __init__(self, pipe: DiffusionPipeline, name: str, scheduler: str, steps: int | str, **options: object) -> None:
        self.name, self.steps = name, steps
        self.pipe = type(pipe).from_pipe(pipe)
        self.pipe.set_scheduler(scheduler, **options)
        self.pipe.set_progress_bar_config(disable=True)
        self.distances: list[float] = []
        self.seconds, self.images, self.missed = 0.0, 0, 0.0

    def begin(self, extractor: FeatureExtractor) -> None:
        """Begin a set of images."""
        self.sums = MomentSums(next(iter(extractor.dims.values())))

    def make(self, call: Mapping[str, object], extractor: FeatureExtractor) -> torch.Tensor:
        """Make a batch, and return its latents."""
        start = time.perf_counter()
        latents = self.pipe(**call, num_inference_steps=self.steps, output_type="latent").images
        with torch.no_grad():
            images = decode(self.pipe.vae, latents)
        self.seconds += time.perf_counter() - start
        self.images += len(latents)
        pixels = (images * 255).round().to(torch.uint8)
        self.sums.add(features_of(pixels, extractor))
        return latents

    def line(self) -> str:
        """The row of the table."""
        spread = f"{min(self.distances):.4f} .. {max(self.distances):.4f}"
        missed = f"{self.missed / self.images:10.4f}" if self.missed else ""
        return (
            f"{self.name:34} {np.median(self.distances):10.4f}   {spread:20} {self.images / self.seconds:9.2f} {missed}"
        )


def features_of(pixels: torch.Tensor, extractor: FeatureExtractor) -> np.ndarray:
    """The features (B, D) of images of 8 bits (B, 3, H, W)."""
    name = next(iter(extractor.dims))
    return np.concatenate([extractor.of_block(part)[name].numpy() for part in pixels.split(extractor.block)])


def reference_moments(images: ImageSet, count: int, extractor: FeatureExtractor) -> Moments:
    """Mean and covariance of the features of the first `count` images."""
    count = min(count, len(images))
    sums = MomentSums(next(iter(extractor.dims.values())))
    for start in range(0, count, extractor.block):
        block = [images.pixels(number) for number in range(start, min(start + extractor.block, count))]
        sums.add(features_of(torch.from_numpy(np.stack(block)).permute(0, 3, 1, 2), extractor))
    return sums.moments()


def conditions(pipe: DiffusionPipeline, images: ImageSet) -> list[dict[str, object]]:
    """Arguments of the call for one image each, which images take in turn."""
    if pipe.components.get("text_encoder") is not None:
        return [{"prompt": caption} for caption in images.captions or ()]
    if pipe.components.get("class_embedder") is not None:
        return [{"class_labels": label} for label in all_labels(pipe)]
    return [{}]


def batches(inputs: list[dict[str, object]], first: int, samples: int, size: int) -> Iterator[dict[str, object]]:
    """The arguments of the calls for the images of seeds `first` and up."""
    for start in range(first, first + samples, size):
        seeds = list(range(start, min(start + size, first + samples)))
        chosen = [inputs[seed % len(inputs)] for seed in seeds]
        given = {name: [each[name] for each in chosen] for name in chosen[0]} or {"batch_size": len(seeds)}
        yield {**given, "seed": seeds}


def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("model", help="a folder that latentdiff tune-steps has written")
    parser.add_argument("reference", type=Path, help="a folder of real images")
    parser.add_argument("--scheduler", default="deis", help="the tuned solver; default: %(default)s")
    parser.add_argument("--steps", type=int, default=10, help="its steps; default: %(default)s")
    parser.add_argument("--samples", type=int, default=1000, help="images of a set; default: %(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="sets of seeds; default: %(default)s")
    parser.add_argument("--reference-images", type=int, default=10_000, help="at most; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--features", default="efficientnet_lite0")
    parser.add_argument("--teacher", action="store_true", help="also the teacher's images, and the distance from them")
    options = parser.parse_args(words)
    pipe = DiffusionPipeline.from_pretrained(options.model)
    extractor = load_extractor(options.features)
    count, tuned = options.steps, options.scheduler
    ways = [
        Way(pipe, f"{tuned}, tuned, {count} steps", tuned, f"tuned:{count}", use_karras_sigmas=False)
        if tuned not in ("ddim", "plms")
        else Way(pipe, f"{tuned}, tuned, {count} steps", tuned, f"tuned:{count}"),
        Way(pipe, f"{tuned}, trailing, {count} steps", tuned, count, timestep_spacing="trailing"),
        Way(pipe, f"dpmpp_2m, Karras, {2 * count} steps", "dpmpp_2m", 2 * count, use_karras_sigmas=True),
    ]
    if options.teacher:
        karras = {"use_karras_sigmas": True}
        ways.append(Way(pipe, f"{TEACHER}, Karras, {TEACHER_STEPS} steps", TEACHER, TEACHER_STEPS, **karras))
    images = open_images(options.reference, None)
    inputs, scale = conditions(pipe, images), default_guidance_scale(pipe.components)
    guided = {} if scale is None else {"guidance_scale": scale}
    reference = reference_moments(images, options.reference_images, extractor)
    for repeat in range(options.repeats):
        for way in ways:
            way.begin(extractor)
        # Tuning takes the first seeds, which are left out.
        first = 10_000 + repeat * options.samples
        for number, batch in enumerate(batches(inputs, first, options.samples, options.batch_size)):
            turn = number % len(ways)  # each way is the first of a round as often as the others
            made = {way: way.make({**batch, **guided}, extractor) for way in [*ways[turn:], *ways[:turn]]}
            for way in ways if options.teacher else ():
                missed = (made[way] - made[ways[-1]]).square().flatten(1).mean(1).sqrt()
                way.missed += float(missed.sum())
        for way in ways:
            way.distances.append(frechet(way.sums.moments(), reference))
        print(f"{options.samples} images, set {repeat + 1}:", *(f"{way.distances[-1]:.4f}" for way in ways), flush=True)
    print(f"{'':34} {'Fréchet':>10}   {'range':20} {'images/s':>9} {'from 80':>10}")
    for way in ways:
        print(way.line())
