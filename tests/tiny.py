"""Whole model folders with random weights, small enough to make in every test run."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from latentdiff import DDIMScheduler, LDMTextEncoder, TextToImagePipeline, UnconditionalPipeline, UNet2DConditionModel
from latentdiff.models.tokenizer import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "an", "the", "of", "and", "red", "green", "blue", "big", "small", "apple", "pear", "dog", "cat", "star"]
RESOLUTION = 16


def randomise(network: torch.nn.Module) -> None:
    """Fill what starts at zero: it would hide everything behind it."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)


def _parts(context: int | None) -> dict[str, object]:
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=RESOLUTION,
    )
    unet = UNet2DConditionModel(
        sample_size=RESOLUTION // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(True, True),
        cross_attention_dim=context,
        num_attention_heads=2,
        norm_num_groups=4,
    )
    randomise(unet)
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    return {"vae": vae, "unet": unet, "scheduler": scheduler}


def tiny_text_to_image(tmp_path: Path) -> Path:
    """A text-to-image model of 16x16 pixels that knows WORDS."""
    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    encoder = LDMTextEncoder(
        vocab_size=len(SPECIAL) + len(WORDS),
        max_position_embeddings=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", 12)
    TextToImagePipeline(text_encoder=encoder, tokenizer=tokenizer, **_parts(16)).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


def tiny_unconditional(tmp_path: Path) -> Path:
    """An unconditional model of 16x16 pixels."""
    torch.manual_seed(0)
    UnconditionalPipeline(**_parts(None)).save_pretrained(tmp_path / "unconditional")
    return tmp_path / "unconditional"


def text_to_image(tmp_path: Path) -> TextToImagePipeline:
    """The text-to-image model, loaded."""
    return _quiet(TextToImagePipeline.from_pretrained(tiny_text_to_image(tmp_path)))


def unconditional(tmp_path: Path) -> UnconditionalPipeline:
    """The unconditional model, loaded."""
    return _quiet(UnconditionalPipeline.from_pretrained(tiny_unconditional(tmp_path)))


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_clip_tokenizer(tmp_path: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer of single letters, of the kind that Stable Diffusion has."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "clip.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "clip.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        vocab=str(tmp_path / "clip.json"),
        merges=str(tmp_path / "clip.txt"),
        model_max_length=16,
        pad_token="<|endoftext|>",
    )
