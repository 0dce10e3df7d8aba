"""What else people hold in such files: each kind is told by a tensor's name, so that the error can say what to try."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from latentdiff.errors import CheckpointError


class Kind(NamedTuple):
    """A kind of file that is no latent diffusion model.

    Attributes:
        names: A pattern that a name in it matches, and none in a checkpoint that can be loaded.
        what: What it is.
        advice: What to do instead.
    """

    names: str
    what: str
    advice: str


NO_PART = "it is no part of a latent diffusion model, give the checkpoint of one"

KINDS = (
    Kind(
        r"(^|[._])lora[._](up|down|unet|te|A|B|embedding)|\.(hada|lokr)_w\d",
        "a LoRA, changes to a model",
        "load the model that it changes, and give it to pipe.unet.load_lora_adapter",
    ),
    Kind(
        r"^control_model\.|^controlnet_|^input_hint_block\.",
        "a ControlNet, which steers Stable Diffusion",
        "use it with diffusers' ControlNetModel.from_single_file and StableDiffusionControlNetPipeline",
    ),
    Kind(
        r"^string_to_param\.|^emb_params$|^clip_[lg]$|^<[^<>]+>$",
        "a textual inversion, embeddings of new words",
        "load the model that it was made for, and add its words to pipe.tokenizer and pipe.text_encoder",
    ),
    Kind(
        r"^conditioner\.embedders\.",
        "Stable Diffusion XL",
        "use diffusers' StableDiffusionXLPipeline.from_single_file",
    ),
    Kind(
        r"(^|\.)(joint_blocks|double_blocks|transformer_blocks)\.\d+\.(x_block|context_block|img_attn|attn\.add_q_proj)",
        "a diffusion transformer, such as Stable Diffusion 3 or Flux",
        "use diffusers' pipeline for it",
    ),
    Kind(
        r"^transformer\.(tok_emb|pos_emb|blocks\.\d+)\b",
        "a VQGAN transformer, which draws codes one after the other",
        "give its first stage alone: the tensors after first_stage_model., with their own config",
    ),
    Kind(
        r"^quantize\.(embed|proj)\.weight$",
        "a first stage with a Gumbel quantiser",
        "only KL and VQ first stages can be loaded",
    ),
    Kind(
        r"^(encoder\.|decoder\.)?(down_blocks|up_blocks|mid_block)\.",
        "a component in diffusers' layout",
        "give the folder with its config.json to the from_pretrained of its class, or the whole model's folder to "
        "DiffusionPipeline.from_pretrained",
    ),
    Kind(
        r"^(text_model|vision_model|visual)\.",
        "a CLIP model alone",
        "give the checkpoint of the whole model",
    ),
    Kind(
        r"^output_blocks\.\d",
        "a UNet alone, of a model in pixels or of a part",
        "give the checkpoint of the whole model, where its names start with model.diffusion_model.",
    ),
    Kind(r"^params(_ema)?\.|^conv_first\.", "an image upscaler of the ESRGAN family", NO_PART),
    Kind(
        r"^(g|d|g_ema|G|D|G_ema|netG|netD|generator|discriminator)\.|^(synthesis|mapping|to_rgbs?|convs)\.",
        "a GAN, a generator or a discriminator",
        NO_PART,
    ),
)
"""In the order in which they are tried."""


def refuse_foreign(source: object, names: Collection[str]) -> None:
    """CheckpointError if the names of a file's tensors are those of another kind of model; it says which.

    Args:
        source: The file, for the message.
        names: All of its tensors'.
    """
    for kind in KINDS:
        found = next((name for name in names if re.search(kind.names, name)), None)
        if found is not None:
            raise CheckpointError(f"{source} is {kind.what} (it has {found}); {kind.advice}")
