"""The published models of the original code, and Stable Diffusion 1.x and 2.x: their configurations as one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from latentdiff.conversion.structure import Shapes, structure_of_config, structure_of_shapes
from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.registry import nearest

AUTOENCODER, VQ = "ldm.models.autoencoder.AutoencoderKL", "ldm.models.autoencoder.VQModel"
LDM = "ldm.models.diffusion.ddpm.LatentDiffusion"
UNET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
ENCODERS = "ldm.modules.encoders.modules."


@dataclass(frozen=True)
class FirstStage:
    """A first stage: latent channels, codes (None for KL), channel multipliers, resolutions with attention."""

    channels: int
    codes: int | None
    multipliers: tuple[int, ...]
    attention: tuple[int, ...] = ()
    attn_type: str = "vanilla"
    resolution: int = 256

    def node(self, *, interface: bool = False) -> dict[str, Any]:
        """As the original's YAML has it; `interface`: as part of a diffusion model."""
        network = {
            **({} if self.attn_type == "vanilla" else {"attn_type": self.attn_type}),
            "double_z": self.codes is None,
            "z_channels": self.channels,
            "resolution": self.resolution,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 128,
            "ch_mult": list(self.multipliers),
            "num_res_blocks": 2,
            "attn_resolutions": list(self.attention),
            "dropout": 0.0,
        }
        params = {"embed_dim": self.channels, "ddconfig": network, "lossconfig": {"target": "torch.nn.Identity"}}
        if self.codes is None:
            return {"target": AUTOENCODER, "params": params}
        return {"target": VQ + "Interface" * interface, "params": {**params, "n_embed": self.codes}}


@dataclass(frozen=True)
class Model:
    """A latent diffusion model: parameters of its UNet, of its conditioning stage, and of the diffusion."""

    first_stage: str
    unet: Mapping[str, Any]
    cond_stage: str | Mapping[str, Any]
    params: Mapping[str, Any]

    def node(self) -> dict[str, Any]:
        """As the original's YAML has it."""
        cond = self.cond_stage if isinstance(self.cond_stage, str) else dict(self.cond_stage)
        params = {
            "timesteps": 1000,
            "first_stage_key": "image",
            "image_size": self.unet["image_size"],
            "channels": self.unet["out_channels"],
            **self.params,
            "unet_config": {"target": UNET, "params": {"num_res_blocks": 2, **self.unet}},
            "first_stage_config": FIRST_STAGES[self.first_stage].node(interface=True),
            "cond_stage_config": cond,
        }
        return {"target": LDM, "params": params}


FIRST_STAGES = {
    "kl-f4": FirstStage(3, None, (1, 2, 4)),
    "kl-f8": FirstStage(4, None, (1, 2, 4, 4)),
    "kl-f16": FirstStage(16, None, (1, 1, 2, 2, 4), (16,)),
    "kl-f32": FirstStage(64, None, (1, 1, 2, 2, 4, 4), (16, 8)),
    "vq-f4": FirstStage(3, 8192, (1, 2, 4)),
    "vq-f4-noattn": FirstStage(3, 8192, (1, 2, 4), attn_type="none"),
    "vq-f8": FirstStage(4, 16384, (1, 2, 2, 4), (32,)),
    "vq-f8-n256": FirstStage(4, 256, (1, 2, 2, 4), (32,)),
    "vq-f16": FirstStage(8, 16384, (1, 1, 2, 2, 4), (16,)),
}


def _unet(
    size: int, channels: tuple[int, int], width: int, multipliers: list[int], attention: list[int], **more: Any
) -> Any:
    return {
        "image_size": size,
        "in_channels": channels[0],
        "out_channels": channels[1],
        "model_channels": width,
        "attention_resolutions": attention,
        "channel_mult": multipliers,
        **more,
    }


def _context(width: int, depth: int = 1) -> dict[str, Any]:
    return {"use_spatial_transformer": True, "transformer_depth": depth, "context_dim": width}


def _betas(start: float, end: float) -> dict[str, float]:
    return {"linear_start": start, "linear_end": end}


