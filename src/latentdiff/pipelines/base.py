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
from latentdiff.errors import InputError
from latentdiff.pipelines import loading, outputs
from latentdiff.pipelines.components import own_components
from latentdiff.pipelines.index import read_index
from latentdiff.pipelines.publishing import PublishingMixin
from latentdiff.sampling import Denoiser, Guidance, sample
from latentdiff.schedulers.select import make_scheduler
from latentdiff.seeding import check_seed, generator

# The private names of diffusers that are needed: without the first our components would load from disk but not from the
# hub, and without the second only those whose base class diffusers has too.
OWN_BASES = {
    name: ["save_pretrained", "from_pretrained"] for name in ("ModelMixin", "SchedulerMixin", "LayoutTokenizer")
}
LOADABLE_CLASSES.setdefault("latentdiff", OWN_BASES)
ALL_IMPORTABLE_CLASSES.update(OWN_BASES)

Seed = int | Sequence[int] | None


class DiffusionPipeline(PublishingMixin, diffusers.DiffusionPipeline):  # type: ignore[misc]
    """Base of the pipelines, and the loader that finds the right one for a folder.

    It is a diffusers pipeline: device placement, offload, attention slicing, LoRA and folders work as they do there.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents"]

    @property
    def vae_scale_factor(self) -> int:
        """Pixels along a latent's side, f in the paper."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

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
        loading.check_options(kwargs)
        hub = {"revision": revision, "variant": variant, "token": token, "cache_dir": cache_dir}
        hub |= {"local_files_only": local_files_only, "force_download": force_download}
        folder = loading.find_folder(pretrained_model_name_or_path, subfolder=subfolder, **hub)
        index = read_index(folder)
        pipeline_class = loading.pipeline_class(cls, folder, index)
        index = index.of(pipeline_class)
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
            tokenizer: Of the text encoder; checkpoints have none, and the package has that of the LDM text models.

        Raises:
            CheckpointError: If the file is damaged, or isn't what the configuration says.
            UnsafeCheckpointError: If the file would have to run code to be read.
            ConfigError: If there is no pipeline for the model, or something is missing that the file can't tell.
        """
        from latentdiff.pipelines.original import pipeline_from_original

        return pipeline_from_original(cls, checkpoint, config, ema=ema, dtype=dtype, tokenizer=tokenizer)

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

    def _check_size(self, height: int | None, width: int | None) -> tuple[int, int]:
        """The size in pixels, the model's own by default; InputError if the networks can't make it."""
        default = self.unet.config.sample_size * self.vae_scale_factor
        height, width = height or default, width or default
        multiple = self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)
        for name, size in (("height", height), ("width", width)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1 or size % multiple:
                low = max(multiple, int(size // multiple * multiple)) if isinstance(size, (int, float)) else default
                raise InputError(
                    f"{name} is {size!r}; it must be a multiple of {multiple}, such as {low} or {low + multiple}"
                )
        return height, width

    def _set_timesteps(
        self,
        num_inference_steps: int,
        timesteps: Sequence[int] | None,
        sigmas: Sequence[float] | None,
        device: torch.device,
    ) -> None:
        given = {"timesteps": timesteps, "sigmas": sigmas}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) > 1:
            raise InputError("timesteps and sigmas are both given; give one of them")
        if not given:
            limit = self.scheduler.config.num_train_timesteps
            if isinstance(num_inference_steps, bool) or not isinstance(num_inference_steps, int):
                raise InputError(
                    f"num_inference_steps is {num_inference_steps!r}; it must be an integer of 1 to {limit}"
                )
            if not 1 <= num_inference_steps <= limit:
                raise InputError(f"num_inference_steps is {num_inference_steps}; it must be from 1 to {limit}")
            given = {"num_inference_steps": num_inference_steps}  # type: ignore[dict-item]
        known = inspect.signature(self.scheduler.set_timesteps).parameters
        for name in given:
            if name not in known:
                raise InputError(f"{type(self.scheduler).__name__} takes no {name}; give num_inference_steps instead")
        self.scheduler.set_timesteps(device=device, **given)

    def _initial_latents(
        self,
        latents: torch.Tensor | None,
        generators: list[torch.Generator] | torch.Generator | None,
        shape: torch.Size,
        device: torch.device,
    ) -> torch.Tensor:
        """Standard normal noise of `shape` (B, C, h, w): image i from its own generator, so batches don't matter."""
        if latents is None:
            latents = randn_tensor(shape, generator=generators, device=device)
        elif latents.shape != shape:
            raise InputError(f"latents have shape {tuple(latents.shape)}; this call needs {tuple(shape)}")
        scaled: torch.Tensor = latents.to(device, self.unet.dtype) * self.scheduler.init_noise_sigma
        return scaled

    def _generate(
        self,
        conditioning: Conditioning,
        batch_size: int,
        size: tuple[int, int],
        *,
        guidance: Sequence[Guidance] = (),
        num_inference_steps: int,
        timesteps: Sequence[int] | None,
        sigmas: Sequence[float] | None,
        eta: float,
        seed: Seed,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        output_type: str,
        return_dict: bool,
        callback_on_step_end: Callable[..., dict[str, Any]] | None,
        callback_on_step_end_tensor_inputs: Sequence[str],
    ) -> Any:
        """Everything after the conditioning, for every task: noise, the loop, decoding."""
        outputs.check_output_type(output_type)
        unknown = set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise InputError(f"callback_on_step_end_tensor_inputs has {sorted(unknown)}; allowed: ['latents']")
        generators = image_generators(seed, generator, batch_size)
        device = self._execution_device
        self._set_timesteps(num_inference_steps, timesteps, sigmas, device)
        channels = self.vae.config.latent_channels
        shape = torch.Size((batch_size, channels, *(side // self.vae_scale_factor for side in size)))
        noise = self._initial_latents(latents, generators, shape, device)

        def callback(step: int, timestep: torch.Tensor, current: torch.Tensor) -> torch.Tensor:
            assert callback_on_step_end is not None
            shown = {"latents": current} if callback_on_step_end_tensor_inputs else {}
            result: torch.Tensor = callback_on_step_end(self, step, timestep, shown).get("latents", current)
            return result

        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:
            result = sample(
                Denoiser(self.unet, conditioning),
                self.scheduler,
                noise,
                guidance=guidance,
                generator=generators,
                eta=eta,
                callback=callback if callback_on_step_end else None,
                progress=bar.update,
            )
        images = result
        if output_type != "latent":
            images = outputs.convert(outputs.decode(self.vae, result), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)


def image_generators(
    seed: Seed, given: torch.Generator | list[torch.Generator] | None, batch_size: int
) -> list[torch.Generator] | torch.Generator | None:
    """One CPU generator an image: image i of seed s draws what image 0 of seed s + i draws.

    Args:
        seed: An int, one int an image, or None for fresh noise.
        given: diffusers' `generator` argument, used as it is.
        batch_size: Images in the call.

    Raises:
        InputError: If both are given, a seed is out of range, or the number of seeds or generators is not the batch's.
    """
    if given is not None:
        if seed is not None:
            raise InputError("seed and generator are both given; give one of them")
        if isinstance(given, list) and len(given) != batch_size:
            raise InputError(f"{len(given)} generators are given for {batch_size} images; give one each, or one")
        return given
    if seed is None:
        return None
    if isinstance(seed, (list, tuple)):
        seeds = [check_seed(number) for number in seed]
    else:
        first = check_seed(seed)
        seeds = [check_seed(first + i) for i in range(batch_size)]
    if len(seeds) != batch_size:
        raise InputError(f"{len(seeds)} seeds are given for {batch_size} images; give one each, or one int")
    return [generator(number) for number in seeds]
