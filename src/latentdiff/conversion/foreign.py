"""Recognising checkpoints of other kinds of models by the names of their tensors, so that errors can say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from latentdiff.errors import CheckpointError, ConfigError


class ForeignKind(NamedTuple):
    """A kind of checkpoint that holds no model of this package.

    Attributes:
        names: A pattern that matches the name of a tensor in it, and of none in a checkpoint that can be loaded.
        what: The kind, for messages.
        advice: The advice for the user.
        channels: How many channels the tensor takes as a convolution; None for any.
        beside: A pattern that matches the name of another tensor in it; empty for none.
    """

    names: str
    what: str
    advice: str
    channels: int | None = None
    beside: str = ""


DEPTH = (
    "the depth-guided model of Stable Diffusion 2",
    "use diffusers' StableDiffusionDepth2ImgPipeline with the folder of the model",
)
PIX2PIX = (
    "InstructPix2Pix, which follows instructions to change images",
    "use diffusers' StableDiffusionInstructPix2PixPipeline with the folder of the model",
)
UPSCALER = (
    "the x4 upscaler of Stable Diffusion, which is told how noisy its image is",
    "use diffusers' StableDiffusionUpscalePipeline with the folder of the model",
)
UNCLIP = (
    "Stable unCLIP, which makes variations of images",
    "use diffusers' StableUnCLIPImg2ImgPipeline with the folder of the model",
)
CONTROLNET = (
    "a ControlNet, which steers Stable Diffusion",
    "use it with diffusers' ControlNetModel.from_single_file and StableDiffusionControlNetPipeline",
)
UNRELATED = "it is not a part of a latent diffusion model, give the checkpoint of one"

FOREIGN_KINDS = (
    ForeignKind(
        r"(^|[._])lora[._](up|down|unet|te|A|B|embedding)|\.(hada|lokr)_w\d",
        "a LoRA, changes to a model",
        "load the model that it changes, and give it to pipe.unet.load_lora_adapter",
    ),
    ForeignKind(r"^control_model\.|^controlnet_|^input_hint_block\.|^lllite_unet", *CONTROLNET),
    ForeignKind(r"^depth_model\.", *DEPTH),
    ForeignKind(r"^low_scale_model\.", *UPSCALER),
    ForeignKind(r"^(noise_augmentor|embedder\.model)\.", *UNCLIP),
    ForeignKind(
        r"^model\.diffusion_model\.input_blocks\.0\.0\.weight$",
        *PIX2PIX,
        channels=8,
        beside=r"^cond_stage_model\.(transformer\.(text_model\.)?embeddings|model\.token_embedding)\.",
    ),
    ForeignKind(
        r"^cond_stage_model\.(transformer\.vision_model|model\.visual|visual)\.|^cc_projection\.",
        "a model that is conditioned on an image by CLIP, such as Paint by Example or Zero-1-to-3",
        "use diffusers' pipeline for it",
    ),
    ForeignKind(
        r"^model\.diffusion_model\.label_emb\.|^label_emb\.",
        "a model with embeddings of numbers beside its timestep, such as Stable Diffusion's x4 upscaler or a model in "
        "pixels",
        "use the pipeline of the library that it was trained with",
    ),
    ForeignKind(
        r"motion_modules\.|temporal_transformer\.|\.temporal_(attn|transformer)|\.time_stack\.",
        "a motion module or a video model, such as AnimateDiff or Stable Video Diffusion",
        "use diffusers' pipeline for it",
    ),
    ForeignKind(
        r"^(model\.diffusion_model\.)?position_net\.|\.fuser\.",
        "GLIGEN, which draws phrases in boxes",
        "use diffusers' StableDiffusionGLIGENPipeline with the folder of the model",
    ),
    ForeignKind(
        r"^(image_proj|ip_adapter)\.|^adapter\.body\.|^body\.\d+\.block1\.",
        "an adapter of images, such as an IP-Adapter or a T2I-Adapter",
        "load the model that it is for with diffusers, and add it there",
    ),
    ForeignKind(
        r"^string_to_param\.|^emb_params$|^clip_[lg]$|^<[^<>]+>$",
        "a textual inversion, embeddings of new words",
        "load the model that it was made for, and add its words to pipe.tokenizer and pipe.text_encoder",
    ),
    ForeignKind(
        r"^conditioner\.embedders\.",
        "Stable Diffusion XL",
        "use diffusers' StableDiffusionXLPipeline.from_single_file",
    ),
    ForeignKind(
        r"(^|\.)(joint_blocks|double_blocks|single_blocks|transformer_blocks)\.\d+\."
        r"(x_block|context_block|img_attn|attn\.add_q_proj|linear1)",
        "a diffusion transformer, such as Stable Diffusion 3 or Flux",
        "use diffusers' pipeline for it",
    ),
    ForeignKind(
        r"^transformer\.(tok_emb|pos_emb|blocks\.\d+)\b",
        "a VQGAN transformer, which draws codes one after the other",
        "give its first stage alone: the tensors after first_stage_model., with their own config",
    ),
    ForeignKind(
        r"^quantize\.(embed|proj)\.weight$",
        "a first stage with a Gumbel quantiser",
        "only KL and VQ first stages can be loaded",
    ),
    ForeignKind(
        r"^(encoder\.|decoder\.)?(down_blocks|up_blocks|mid_block)\.",
        "a component in diffusers' layout",
        "give the folder with its config.json to the from_pretrained of its class, or the whole model's folder to "
        "DiffusionPipeline.from_pretrained",
    ),
    ForeignKind(
        r"^(text_model|vision_model|visual)\.",
        "a CLIP model alone",
        "give the checkpoint of the whole model",
    ),
    ForeignKind(
        r"^output_blocks\.\d",
        "a UNet alone, of a model in pixels or of a part",
        "give the checkpoint of the whole model, where its names start with model.diffusion_model.",
    ),
    ForeignKind(r"^params(_ema)?\.|^conv_first\.", "an image upscaler of the ESRGAN family", UNRELATED),
    ForeignKind(
        r"^(g|d|g_ema|G|D|G_ema|netG|netD|generator|discriminator)\.|^(synthesis|mapping|to_rgbs?|convs)\.",
        "a GAN, a generator or a discriminator",
        UNRELATED,
    ),
)
"""The kinds, in the order in which they are tried."""


FOREIGN_CLASSES = {
    "LatentDepth2ImageDiffusion": DEPTH,
    "LatentUpscaleDiffusion": UPSCALER,
    "ImageEmbeddingConditionedLatentDiffusion": UNCLIP,
    "ControlLDM": CONTROLNET,
    "DiffusionEngine": ("Stable Diffusion XL or a video model", "use diffusers' pipeline for it"),
    "DDPM": ("a diffusion model in pixels", UNRELATED),
    "Net2NetTransformer": ("a VQGAN transformer", "give its first stage alone, with its own config"),
    "GumbelVQ": ("a first stage with a Gumbel quantiser", "only KL and VQ first stages can be loaded"),
}
"""What models of other kinds are, by their classes in the original's configurations, and what to do with them."""

