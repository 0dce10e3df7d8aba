"""What every pipeline shares: loading, saving, schedulers, and the way from a conditioning to images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from latentdiff.conditioning import Conditioning
from latentdiff.errors import ConfigError, InputError
from latentdiff.hub import folder as loading
from latentdiff.hub.components import own_components
from latentdiff.hub.index import read_index
from latentdiff.pipelines import codec, memory, outputs
from latentdiff.pipelines.lora import LoraMixin
from latentdiff.pipelines.options import DEFAULTS, SamplingOptions, image_generators
from latentdiff.pipelines.publishing import PublishingMixin
from latentdiff.pipelines.start import StartPoint
from latentdiff.registry import nearest
from latentdiff.sampling import Callback, Denoiser, Guidance, sample
from latentdiff.schedulers.select import make_scheduler
from latentdiff.seeding import Generators
from latentdiff.windows import Windows

# The private names of diffusers that are needed: without the first our components would load from disk but not from the
# hub, and without the second only those whose base class diffusers has too.
OWN_BASES = {
    name: ["save_pretrained", "from_pretrained"] for name in ("ModelMixin", "SchedulerMixin", "LayoutTokenizer")
}
LOADABLE_CLASSES.setdefault("latentdiff", OWN_BASES)
ALL_IMPORTABLE_CLASSES.update(OWN_BASES)


class DiffusionPipeline(PublishingMixin, LoraMixin, diffusers.DiffusionPipeline):  # type: ignore[misc]
    """Base of the pipelines, and the loader that finds the right one for a folder.

    It is a diffusers pipeline: device placement, offload, attention slicing, LoRA and folders work as they do there.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    @property
    def vae_scale_factor(self) -> int:
        """Pixels along a latent's side, f in the paper."""
        return codec.factor(self.vae)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        variant: str | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Load a pipeline from a folder, the hub, or the package. No code of a model is run, no pickled file is read.

        Args:
            pretrained_model_name_or_path: A folder with `model_index.json`, a hub id ("owner/name"), or "builtin:NAME".
            revision: Branch, tag or commit on the hub.
            variant: Of the weights, such as "fp16" or "ema"; components that haven't got it are loaded without.
            subfolder: Where in the model's folder or repository the pipeline lies.
            token: For the hub; the stored one if None.
            cache_dir: Where downloads are kept; the hub's cache if None.
            local_files_only: Don't ask the hub.
            force_download: Fetch again what is in the cache.
            **kwargs: As in diffusers: `dtype`, `device_map`, and components to use in place of the folder's.

        Returns:
            The pipeline, of the class that the folder names if `cls` is `DiffusionPipeline`.

        Raises:
            CheckpointError: If the folder or a component is missing, incomplete or damaged, or its weights are pickled.
            HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
            ConfigError: If the name of a built-in model or the pipeline class is unknown, or the model brings code.
            InputError: If an option is not valid.
        """
        loading.check_load_options(kwargs)
        hub = {"revision": revision, "variant": variant, "token": token, "cache_dir": cache_dir}
        hub |= {"local_files_only": local_files_only, "force_download": force_download}
        folder = loading.find_folder(pretrained_model_name_or_path, subfolder=subfolder, **hub)
        index = read_index(folder)
        pipeline_class = loading.pipeline_class(cls, folder, index)
        index = index.of(pipeline_class)
        loading.check_whole(folder, index, pipeline_class, given=kwargs)
        loading.check_files(folder, index, variant, given=kwargs)
        with loading.checkpoint_errors(folder):
            options = {**kwargs, **own_components(folder, index, variant, kwargs), "use_safetensors": True}
            options["variant"] = loading.remaining_variant(folder, index, variant, given=options)
            pipe = super(DiffusionPipeline, pipeline_class).from_pretrained(str(folder), **options)
        loading.check_complete(folder, index, variant, pipe.components, given=kwargs)
        pipe.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        return pipe

    @classmethod
    def from_original(
        cls,
        checkpoint: str | Path,
        config: str | Path | Mapping[str, Any] | None = None,
        *,
        ema: bool = True,
        dtype: torch.dtype | None = torch.float32,
        tokenizer: Any = None,
    ) -> Any:
        """Make the pipeline of a checkpoint of the original code, or of Stable Diffusion 1.x or 2.x.

        Args:
            checkpoint: A `.ckpt` or `.safetensors` file.
            config: The original YAML file, its content, or a name of the zoo; None to recognise the model.
            ema: Whether to use the averaged UNet weights where there are any.
            dtype: Of the weights; None keeps what the file has.
            tokenizer: Of the text encoder; None for that of the package, which has those of BERT and CLIP.

        Raises:
            CheckpointError: If the file is damaged, or isn't what the configuration says.
            UnsafeCheckpointError: If the file would have to run code to be read.
            ConfigError: If there is no pipeline for the model, or something is missing that the file can't tell.
        """
        from latentdiff.pipelines.original import pipeline_from_original

        return pipeline_from_original(cls, checkpoint, config, ema=ema, dtype=dtype, tokenizer=tokenizer)

    def _network_channels(self) -> int | None:
        """Channels that the task gives the network, if they are known."""
        return int(self.vae.config.latent_channels)

    @classmethod
    def from_pipe(cls, pipeline: Any, **components: Any) -> Any:
        """Make this pipeline of another's components, which both then share; no weights are copied.

        Args:
            pipeline: Any diffusers or latentdiff pipeline.
            **components: To use in place of the other's.

        Raises:
            ConfigError: If the other pipeline lacks a component that this one needs, or an unknown one is given.
        """
        known = inspect.signature(cls).parameters
        for name in components:
            if name not in known:
                raise ConfigError(f"{cls.__name__} has no component {name!r}; {nearest(name, known)}")
        parts = {name: part for name, part in pipeline.components.items() if name in known} | components
        needed = [name for name, parameter in known.items() if parameter.default is inspect.Parameter.empty]
        missing = [name for name in needed if parts.get(name) is None]
        if missing:
            raise ConfigError(
                f"{cls.__name__} needs {', '.join(missing)}, {type(pipeline).__name__} has none; give it, or take a "
                "model of that task"
            )
        made = cls(**parts)
        takes, gets = made.unet.config.in_channels, made._network_channels()
        if gets not in (None, takes):
            raise ConfigError(
                f"{cls.__name__} gives its network {gets} channels, but this one takes {takes}, being of another task; "
                "take a model of that task"
            )
        made.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
        return made

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Any:
        """The index of a pipeline's folder, without entries that this class has no use for: diffusers warns of them."""
        config = super().load_config(pretrained_model_name_or_path, **kwargs)
        if not isinstance(config, dict) or cls.__name__ == "DiffusionPipeline":
            return config
        known = inspect.signature(cls.__init__).parameters
        return {name: value for name, value in config.items() if name.startswith("_") or name in known}

    def set_scheduler(self, scheduler: Any, **config: Any) -> None:
        """Change the solver; the model's noise schedule and prediction type stay.

        Args:
            scheduler: A registry name such as "dpmpp_2m", a scheduler class (own or diffusers'), or an instance.
            **config: Options of the new scheduler, such as `use_karras_sigmas=True`.
        """
        self.register_modules(scheduler=make_scheduler(scheduler, self.scheduler.config, **config))

    def _check_size(self, height: int | None, width: int | None, windows: Windows | None = None) -> tuple[int, int]:
        """The size in pixels, the model's own by default; InputError if the networks or the memory can't make it."""
        default = self.unet.config.sample_size * self.vae_scale_factor
        height, width = height or default, width or default
        multiple = self._multiple
        for name, size in (("height", height), ("width", width)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % multiple:
                low = max(multiple, int(size // multiple * multiple)) if isinstance(size, (int, float)) else default
                raise InputError(
                    f"{name} is {size!r}; it must be a multiple of {multiple}, such as {low} or {low + multiple}"
                )
        memory.check(self, height, width, windows)
        return height, width

    @property
    def _multiple(self) -> int:
        """What an image's sides must be multiples of, in pixels."""
        return int(self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    def _windows(self, windows: Windows | int | None) -> Windows | None:
        """The call's windows, in latent pixels; a number is a side in pixels."""
        if isinstance(windows, int) and not isinstance(windows, bool):
            unit = self.vae_scale_factor
            windows = Windows(windows, windows // 4 // unit * unit)
        elif windows is not None and not isinstance(windows, Windows):
            raise InputError(f"windows is {windows!r}; give a side in pixels or latentdiff.Windows(size, overlap)")
        return windows and windows.divided(self.vae_scale_factor, self._multiple // self.vae_scale_factor)

    def _set_timesteps(self, options: SamplingOptions, device: torch.device) -> None:
        given: dict[str, Any] = {"timesteps": options["timesteps"], "sigmas": options["sigmas"]}
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            steps, limit = options["num_inference_steps"], self.scheduler.config.num_train_timesteps
            if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= limit:
                raise InputError(f"num_inference_steps is {steps!r}; it must be an integer from 1 to {limit}")
            given = {"num_inference_steps": steps}
        known = inspect.signature(self.scheduler.set_timesteps).parameters
        for name in given:
            if name not in known:
                raise InputError(f"{type(self.scheduler).__name__} takes no {name}; give num_inference_steps instead")
        self.scheduler.set_timesteps(device=device, **given)

    def _generate(
        self,
        conditioning: Conditioning,
        size: tuple[int, int],
        options: SamplingOptions,
        *,
        batch_size: int | None = None,
        guidance: Sequence[Guidance] = (),
        start: StartPoint | None = None,
        finish: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
    ) -> Any:
        """Everything after the conditioning, for every task: noise, the loop, decoding.

        Args:
            conditioning: Of as many rows as there are images.
            size: Height and width in pixels.
            options: Of the call.
            batch_size: The number of images, where the conditioning is empty.
            guidance: Of the task; those of the options come after it.
            start: An image to start from, in place of noise.
            finish: What is done with the decoded images (B, C, H, W) in [0, 1].
        """
        options = {**DEFAULTS, **options}
        outputs.check_channels(options["output_type"], self.vae.config.out_channels)
        batch_size = batch_size or conditioning.batch_size or 1
        generators = image_generators(options["seed"], options["generator"], batch_size)
        device, windows = self._execution_device, self._windows(options["windows"])
        self._set_timesteps(options, device)
        channels = self.vae.config.latent_channels
        shape = torch.Size((batch_size, channels, *(side // self.vae_scale_factor for side in size)))
        begin = (start or StartPoint()).begin(
            self.scheduler, self._noise(options["latents"], generators, shape, device)
        )
        latent_windows = windows if windows and not windows.covers(*shape[2:]) else None
        with self.progress_bar(total=len(self.scheduler.timesteps) - begin.first) as bar:
            latents = sample(
                Denoiser(self.unet, conditioning, windows=latent_windows),
                self.scheduler,
                begin.latents,
                first=begin.first,
                guidance=[*guidance, *options["guidance"]],
                known=begin.known(generators),
                generator=generators,
                eta=options["eta"],
                callback=self._callback(options),
                progress=bar.update,
            )
        images: Any = latents
        if options["output_type"] != "latent":
            images = outputs.convert(finish(codec.decode(self.vae, latents, windows=windows)), options["output_type"])
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if options["return_dict"] else (images,)

    def _noise(
        self, given: torch.Tensor | None, generators: Generators, shape: torch.Size, device: torch.device
    ) -> torch.Tensor:
        """Standard normal noise of `shape` (B, C, h, w): image i from its own generator, so batches don't matter."""
        if given is None:
            given = randn_tensor(shape, generator=generators, device=device)
        elif given.shape != shape:
            raise InputError(f"latents have shape {tuple(given.shape)}; this call needs {tuple(shape)}")
        noise: torch.Tensor = given.to(device, self.unet.dtype)
        return noise

    def _callback(self, options: SamplingOptions) -> Callback | None:
        """The user's callback as the loop calls it."""
        call, inputs = options["callback_on_step_end"], options["callback_on_step_end_tensor_inputs"]
        if call is None:
            return None

        def callback(step: int, timestep: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
            shown = {"latents": current} if inputs else {}
            result: torch.Tensor = call(self, step, timestep, shown).get("latents", current)
            return result

        return callback
