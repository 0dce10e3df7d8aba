"""The base of all pipelines: where they come from, and their scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline as StockPipeline

from latentdiff.compat import progress_bar_config, register_component_bases
from latentdiff.errors import CheckpointError, ConfigError, LatentDiffError
from latentdiff.hub.component_folder import library_errors
from latentdiff.hub.components import BASES
from latentdiff.hub.construction import bounded
from latentdiff.hub.folder import ModelFolder, check_load_options
from latentdiff.hub.networks import component_dtype
from latentdiff.models.layout_tokenizer import LayoutTokenizer
from latentdiff.models.tiny_decoder import TinyDecoder
from latentdiff.models.unet import UNet2DConditionModel
from latentdiff.pipelines.codec import check_scaling
from latentdiff.pipelines.compile import CompileMixin
from latentdiff.pipelines.decoders import fitting_decoder
from latentdiff.pipelines.display import pipeline_html
from latentdiff.pipelines.generation import Generation
from latentdiff.pipelines.load_options import (
    as_dtype,
    check_given_components,
    complete_load_options,
    take_dtype,
    warn_of_conversion,
)
from latentdiff.pipelines.lora import LoraMixin
from latentdiff.pipelines.outputs import ImagePipelineOutput
from latentdiff.pipelines.preview import PreviewMixin
from latentdiff.pipelines.publishing import PublishingMixin
from latentdiff.pipelines.quantize import QUANTIZED, QuantizeMixin, check_quantize
from latentdiff.pipelines.switches import SwitchesMixin
from latentdiff.registry import PIPELINES, nearest
from latentdiff.schedulers.select import make_scheduler
from latentdiff.tasks import TASKS, task_of_pipeline
from latentdiff.types import Scheduler, Tokenizer

register_component_bases(BASES["latentdiff"])

MOST_LOADS = 5  # of one call, where another process saves the model while it is loaded


class DiffusionPipeline(
    CompileMixin, QuantizeMixin, SwitchesMixin, PublishingMixin, LoraMixin, PreviewMixin, Generation
):
    """Base of the pipelines, and the loader that finds the right one for a folder.

    It is a diffusers pipeline: device placement, offload, LoRA and folders work as they do there.
    See `Generation` for what comes after a pipeline's conditioning.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "pred_original_sample"]

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
        quantize: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a pipeline from a folder, the hub, or the package. No code of a model is run, no pickled file is read.

        Args:
            pretrained_model_name_or_path: A folder with `model_index.json`, a hub id ("owner/name"), or "builtin:NAME".
            revision: A branch, tag or commit on the hub.
            variant: The variant of the weights, such as "fp16" or "ema"; components that haven't got it are loaded
                without.
            subfolder: Where in the model's folder or repository the pipeline lies.
            token: The token for the hub; the stored one if None.
            cache_dir: Where downloads are kept; the hub's cache if None.
            local_files_only: Whether to use only what is in the cache, and not ask the hub.
            force_download: Whether to fetch again what is in the cache.
            quantize: "int8" to hold the weights of UNet and text encoder in 8 bits from the start; see `quantize`.
            **kwargs: Options of diffusers, such as `dtype` (or `torch_dtype`; "float16" and "fp16" are understood, too,
                and "auto" is bfloat16 where the machine multiplies in it, else float32) and `device_map`, and
                components to use in place of the folder's.

        Returns:
            The pipeline, of the class that the folder names if `cls` is `DiffusionPipeline`.

        Raises:
            CheckpointError: If the folder or a component is missing, incomplete or damaged, or its weights are pickled.
            HubError: If the hub doesn't know the model or revision, refuses the token or can't be reached.
            ConfigError: If the name of a built-in model or the pipeline class is unknown, the model is of another task
                than the class, or it brings code.
            InputError: If an option is not valid.
        """
        own = inspect.signature(DiffusionPipeline.from_pretrained).parameters
        kwargs = complete_load_options(kwargs, own)  # before anything is downloaded
        check_load_options(kwargs)
        check_quantize(quantize)
        for _ in range(MOST_LOADS):
            folder = ModelFolder.open(
                pretrained_model_name_or_path,
                subfolder=subfolder,
                variant=variant,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
            try:
                pipe = cls.from_model_folder(folder, quantize=quantize, **kwargs)
            except LatentDiffError:
                if not folder.is_replaced():
                    raise
                continue
            if not folder.is_replaced():  # else its parts may be of two models
                others = {*kwargs, *(QUANTIZED if quantize else ())}
                warn_of_conversion(folder.without(folder.components.keys() - pipe.components | others), kwargs)
                return pipe
        raise CheckpointError(
            f"{folder.path} is saved anew again and again while it is loaded; load it when that has ended"
        )

    @classmethod
    def from_model_folder(cls, folder: ModelFolder, *, quantize: str | None = None, **kwargs: Any) -> Self:
        """Load a pipeline from a folder that is open already, for what `from_pretrained` does with a name.

        Args:
            folder: The folder, opened for a variant of the weights.
            quantize: As for `from_pretrained`.
            **kwargs: As for `from_pretrained`.

        Returns:
            The pipeline, of the class that the folder names if `cls` is `DiffusionPipeline`.

        Raises:
            LatentDiffError: The same errors as from `from_pretrained`.
        """
        kwargs = take_dtype(kwargs)
        check_load_options(kwargs)
        pipeline_class = folder.pipeline_class(cls)
        check_given_components(pipeline_class, folder.components, kwargs)
        loaded = folder.check(pipeline_class, given=kwargs)
        with library_errors(folder.path), bounded(loaded.components.values()):
            takes = inspect.signature(pipeline_class).parameters
            options = {name: value for name, value in kwargs.items() if name not in takes}
            own = loaded.load_own(options, as_stored=QUANTIZED if quantize else ())
            pipe: Self | None = cls._of_parts(pipeline_class, loaded, kwargs, own)
            if pipe is None:
                options = {**kwargs, **own, "use_safetensors": True, "variant": loaded.without(own).available_variant}
                pipe = super(DiffusionPipeline, pipeline_class).from_pretrained(str(folder.path), **options)
            check_scaling(pipe.vae)
        loaded.without(own).check_loaded(pipe.components)
        pipe._check_channels()
        pipe._check_context()
        if quantize is not None:
            pipe.quantize(
                quantize, dtype={name: component_dtype(name, kwargs.get("dtype")) for name in loaded.components}
            )
        pipe.register_to_config(_name_or_path=folder.name)
        return pipe

    @classmethod
    def _of_parts(
        cls, pipeline_class: type[Self], loaded: ModelFolder, kwargs: Mapping[str, object], own: Mapping[str, object]
    ) -> Self | None:
        """The pipeline of loaded networks; None where diffusers has to load more than a scheduler or tokenizer.

        diffusers would import all kinds of components of transformers for a tokenizer, which takes a second.
        """
        takes = inspect.signature(pipeline_class).parameters.keys()
        if not kwargs.keys() - {"dtype"} <= takes:
            return None
        parts = {name: kwargs[name] for name in takes if name in kwargs} | dict(own)
        known = {*parts, *loaded.components, *pipeline_class._optional_components}
        small = loaded.without(parts).load_small() if takes <= known else None
        return None if small is None else pipeline_class(**dict.fromkeys(takes) | parts | small)

    @classmethod
    def from_original(
        cls,
        checkpoint: str | Path,
        config: str | Path | Mapping[str, object] | None = None,
        *,
        ema: bool = True,
        dtype: torch.dtype | str | None = torch.float32,
        tokenizer: Tokenizer | LayoutTokenizer | None = None,
        torch_dtype: torch.dtype | str | None = None,
    ) -> Self:
        """Make the pipeline of a checkpoint of the original code, or of Stable Diffusion 1.x or 2.x.

        Args:
            checkpoint: A `.ckpt` or `.safetensors` file.
            config: The original YAML file, its content, or a name of the zoo; None to recognise the model.
            ema: Whether to use the averaged UNet weights where there are any.
            dtype: Dtype of the weights; None keeps what the file has.
            tokenizer: Tokenizer of the text encoder; None for that of the package, which has those of BERT and CLIP.
            torch_dtype: Another name of `dtype`.

        Returns:
            The pipeline, of the class of the checkpoint's task if `cls` is `DiffusionPipeline`.

        Raises:
            CheckpointError: If the file is damaged, or isn't what the configuration says.
            UnsafeCheckpointError: If the file would have to run code to be read.
            ConfigError: If there is no pipeline for the model, or something is missing that the file can't tell.
        """
        from latentdiff.conversion.original import load_original

        given = dtype if torch_dtype is None else torch_dtype
        loaded = load_original(checkpoint, config, ema=ema, dtype=None if given is None else as_dtype(given))
        wanted = next((task for task in PIPELINES.names() if PIPELINES.get(task) is cls), None)
        if loaded.task is None or loaded.task not in PIPELINES or (wanted is not None and wanted != loaded.task):
            what = f"a model for {loaded.task}" if loaded.task else "a first stage alone"
            takes = wanted or ", ".join(sorted(name for name, spec in TASKS.items() if spec.original_encoders))
            raise ConfigError(
                f"{checkpoint} holds {what}, {cls.__name__} takes {takes}; load its components with load_original"
            )
        components = {**loaded.components, **({} if tokenizer is None else {"tokenizer": tokenizer})}
        hint = TASKS["text-to-image" if "text_encoder" in components else loaded.task].tokenizer
        if hint is not None and "tokenizer" not in components:
            raise ConfigError(
                f"no tokenizer is in {checkpoint}, and the package has none for it; give tokenizer, {hint}"
            )
        made: Self = PIPELINES.get(loaded.task)(**components)
        return made

    @classmethod
    def from_single_file(cls, *_: object, **__: object) -> NoReturn:
        """Refuse diffusers' way to load a single file, whose place `from_original` takes.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"from_single_file is called from_original here: {cls.__name__}.from_original(checkpoint)")

    @classmethod
    def from_pipe(
        cls,
        pipeline: StockPipeline,
        *,
        dtype: torch.dtype | str | None = None,
        torch_dtype: torch.dtype | str | None = None,
        **components: object,
    ) -> Self:
        """Make this pipeline of another's components, which both then share; no weights are copied.

        Args:
            pipeline: A pipeline of this package or of diffusers.
            dtype: A data type to cast the components to, in the other pipeline, too; as they are by default.
            torch_dtype: Another name of `dtype`.
            **components: Components to use in place of the other's.

        Raises:
            ConfigError: If the other pipeline lacks a component that this one needs, an unknown one is given, or this
                is the base class, which is of no task.
            InputError: If a data type is not valid.
        """
        if not isinstance(pipeline, StockPipeline):
            given = type(pipeline).__name__
            raise ConfigError(f"from_pipe was given a {given}; give a pipeline, or load a model with from_pretrained")
        if cls is DiffusionPipeline:
            raise ConfigError(
                "DiffusionPipeline is the base of the pipelines; call from_pipe of that of a task, or "
                "AutoPipeline.from_pipe"
            )
        casts = take_dtype({"dtype": dtype, "torch_dtype": torch_dtype})
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
        made._check_channels()
        if casts:
            made.to(**casts)
        made.set_progress_bar_config(**progress_bar_config(pipeline))
        return made

    def _check_channels(self) -> None:
        """Raise ConfigError if the network takes other channels than the task gives it; own tasks know that alone."""
        if task_of_pipeline(type(self).__name__) is None:
            return
        takes, gets = self.unet.config.in_channels, self._network_channels()
        if gets not in (None, takes):
            raise ConfigError(
                f"{type(self).__name__} gives its network {gets} channels, but this one takes {takes}, being of "
                "another task; take a model of that task"
            )

    def _check_context(self) -> None:
        """Raise ConfigError if the network takes a context and the task gives none, or the other way round."""
        takes, gives = getattr(self.unet.config, "cross_attention_dim", None) is not None, self._gives_context()
        if isinstance(self.unet, UNet2DConditionModel) and gives not in (None, takes):
            what, needs = ("a context", "none") if gives else ("no context", "one")
            raise ConfigError(
                f"{type(self).__name__} gives its network {what}, but this one takes {needs}, being of another task; "
                "take a model of that task, or load it with DiffusionPipeline"
            )

    def _gives_context(self) -> bool | None:
        """Whether the task gives the network a context for cross-attention; None if that is not known."""
        return None

    def _network_channels(self) -> int | None:
        """How many channels the task gives the network; None if that is not known."""
        return int(self.vae.config.latent_channels)

    @classmethod
    def load_config(cls, pretrained_model_name_or_path: str | Path, **kwargs: object) -> object:
        """Read the index of a pipeline's folder, without entries that this class has no use for.

        diffusers would warn of them.
        """
        config = super().load_config(pretrained_model_name_or_path, **kwargs)
        if not isinstance(config, dict) or cls.__name__ == "DiffusionPipeline":
            return config
        known = inspect.signature(cls.__init__).parameters
        return {name: value for name, value in config.items() if name.startswith("_") or name in known}

    def _repr_html_(self) -> str:
        name = self.config.get("_name_or_path")
        return pipeline_html(" of ".join([type(self).__name__, *([str(name)] if name else [])]), self.components)

    def __call__(self, *inputs: Any, **options: Any) -> ImagePipelineOutput[Any]:
        """Make images; the pipeline of each task says of what, and with which options."""
        raise NotImplementedError

    def set_scheduler(self, scheduler: str | type | Scheduler, **config: object) -> None:
        """Change the solver; the model's noise schedule and prediction type stay.

        Args:
            scheduler: A registry name such as "dpmpp_2m", a scheduler class (own or diffusers'), or an instance.
            **config: Options of the new scheduler, such as `use_karras_sigmas=True`.

        Raises:
            ConfigError: If there is no such scheduler or option, or an instance isn't made for this model.
        """
        self.register_modules(scheduler=make_scheduler(scheduler, self.scheduler.config, **config))

    def set_decoder(self, decoder: str | Path | TinyDecoder) -> None:
        """Let a tiny decoder take the place of the first stage that it was distilled from, as `pipe.vae`.

        It takes over that one's scale of the latents. Images can't be encoded then.

        Args:
            decoder: A decoder, its folder, that of the run that made it, or a hub id.

        Raises:
            CheckpointError: If there is no such folder, or it can't be loaded.
            ConfigError: If it is a decoder of other latents.
            HubError: If the hub doesn't know it or can't be reached.
        """
        self.register_modules(vae=fitting_decoder(decoder, self.vae))


@contextmanager
def temporary_scheduler(pipe: DiffusionPipeline, scheduler: str | type | Scheduler, **config: object) -> Iterator[None]:
    """Have a pipeline another solver while the block runs, then its own again.

    Args:
        pipe: The pipeline.
        scheduler: As for `set_scheduler`.
        **config: As for `set_scheduler`.

    Raises:
        ConfigError: As `set_scheduler`.
    """
    before = pipe.scheduler
    pipe.set_scheduler(scheduler, **config)
    try:
        yield
    finally:
        pipe.register_modules(scheduler=before)