FOREIGN_CHANNELS = {1: DEPTH, 4: PIX2PIX}
"""What text models of other kinds are, by the channels that their UNet takes beside the latents."""


def refuse_foreign(source: object, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint of another kind of model.

    Args:
        source: The name of the file in the message.
        shapes: The names and shapes of all its tensors.

    Raises:
        CheckpointError: If a tensor is one of another kind of model; the message says which kind.
    """
    for kind in FOREIGN_KINDS:
        found = next((name for name in shapes if re.search(kind.names, name)), None)
        if found is None or kind.channels not in (None, *shapes[found][1:2]):
            continue
        if not kind.beside or any(re.search(kind.beside, name) for name in shapes):
            raise CheckpointError(f"{source} is {kind.what} (it has {found}); {kind.advice}")


def refuse_foreign_class(name: str) -> None:
    """Refuse a configuration of another kind of model, a ConfigError, by the name of its class."""
    if name in FOREIGN_CLASSES:
        what, advice = FOREIGN_CLASSES[name]
        raise ConfigError(f"the model has the class {name!r}, which is {what}; {advice}")


def refuse_foreign_channels(extra: int) -> None:
    """Refuse a text model whose UNet takes so many channels beside the latents, a ConfigError, if its kind is known."""
    if extra in FOREIGN_CHANNELS:
        what, advice = FOREIGN_CHANNELS[extra]
        raise ConfigError(f"the UNet takes text and {extra} further channels, as {what} does; {advice}")
