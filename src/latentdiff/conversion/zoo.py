"""The zoo: the configurations, as a table, of the original code's published models and of Stable Diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latentdiff.conversion.structure import Structure, structure_of_config, structure_of_shapes
from latentdiff.conversion.tensor_map import Shapes
from latentdiff.errors import CheckpointError, ConfigError
from latentdiff.registry import nearest
from latentdiff.types import JSON

KL_TARGET = "ldm.models.autoencoder.AutoencoderKL"
VQ_TARGET = "ldm.models.autoencoder.VQModel"
VQ_INTERFACE_TARGET = "ldm.models.autoencoder.VQModelInterface"  # a VQModel within a diffusion model
LDM_MODULE = "ldm.models.diffusion.ddpm."
LDM_TARGET = LDM_MODULE + "LatentDiffusion"
INPAINT_TARGET = LDM_MODULE + "LatentInpaintDiffusion"
UNET_TARGET = "ldm.modules.diffusionmodules.openaimodel.UNetModel"
ENCODER_MODULE = "ldm.modules.encoders.modules."


@dataclass(frozen=True)
class ZooFirstStage:
    """A published first stage.

    Attributes:
        channels: Channels of the latents.
        codes: Number of codes of a VQ model; None for KL.
        multipliers: Channels of every level, fine to coarse, as multiples of 128.
        attention: Sides of the feature maps that have attention, for images of `resolution`.
        attn_type: The original's option of that name: "vanilla", or "none" also for the middle.
        resolution: Side of the training images, in pixels.
    """

    channels: int
    codes: int | None
    multipliers: tuple[int, ...]
    attention: tuple[int, ...] = ()
    attn_type: str = "vanilla"
    resolution: int = 256

    def node(self, *, interface: bool = False) -> JSON:
        """The node in the original's YAML; a VQ model in a diffusion model is the original's `VQModelInterface`."""
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
            return {"target": KL_TARGET, "params": params}
        target = VQ_INTERFACE_TARGET if interface else VQ_TARGET
        return {"target": target, "params": {**params, "n_embed": self.codes}}


@dataclass(frozen=True)
class ZooModel:
    """A published latent diffusion model.

    Attributes:
        first_stage: The name of its first stage in `ZOO_FIRST_STAGES`.
        unet: The parameters of its UNet.
        cond_stage: The node of its conditioning stage.
        params: The other parameters of the model.
        target: The class of the model.
    """

    first_stage: str
    unet: JSON
    cond_stage: str | JSON
    params: JSON
    target: str = LDM_TARGET

    def node(self) -> JSON:
        """The model node in the original's YAML."""
        cond = self.cond_stage if isinstance(self.cond_stage, str) else dict(self.cond_stage)
        params = {
            "timesteps": 1000,
            "first_stage_key": "image",
            "image_size": self.unet["image_size"],
            "channels": self.unet["out_channels"],
            **self.params,
            "unet_config": {"target": UNET_TARGET, "params": {"num_res_blocks": 2, **self.unet}},
            "first_stage_config": ZOO_FIRST_STAGES[self.first_stage].node(interface=True),
            "cond_stage_config": cond,
        }
        return {"target": self.target, "params": params}


ZOO_FIRST_STAGES = {
    "kl-f4": ZooFirstStage(3, None, (1, 2, 4)),
    "kl-f8": ZooFirstStage(4, None, (1, 2, 4, 4)),
    "kl-f16": ZooFirstStage(16, None, (1, 1, 2, 2, 4), (16,)),
    "kl-f32": ZooFirstStage(64, None, (1, 1, 2, 2, 4, 4), (16, 8)),
    "vq-f4": ZooFirstStage(3, 8192, (1, 2, 4)),
    "vq-f4-noattn": ZooFirstStage(3, 8192, (1, 2, 4), attn_type="none"),
    "vq-f8": ZooFirstStage(4, 16384, (1, 2, 2, 4), (32,)),
    "vq-f8-n256": ZooFirstStage(4, 256, (1, 2, 2, 4), (32,)),
    "vq-f16": ZooFirstStage(8, 16384, (1, 1, 2, 2, 4), (16,)),
}


def _unet(
    size: int, channels: tuple[int, int], width: int, multipliers: list[int], attention: list[int], **more: object
) -> JSON:
    """The parameters of a UNet: the latents' side, channels in and out, base width, multipliers, attention factors."""
    return {
        "image_size": size,
        "in_channels": channels[0],
        "out_channels": channels[1],
        "model_channels": width,
        "attention_resolutions": attention,
        "channel_mult": multipliers,
        **more,
    }


def _context(width: int, depth: int = 1) -> JSON:
    """The parameters of a UNet with cross-attention to a context of `width` channels."""
    return {"use_spatial_transformer": True, "transformer_depth": depth, "context_dim": width}


