"""Models at the sizes of the published ones, with random weights: times and memory don't depend on what weights are."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import diffusers
import numpy as np
import torch
from torch import nn

import latentdiff
from latentdiff import DDIMScheduler, DiffusionPipeline, UnconditionalPipeline, VQModel
from latentdiff.conversion.plan import ConversionPlan, make_conversion_plan
from latentdiff.conversion.to_diffusers import stock_unet_config
from latentdiff.conversion.zoo import zoo_config
from latentdiff.models.tokenizer import BERT_VOCABULARY, load_tokenizer
from latentdiff.registry import PIPELINES

GREY = np.full((256, 256, 3), 128, dtype=np.uint8)
HOLE = np.zeros((256, 256), dtype=bool)
HOLE[64:192, 64:192] = True
OBJECTS = [{"class": 0, "box": (0.1, 0.1, 0.5, 0.5)}]
BUILTIN = "builtin:emoji"

INPUTS: dict[str, dict[str, object]] = {
    "celeba256": {},
    "lsun_churches256": {},
    "cin256-v2": {"class_labels": 0},
    "text2img256": {"prompt": "a virus monster is playing guitar"},
    "txt2img-1p4B": {"prompt": "a virus monster is playing guitar"},
    "layout2img-openimages256": {"layouts": OBJECTS},
    "bsr_sr": {"image": GREY[:64, :64]},
    "inpainting_big": {"image": GREY, "mask_image": HOLE},
    "semantic_synthesis256": {"label_map": GREY[..., 0].astype(int)},
}
"""What a call of each model of the zoo is given beside its options."""


@dataclass(frozen=True)
class Size:
    """The size of a published model.

    Attributes:
        label: What the table calls it.
        zoo: Its name in the zoo; None for the built-in model.
        tokens: Those of its context; None without one.
        first_stage: The zoo's name of its first stage; None for the built-in model's.
    """

    label: str
    zoo: str | None
    tokens: int | None
    first_stage: str | None

    @property
    def guided(self) -> bool:
        """Whether a step is one of classifier-free guidance."""
        return self.tokens is not None


SIZES = {
    "builtin": Size("built-in", None, 32, None),
    "ldm": Size("LDM 1.45B", "txt2img-1p4B", 77, "kl-f8"),
    "sd1": Size("SD 1.x", "sd-1", 77, "kl-f8"),
    "cin256": Size("cin256", "cin256-v2", 1, "vq-f4"),
    "inpainting": Size("inpainting", "inpainting_big", None, "vq-f4-noattn"),
}


def filled(network: nn.Module, device: torch.device | str = "cpu") -> nn.Module:
    """A network that has been made without memory, with random weights."""
    network = network.to_empty(device=device).eval().requires_grad_(False)
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point():
            tensor.normal_(0, 0.02)
    return network


def plan_of(name: str) -> ConversionPlan:
    """The parts of a model of the zoo, without memory."""
    return make_conversion_plan(zoo_config(name))


def zoo_pipeline(name: str) -> DiffusionPipeline:
    """The pipeline of a model of the zoo, with random weights."""
    plan = plan_of(name)
    torch.manual_seed(0)
    parts: dict[str, object] = {part: filled(made.model) for part, made in plan.parts.items()}
    parts["scheduler"] = DDIMScheduler(**plan.scheduler)
    if plan.task == "layout-to-image":
        parts["tokenizer"] = latentdiff.LayoutTokenizer(num_classes=600)
    if plan.task == "text-to-image":
        parts["tokenizer"] = load_tokenizer(BERT_VOCABULARY, 77)
    pipe = PIPELINES.get(plan.task)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unet_bytes(size: Size, dtype: torch.dtype) -> int:
    """The bytes of a UNet's weights, before there are any."""
    unet = (
        DiffusionPipeline.from_pretrained(BUILTIN).unet if size.zoo is None else plan_of(size.zoo).parts["unet"].model
    )
    return dtype.itemsize * sum(weight.numel() for weight in unet.parameters())


def unet_alone(size: Size, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    """A pipeline of a UNet of a size; its first stage is a small one, which is not what is measured."""
    torch.manual_seed(0)
    if size.zoo is None:
        unet = DiffusionPipeline.from_pretrained(BUILTIN).unet.requires_grad_(False)
    else:
        unet = filled(plan_of(size.zoo).parts["unet"].model)
    pipe = UnconditionalPipeline(vae=VQModel(), unet=unet.to(device, dtype), scheduler=DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Stock(nn.Module):
    """A UNet of diffusers, from tensors to a tensor."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The prediction (B, C, H, W); a network without context takes classes there, of which there are none."""
        return self.unet(sample, timestep, context, return_dict=False)[0]


def stock_network(unet: latentdiff.UNet2DConditionModel) -> nn.Module:
    """diffusers' network of the same weights, which both share in memory.

    Raises:
        ConfigError: If diffusers has none.
    """
    config = stock_unet_config(unet.config)
    with torch.device("meta"):
        network = getattr(diffusers, config["_class_name"]).from_config(config)
    network.load_state_dict(unet.state_dict(), assign=True)
    return network.eval().requires_grad_(False)


class Original(nn.Module):
    """A UNet of the original code, called as `Stock` is."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, context: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The prediction (B, C, H, W)."""
        return self.unet(sample, timestep.expand(len(sample)), context=context)


def original_network(folder: Path, size: Size, unet: nn.Module) -> nn.Module:
    """The original code's network of the same weights.

    Raises:
        LookupError: If the folder or a package that the code imports is missing, or the original has no such model.
    """
    if size.zoo is None:
        raise LookupError("the original code has no such model")
    if not (folder / "ldm").is_dir():
        raise LookupError(f"no copy of the original code is at {folder} (--original FOLDER)")
    sys.path.insert(0, str(folder))
    try:
        from ldm.modules.diffusionmodules.openaimodel import UNetModel
    except ImportError as error:
        raise LookupError(f"the original code can't be imported ({error})") from None
    finally:
        sys.path.remove(str(folder))
    options = {**zoo_config(size.zoo)["params"]["unet_config"]["params"], "use_checkpoint": False}
    plan, state = plan_of(size.zoo), unet.state_dict()
    renamed = plan.parts["unet"].map.to_original(state.__getitem__)
    network = UNetModel(**options)
    network.load_state_dict({key.removeprefix("model.diffusion_model."): tensor for key, tensor in renamed})
    return Original(network.to(unet.device, unet.dtype).eval().requires_grad_(False))
