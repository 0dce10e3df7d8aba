"""Loading an original checkpoint: `load_original`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from latentdiff.conversion.foreign import refuse_foreign
from latentdiff.conversion.inventory import Inventory, account_for
from latentdiff.conversion.nodes import read_config
from latentdiff.conversion.plan import ConversionPlan, Part, make_conversion_plan
from latentdiff.conversion.zoo import recognise, zoo_config
from latentdiff.errors import CheckpointError
from latentdiff.io.tensor_files import TensorFile, open_tensors
from latentdiff.schedulers.ddim import DDIMScheduler


@dataclass(frozen=True)
class LoadedOriginal:
    """What a checkpoint turned out to be.

    Attributes:
        task: "text-to-image", "unconditional", ...; None for a first stage or a classifier alone.
        components: Names to networks in eval mode, and to the scheduler; those of the task's pipeline.
        config: The model node of the original configuration.
        notes: What was left out and why, in whole sentences.
    """

    task: str | None
    components: dict[str, Any]
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A checkpoint that fits its configuration, none of whose weights has been read.

    Attributes:
        config: The model node.
        plan: Its components.
        file: Its tensors.
        stock: Which of them are used.
    """

    config: dict[str, Any]
    plan: ConversionPlan
    file: TensorFile
    stock: Inventory
    notes: list[str] = field(default_factory=list)

    def tensors(self, part: Part, dtype: torch.dtype | None) -> Any:
        """Name and tensor of a part, one after the other."""

        def read(key: str) -> Tensor:
            tensor = self.file.read(self.stock.sources.get(key, key))
            return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor

        return part.map.to_ours(read)


def open_original(
    checkpoint: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    ema: bool = True,
) -> Opened:
    """Everything of `load_original` but the reading of weights: see there."""
    file = open_tensors(checkpoint)
    refuse_foreign("the state dict" if isinstance(checkpoint, Mapping) else checkpoint, file.keys())
    shapes = {key: file.info(key).shape for key in file.keys()}  # noqa: SIM118
    notes = []
    if config is None:
        name, node = recognise(shapes)
        notes.append(f"Recognised as {name} from the names and shapes of its tensors.")
    elif isinstance(config, str) and not Path(config).is_file():
        node = zoo_config(config)
    else:
        node = read_config(config)
    plan = make_conversion_plan(node)
    stock = account_for(plan, shapes, ema=ema)
    return Opened(node, plan, file, stock, notes + stock.notes)


def load_original(
    checkpoint: str | Path | Mapping[str, Tensor],
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    ema: bool = True,
    dtype: torch.dtype | None = torch.float32,
    progress: Callable[[int], object] | None = None,
) -> LoadedOriginal:
    """Load a checkpoint of the original latent diffusion code, or of Stable Diffusion 1.x and 2.x.

    Every tensor must fit: a missing, unexpected or misshaped one is an error, and nothing is loaded then.

    Args:
        checkpoint: A Lightning `.ckpt`, a file with a bare state dict, a `.safetensors` file, or a state dict.
        config: The original YAML file, its content, or a name of the zoo; None to recognise the model from its tensors.
        ema: Whether to use the averaged UNet weights where the checkpoint has them.
        dtype: Of the components; None keeps what the file has.
        progress: Called with the number of tensors that have been loaded since the last call.

    Returns:
        The task and its components. Component calls are those of diffusers: `unet(sample, timestep, context).sample`,
        `vae.encode(x).latent_dist` (KL) or `.latents` (VQ), `vae.decode(z).sample`,
        `text_encoder(input_ids).last_hidden_state`, `class_embedder(labels)`, `segmentation_encoder(maps)`,
        `classifier(latents, timestep)`.

    Raises:
        CheckpointError: If the file is damaged, or isn't what the configuration says.
        UnsafeCheckpointError: If the file would have to run code to be read.
        ConfigError: If the configuration can't be converted, or is needed and not given.
    """
    opened = open_original(checkpoint, config, ema=ema)
    components: dict[str, Any] = {}
    for name, part in opened.plan.parts.items():
        state = {}
        for key, tensor in opened.tensors(part, dtype):
            # A part of a joined tensor is a view of all of it, which would be kept along with it.
            state[key] = tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor.contiguous()
            if progress is not None:
                progress(1)
        part.model.load_state_dict(state, assign=True)
        components[name] = part.model
    finish(opened, components)
    add_tokenizer(opened, components)
    return LoadedOriginal(opened.plan.task, components, opened.config, tuple(opened.notes))


def add_tokenizer(opened: Opened, components: dict[str, Any]) -> None:
    """Add the tokenizer of an encoder of tokens. No checkpoint holds it; where the package has none, a note says so."""
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


def finish(opened: Opened, components: dict[str, Any]) -> None:
    """Add the scheduler, check the tensors that come twice, and set the latent scale where it is a tensor."""
    plan, file = opened.plan, opened.file
    if plan.scheduler is None:
        return
    scheduler = DDIMScheduler(**plan.scheduler)
    components["scheduler"] = scheduler
    if "betas" in opened.stock.buffers:
        check_betas(file, torch.from_numpy(scheduler.schedule.betas).float())
    if plan.scale_by_std:
        components["vae"].register_to_config(scaling_factor=stored_scale(opened))


def stored_scale(opened: Opened) -> float:
    """The latent scale, where it is a tensor of the checkpoint; CheckpointError if it isn't there or is no scale."""
    if "scale_factor" not in opened.stock.buffers:
        raise CheckpointError("the config says scale_by_std, but the checkpoint has no scale_factor; give its config")
    scale = opened.file.read("scale_factor")
    if scale.numel() != 1 or scale.item() <= 0:
        raise CheckpointError(f"the checkpoint's scale_factor is {scale.tolist()}; it must be one number above 0")
    return float(scale.item())


def check_betas(file: TensorFile, ours: Tensor) -> None:
    """CheckpointError unless the checkpoint's betas are those of its configuration, up to the precision they have."""
    stored = file.read("betas")
    rounding = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0
    if stored.shape != ours.shape or not torch.allclose(stored.float(), ours, rtol=max(1e-4, rounding), atol=1e-7):
        raise CheckpointError(
            f"the checkpoint's betas are {ends(stored)}, the config's {ends(ours)}; give the config of this checkpoint"
        )


def ends(values: Tensor) -> str:
    """The first and last of many values, for messages."""
    if values.ndim != 1 or len(values) == 0:
        return f"of shape {list(values.shape)}"
    return f"{values[0]:.3g} to {values[-1]:.3g} over {len(values)} steps"
