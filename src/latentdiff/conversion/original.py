"""Loading original checkpoints: `load_original`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from latentdiff.conversion.foreign import refuse_foreign
from latentdiff.conversion.inventory import Inventory, account_for
from latentdiff.conversion.nodes import read_config
from latentdiff.conversion.plan import ComponentPlan, ConversionPlan, make_conversion_plan
from latentdiff.conversion.zoo import recognise, zoo_config
from latentdiff.errors import CheckpointError
from latentdiff.io.tensor_files import TensorFile, TensorInfo, open_tensors
from latentdiff.schedulers.ddim import DDIMScheduler
from latentdiff.types import JSON, Components


@dataclass(frozen=True)
class LoadedOriginal:
    """A loaded checkpoint.

    Attributes:
        task: The model's task, "text-to-image", "unconditional", ...; None for a first stage or a classifier alone.
        components: The components of the task's pipeline: networks in eval mode, the scheduler, the tokenizer.
        config: The model node of the original configuration.
        notes: Sentences that say what was left out and why.
    """

    task: str | None
    components: Components
    config: JSON
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint that fits its configuration, and whose weights have not been read.

    Attributes:
        config: The model node of the original configuration.
        plan: The plan of the components.
        file: The checkpoint's tensors.
        inventory: The use of each tensor.
        notes: Sentences that say what is left out and why.
    """

    config: JSON
    plan: ConversionPlan
    file: TensorFile
    inventory: Inventory
    notes: list[str] = field(default_factory=list)

    def info(self, key: str) -> TensorInfo:
        """The dtype and shape of the tensor that a component looks for under the name `key`."""
        return self.file.info(self.inventory.sources.get(key, key))

    def read(self, key: str) -> Tensor:
        """Read the tensor that a component looks for under the name `key`."""
        return self.file.read(self.inventory.sources.get(key, key))

    def tensors(self, part: ComponentPlan, dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
        """Read the tensors of a component one after the other, under our names; floats are converted to `dtype`."""

        def read(key: str) -> Tensor:
            tensor = self.read(key)
            return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

        return part.map.to_ours(read)


def open_original(
    checkpoint: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, object] | None = None,
    *,
    ema: bool = True,
) -> OpenedCheckpoint:
    """Open a checkpoint and compare it with its configuration, without reading weights.

    Arguments and errors are those of `load_original`.
    """
    file = open_tensors(checkpoint)
    shapes = {key: file.info(key).shape for key in file.keys()}  # noqa: SIM118
    refuse_foreign("the state dict" if isinstance(checkpoint, Mapping) else checkpoint, shapes)
    notes = []
    if config is None:
        name, node = recognise(shapes)
        notes.append(f"Recognised as {name} from the names and shapes of its tensors.")
    elif isinstance(config, str) and not Path(config).is_file():
        node = zoo_config(config)
    else:
        node = read_config(config)
    plan = make_conversion_plan(node)
    inventory = account_for(plan, shapes, ema=ema)
    for part in plan.parts.values():
        for key in part.map.original_shapes:
            name = inventory.sources.get(key, key)
            if not file.info(name).dtype.is_floating_point:
                raise CheckpointError(
                    f"{name} is of {file.info(name).dtype}, as quantised weights are; give a checkpoint of "
                    "floating-point weights"
                )
    return OpenedCheckpoint(node, plan, file, inventory, notes + inventory.notes)


