"""From a conditioning to images: what every pipeline does alike once its input is a `Conditioning`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline as StockPipeline
from diffusers.utils.torch_utils import randn_tensor
from typing_extensions import Unpack

from latentdiff.conditioning import Conditioning
from latentdiff.errors import InputError
from latentdiff.pipelines import codec, memory, outputs
from latentdiff.pipelines.call_state import CallScheduler, own_scheduler
from latentdiff.pipelines.options import SamplingKeywords, SamplingOptions, check_count, sampling_call
from latentdiff.pipelines.outputs import ImagePipelineOutput, OutputT
from latentdiff.pipelines.run_state import RunStateMixin, strength_of
from latentdiff.pipelines.start import StartPoint
from latentdiff.sampling import Denoiser, Guidance, sample
from latentdiff.schedulers.tuned import find_tuned, planned
from latentdiff.seeding import Generators, image_generators
from latentdiff.types import DenoisingNetwork, FirstStage, Scheduler
from latentdiff.windows import Windows


class Generation(RunStateMixin, StockPipeline):  # type: ignore[misc]
    """The part of a pipeline that makes images of a conditioning.

    Attributes:
        vae: First stage, KL or VQ.
        unet: The denoising network.
        scheduler: The solver. Each call runs on a copy of its own, which is what its callbacks see.
    """

    vae: FirstStage
    unet: DenoisingNetwork
    scheduler = CallScheduler()

    @property
    def vae_scale_factor(self) -> int:
        """How many pixels lie along a latent's side: f in the paper."""
        return codec.factor(self.vae)

    @sampling_call
    def generate_from(
        self,
        conditioning: Conditioning,
        height: int | None = None,
        width: int | None = None,
        *,
        batch_size: int | None = None,
        **keywords: Unpack[SamplingKeywords[OutputT]],
    ) -> ImagePipelineOutput[OutputT]:
        """Make images of a conditioning that is ready, such as a text encoder's states or a batch of training.

        The pipelines' own calls go the same way once they have made the conditioning of their inputs. With
        classifier-free guidance, its object stands first in `guidance`, and has as many rows as there are images:
        `guidance=[ClassifierFreeGuidance(unconditional, scale=5.0)]`.

        Args:
            conditioning: A row for each image, or for each `num_images_per_prompt` images; its context (B, M, d) and
                channels (B, c, h, w), h and w being those of the latents, are what the network takes.
            height: Height in pixels; the model's own by default.
            width: Width in pixels; the model's own by default.
            batch_size: How many images to make where the conditioning is empty, 1 by default.
            **keywords: The shared options.

        Raises:
            InputError: If an argument is not valid, or the conditioning doesn't fit the network or the size.
        """
        options = self._complete(keywords)
        size = self._check_size(height, width, options.windows)
        self._check_conditioning(conditioning, size, batch_size)
        conditioning = conditioning.to(self._execution_device, self.unet.dtype).repeat(options.num_images_per_prompt)
        count = None if batch_size is None else batch_size * options.num_images_per_prompt
        return self._generate(conditioning, size, options, batch_size=count)

    def _complete(self, keywords: SamplingKeywords[OutputT]) -> SamplingOptions[OutputT]:
        """Complete a call's options, and check them against the model.

        Raises:
            InputError: If one is not valid.
        """
        given: dict[str, Any] = {**keywords, "windows": self._latent_windows(keywords.get("windows"))}
        options = SamplingOptions[OutputT](**given)
        outputs.check_channels(options.output_type, self.vae.config.out_channels)
        if options.quantize_denoised and not hasattr(self.vae, "quantize"):
            raise InputError("quantize_denoised is for models with a VQ first stage, which has codes; leave it out")
        options.caching.check(self.unet)
        known = inspect.signature(self.scheduler.set_timesteps).parameters
        for name in options.schedule:
            if name not in known:
                raise InputError(f"{type(self.scheduler).__name__} takes no {name}; give num_inference_steps instead")
        steps, limit = options.schedule.get("num_inference_steps", 1), self.scheduler.config.num_train_timesteps
        if isinstance(steps, str):
            find_tuned(self.scheduler, steps)
        elif isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= limit:
            raise InputError(f"num_inference_steps is {steps!r}; it must be an integer from 1 to {limit}")
        return options

    def _latent_windows(self, windows: Windows | int | None) -> Windows | None:
        """Count a call's windows in latent pixels; a number is a side in pixels, a quarter of which overlaps."""
        if windows is None:
            return None
        unit = self.vae_scale_factor
        if isinstance(windows, int) and not isinstance(windows, bool):
            windows = Windows(windows, windows // 4 // unit * unit)
        if not isinstance(windows, Windows):
            raise InputError(f"windows is {windows!r}; give a side in pixels or latentdiff.Windows(size, overlap)")
        return windows.divided(unit, self._multiple // unit)

    def _check_size(self, height: int | None, width: int | None, windows: Windows | None = None) -> tuple[int, int]:
        """The size in pixels, the model's own by default; InputError if the networks or the memory can't make it."""
        own = self.unet.config.sample_size
        own_height, own_width = own if isinstance(own, (tuple, list)) and len(own) == 2 else (own, own)
        multiple = self._multiple
        if height is None:
            height = self._own_side("height", own_height)
        if width is None:
            width = self._own_side("width", own_width)
        for name, size in (("height", height), ("width", width)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % multiple:
                low = max(multiple, int(size // multiple * multiple)) if isinstance(size, (int, float)) else multiple
                raise InputError(
                    f"{name} is {size!r}; it must be a multiple of {multiple}, such as {low} or {low + multiple}"
                )
        memory.check_memory(self.vae, self.unet, height, width, windows)
        return height, width

    def _own_side(self, name: str, latent_pixels: object) -> int:
        """A side in pixels by the configuration of the network, which may leave it open."""
        if not isinstance(latent_pixels, int) or latent_pixels < 1:
            raise InputError(f"{name} is not given, and this model's UNet has sample_size {latent_pixels!r}; give it")
        return latent_pixels * int(self.vae_scale_factor)

    @property
    def _multiple(self) -> int:
        """What an image's sides must be multiples of, in pixels."""
        return int(self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    def _check_conditioning(self, conditioning: Conditioning, size: tuple[int, int], batch_size: int | None) -> None:
        """Raise InputError unless the conditioning has rows for the images and channels that the network takes."""
        rows, concat = conditioning.batch_size, conditioning.concat
        if batch_size is not None and check_count("batch_size", batch_size) != rows and rows is not None:
            raise InputError(f"batch_size is {batch_size}, but the conditioning has {rows} rows; leave it out")
        height, width = (side // self.vae_scale_factor for side in size)
        channels = self.unet.config.in_channels - self.vae.config.latent_channels
        needed = f"(B, {channels}, {height}, {width})" if channels else "None"
        given = "None" if concat is None else str(tuple(concat.shape))
        fits = not channels if concat is None else concat.shape[1:] == (channels, height, width)
        if not fits:
            raise InputError(f"concat of the conditioning is {given}; this network takes {needed} at this size")

    def _generate(
        self,
        conditioning: Conditioning,
        size: tuple[int, int],
        options: SamplingOptions[OutputT],
        *,
        batch_size: int | None = None,
        guidance: Sequence[Guidance] = (),
        start: StartPoint | None = None,
        finish: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    ) -> ImagePipelineOutput[OutputT]:
        """Do everything that comes after the conditioning, for every task: noise, the loop, decoding.

        Args:
            conditioning: A row for each image.
            size: Height and width in pixels.
            options: The completed options of the call.
            batch_size: The number of images, where the conditioning is empty.
            guidance: The task's guidance; that of the options comes after it.
            start: An image to start from, in place of noise.
            finish: What is done with the decoded images (B, C, H, W) in [0, 1].

        Raises:
            InputError: If seeds, generators or latents are not those of as many images, or an option doesn't fit the
                scheduler.
            NonFiniteError: If the result is not finite.
        """
        for guide in options.guidance:
            getattr(guide, "check_pipeline", lambda pipeline: None)(self)
        batch_size = batch_size or conditioning.batch_size or 1
        generators = image_generators(options.seed, options.generator, batch_size)
        device: torch.device = self._execution_device
        channels = self.vae.config.latent_channels
        shape = torch.Size((batch_size, channels, *(side // self.vae_scale_factor for side in size)))
        noise = self._noise(options.latents, generators, shape, device)
        windows = options.windows
        several = windows is not None and not windows.covers(*shape[2:])

        def plan(scheduler: Scheduler) -> None:
            set_timesteps: Callable[..., None] = scheduler.set_timesteps
            scale = strength_of([*guidance, *options.guidance])
            set_timesteps(device=device, **planned(scheduler, options.schedule, scale))

        with own_scheduler(self, plan) as scheduler:
            begin = (start or StartPoint()).begin(scheduler, noise)
            timesteps = scheduler.timesteps[begin.first :]
            steps = len(timesteps)
            denoiser = Denoiser(
                self.unet,
                conditioning,
                windows=windows if several else None,
                timesteps=timesteps,
                schedule=options.caching.schedule(timesteps),
            )
            with (
                self._running([*guidance, *options.guidance], steps) as guides,
                self.progress_bar(total=steps) as bar,
            ):
                observe_x0, callback = self._callbacks(options, guides)
                latents = sample(
                    denoiser,
                    scheduler,
                    begin.latents,
                    first=begin.first,
                    guidance=guides,
                    known=begin.known(generators),
                    generator=generators,
                    eta=options.eta,
                    temperature=options.temperature,
                    replace_x0=codec.quantizer(self.vae, device) if options.quantize_denoised else None,
                    observe_x0=observe_x0,
                    callback=callback,
                    stop=lambda: self._interrupt,
                    progress=bar.update,
                )
        outputs.check_latents(latents, self.unet.dtype)
        images: object = latents
        if options.output_type != "latent":
            images = outputs.convert(finish(codec.decode(self.vae, latents, windows=windows)), options.output_type)
        self.maybe_free_model_hooks()
        output = ImagePipelineOutput[OutputT](images=images)
        # No annotation can follow `return_dict`, so the tuple passes for the object, whose `[0]` is the same.
        return output if options.return_dict else output.to_tuple()  # type: ignore[return-value]

    def _noise(
        self, given: torch.Tensor | None, generators: Generators, shape: torch.Size, device: torch.device
    ) -> torch.Tensor:
        """Standard normal noise of `shape` (B, C, h, w): image i from its own generator, so batches don't matter."""
        if given is None:
            given = randn_tensor(shape, generator=generators, device=device)
        elif given.shape != shape:
            raise InputError(f"latents have shape {tuple(given.shape)}; this call needs {tuple(shape)}")
        elif not given.isfinite().all():
            raise InputError("latents hold numbers that are not finite; give noise from N(0, 1)")
        return given.to(device, self.unet.dtype)