def _bert(**params: Any) -> dict[str, Any]:
    return {"target": ENCODERS + "BERTEmbedder", "params": params}


HC32 = {"num_head_channels": 32}
SD_UNET = _unet(64, (4, 4), 320, [1, 2, 4, 4], [4, 2, 1])
SD = {**_betas(0.00085, 0.012), "conditioning_key": "crossattn", "cond_stage_key": "txt", "scale_factor": 0.18215}
SD2_CLIP = {"target": ENCODERS + "FrozenOpenCLIPEmbedder", "params": {"freeze": True, "layer": "penultimate"}}
SD2_UNET = {**SD_UNET, **HC32, "num_head_channels": 64, "use_linear_in_transformer": True, **_context(1024)}

_UNCONDITIONAL = Model(
    "vq-f4",
    _unet(64, (3, 3), 224, [1, 2, 3, 4], [8, 4, 2], **HC32),
    "__is_unconditional__",
    {**_betas(0.0015, 0.0195), "cond_stage_key": "class_label"},
)
_SEMANTIC = {
    "target": ENCODERS + "SpatialRescaler",
    "params": {"n_stages": 2, "in_channels": 182, "out_channels": 3},
}

MODELS = {
    "celeba256": _UNCONDITIONAL,
    "ffhq256": _UNCONDITIONAL,
    "lsun_beds256": _UNCONDITIONAL,
    "lsun_churches256": Model(
        "kl-f8",
        _unet(
            *(32, (4, 4), 192, [1, 2, 2, 4, 4], [1, 2, 4, 8]),
            num_heads=8,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        "__is_unconditional__",
        {
            **_betas(0.0015, 0.0155),
            "cond_stage_key": "image",
            "concat_mode": False,
            "scale_by_std": True,
            "loss_type": "l1",
        },
    ),
    "cin256": Model(
        "vq-f8",
        _unet(32, (4, 4), 256, [1, 2, 4], [4, 2, 1], **HC32, **_context(512)),
        {"target": ENCODERS + "ClassEmbedder", "params": {"embed_dim": 512, "key": "class_label"}},
        {**_betas(0.0015, 0.0195), "cond_stage_key": "class_label", "conditioning_key": "crossattn"},
    ),
    "cin256-v2": Model(
        "vq-f4",
        _unet(64, (3, 3), 192, [1, 2, 3, 5], [8, 4, 2], num_heads=1, **_context(512)),
        {"target": ENCODERS + "ClassEmbedder", "params": {"n_classes": 1001, "embed_dim": 512, "key": "class_label"}},
        {
            **_betas(0.0015, 0.0195),
            "cond_stage_key": "class_label",
            "conditioning_key": "crossattn",
            "use_ema": False,
        },
    ),
    "text2img256": Model(
        "vq-f4",
        _unet(64, (3, 3), 192, [1, 2, 3, 5], [8, 4, 2], **HC32, **_context(640)),
        _bert(n_embed=640, n_layer=32),
        {**_betas(0.0015, 0.0195), "cond_stage_key": "caption", "conditioning_key": "crossattn"},
    ),
    "txt2img-1p4B": Model(
        "kl-f8",
        _unet(32, (4, 4), 320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, **_context(1280)),
        _bert(n_embed=1280, n_layer=32),
        {
            **_betas(0.00085, 0.012),
            "cond_stage_key": "caption",
            "conditioning_key": "crossattn",
            "scale_factor": 0.18215,
            "use_ema": False,
        },
    ),
    "layout2img-openimages256": Model(
        "vq-f4",
        _unet(64, (3, 3), 128, [1, 2, 3, 4], [8, 4, 2], **HC32, **_context(512, 3)),
        _bert(n_embed=512, n_layer=16, vocab_size=8192, max_seq_len=92, use_tokenizer=False),
        {
            **_betas(0.0015, 0.0205),
            "cond_stage_key": "coordinates_bbox",
            "conditioning_key": "crossattn",
            "loss_type": "l1",
        },
    ),
    "bsr_sr": Model(
        "vq-f4",
        _unet(64, (6, 3), 160, [1, 2, 2, 4], [16, 8], **HC32),
        {"target": "torch.nn.Identity"},
        {**_betas(0.0015, 0.0155), "cond_stage_key": "LR_image", "concat_mode": True},
    ),
    "inpainting_big": Model(
        "vq-f4-noattn",
        _unet(64, (7, 3), 256, [1, 2, 3, 4], [8, 4, 2], num_heads=8, resblock_updown=True),
        "__is_first_stage__",
        {**_betas(0.0015, 0.0205), "cond_stage_key": "masked_image", "concat_mode": True, "loss_type": "l1"},
    ),
    "semantic_synthesis256": Model(
        "vq-f4",
        _unet(64, (6, 3), 128, [1, 4, 8], [32, 16, 8], num_heads=8),
        _SEMANTIC,
        {**_betas(0.0015, 0.0205), "cond_stage_key": "segmentation", "concat_mode": True, "loss_type": "l1"},
    ),
    "semantic_synthesis512": Model(
        "vq-f4",
        _unet(128, (6, 3), 128, [1, 4, 8], [32, 16, 8], num_heads=8),
        _SEMANTIC,
        {**_betas(0.0015, 0.0205), "cond_stage_key": "segmentation", "concat_mode": True, "loss_type": "l1"},
    ),
    "rdm768": Model(
        "kl-f16",
        _unet(48, (16, 16), 448, [1, 2, 3, 4], [4, 2, 1], **HC32, **_context(768)),
        {"target": "torch.nn.Identity"},
        {
            **_betas(0.0015, 0.015),
            "cond_stage_key": "nix",
            "conditioning_key": "crossattn",
            "scale_factor": 0.22765929,
        },
    ),
    "sd-1": Model(
        "kl-f8",
        {**SD_UNET, "num_heads": 8, **_context(768)},
        {"target": ENCODERS + "FrozenCLIPEmbedder"},
        SD,
    ),
    "sd-2-base": Model("kl-f8", SD2_UNET, SD2_CLIP, SD),
    "sd-2-v": Model("kl-f8", {**SD2_UNET, "image_size": 96}, SD2_CLIP, {**SD, "parameterization": "v"}),
}

ONE_NETWORK = (
    {"celeba256", "ffhq256", "lsun_beds256"},
    {"semantic_synthesis256", "semantic_synthesis512"},
)
"""Models that differ in nothing that matters for loading; the first name stands for all."""


def zoo_names() -> list[str]:
    """All names of the zoo."""
    return [*FIRST_STAGES, *MODELS]


def zoo_config(name: str) -> dict[str, Any]:
    """The model node of a zoo's name; an unknown one is a ConfigError with its nearest neighbours."""
    if name in FIRST_STAGES:
        return FIRST_STAGES[name].node()
    if name not in MODELS:
        raise ConfigError(f"config {name!r} is no file and no model of the zoo; {nearest(name, zoo_names())}")
    return MODELS[name].node()


def recognise(shapes: Shapes) -> tuple[str, dict[str, Any]]:
    """The zoo's name and model node of a checkpoint, from the names and shapes of its tensors alone.

    Raises:
        CheckpointError: If they are those of no network of the original code.
        ConfigError: If they fit no model of the zoo, or several that differ in what tensors can't tell.
    """
    structure = structure_of_shapes(shapes)
    if not structure:
        some = ", ".join(sorted(shapes)[:5])
        raise CheckpointError(f"no latent diffusion model or first stage is in the file (its tensors: {some}, ...)")
    found = list(_matches(structure))
    if len(found) > 1 and not any(set(found) <= group for group in ONE_NETWORK):
        raise ConfigError(f"the tensors fit {' and '.join(found)}; say which by config={found[0]!r} or another of them")
    if not found:
        raise ConfigError(
            "the tensors fit no published model, and can't tell the number of attention heads, the noise schedule and "
            "the latent scale; give config, the YAML that the model was trained with"
        )
    return found[0], zoo_config(found[0])


def _matches(structure: dict[str, Any]) -> Iterator[str]:
    return (name for name in zoo_names() if structure_of_config(zoo_config(name)) == structure)