def load_original(
    checkpoint: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, object] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = torch.float32,
    progress: Callable[[int], object] | None = None,
) -> LoadedOriginal:
    """Load a checkpoint of the original latent diffusion code, or of Stable Diffusion 1.x and 2.x.

    Every tensor must fit. A missing, unexpected or misshaped one is an error, and nothing is loaded.

    Args:
        checkpoint: A Lightning `.ckpt`, a file with a bare state dict, a `.safetensors` file, or a state dict.
        config: The original YAML file, its content, or the name of a published model (`conversion.zoo`); None to
            recognise the model by its tensors.
        ema: Whether to use the averaged (EMA) weights of the UNet if the checkpoint has them.
        dtype: The data type of the components; None keeps that of the file.
        progress: A function that is called with the number of tensors that have been loaded since the last call.

    Returns:
        The task and its components. They are called as in diffusers: `unet(sample, timestep, context).sample`,
        `vae.encode(x).latent_dist` (KL) or `.latents` (VQ), `vae.decode(z).sample`,
        `text_encoder(input_ids).last_hidden_state`, `class_embedder(labels)`, `segmentation_encoder(maps)`,
        `classifier(latents, timestep)`.

    Raises:
        CheckpointError: If the file is damaged or doesn't fit the configuration.
        UnsafeCheckpointError: If the file can't be read without running code that it brings.
        ConfigError: If the configuration can't be converted, or is needed and not given.
    """
    opened = open_original(checkpoint, config, ema=ema)
    components: Components = {}
    for name, part in opened.plan.parts.items():
        state = {}
        for key, tensor in opened.tensors(part, dtype):
            # A part of a joined tensor is a view, which would keep the whole tensor in memory.
            state[key] = tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor.contiguous()
            if progress is not None:
                progress(1)
        part.model.load_state_dict(state, assign=True)
        components[name] = part.model
    add_scheduler(opened, components)
    add_tokenizer(opened, components)
    return LoadedOriginal(opened.plan.task, components, opened.config, tuple(opened.notes))


def add_tokenizer(opened: OpenedCheckpoint, components: Components) -> None:
    """Add the tokenizer, which no checkpoint holds, to the components; if the package has none, a note says so."""
    for name in {"text_encoder", "layout_encoder"} & opened.plan.parts.keys():
        make = opened.plan.parts[name].network.tokenizer
        if make is not None:
            components["tokenizer"] = make()
            continue
        tokens = components[name].config.vocab_size
        opened.notes.append(
            f"No tokenizer is in a checkpoint, and the package has none for a vocabulary of {tokens} tokens: "
            "give it as tokenizer."
        )


def add_scheduler(opened: OpenedCheckpoint, components: Components) -> None:
    """Add the scheduler to the components, and set the latent scale if it is a tensor of the checkpoint.

    Raises:
        CheckpointError: If the checkpoint's betas are not those of the scheduler, or the scale is missing or not valid.
    """
    plan, file = opened.plan, opened.file
    if plan.scheduler is None:
        return
    scheduler = DDIMScheduler(**plan.scheduler)
    components["scheduler"] = scheduler
    if "betas" in opened.inventory.buffers:
        check_betas(file, torch.from_numpy(scheduler.schedule.betas).float())
    if plan.scale_by_std:
        components["vae"].register_to_config(scaling_factor=stored_scale(opened))


def stored_scale(opened: OpenedCheckpoint) -> float:
    """The latent scale that a checkpoint holds as a tensor; CheckpointError if it is missing or not valid."""
    if "scale_factor" not in opened.inventory.buffers:
        raise CheckpointError("the config says scale_by_std, but the checkpoint has no scale_factor; give its config")
    scale = opened.file.read("scale_factor")
    if scale.numel() != 1 or scale.item() <= 0:
        raise CheckpointError(f"the checkpoint's scale_factor is {scale.tolist()}; it must be one number above 0")
    return float(scale.item())


def check_betas(file: TensorFile, ours: Tensor) -> None:
    """CheckpointError unless the checkpoint's betas are those of its configuration, within their precision."""
    stored = file.read("betas")
    rounding = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0
    if stored.shape != ours.shape or not torch.allclose(stored.float(), ours, rtol=max(1e-4, rounding), atol=1e-7):
        differ = f"the checkpoint's betas are {describe_ends(stored)}, the config's {describe_ends(ours)}"
        raise CheckpointError(f"{differ}; give the config of this checkpoint")


def describe_ends(values: Tensor) -> str:
    """A text for messages with the first and the last of many values."""
    if values.ndim != 1 or len(values) == 0:
        return f"of shape {list(values.shape)}"
    return f"{values[0]:.3g} to {values[-1]:.3g} over {len(values)} steps"
