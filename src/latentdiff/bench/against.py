"""A model beside diffusers' own pipeline of the same weights, in turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import diffusers
import numpy as np
import torch

from latentdiff.bench.inputs import Arguments, example_inputs, task_name
from latentdiff.bench.timing import seconds_of
from latentdiff.conversion.to_diffusers import stock_scheduler, stock_unet_config
from latentdiff.errors import ConfigError, InputError
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.nn.int8 import check_whole
from latentdiff.pipelines.base import DiffusionPipeline, temporary_scheduler
from latentdiff.pipelines.text_to_image import TextToImagePipeline
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.seeding import image_generators
from latentdiff.types import Float32Array


class StockPipeline(Protocol):
    """A pipeline of diffusers."""

    def __call__(self, **arguments: object) -> tuple[Float32Array, ...]:
        """Make images; with `return_dict=False`, a tuple whose first entry they are."""
        ...


@dataclass(frozen=True)
class Against:
    """A model and diffusers' pipeline, which took turns.

    Attributes:
        pipeline: The class of diffusers.
        diffusers: Its version.
        steps: Steps of DDIM, which both take.
        batch_size: Images of a call.
        rounds: How many calls each made.
        ours: The median seconds of our calls.
        theirs: The median seconds of theirs.
        ratio: The median over rounds of theirs / ours: above 1 where ours is faster.
        difference: The largest difference of the images of both, in [0, 1].
        from_embeddings: Whether both start from the text encoder's states, so that it isn't timed.
    """

    pipeline: str
    diffusers: str
    steps: int
    batch_size: int
    rounds: int
    ours: float
    theirs: float
    ratio: float
    difference: float
    from_embeddings: bool


def stock_pipeline(pipe: DiffusionPipeline) -> StockPipeline:
    """diffusers' pipeline of a model's task, with the same weights, which both share in memory, and DDIM.

    `StableDiffusionPipeline` has no text encoder then, as it starts from the text's states.

    Raises:
        ConfigError: If weights are int8.
        InputError: If diffusers has none for the task, or the network is none of its classes.
    """
    task, unet = task_name(pipe), pipe.unet
    if task not in ("text-to-image", "unconditional"):
        raise InputError(f"diffusers has no pipeline of the weights of a model for {task}; leave --against out")
    check_whole("unet", unet, "which diffusers' pipeline has no place for; leave --against out")
    if isinstance(unet, UNet2DConditionModel):
        try:
            config = stock_unet_config(unet.config)
        except ConfigError as error:
            reason = str(error).removeprefix("this model can't be a folder of plain diffusers: ").split("; use --to")[0]
            raise InputError(f"diffusers has no network of these weights ({reason}); leave --against out") from None
        with torch.device("meta"):
            unet = getattr(diffusers, config["_class_name"]).from_config(config)
        unet.load_state_dict(pipe.unet.state_dict(), assign=True)
        unet = unet.eval().requires_grad_(False)
    scheduler = stock_scheduler(pipe.scheduler)
    if task == "unconditional":
        made = diffusers.LDMPipeline(vqvae=pipe.vae, unet=unet, scheduler=scheduler)
    else:
        made = diffusers.StableDiffusionPipeline(
            vae=pipe.vae,
            text_encoder=None,
            tokenizer=None,
            unet=unet,
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    made.set_progress_bar_config(disable=True)
    stock: StockPipeline = made
    return stock


def compare_with_diffusers(
    pipe: DiffusionPipeline,
    theirs: StockPipeline,
    steps: int,
    *,
    batch_size: int = 8,
    rounds: int = 5,
    guidance_scale: float | None = None,
) -> Against:
    """Time a model and diffusers' pipeline of the same weights, noise and solver (DDIM), call by call in turns.

    Args:
        pipe: The model.
        theirs: `stock_pipeline` of it.
        steps: Steps of DDIM.
        batch_size: Images of a call.
        rounds: How many calls each makes; the order changes from round to round. One more before them warms up.
        guidance_scale: The guidance scale of both, for a model with text.
    """
    inputs = example_inputs(pipe, batch_size)
    by_text = isinstance(pipe, TextToImagePipeline)
    if isinstance(pipe, TextToImagePipeline):
        with torch.no_grad():
            states, negative = pipe.encode_prompt([""] * batch_size, None, 1, True)
        assert negative is not None  # guidance is asked for
        states, negative = states.to(pipe.unet.dtype), negative.to(pipe.unet.dtype)
        inputs = {"prompt_embeds": states, "guidance_scale": guidance_scale}
        if guidance_scale != 1:
            inputs["negative_prompt_embeds"] = negative
    results: dict[str, Float32Array] = {}

    def call(name: str, function: Callable[..., tuple[Float32Array, ...]]) -> Callable[[], object]:
        def called() -> None:
            arguments: Arguments = {**inputs, "num_inference_steps": steps, "output_type": "np", "return_dict": False}
            results[name] = function(**arguments, generator=image_generators(0, None, batch_size))[0]

        return called

    calls = {"ours": call("ours", pipe), "theirs": call("theirs", theirs)}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with temporary_scheduler(pipe, DDIMScheduler.from_config(stock_scheduler(pipe.scheduler).config)):
        for function in calls.values():
            function()
        for number in range(rounds):
            for name in sorted(calls, reverse=bool(number % 2)):
                seconds[name].append(seconds_of(pipe.device, calls[name]))
    ratios = [their / our for our, their in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return Against(
        pipeline=type(theirs).__name__,
        diffusers=diffusers.__version__,
        steps=steps,
        batch_size=batch_size,
        rounds=rounds,
        ours=statistics.median(seconds["ours"]),
        theirs=statistics.median(seconds["theirs"]),
        ratio=statistics.median(ratios),
        difference=float(np.abs(results["ours"] - results["theirs"]).max()),
        from_embeddings=by_text,
    )