def _linear_betas(start: float, end: float) -> JSON:
    return {"linear_start": start, "linear_end": end}


def _bert_node(**params: object) -> JSON:
    return {"target": ENCODER_MODULE + "BERTEmbedder", "params": params}


HEADS_OF_32 = {"num_head_channels": 32}
SD_UNET = _unet(64, (4, 4), 320, [1, 2, 4, 4], [4, 2, 1])
SD = {
    **_linear_betas(0.00085, 0.012),
    "conditioning_key": "crossattn",
    "cond_stage_key": "txt",
    "scale_factor": 0.18215,
}
SD_INPAINT = {**SD, "conditioning_key": "hybrid", "finetune_keys": None}
SD2_CLIP = {"target": ENCODER_MODULE + "FrozenOpenCLIPEmbedder", "params": {"freeze": True, "layer": "penultimate"}}
SD2_UNET = {**SD_UNET, "num_head_channels": 64, "use_linear_in_transformer": True, **_context(1024)}

_UNCONDITIONAL = ZooModel(
    "vq-f4",
    _unet(64, (3, 3), 224, [1, 2, 3, 4], [8, 4, 2], **HEADS_OF_32),
    "__is_unconditional__",
    {**_linear_betas(0.0015, 0.0195), "cond_stage_key": "class_label"},
)
_SEMANTIC = {
    "target": ENCODER_MODULE + "SpatialRescaler",
    "params": {"n_stages": 2, "in_channels": 182, "out_channels": 3},
}

