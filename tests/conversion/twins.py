"""Small twins of the zoo's models: their structure at the narrowest widths, and checkpoints of them as published."""

import copy
from functools import cache

import numpy as np
import torch

from latentdiff.conversion.plan import COND_STAGE_PREFIX, FIRST_STAGE_PREFIX, UNET_PREFIX, make_conversion_plan
from latentdiff.conversion.zoo import zoo_config

WIDTH = 32  # of the finest level; all normalisations have 32 groups
CONTEXT = 64
POOL = 2**20
SCALE = 0.02  # of the weights, so that no activation overflows


def ranks(multipliers):
    """Multipliers that are equal, or larger, where the given ones are."""
    order = sorted(set(multipliers))
    return [1 + order.index(value) for value in multipliers]


def small(name):
    """The model node of a zoo's name, narrowed."""
    node = copy.deepcopy(zoo_config(name))
    params = node["params"]
    first_stage = params.get("first_stage_config", node)["params"]
    first_stage["ddconfig"].update(ch=WIDTH, ch_mult=ranks(first_stage["ddconfig"]["ch_mult"]), num_res_blocks=1)
    if "n_embed" in first_stage:
        first_stage["n_embed"] = 50
    if "unet_config" in params:
        unet = params["unet_config"]["params"]
        unet.update(model_channels=WIDTH, channel_mult=ranks(unet["channel_mult"]), num_res_blocks=1)
        narrow(
            unet,
            {
                "num_head_channels": 8,
                "context_dim": CONTEXT,
                "transformer_depth": min(2, unet.get("transformer_depth", 1)),
            },
        )
    cond = params.get("cond_stage_config")
    if isinstance(cond, dict) and "params" in cond:
        narrow(cond["params"], {"n_layer": 2, "embed_dim": CONTEXT, "n_embed": CONTEXT, "vocab_size": 60})
        if "n_layer" in cond["params"]:
            cond["params"]["vocab_size"] = 60
    return node


def narrow(params, values):
    """Replace what is there."""
    params.update({key: value for key, value in values.items() if key in params})


def narrow_clip(make, **more):
    """`networks.make_clip` with two narrow layers."""
    narrow = {"hidden_size": CONTEXT, "intermediate_size": CONTEXT, "num_attention_heads": 2, "num_hidden_layers": 2}

    def made(**config):
        return make(**config | narrow | more)

    return made


def buffers(params):
    """The noise schedule's tensors, in numpy as the original computes them, stored as float32."""
    assert params.get("beta_schedule", "linear") == "linear"
    start, end = params["linear_start"] ** 0.5, params["linear_end"] ** 0.5
    betas = np.linspace(start, end, params["timesteps"], dtype=np.float64) ** 2
    alphas = np.cumprod(1.0 - betas)
    before = np.append(1.0, alphas[:-1])
    variance = betas * (1.0 - before) / (1.0 - alphas)
    tensors = {
        "betas": betas,
        "alphas_cumprod": alphas,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(alphas),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1.0 - alphas),
        "log_one_minus_alphas_cumprod": np.log(1.0 - alphas),
        "sqrt_recip_alphas_cumprod": np.sqrt(1.0 / alphas),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1.0 / alphas - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1.0 - alphas),
        "posterior_mean_coef2": (1.0 - before) * np.sqrt(1.0 - betas) / (1.0 - alphas),
    }
    return {name: torch.tensor(array, dtype=torch.float32) for name, array in tensors.items()}


@cache
def zoo_plan(name):
    """The plan of a model of the zoo at its full size, on the meta device."""
    return make_conversion_plan(zoo_config(name))


class Twin:
    """A checkpoint with random weights.

    Attributes:
        node: Its configuration.
        plan: What that says.
        state: All that the file holds.
        kept: What a round trip gives back, by the names that it gives back.
    """

    def __init__(self, name, *, ema=True, dtype=torch.float32):
        self.node, self.ema, self.dtype = small(name), ema, dtype
        self.pool = (SCALE * torch.randn(POOL, generator=torch.Generator().manual_seed(len(name)))).to(dtype)
        self.places = np.random.default_rng(len(name))
        self.plan, params = make_conversion_plan(self.node), self.node["params"]
        self.state, self.kept = {}, {}
        for part in self.plan.parts.values():
            for key, shape in part.map.original_shapes.items():
                self.kept[key] = self.state[key] = self.random(shape)
            for start in part.network.dropped:
                name = f"{start}weight" if start.endswith(".") else start
                self.state[part.prefix + name] = self.random((3, 5))
        if "unet" not in self.plan.parts:
            self.state["loss.logvar"] = self.random(())
            self.state["loss.discriminator.main.0.weight"] = self.random((4, 3))
            return
        if self.plan.shared_first_stage:
            for key in [key for key in self.kept if key.startswith(FIRST_STAGE_PREFIX)]:
                copied = COND_STAGE_PREFIX + key.removeprefix(FIRST_STAGE_PREFIX)
                self.kept[copied] = self.state[copied] = self.state[key]
        if params.get("use_ema", True):
            self.add_averages()
        if params.get("scale_by_std"):
            self.state["scale_factor"] = torch.tensor(0.2149)
        schedule = buffers(params)
        self.state |= schedule
        self.kept |= schedule

    def random(self, shape):
        """A part of the pool; each place is another, so no two tensors are alike."""
        count = int(np.prod(shape, dtype=int))
        if count >= POOL:
            return (SCALE * torch.randn(shape)).to(self.dtype)
        place = int(self.places.integers(POOL - count))
        return self.pool[place : place + count].view(shape)

    def add_averages(self):
        """The averaged weights of the UNet; with them, they are what comes back under the raw names."""
        self.state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
        for key in [key for key in self.kept if key.startswith(UNET_PREFIX)]:
            average = self.random(self.state[key].shape)
            self.state["model_ema." + key.removeprefix("model.").replace(".", "")] = average
            if self.ema:
                self.kept[key] = average
