"""The networks of the golden cases, loaded from the original configurations and weights."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from diffusers import AutoencoderKL, VQModel
from golden_weights import GOLDEN, state_dict
from safetensors.torch import load_file
from torch import Tensor

from latentdiff.conditioning import Conditioning
from latentdiff.conversion import load_original
from latentdiff.models.text_encoder import LDMTextEncoder
from latentdiff.models.unet import UNet2DConditionModel

CASES = ("ldm_txt2img", "ldm_uncond", "ldm_churches")
ALL_CASES = (*CASES, "ldm_cin", "ldm_layout2img", "ldm_inpainting")
# How far what averaged weights give may be off: of the churches, the original itself is 1.1e-5 from a float64 run.
AVERAGED = {"ldm_uncond": 1e-5, "ldm_churches": 2e-5}


@dataclass(frozen=True)
class Case:
    """Networks in eval mode; `config` is the original `model.params`, `io` the recorded tensors."""

    unet: UNet2DConditionModel
    unet_ema: UNet2DConditionModel | None
    vae: AutoencoderKL | VQModel
    text_encoder: LDMTextEncoder | None
    scale_factor: float
    config: dict[str, Any]
    io: dict[str, Tensor]
    components: dict[str, Any]

    @property
    def conditioning(self) -> Conditioning:
        """What the UNet was given beside latents: a context (B, M, d), or channels (B, c, h, w), or nothing."""
        given = self.io.get("cond")
        return Conditioning(concat=given) if given is not None and given.ndim == 4 else Conditioning(given)


@cache
def load_case(name: str) -> Case:
    """Load the case `name` of ALL_CASES; it is shared between tests, so don't change it."""
    state, config = state_dict(name), yaml.safe_load((GOLDEN / name / "config.yaml").read_text())
    raw = load_original(state, config, ema=False)
    params = raw.config["params"]
    return Case(
        unet=raw.components["unet"],
        unet_ema=load_original(state, config).components["unet"] if params.get("use_ema", True) else None,
        vae=raw.components["vae"],
        text_encoder=raw.components.get("text_encoder"),
        scale_factor=raw.components["vae"].config.scaling_factor,
        config=params,
        io=load_file(GOLDEN / name / "io.safetensors"),
        components=raw.components,
    )