ZOO_MODELS = {
    "celeba256": _UNCONDITIONAL,
    "ffhq256": _UNCONDITIONAL,
    "lsun_beds256": _UNCONDITIONAL,
    "lsun_churches256": ZooModel(
        "kl-f8",
        _unet(
            32,
            (4, 4),
            192,
            [1, 2, 2, 4, 4],
            [1, 2, 4, 8],
            num_heads=8,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        "__is_unconditional__",
        {
            **_linear_betas(0.0015, 0.0155),
            "cond_stage_key": "image",
            "concat_mode": False,
            "scale_by_std": True,
            "loss_type": "l1",
        },
    ),
    "cin256": ZooModel(
        "vq-f8",
        _unet(32, (4, 4), 256, [1, 2, 4], [4, 2, 1], **HEADS_OF_32, **_context(512)),
        {"target": ENCODER_MODULE + "ClassEmbedder", "params": {"embed_dim": 512, "key": "class_label"}},
        {**_linear_betas(0.0015, 0.0195), "cond_stage_key": "class_label", "conditioning_key": "crossattn"},
    ),
    "cin256-v2": ZooModel(
        "vq-f4",
        _unet(64, (3, 3), 192, [1, 2, 3, 5], [8, 4, 2], num_heads=1, **_context(512)),
        {
            "target": ENCODER_MODULE + "ClassEmbedder",
            "params": {"n_classes": 1001, "embed_dim": 512, "key": "class_label"},
        },
        {
            **_linear_betas(0.0015, 0.0195),
            "cond_stage_key": "class_label",
            "conditioning_key": "crossattn",
            "use_ema": False,
        },
    ),
    "text2img256": ZooModel(
        "vq-f4",
        _unet(64, (3, 3), 192, [1, 2, 3, 5], [8, 4, 2], **HEADS_OF_32, **_context(640)),
        _bert_node(n_embed=640, n_layer=32),
        {**_linear_betas(0.0015, 0.0195), "cond_stage_key": "caption", "conditioning_key": "crossattn"},
    ),
    "txt2img-1p4B": ZooModel(
        "kl-f8",
        _unet(32, (4, 4), 320, [1, 2, 4, 4], [4, 2, 1], num_heads=8, legacy=False, **_context(1280)),
        _bert_node(n_embed=1280, n_layer=32),
        {
            **_linear_betas(0.00085, 0.012),
            "cond_stage_key": "caption",
            "conditioning_key": "crossattn",
            "scale_factor": 0.18215,
            "use_ema": False,
        },
    ),
    "layout2img-openimages256": ZooModel(
        "vq-f4",
        _unet(64, (3, 3), 128, [1, 2, 3, 4], [8, 4, 2], **HEADS_OF_32, **_context(512, 3)),
        _bert_node(n_embed=512, n_layer=16, vocab_size=8192, max_seq_len=92, use_tokenizer=False),
        {
            **_linear_betas(0.0015, 0.0205),
            "cond_stage_key": "coordinates_bbox",
            "conditioning_key": "crossattn",
            "loss_type": "l1",
        },
    ),
    "bsr_sr": ZooModel(
        "vq-f4",
        _unet(64, (6, 3), 160, [1, 2, 2, 4], [16, 8], **HEADS_OF_32),
        {"target": "torch.nn.Identity"},
        {**_linear_betas(0.0015, 0.0155), "cond_stage_key": "LR_image", "concat_mode": True},
    ),
    "inpainting_big": ZooModel(
        "vq-f4-noattn",
        _unet(64, (7, 3), 256, [1, 2, 3, 4], [8, 4, 2], num_heads=8, resblock_updown=True),
        "__is_first_stage__",
        {**_linear_betas(0.0015, 0.0205), "cond_stage_key": "masked_image", "concat_mode": True, "loss_type": "l1"},
    ),
    "semantic_synthesis256": ZooModel(
        "vq-f4",
        _unet(64, (6, 3), 128, [1, 4, 8], [32, 16, 8], num_heads=8),
        _SEMANTIC,
        {**_linear_betas(0.0015, 0.0205), "cond_stage_key": "segmentation", "concat_mode": True, "loss_type": "l1"},
    ),
    "semantic_synthesis512": ZooModel(
        "vq-f4",
        _unet(128, (6, 3), 128, [1, 4, 8], [32, 16, 8], num_heads=8),
        _SEMANTIC,
        {**_linear_betas(0.0015, 0.0205), "cond_stage_key": "segmentation", "concat_mode": True, "loss_type": "l1"},
    ),
    "rdm768": ZooModel(
        "kl-f16",
        _unet(48, (16, 16), 448, [1, 2, 3, 4], [4, 2, 1], **HEADS_OF_32, **_context(768)),
        {"target": "torch.nn.Identity"},
        {
            **_linear_betas(0.0015, 0.015),
            "cond_stage_key": "nix",
            "conditioning_key": "crossattn",
            "scale_factor": 0.22765929,
        },
    ),
    "sd-1": ZooModel(
        "kl-f8",
        {**SD_UNET, "num_heads": 8, **_context(768)},
        {"target": ENCODER_MODULE + "FrozenCLIPEmbedder"},
        SD,
    ),
    "sd-2-base": ZooModel("kl-f8", SD2_UNET, SD2_CLIP, SD),
    "sd-1-inpaint": ZooModel(
        "kl-f8",
        {**SD_UNET, "in_channels": 9, "num_heads": 8, **_context(768)},
        {"target": ENCODER_MODULE + "FrozenCLIPEmbedder"},
        SD_INPAINT,
        INPAINT_TARGET,
    ),
    "sd-2-inpaint": ZooModel("kl-f8", {**SD2_UNET, "in_channels": 9}, SD2_CLIP, SD_INPAINT, INPAINT_TARGET),
    "sd-2-v": ZooModel("kl-f8", {**SD2_UNET, "image_size": 96}, SD2_CLIP, {**SD, "parameterization": "v"}),
}

ONE_NETWORK = (
    {"celeba256", "ffhq256", "lsun_beds256"},
    {"semantic_synthesis256", "semantic_synthesis512"},
)
"""Groups of models whose tensors can't be told apart and needn't be, since they load alike."""


def zoo_names() -> list[str]:
    """The names of all published models and first stages."""
    return [*ZOO_FIRST_STAGES, *ZOO_MODELS]


def zoo_config(name: str) -> JSON:
    """The model node of a published model or first stage.

    Raises:
        ConfigError: If the name is unknown; the message has its nearest neighbours.
    """
    if name in ZOO_FIRST_STAGES:
        return ZOO_FIRST_STAGES[name].node()
    if name not in ZOO_MODELS:
        raise ConfigError(f"config {name!r} is neither a file nor a published model; {nearest(name, zoo_names())}")
    return ZOO_MODELS[name].node()


def recognise(shapes: Shapes) -> tuple[str, JSON]:
    """Recognise a published model by the names and shapes of its tensors, and return its name and model node.

    Raises:
        CheckpointError: If they are not those of a network that the original code makes.
        ConfigError: If they fit no published model, or several that tensors can't tell apart.
    """
    structure = structure_of_shapes(shapes)
    if not structure:
        some = ", ".join(sorted(shapes)[:5])
        raise CheckpointError(f"no latent diffusion model or first stage is in the file (its tensors: {some}, ...)")
    found = list(_matches(structure))
    if len(found) > 1 and not any(set(found) <= group for group in ONE_NETWORK):
        raise ConfigError(f"the tensors fit {' and '.join(found)}; choose by config={found[0]!r} or another of them")
    if not found:
        raise ConfigError(
            "the tensors fit no published model, and can't tell the number of attention heads, the noise schedule and "
            "the latent scale; give the YAML that the model was trained with, as config or --config"
        )
    return found[0], zoo_config(found[0])


def _matches(structure: Structure) -> Iterator[str]:
    """The names of the published models that have this structure."""
    return (name for name in zoo_names() if structure_of_config(zoo_config(name)) == structure)
