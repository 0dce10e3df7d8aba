"""Samples a second of LDM-4-G: the class-conditional model of 256 pixels, f = 4, guided, at 250 and 25 DDIM steps.

Weights are random, so images are noise, but time and memory are those of the real model. diffusers has no pipeline of
it. With --quick the network has a sixth of the width and makes images of 64 pixels, so that a CPU rehearses it in
seconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.measuring import Row, Settings, rows_of
from benchmarks.models import filled, plan_of, zoo_pipeline
from latentdiff import ClassToImagePipeline, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel, VQModel
from latentdiff.bench.timing import most_memory
from latentdiff.models.class_embedder import ClassEmbedder

MODEL = "cin256-v2"
STEPS = (250, 25)
GUIDANCE = 1.5  # the paper's
NARROWER = 6
BATCH = {"cpu": 1}
BATCH_ON_DEVICE = 32


def narrow_pipeline() -> DiffusionPipeline:
    """The shape of the model with fewer channels."""
    plan = plan_of(MODEL)
    unet, embedder = plan.parts["unet"].model.config, plan.parts["class_embedder"].model
    widths = [channels // NARROWER for channels in unet.block_out_channels]
    small = UNet2DConditionModel.from_config(
        {**unet, "block_out_channels": widths, "norm_num_groups": 16, "sample_size": 16}
    )
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = VQModel(block_out_channels=(16, 32, 64), latent_channels=3, norm_num_groups=8, **blocks)
    pipe = ClassToImagePipeline(
        vae=vae.eval(),
        unet=small.eval(),
        class_embedder=filled(ClassEmbedder.from_config(embedder.config).to("meta")),
        scheduler=DDIMScheduler(**plan.scheduler),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def rows(settings: Settings) -> Iterator[Row]:
    """Measure both numbers of steps, as it is and compiled where that takes seconds."""
    torch.manual_seed(0)
    pipe = narrow_pipeline() if settings.quick else zoo_pipeline(MODEL)
    pipe.to(settings.device, settings.dtype)
    batch = BATCH.get(settings.device.type, BATCH_ON_DEVICE)
    what = "LDM-4-G" + (f", {NARROWER} times as narrow, 64 pixels" if settings.quick else "")
    labels = [number % 1000 for number in range(batch)]

    def call(steps: int) -> None:
        pipe(labels, num_inference_steps=steps, guidance_scale=GUIDANCE, seed=0)

    call(2)
    with most_memory(settings.device) as memory:
        call(2)
    for steps in STEPS:
        seconds = settings.turns({"latentdiff eager": lambda steps=steps: call(steps)})
        told = f"{what}, {steps} steps, batch {batch}, {str(settings.dtype)[6:]}"
        yield from rows_of("samples", told, seconds, None, images=batch, memory={"latentdiff eager": memory.peak})
