"""Decoding latents: the first stages of the published models, as they are, compiled, and a tiny decoder, in turns.

Each side is what its pipelines do with latents: scaling, the network, images in [0, 1] in float32 on the CPU.
The tiny decoder is of the first stages of Stable Diffusion's shape, which the 1.45B model shares. Weights are random.
--latents gives all models so many latent pixels a side.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import torch
from diffusers.image_processor import VaeImageProcessor

from benchmarks.measuring import Row, Settings, rows_of
from benchmarks.models import BUILTIN, SIZES, Size, filled, plan_of
from latentdiff import DDIMScheduler, DiffusionPipeline, TinyDecoder, UnconditionalPipeline, UNet2DConditionModel
from latentdiff.errors import LatentDiffError
from latentdiff.pipelines import codec

QUICK_SIZES = ("builtin", "sd1")
QUICK_LATENTS = 16
TINY = ("ldm", "sd1")


def first_stage(size: Size) -> tuple[torch.nn.Module, int]:
    """The first stage of a model, and how many latent pixels a side of its images has."""
    if size.zoo is None:
        pipe = DiffusionPipeline.from_pretrained(BUILTIN)
        return pipe.vae.requires_grad_(False), pipe.unet.config.sample_size
    plan = plan_of(size.zoo)
    return filled(plan.parts["vae"].model), plan.parts["unet"].model.config.sample_size


@torch.no_grad()
def rows(settings: Settings) -> Iterator[Row]:
    """Measure every size at every batch."""
    sizes = settings.sizes or (QUICK_SIZES if settings.quick else tuple(SIZES))
    for name in (name for name in SIZES if name in sizes):
        size = SIZES[name]
        vae, latents = first_stage(size)
        vae = vae.to(settings.device, settings.dtype)
        side = settings.latents or (QUICK_LATENTS if settings.quick else latents)
        for batch in settings.batches[:1] if settings.quick else settings.batches:
            what = f"{size.label}, batch {batch}, {side * codec.factor(vae)} pixels, {str(settings.dtype)[6:]}"
            with tempfile.TemporaryDirectory() as folder:
                os.environ["HF_ASSETS_CACHE"] = folder
                yield from measured(what, vae, batch, side, name in TINY, settings)


def measured(what: str, vae: torch.nn.Module, batch: int, side: int, tiny: bool, settings: Settings) -> Iterator[Row]:
    """The rows of one first stage."""
    drawn = torch.randn(batch, vae.config.latent_channels, side, side)
    given = drawn.to(settings.device, settings.dtype)
    small = UNet2DConditionModel(
        block_out_channels=(32,), layers_per_block=1, attention_levels=(False,), num_head_channels=32
    )
    pipe = UnconditionalPipeline(vae=vae, unet=small.to(settings.device), scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    processor = VaeImageProcessor(vae_scale_factor=codec.factor(vae))

    @torch.no_grad()
    def stock() -> torch.Tensor:
        made = vae.decode(given / vae.config.scaling_factor, return_dict=False)[0]
        return processor.postprocess(made, "pt").float().cpu()

    sides = {"diffusers eager": stock, "latentdiff eager": lambda: codec.decode(vae, given)}
    notes: dict[str, str] = {}
    if tiny:
        decoder = TinyDecoder().to(settings.device, settings.dtype).eval().requires_grad_(False)
        count = sum(parameter.numel() for parameter in decoder.decoder.parameters())
        of = sum(parameter.numel() for parameter in vae.decoder.parameters())
        notes["tiny decoder"] = f"{count:,} parameters beside {of:,}"
        sides["tiny decoder"] = lambda: codec.decode(decoder, given)
    if not settings.quick:
        pipe.compile("vae")
        forward = vars(vae.decoder)["forward"]
        pipe.uncompile()

        def compiled() -> torch.Tensor:
            vars(vae.decoder)["forward"] = forward
            try:
                return codec.decode(vae, given)
            finally:
                del vars(vae.decoder)["forward"]

        sides["latentdiff compiled"] = compiled
    sides = {name: function for name, function in sides.items() if settings.wants(name)}
    for name, function in list(sides.items()):
        try:
            function()
        except (LatentDiffError, RuntimeError) as error:
            del sides[name]
            yield Row("decode", what, name, note=" ".join(str(error).split())[:200])
    yield from rows_of("decode", what, settings.turns(sides), "diffusers eager", notes=notes, images=batch)
