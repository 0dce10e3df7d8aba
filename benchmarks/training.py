"""Training against a plain torch loop: `python benchmarks/training.py [--rounds 6] [--steps 10]`.

Three workloads: a first stage, a diffusion model on cached latents, and the same where the first stage encodes every
batch. Ours is `latentdiff.training.engine.loop.train`, as the commands call it; the floor is the shortest loop in
plain torch that does the same work on the same networks: AdamW, clipped gradients, EMA. They run in turn in one
process; a step's time is that from one forward pass to the next. Printed are medians, their ratio (the floor's time
over ours), and what each takes in memory above what its process held with the networks built, measured in a process
of its own.
"""

import argparse
import itertools
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from tasks import Peak
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from latentdiff.cli.console import quiet_libraries
from latentdiff.data.bad_files import BadFiles
from latentdiff.data.encoding import LatentEncoding
from latentdiff.data.images import ImageFolder
from latentdiff.data.latent_cache import Columns, LatentRows
from latentdiff.training.diffusion.build import make_conditioner
from latentdiff.training.diffusion.task import DiffusionTask
from latentdiff.training.engine.loop import train
from latentdiff.training.engine.session import open_session
from latentdiff.training.first_stage.task import FirstStageTask
from latentdiff.training.recipes import DiffusionRecipe, FirstStageRecipe

SIDE, IMAGES, WARM_UP = 64, 64, 2
VAE = {
    "block_out_channels": [32, 64, 128],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "latent_channels": 8,
    "norm_num_groups": 8,
}
UNET = {
    "block_out_channels": [64, 128, 128],
    "layers_per_block": 1,
    "attention_levels": [False, True, True],
    "num_head_channels": 32,
}
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195}


class FirstStage:
    """An autoencoder by its absolute error and KL."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.recipe = FirstStageRecipe(**shared_options(folder, 8, steps), model=VAE)
        self.items = self.plain_items = ImageFolder(folder / "images", SIDE)
        self.task = FirstStageTask(AutoencoderKL(**VAE), self.recipe)

    def floor(self, pixels: torch.Tensor) -> torch.Tensor:
        """The loss in plain torch."""
        posterior = self.task.vae.encode(pixels).latent_dist
        decoded = self.task.vae.decode(posterior.sample()).sample
        return F.l1_loss(decoded, pixels) + self.recipe.loss.kl_weight * posterior.kl().mean()


class Diffusion:
    """A UNet on latents that the cache holds."""

    def __init__(self, folder: Path, steps: int) -> None:
        options = shared_options(folder, 32, steps)
        self.recipe = DiffusionRecipe(**options, vae=str(folder / "vae"), unet=UNET, noise_schedule=NOISE)
        images = ImageFolder(folder / "images", SIDE)
        conditioner = make_conditioner(self.recipe, images)
        self.vae = conditioner.pipeline.vae.requires_grad_(False)
        self.alphas_cumprod = conditioner.pipeline.scheduler.alphas_cumprod.float()
        with quiet_libraries(quiet=True):
            work = LatentEncoding(folder / "latents", self.vae, images, BadFiles(folder, len(images), 0))
            work.begin(replace=True)
            work.do(work.shards(), lambda told: None)
            work.finish()
            cache = work.cache()
        self.set_up(conditioner, cache, images)

    def set_up(self, conditioner, cache, images) -> None:
        self.task = DiffusionTask(conditioner, self.recipe)
        self.items, self.plain_items = LatentRows(cache, Columns()), cache

    def moments(self, moments: torch.Tensor) -> torch.Tensor:
        return moments

    def floor(self, batch: torch.Tensor) -> torch.Tensor:
        """The loss in plain torch."""
        mean, logvar = self.moments(batch).chunk(2, dim=1)
        latents = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),))
        alphas = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
        return F.mse_loss(self.task.unet(noisy, timesteps).sample, noise)


class Uncached(Diffusion):
    """The same, but the first stage encodes each batch of images."""

    def set_up(self, conditioner, cache, images) -> None:
        encode = self.moments

        class Encoding(DiffusionTask):
            def forward(self, batch, rng):
                return super().forward({"moments": encode(batch["pixels"])}, rng)

        self.task, self.plain_items = Encoding(conditioner, self.recipe), images
        self.items = LatentRows(cache, lambda image, view, rng: {"pixels": images.at(image, view)})

    @torch.no_grad()
    def moments(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(pixels).latent_dist.parameters


WORKLOADS = {"first stage": FirstStage, "diffusion, cached": Diffusion, "diffusion, not cached": Uncached}


def shared_options(folder: Path, batch_size: int, steps: int) -> dict:
    names = {"data": {"train_data_dir": str(folder / "images"), "resolution": SIDE}, "output_dir": str(folder / "run")}
    return {
        **names,
        "train_batch_size": batch_size,
        "max_train_steps": steps,
        "logging_steps": 5,
        "overwrite_output_dir": True,
    }


def ours(workload, marks: list[float]) -> None:
    hook = workload.task.register_forward_pre_hook(lambda *_: marks.append(time.perf_counter()))
    with quiet_libraries(quiet=True), open_session(workload.recipe) as session:
        train(workload.task, workload.items, workload.recipe, session)
    hook.remove()


def floor(workload, marks: list[float]) -> None:
    recipe = workload.recipe
    live = torch.nn.ParameterList(p for p in workload.task.parameters() if p.requires_grad)
    optimizer = torch.optim.AdamW(live, lr=recipe.optimizer.learning_rate)
    average = AveragedModel(live, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema.decay))
    loader = DataLoader(workload.plain_items, batch_size=recipe.train_batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(batches, recipe.max_train_steps):
        marks.append(time.perf_counter())
        workload.floor(batch).backward()
        torch.nn.utils.clip_grad_norm_(live, recipe.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(live)


SIDES = {"ours": ours, "floor": floor}


def write_inputs(folder: Path) -> Path:
    """Images and an untrained first stage."""
    (folder / "images").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    torch.manual_seed(0)
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    return folder


def seconds(side: str, workload) -> list[float]:
    """Of each step but the first ones, in which memory is allocated."""
    marks: list[float] = []
    SIDES[side](workload, marks)
    return np.diff(marks)[WARM_UP:].tolist()


def peak(side: str, name: str) -> float:
    """MiB by which three steps raise the process's peak."""
    with tempfile.TemporaryDirectory() as folder:
        workload = WORKLOADS[name](write_inputs(Path(folder)), 3)
        with Peak() as memory:
            SIDES[side](workload, [])
    return memory.mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="steps of a round that count")
    options = parser.parse_args()
    print(f"{options.rounds} rounds of {options.steps} steps, {torch.get_num_threads()} threads\n")
    print("| workload | batch | ours, images a second | floor | ratio | ours, MiB | floor, MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, kind in WORKLOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            workload = kind(write_inputs(Path(folder)), options.steps + WARM_UP + 1)
            rounds = {side: [] for side in SIDES}
            for number in range(options.rounds):
                for side in sorted(SIDES, reverse=bool(number % 2)):  # neither always comes first
                    rounds[side].append(statistics.median(seconds(side, workload)))
        ratio = statistics.median(b / a for a, b in zip(rounds["ours"], rounds["floor"], strict=True))
        batch = workload.recipe.train_batch_size
        rates = [f"{batch / statistics.median(rounds[side]):.1f}" for side in SIDES]
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            held = [f"{pool.apply(peak, (side, name)):.0f}" for side in SIDES]
        print("| " + " | ".join([name, str(batch), *rates, f"{ratio:.3f}", *held]) + " |", flush=True)


if __name__ == "__main__":
    main()
