"""Recognising checkpoints of other kinds of models by the names of their tensors, so that errors can say what to do."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from latentdiff.errors import CheckpointError


class ForeignKind(NamedTuple):
    """A kind of checkpoint that holds no latent diffusion model.

    Attributes:
        names: A pattern that matches the name of a tensor in it, and of none in a checkpoint that can be loaded.
        what: The kind, for messages.
        advice: The advice for the user.
    """

    names: str
    what: str
    advice: str


UNRELATED = "it is not a part of a latent diffusion model, give the checkpoint of one"

FOREIGN_KINDS = (
    ForeignKind(
        r"(^|[._])lora[._](up|down|unet|te|A|B|embedding)|\.(hada|lokr)_w\d",
        "a LoRA, changes to a model",
        "load the model that it changes, and give it to pipe.unet.load_lora_adapter",
    ),
    ForeignKind(
        r"^control_model\.|^controlnet_|^input_hint_block\.",
        "a ControlNet, which steers Stable Diffusion",
        "use it with diffusers' ControlNetModel.from_single_file and StableDiffusionControlNetPipeline",
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
        r"(^|\.)(joint_blocks|double_blocks|transformer_blocks)\.\d+\.(x_block|context_block|img_attn|attn\.add_q_proj)",
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


def refuse_foreign(source: object, names: Collection[str]) -> None:
    """Refuse a checkpoint of another kind of model.

    Args:
        source: The name of the file in the message.
        names: The names of all its tensors.

    Raises:
        CheckpointError: If a name is that of a tensor in another kind of model; the message says which kind.
    """
    for kind in FOREIGN_KINDS:
        found = next((name for name in names if re.search(kind.names, name)), None)
        if found is not None:
            raise CheckpointError(f"{source} is {kind.what} (it has {found}); {kind.advice}")
