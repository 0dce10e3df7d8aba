"""How true previews are, and what they cost: `python -m benchmarks previews TRAIN HELD_OUT [--steps 150]`.

TRAIN and HELD_OUT are folders of images of at least 64 pixels, such as those of examples/class_to_image.py. Three
models: `builtin:emoji` (KL, a latent pixel for 4x4 pixels), and two first stages that are trained here on TRAIN for so
many steps, one KL (8x8 pixels) and one VQ (4x4 pixels), each with an untrained UNet of the built-in model's size.

Printed are, for each: what a fit takes without images (on drawn latents) and with 64 images of TRAIN, the share R^2 of
the variance of HELD_OUT's decoded and shrunk images that the map then explains, and what a step, a preview and a pass
of the decoder take, all of one image: medians over runs that preview every step. Times are CPU times of the process,
which other work on the machine changes little; run it with OMP_NUM_THREADS=1, for threads add up.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from benchmarks.measuring import parser_of
from latentdiff import DDIMScheduler, DiffusionPipeline, UnconditionalPipeline, UNet2DConditionModel
from latentdiff.cli.console import quiet_libraries
from latentdiff.config import from_mapping
from latentdiff.data.images import ImageFolder
from latentdiff.models.latent_colours import LatentColours
from latentdiff.pipelines import codec
from latentdiff.training.first_stage.autoencoder import load_first_stage
from latentdiff.training.first_stage.task import train_first_stage
from latentdiff.training.recipes import FirstStageRecipe

SIDE, FITTED, JUDGED, ROUNDS = 64, 64, 64, 5
UNET = {
    "block_out_channels": [64, 128, 128],
    "layers_per_block": 1,
    "attention_levels": [False, True, True],
    "num_head_channels": 32,
}


def levels(count: int, channels: int) -> dict[str, object]:
    """The options of a first stage's levels."""
    return {
        "block_out_channels": [min(64, channels * 2**level) for level in range(count)],
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "norm_num_groups": 8,
    }


STAGES = {
    "KL, 8x8": {**levels(4, 16), "latent_channels": 4},
    "VQ, 4x4": {**levels(3, 16), "latent_channels": 3, "_class_name": "VQModel", "num_vq_embeddings": 256},
}


def trained(model: dict[str, object], images: str, steps: int, folder: str) -> DiffusionPipeline:
    """A pipeline of a first stage that is trained here, and an untrained UNet."""
    recipe = {
        "output_dir": folder,
        "data": {"train_data_dir": images, "resolution": SIDE},
        "model": model,
        "max_train_steps": steps,
        "train_batch_size": 4,
        "optimizer": {"learning_rate": 3e-3},
        "report_to": "none",
    }
    vae = load_first_stage(str(train_first_stage(from_mapping(FirstStageRecipe, recipe)) / "vae"))
    latents = codec.encode(vae, batch(images, FITTED), scaled=False)
    vae.register_to_config(scaling_factor=float(1 / latents.std()))  # as a diffusion model's training measures it
    channels, side = vae.config.latent_channels, SIDE // codec.factor(vae)
    unet = UNet2DConditionModel(in_channels=channels, out_channels=channels, sample_size=side, **UNET)
    return UnconditionalPipeline(vae=vae, unet=unet.eval(), scheduler=DDIMScheduler())


class Stopwatch:
    """A callback that previews, and notes how long that took and how long the step before it."""

    tensor_inputs = ("pred_original_sample",)

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.previews: list[float] = []
        self.since = 0.0

    def __call__(self, pipe: DiffusionPipeline, step: int, timestep: object, tensors: dict[str, torch.Tensor]) -> None:
        """Preview."""
        start = time.process_time()
        pipe.preview(tensors["pred_original_sample"])
        end = time.process_time()
        if step > 0:  # before the first there is other work
            self.steps.append(1000 * (start - self.since))
            self.previews.append(1000 * (end - start))
        self.since = end


def r_squared(pipe: DiffusionPipeline, images: torch.Tensor) -> float:
    """How much of the decoded and shrunk images the pipeline's map explains."""
    latents = codec.encode(pipe.vae, images, scaled=True)
    shrunk = F.avg_pool2d(codec.decode(pipe.vae, latents) * 2 - 1, codec.factor(pipe.vae))
    return LatentColours.of(pipe.vae).explained(codec.unscaled(pipe.vae, latents), shrunk)


def batch(folder: str, count: int) -> torch.Tensor:
    """Images (B, 3, H, W) in [-1, 1], spread over a folder."""
    images = ImageFolder(folder, SIDE)
    return torch.stack([images[number * len(images) // count] for number in range(count)])


def measure(name: str, pipe: DiffusionPipeline, prompt: list[str], fitted: torch.Tensor, judged: torch.Tensor) -> str:
    """A line of the table."""
    pipe.set_progress_bar_config(disable=True)
    found = []
    for images in (None, fitted.add(1).div(2)):
        start = time.process_time()
        pipe.fit_preview(images)
        found.append((time.process_time() - start, r_squared(pipe, judged)))
    watch, decodes = Stopwatch(), []
    for seed in range(ROUNDS):
        latents = pipe(
            *prompt, num_inference_steps=10, seed=seed, output_type="latent", callback_on_step_end=watch
        ).images
        start = time.process_time()
        codec.decode(pipe.vae, latents)
        decodes.append(1000 * (time.process_time() - start))
    step, preview, decode = map(statistics.median, (watch.steps, watch.previews, decodes))
    fits = " | ".join(f"{seconds:.1f} s | {explained:.2f}" for seconds, explained in found)
    return f"| {name} | {fits} | {step:.1f} | {preview:.3f} | {preview / step:.2%} | {decode:.1f} |"


def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("train")
    parser.add_argument("held_out")
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args(words)
    fitted, judged = batch(options.train, FITTED), batch(options.held_out, JUDGED)
    print("| model | fit without images | R^2 | fit with images | R^2 | step, ms | preview, ms | share | decoder, ms |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with quiet_libraries(quiet=True), tempfile.TemporaryDirectory() as folder:
        pipe = DiffusionPipeline.from_pretrained("builtin:emoji")
        print(measure("built-in", pipe, ["a dog"], fitted, judged), flush=True)
        for number, (name, model) in enumerate(STAGES.items()):
            pipe = trained(model, options.train, options.steps, f"{folder}/{number}")
            print(measure(name, pipe, [], fitted, judged), flush=True)
